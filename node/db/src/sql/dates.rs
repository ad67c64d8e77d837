//! Values in columns declared `date`, `datetime` or `timestamp`, shown as RFC 3339.

/// Larger integers count milliseconds instead of seconds.
const MILLISECONDS_ABOVE: u64 = 1_000_000_000_000;

/// Unix time in seconds or milliseconds as RFC 3339 UTC.
pub(crate) fn from_integer(value: i64) -> String {
    let (seconds, millis) = if value.unsigned_abs() > MILLISECONDS_ABOVE {
        (value.div_euclid(1000), value.rem_euclid(1000))
    } else {
        (value, 0)
    };
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = if millis == 0 {
        String::new()
    } else {
        format!(".{millis:03}").trim_end_matches('0').to_owned()
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The Gregorian date of a day counted from 1970-01-01, computed in 400-year eras that begin in March.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// `YYYY-MM-DD`, then optionally blank or `T` and `HH:MM[:SS[.fraction]]`, then optionally `±HH:MM`, then
/// optionally `Z`, as RFC 3339. `None` if the text is anything else.
pub(crate) fn from_text(text: &str) -> Option<String> {
    let mut rest = Scanner(text.strip_suffix('Z').unwrap_or(text).as_bytes());
    let year = rest.number(4)?;
    rest.expect(b'-')?;
    let month = rest.number(2)?;
    rest.expect(b'-')?;
    let day = rest.number(2)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let (mut hour, mut minute, mut second, mut fraction) = (0, 0, 0, "");
    if rest.expect(b' ').or_else(|| rest.expect(b'T')).is_some() {
        hour = rest.number(2)?;
        rest.expect(b':')?;
        minute = rest.number(2)?;
        if rest.expect(b':').is_some() {
            second = rest.number(2)?;
            if rest.expect(b'.').is_some() {
                fraction = rest.digits()?;
            }
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let zone = zone(&mut rest)?;
    let fraction = fraction.get(..9).unwrap_or(fraction).trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    Some(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{dot}{fraction}{zone}"
    ))
}

fn zone(rest: &mut Scanner<'_>) -> Option<String> {
    if rest.0.is_empty() {
        return Some("Z".to_owned());
    }
    let sign = if rest.expect(b'+').is_some() {
        '+'
    } else {
        rest.expect(b'-').map(|()| '-')?
    };
    let hours = rest.number(2)?;
    rest.expect(b':')?;
    let minutes = rest.number(2)?;
    if !rest.0.is_empty() || hours > 23 || minutes > 59 {
        return None;
    }
    if hours == 0 && minutes == 0 {
        return Some("Z".to_owned());
    }
    Some(format!("{sign}{hours:02}:{minutes:02}"))
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

struct Scanner<'a>(&'a [u8]);

impl<'a> Scanner<'a> {
    fn expect(&mut self, byte: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        if *first != byte {
            return None;
        }
        self.0 = rest;
        Some(())
    }

    fn number(&mut self, len: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(len)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        self.0 = rest;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    fn digits(&mut self) -> Option<&'a str> {
        let end = self
            .0
            .iter()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        if digits.is_empty() {
            return None;
        }
        self.0 = rest;
        std::str::from_utf8(digits).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000_120, "2023-11-14T22:13:20.12Z"),
            (-62_135_596_800, "0001-01-01T00:00:00Z"),
            (1_000_000_000_000, "33658-09-27T01:46:40Z"),
        ];
        for (value, expected) in cases {
            assert_eq!(from_integer(value), expected, "{value}");
        }
        for extreme in [i64::MIN, i64::MAX] {
            assert!(from_integer(extreme).ends_with('Z'));
        }
    }

    #[test]
    fn texts() {
        let cases = [
            ("2024-02-29", Some("2024-02-29T00:00:00Z")),
            ("2024-02-29 10:11", Some("2024-02-29T10:11:00Z")),
            ("2024-02-29T10:11:12Z", Some("2024-02-29T10:11:12Z")),
            ("2024-02-29 10:11:12.500", Some("2024-02-29T10:11:12.5Z")),
            ("2024-02-29 10:11:12.000", Some("2024-02-29T10:11:12Z")),
            (
                "2024-02-29T10:11:12+02:00",
                Some("2024-02-29T10:11:12+02:00"),
            ),
            ("2024-02-29T10:11:12-00:00", Some("2024-02-29T10:11:12Z")),
            ("2023-02-29", None),
            ("2024-13-01", None),
            ("2024-1-1", None),
            ("2024-01-01 24:00", None),
            ("2024-01-01x", None),
            ("2024-01-01 10:11:12.", None),
            ("", None),
            ("hello", None),
            ("20é4-01-01", None),
        ];
        for (text, expected) in cases {
            assert_eq!(from_text(text).as_deref(), expected, "{text}");
        }
    }
}
