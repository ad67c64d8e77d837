//! Consistency levels: who may serve a read. Plain values in, a decision out.
use std::time::Duration;

use node_api::param::Level;

/// What is known at the time of the call.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// This node votes.
    pub voter: bool,
    /// This node leads and has heard from a quorum within the lease.
    pub leads: bool,
    /// Another node is known to lead.
    pub leader_elsewhere: bool,
}

/// How to serve a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// From the local database, if fresh enough.
    Local,
    /// From the local database, as the leader.
    LocalAsLeader,
    /// After a quorum has confirmed this leader and it has applied what was committed before.
    ReadIndex,
    /// As an entry of the log.
    Log,
    /// By the leader.
    Forward,
    /// By nobody now.
    NoLeader,
}

/// Decides how to serve a read of this level.
pub fn plan(level: Level, standing: Standing) -> Plan {
    let here = match level {
        Level::None => return Plan::Local,
        Level::Auto if !standing.voter => return Plan::Local,
        Level::Auto | Level::Weak => Plan::LocalAsLeader,
        Level::Linearizable => Plan::ReadIndex,
        Level::Strong => Plan::Log,
    };
    match standing {
        Standing { leads: true, .. } => here,
        Standing {
            leader_elsewhere: true,
            ..
        } => Plan::Forward,
        Standing { .. } => Plan::NoLeader,
    }
}

/// What freshness looks at on a node that does not lead.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// The client's limit; zero is none.
    pub limit: Duration,
    /// The client asked for the strict form.
    pub strict: bool,
    /// Since the last word from a leader; `None` is never.
    pub since_contact: Option<Duration>,
    /// Last applied index.
    pub applied_index: u64,
    /// What the leader last said is committed.
    pub leader_commit: u64,
    /// From the leader's stamp of the last applied write to its application here.
    pub apply_lag: Duration,
}

/// Is the local data too old for this client?
pub fn is_stale(now: Freshness) -> bool {
    if now.limit.is_zero() {
        return false;
    }
    if now.since_contact.is_none_or(|since| since > now.limit) {
        return true;
    }
    now.strict
        && now.applied_index > 0
        && now.applied_index < now.leader_commit
        && now.apply_lag > now.limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_in_every_standing() {
        let leader = Standing {
            voter: true,
            leads: true,
            leader_elsewhere: false,
        };
        let follower = Standing {
            voter: true,
            leads: false,
            leader_elsewhere: true,
        };
        let leaderless = Standing {
            voter: true,
            leads: false,
            leader_elsewhere: false,
        };
        let replica = Standing {
            voter: false,
            leads: false,
            leader_elsewhere: true,
        };
        let lost_replica = Standing {
            voter: false,
            leads: false,
            leader_elsewhere: false,
        };
        use Plan::{Forward, Local, LocalAsLeader, Log, NoLeader, ReadIndex};
        let table = [
            (Level::None, [Local, Local, Local, Local, Local]),
            (
                Level::Auto,
                [LocalAsLeader, Forward, NoLeader, Local, Local],
            ),
            (
                Level::Weak,
                [LocalAsLeader, Forward, NoLeader, Forward, NoLeader],
            ),
            (
                Level::Linearizable,
                [ReadIndex, Forward, NoLeader, Forward, NoLeader],
            ),
            (Level::Strong, [Log, Forward, NoLeader, Forward, NoLeader]),
        ];
        for (level, want) in table {
            let got = [leader, follower, leaderless, replica, lost_replica]
                .map(|standing| plan(level, standing));
            assert_eq!(got, want, "{level:?}");
        }
    }

    #[test]
    fn staleness() {
        let secs = Duration::from_secs;
        let fresh = Freshness {
            limit: secs(1),
            strict: false,
            since_contact: Some(Duration::from_millis(50)),
            applied_index: 10,
            leader_commit: 10,
            apply_lag: secs(0),
        };
        for (name, now, want) in [
            ("fresh", fresh, false),
            (
                "no limit",
                Freshness {
                    limit: secs(0),
                    since_contact: None,
                    ..fresh
                },
                false,
            ),
            (
                "silent leader",
                Freshness {
                    since_contact: Some(secs(2)),
                    ..fresh
                },
                true,
            ),
            (
                "never a leader",
                Freshness {
                    since_contact: None,
                    ..fresh
                },
                true,
            ),
            (
                "strict, caught up",
                Freshness {
                    strict: true,
                    apply_lag: secs(5),
                    ..fresh
                },
                false,
            ),
            (
                "strict, behind but quick",
                Freshness {
                    strict: true,
                    leader_commit: 12,
                    ..fresh
                },
                false,
            ),
            (
                "strict, behind and slow",
                Freshness {
                    strict: true,
                    leader_commit: 12,
                    apply_lag: secs(5),
                    ..fresh
                },
                true,
            ),
            (
                "lenient, behind and slow",
                Freshness {
                    leader_commit: 12,
                    apply_lag: secs(5),
                    ..fresh
                },
                false,
            ),
            (
                "strict, nothing applied",
                Freshness {
                    strict: true,
                    applied_index: 0,
                    leader_commit: 12,
                    apply_lag: secs(5),
                    ..fresh
                },
                false,
            ),
        ] {
            assert_eq!(is_stale(now), want, "{name}");
        }
    }
}
