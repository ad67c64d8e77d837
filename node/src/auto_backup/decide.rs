//! What an automatic backup does at the end of an interval: functions without I/O.
use std::time::Duration;

/// Pause after a first failure; doubled by each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What [`next`] depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// This node leads and hears from a quorum.
    pub(super) leads: bool,
    /// Index of the last entry that changed the database; 0 if none did.
    pub(super) index: u64,
    /// Index of the copy that this process uploaded last.
    pub(super) last: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another node leads.
    Nothing,
    /// There is nothing new.
    Skip,
    /// Another process may have uploaded this copy: compare the id at the target, and upload if it is another
    /// one.
    Compare,
    Upload,
}

pub(super) fn next(seen: Seen) -> Next {
    let Seen { leads, index, last } = seen;
    if !leads {
        return Next::Nothing;
    }
    match last {
        _ if index <= last.unwrap_or(0) => Next::Skip,
        None => Next::Compare,
        Some(_) => Next::Upload,
    }
}

/// The time until the next tick: the interval, or less after failures, so that a daily backup is not a day
/// late because its store was away for a minute.
pub(super) fn pause_after_failures(interval: Duration, failures: u32) -> Duration {
    match failures {
        0 => interval,
        more => {
            let doubled = FIRST_PAUSE.saturating_mul(1 << (more - 1).min(10));
            doubled.min(LONGEST_PAUSE).min(interval)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        for (leads, index, last, expected) in [
            (false, 9, None, Next::Nothing),
            (true, 0, None, Next::Skip),
            (true, 9, None, Next::Compare),
            (true, 9, Some(9), Next::Skip),
            (true, 9, Some(8), Next::Upload),
            // A leader whose log was replaced by a load has not fewer changes.
            (true, 7, Some(9), Next::Skip),
        ] {
            assert_eq!(
                next(Seen { leads, index, last }),
                expected,
                "{index} {last:?}"
            );
        }
    }

    #[test]
    fn failures_are_retried_sooner_than_the_interval_and_ever_later() {
        let day = Duration::from_secs(86_400);
        let pauses: Vec<u64> = (0..9)
            .map(|n| pause_after_failures(day, n).as_secs())
            .collect();
        assert_eq!(pauses, [86_400, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(pause_after_failures(Duration::from_secs(1), 3).as_secs(), 1);
        assert_eq!(pause_after_failures(day, u32::MAX), LONGEST_PAUSE);
    }
}
