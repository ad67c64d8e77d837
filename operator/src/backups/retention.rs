//! Which backups a schedule keeps, by its retention rules.
use std::collections::BTreeSet;

use k8s_openapi::jiff::{Timestamp, tz::TimeZone};
use operator_api::scheduled_backup::BackupRetention;

/// A successful backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// When it succeeded.
    pub at: Timestamp,
}

/// Names of the backups that no rule keeps. The newest one is always kept: neither a wrong clock nor a long
/// outage may delete the last backup.
pub fn outdated(
    rules: &BackupRetention,
    zone: &TimeZone,
    now: Timestamp,
    all: &[Kept],
) -> BTreeSet<String> {
    let mut sorted: Vec<&Kept> = all.iter().collect();
    sorted.sort_by(|a, b| (b.at, &b.name).cmp(&(a.at, &a.name)));
    let mut kept: BTreeSet<&str> = sorted
        .first()
        .map(|one| one.name.as_str())
        .into_iter()
        .collect();
    let number = |count: Option<i32>| count.map_or(0, |n| usize::try_from(n).unwrap_or(0));
    let newest = sorted.iter().take(number(rules.count));
    kept.extend(newest.map(|one| one.name.as_str()));
    if let Some(age) = rules.age.as_ref() {
        // An invalid age keeps all backups; the API server refuses such an age anyway.
        let age = age.duration().map_or(u64::MAX, |age| age.as_secs());
        let young = sorted.iter().filter(|one| {
            let seconds = now.as_second().saturating_sub(one.at.as_second());
            u64::try_from(seconds).unwrap_or(0) < age
        });
        kept.extend(young.map(|one| one.name.as_str()));
    }
    let periods: [(Option<i32>, Period); 5] = [
        (rules.hourly, |at| at.strftime("%Y-%m-%d %H %z").to_string()),
        (rules.daily, |at| at.strftime("%Y-%m-%d").to_string()),
        (rules.weekly, |at| at.strftime("%G-%V").to_string()),
        (rules.monthly, |at| at.strftime("%Y-%m").to_string()),
        (rules.yearly, |at| at.strftime("%Y").to_string()),
    ];
    for (count, period) in periods {
        let mut seen = BTreeSet::new();
        for one in &sorted {
            let local = one.at.to_zoned(zone.clone());
            if seen.len() < number(count) && seen.insert(period(&local)) {
                kept.insert(one.name.as_str());
            }
        }
    }
    let rest = all.iter().filter(|one| !kept.contains(one.name.as_str()));
    rest.map(|one| one.name.clone()).collect()
}

