//! Consistency levels: which node may serve a read. A pure decision.
use std::time::Duration;

use node_api::param::Level;

/// The node's state at the time of the call.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// This node is a voter.
    pub voter: bool,
    /// This node leads and has heard from a quorum within the lease.
    pub leads: bool,
    /// Another node is known to be the leader.
    pub leader_elsewhere: bool,
}

/// How to serve a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPath {
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
    /// Not now: no leader is known.
    NoLeader,
}

/// Decides how to serve a read of this level.
pub fn read_path(level: Level, standing: Standing) -> ReadPath {
    let here = match level {
        Level::None => return ReadPath::Local,
        Level::Auto if !standing.voter => return ReadPath::Local,
        Level::Auto | Level::Weak => ReadPath::LocalAsLeader,
        Level::Linearizable => ReadPath::ReadIndex,
        Level::Strong => ReadPath::Log,
    };
    match standing {
        Standing { leads: true, .. } => here,
        Standing {
            leader_elsewhere: true,
            ..
        } => ReadPath::Forward,
        Standing { .. } => ReadPath::NoLeader,
    }
}

/// The facts that decide freshness on a node that does not lead.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// The client's limit; zero means none.
    pub limit: Duration,
    /// The client requested the strict form.
    pub strict: bool,
    /// Time since the last message from a leader; `None` means never.
    pub since_contact: Option<Duration>,
    /// Last applied index.
    pub applied_index: u64,
    /// The commit index that the leader last sent.
    pub leader_commit: u64,
    /// Time from the leader's timestamp of the last applied write to its application here.
    pub apply_lag: Duration,
}

/// Whether the local data is too old for this client.
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
        use ReadPath::{Forward, Local, LocalAsLeader, Log, NoLeader, ReadIndex};
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
                .map(|standing| read_path(level, standing));
            assert_eq!(got, want, "{level:?}");
        }
    }

    #[test]
    fn staleness() {
        // (name, limit s, strict, since contact ms, applied, leader's commit, lag s, stale)
        let table = [
            ("fresh", 1, false, Some(50), 10, 10, 0, false),
            ("no limit", 0, false, None, 10, 10, 0, false),
            ("silent leader", 1, false, Some(2000), 10, 10, 0, true),
            ("never a leader", 1, false, None, 10, 10, 0, true),
            ("strict, caught up", 1, true, Some(50), 10, 10, 5, false),
            ("strict, behind, quick", 1, true, Some(50), 10, 12, 0, false),
            ("strict, behind, slow", 1, true, Some(50), 10, 12, 5, true),
            (
                "lenient, behind, slow",
                1,
                false,
                Some(50),
                10,
                12,
                5,
                false,
            ),
            ("strict, none applied", 1, true, Some(50), 0, 12, 5, false),
        ];
        for (name, limit, strict, contact, applied_index, leader_commit, lag, want) in table {
            let now = Freshness {
                limit: Duration::from_secs(limit),
                strict,
                since_contact: contact.map(Duration::from_millis),
                applied_index,
                leader_commit,
                apply_lag: Duration::from_secs(lag),
            };
            assert_eq!(is_stale(now), want, "{name}");
        }
    }
}
