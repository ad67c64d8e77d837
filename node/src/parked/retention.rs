//! Decides which parked copies are deleted: by number, age and room. A function of values.
use std::time::SystemTime;

use node_contract::parked::ParkedPolicy;

use crate::data_dir::ParkedMark;

/// A copy of an earlier version, of which nothing is known, is treated as a possible only copy for so long.
const UNKNOWN_SECONDS: u64 = 7 * 24 * 3600;
/// Share of the file system that is kept free at the cost of parked copies.
const FREE_SHARE: u64 = 10;

/// A parked copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Name of its directory.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// When it was parked.
    pub parked_at: SystemTime,
    /// What it may contain.
    pub mark: ParkedMark,
}

/// Seconds from one time to another; 0 if the clock went backwards.
fn seconds(from: SystemTime, to: SystemTime) -> u64 {
    to.duration_since(from).unwrap_or_default().as_secs()
}

/// The copies to delete, with the reason. `copies`: the newest first. What may hold writes that a recovery
/// has lost is deleted by a person only, even if there is no room: everything else is on other members, too.
pub fn surplus(
    copies: &[Copy],
    policy: ParkedPolicy,
    now: SystemTime,
    free_bytes: u64,
    total_bytes: u64,
) -> Vec<(&Copy, &'static str)> {
    let keep = usize::try_from(policy.keep).unwrap_or(usize::MAX);
    let may_go = |copy: &Copy| match copy.mark {
        ParkedMark::Replicated => true,
        ParkedMark::MayHoldLostWrites => false,
        ParkedMark::Unknown => seconds(copy.parked_at, now) >= UNKNOWN_SECONDS,
    };
    let mut gone = Vec::new();
    for (newer, copy) in copies.iter().enumerate().filter(|(_, copy)| may_go(copy)) {
        let age = seconds(copy.parked_at, now);
        if newer >= keep {
            gone.push((copy, "there are newer ones"));
        } else if policy.max_age_seconds > 0 && age > policy.max_age_seconds {
            gone.push((copy, "it is old"));
        }
    }
    // The oldest first, until there is room.
    let mut free = free_bytes.saturating_add(gone.iter().map(|(copy, _)| copy.bytes).sum());
    for copy in copies.iter().rev().filter(|copy| may_go(copy)) {
        if free >= total_bytes / FREE_SHARE {
            break;
        }
        if !gone.iter().any(|(known, _)| *known == copy) {
            free = free.saturating_add(copy.bytes);
            gone.push((copy, "the disk is nearly full"));
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: u64 = 24 * 3600;
    use ParkedMark::{MayHoldLostWrites, Replicated, Unknown};

    #[test]
    fn by_number_age_and_room() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100 * DAY);
        let policy = ParkedPolicy::default();
        // Ages in days, newest first; free of 100 bytes; each copy has 10.
        #[expect(clippy::type_complexity, reason = "a table of cases")]
        let cases: [(&str, &[(u64, ParkedMark)], u64, &[usize]); 9] = [
            ("two are kept", &[(0, Replicated), (1, Replicated)], 50, &[]),
            (
                "the third goes",
                &[(0, Replicated), (1, Replicated), (2, Replicated)],
                50,
                &[2],
            ),
            ("old", &[(13, Replicated), (15, Replicated)], 50, &[1]),
            (
                "what may be the only copy stays",
                &[(0, Replicated), (1, Replicated), (90, MayHoldLostWrites)],
                0,
                &[1],
            ),
            (
                "it counts among the newest",
                &[(0, MayHoldLostWrites), (1, Replicated), (2, Replicated)],
                50,
                &[2],
            ),
            (
                "of an earlier version, young",
                &[(0, Replicated), (1, Replicated), (6, Unknown)],
                50,
                &[],
            ),
            (
                "of an earlier version, older",
                &[(0, Replicated), (1, Replicated), (7, Unknown)],
                50,
                &[2],
            ),
            (
                "no room: the oldest",
                &[(0, Replicated), (1, Replicated)],
                5,
                &[1],
            ),
            ("no room at all", &[(0, Replicated), (1, Unknown)], 0, &[0]),
        ];
        for (what, ages, free, expected) in cases {
            let copies: Vec<Copy> = ages
                .iter()
                .enumerate()
                .map(|(at, (days, mark))| Copy {
                    name: at.to_string(),
                    bytes: 10,
                    parked_at: now - Duration::from_secs(days * DAY),
                    mark: *mark,
                })
                .collect();
            let gone = surplus(&copies, policy, now, free, 100);
            let gone: Vec<usize> = gone.iter().map(|(c, _)| c.name.parse().unwrap()).collect();
            assert_eq!(gone, expected, "{what}");
        }
    }

    #[test]
    fn without_a_limit_of_age() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(9999 * DAY);
        let copy = Copy {
            name: "a".to_owned(),
            bytes: 1,
            parked_at: SystemTime::UNIX_EPOCH,
            mark: Replicated,
        };
        let policy = ParkedPolicy {
            keep: 1,
            max_age_seconds: 0,
        };
        assert!(surplus(&[copy], policy, now, 50, 100).is_empty());
    }
}