/// Names the period of a time.
type Period = fn(&k8s_openapi::jiff::Zoned) -> String;

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::ToSpan as _;
    use operator_api::Span;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// One each six hours, the newest first in `n0`.
    fn many(count: i64) -> Vec<Kept> {
        let newest = at("2026-03-31T18:00:00Z");
        let all = (0..count).map(|n| Kept {
            name: format!("n{n}"),
            at: newest - (n * 6).hours(),
        });
        all.collect()
    }

    fn left(rules: &BackupRetention, all: &[Kept], now: &str) -> Vec<String> {
        let gone = outdated(rules, &TimeZone::UTC, at(now), all);
        let left = all.iter().filter(|one| !gone.contains(&one.name));
        left.map(|one| one.name.clone()).collect()
    }

    #[test]
    fn by_each_rule_and_by_all() {
        let rules = BackupRetention::default;
        let now = "2026-03-31T19:00:00Z";
        let cases = [
            (
                BackupRetention {
                    count: Some(3),
                    ..rules()
                },
                vec!["n0", "n1", "n2"],
            ),
            (
                BackupRetention {
                    age: Some(Span::from("1d")),
                    ..rules()
                },
                vec!["n0", "n1", "n2", "n3"],
            ),
            (
                BackupRetention {
                    hourly: Some(2),
                    ..rules()
                },
                vec!["n0", "n1"],
            ),
            (
                BackupRetention {
                    daily: Some(3),
                    ..rules()
                },
                vec!["n0", "n4", "n8"],
            ),
            // 2026-03-31 is a Tuesday: the last ones of the weeks before are Sundays' 18:00.
            (
                BackupRetention {
                    weekly: Some(3),
                    ..rules()
                },
                vec!["n0", "n8", "n36"],
            ),
            (
                BackupRetention {
                    monthly: Some(2),
                    ..rules()
                },
                vec!["n0", "n124"],
            ),
            (
                BackupRetention {
                    yearly: Some(5),
                    ..rules()
                },
                vec!["n0", "n360"],
            ),
            (
                BackupRetention {
                    count: Some(2),
                    daily: Some(2),
                    monthly: Some(2),
                    ..rules()
                },
                vec!["n0", "n1", "n4", "n124"],
            ),
        ];
        for (rules, expected) in cases {
            assert_eq!(left(&rules, &many(400), now), expected, "{rules:?}");
        }
    }

    #[test]
    fn the_newest_one_stays_whatever_the_clock_says() {
        let rules = BackupRetention {
            age: Some(Span::from("1h")),
            ..BackupRetention::default()
        };
        let all = many(5);
        assert_eq!(left(&rules, &all, "2031-01-01T00:00:00Z"), ["n0"]);
        // A clock that goes wrong into the past deletes nothing.
        assert_eq!(left(&rules, &all, "2001-01-01T00:00:00Z").len(), 5);
        assert!(left(&rules, &[], "2031-01-01T00:00:00Z").is_empty());
    }

    /// A small generator of numbers: a walk that fails can be repeated.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: u64) -> u64 {
            let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
            self.0 = next.wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }

        fn rule(&mut self) -> Option<i32> {
            let number = i32::try_from(self.below(6)).unwrap();
            (self.below(3) == 0).then_some(number + 1)
        }
    }

    /// Backups come at odd times, the clock jumps, and each time what no rule keeps is deleted.
    #[test]
    fn a_walk_never_deletes_the_newest_one_nor_what_a_rule_keeps() {
        for seed in 0..40 {
            let mut chance = Chance(seed);
            let mut rules = BackupRetention {
                count: chance.rule(),
                hourly: chance.rule(),
                daily: chance.rule(),
                weekly: chance.rule(),
                monthly: chance.rule(),
                yearly: chance.rule(),
                age: (chance.below(2) == 0).then(|| Span::from("36h")),
            };
            if rules == BackupRetention::default() {
                rules.count = Some(1);
            }
            let zone = ["UTC", "Europe/Zurich", "Asia/Kolkata"][usize::try_from(seed % 3).unwrap()];
            let zone = crate::backups::cron::zone_of(zone).unwrap();
            let mut now = at("2026-01-01T00:00:00Z");
            let mut all: Vec<Kept> = Vec::new();
            for step in 0..400_u32 {
                let hours = i64::try_from(chance.below(40)).unwrap();
                now += (hours * 60 + 7).minutes();
                if chance.below(10) == 0 {
                    now -= 2.hours();
                }
                all.push(Kept {
                    name: format!("n{step}"),
                    at: now,
                });
                let gone = outdated(&rules, &zone, now, &all);
                let newest = all.iter().max_by_key(|one| (one.at, &one.name)).unwrap();
                assert!(!gone.contains(&newest.name), "seed {seed}: {rules:?}");
                let young = |one: &&Kept| now.as_second() - one.at.as_second() < 36 * 3600;
                if rules.age.is_some() {
                    let lost = all
                        .iter()
                        .filter(young)
                        .find(|one| gone.contains(&one.name));
                    assert_eq!(lost, None, "seed {seed}");
                }
                let before = all.len();
                all.retain(|one| !gone.contains(&one.name));
                let wanted = usize::try_from(rules.count.unwrap_or(1)).unwrap();
                assert!(all.len() >= before.min(wanted), "seed {seed}");
                let again = outdated(&rules, &zone, now, &all);
                assert!(again.is_empty(), "seed {seed}: a second look deletes more");
            }
            // Something is kept of the past where a rule asks for it, and not everything.
            let spread = rules.yearly.or(rules.monthly).or(rules.weekly);
            assert!(all.len() < 120 && (spread.is_none_or(|n| n < 2) || all.len() > 1));
        }
    }

    #[test]
    fn days_are_those_of_the_zone() {
        let zone = crate::backups::cron::zone_of("Asia/Tokyo").unwrap();
        let one = |name: &str, text: &str| Kept {
            name: name.to_owned(),
            at: at(text),
        };
        // 23:30 and 00:30 in Tokyo: two days there, one in UTC.
        let all = [
            one("late", "2026-03-01T14:30:00Z"),
            one("early", "2026-03-01T15:30:00Z"),
        ];
        let rules = BackupRetention {
            daily: Some(5),
            ..BackupRetention::default()
        };
        let now = at("2026-03-02T00:00:00Z");
        assert!(outdated(&rules, &zone, now, &all).is_empty());
        assert_eq!(outdated(&rules, &TimeZone::UTC, now, &all).len(), 1);
    }
}
