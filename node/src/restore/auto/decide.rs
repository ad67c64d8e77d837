//! What `-auto-restore` does next: functions without I/O.
use std::time::Duration;

/// Whether this node has data already, which is never replaced.
pub fn has_data(has_snapshot: bool, has_commands: bool) -> bool {
    has_snapshot || has_commands
}

/// What a node knows that holds a fetched file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// It leads, and has applied everything before.
    pub leads: bool,
    /// Another node leads.
    pub follows: bool,
    /// Data of clients, or a whole load, has been applied here since the start.
    pub has_data: bool,
    /// Time in which another node has led and nothing was applied.
    pub idle: Duration,
}

/// What to do with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Load it through the log.
    Load,
    /// Keep it: nobody leads, or the leader may be loading.
    Wait,
    /// Drop it: the cluster has its data from elsewhere, or begins without.
    Drop,
}

/// Only the first leader loads. A follower keeps its file until the leader's load has arrived, because that
/// leader may fail in the middle; a load without its last piece is void. It waits `patience` for a leader
/// that applies nothing: that one was started without `-auto-restore`.
pub fn next(now: &Situation, patience: Duration) -> Step {
    match now {
        Situation { has_data: true, .. } => Step::Drop,
        Situation { leads: true, .. } => Step::Load,
        Situation {
            follows: true,
            idle,
            ..
        } if *idle >= patience => Step::Drop,
        _ => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_leader_loads_and_only_into_nothing() {
        let patience = Duration::from_secs(30);
        let at = |leads, follows, has_data, idle| Situation {
            leads,
            follows,
            has_data,
            idle: Duration::from_secs(idle),
        };
        for (name, now, want) in [
            ("nobody leads", at(false, false, false, 0), Step::Wait),
            (
                "nobody leads for long",
                at(false, false, false, 99),
                Step::Wait,
            ),
            ("leads", at(true, false, false, 0), Step::Load),
            ("leads what has data", at(true, false, true, 0), Step::Drop),
            ("follows", at(false, true, false, 1), Step::Wait),
            (
                "follows, and the load came",
                at(false, true, true, 0),
                Step::Drop,
            ),
            (
                "follows one who loads nothing",
                at(false, true, false, 30),
                Step::Drop,
            ),
        ] {
            assert_eq!(next(&now, patience), want, "{name}");
        }
        assert!(has_data(true, false) && has_data(false, true) && !has_data(false, false));
    }
}
