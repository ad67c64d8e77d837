//! Member maintenance on the leader: completes a joint membership that a former leader left behind, promotes
//! learners that have caught up, and removes members that have been unreachable for too long.
use std::{collections::BTreeMap, time::Duration};

use tokio_util::sync::CancellationToken;

use super::last_contact::ContactTracker;
use crate::{
    metrics::Counter,
    raft::{
        consensus::Consensus,
        membership::{ChangeError, Goals},
        types::RaftId,
    },
};

/// How often the leader checks its members; the longest wait of a caught-up learner for its vote.
const MEMBERS_INTERVAL: Duration = Duration::from_millis(100);

/// After how long an unreachable member is removed; `None` is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reaping {
    /// Voters.
    pub voters_after: Option<Duration>,
    /// Read-only nodes.
    pub non_voters_after: Option<Duration>,
}

/// Runs until stopped; acts only while this node leads.
pub async fn maintain_members(consensus: Consensus, reaping: Reaping, stop: CancellationToken) {
    let mut tracker = ContactTracker::default();
    let mut goals = Goals::default();
    while stop
        .run_until_cancelled(tokio::time::sleep(MEMBERS_INTERVAL))
        .await
        .is_some()
    {
        let leadership = consensus.leadership();
        if !leadership.mine {
            tracker = ContactTracker::default();
            goals.clear();
            continue;
        }
        tracker.leading_since(leadership.term);
        let unreachable = tracker.unreachable_members(&consensus);
        consensus.note_unreachable(unreachable.clone());
        if !consensus.may_change() {
            continue;
        }
        let members = consensus.metrics().membership_config;
        if members.membership().get_joint_config().len() > 1 {
            if consensus.changing().try_lock().is_err() {
                continue;
            }
            // A former leader died in the middle of a change.
            log_failure(
                "flattening the membership",
                consensus.promote([].into()).await,
            );
            continue;
        }
        let ready = consensus.promotable(&mut goals);
        if !ready.is_empty() {
            log_failure("promoting a caught-up node", consensus.promote(ready).await);
            continue;
        }
        consensus.raise_version().await;
        reap(&consensus, reaping, &unreachable).await;
    }
}

/// The next member to remove: unreachable for longer than the limit of its kind, counted from the later of
/// its last response and the start of this leadership.
pub fn to_reap(
    members: &[(RaftId, bool)],
    unreachable: &BTreeMap<RaftId, Duration>,
    own: &RaftId,
    reaping: Reaping,
) -> Option<RaftId> {
    members
        .iter()
        .filter(|(id, _)| id != own)
        .find(|(id, voter)| {
            let limit = if *voter {
                reaping.voters_after
            } else {
                reaping.non_voters_after
            };
            limit.is_some_and(|limit| unreachable.get(id).is_some_and(|since| *since > limit))
        })
        .map(|(id, _)| id.clone())
}

async fn reap(consensus: &Consensus, reaping: Reaping, unreachable: &BTreeMap<RaftId, Duration>) {
    // A learner that joined as a voter counts as a voter here.
    let members: Vec<_> = consensus
        .members()
        .into_iter()
        .map(|(id, member, voter)| (id, voter || member.wants_vote))
        .collect();
    let own = RaftId::from(consensus.local().raft_id());
    let Some(id) = to_reap(&members, unreachable, &own, reaping) else {
        return;
    };
    let kind = if members.iter().any(|(m, voter)| *m == id && *voter) {
        "voting"
    } else {
        "non-voting"
    };
    let metrics = &consensus.local().metrics;
    match consensus.remove_records(&[id.clone()].into()).await {
        Ok(()) => {
            metrics.count(Counter::StoreNodesReapedOk);
            tracing::info!(target: "store", "successfully reaped {kind} node {}", id.name());
        }
        Err(e) => {
            metrics.count(Counter::StoreNodesReapedFailed);
            tracing::warn!(target: "store", "failed to reap {kind} node {}: {e}", id.name());
        }
    }
}

fn log_failure(what: &str, result: Result<(), ChangeError>) {
    if let Err(e) = result {
        tracing::warn!(target: "store", "{what}: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaping() {
        let (a, b, c) = (
            RaftId::from("a#1"),
            RaftId::from("b#1"),
            RaftId::from("c#1"),
        );
        let members = [(a.clone(), true), (b.clone(), true), (c.clone(), false)];
        let unreachable = |b_secs, c_secs| {
            BTreeMap::from([
                (a.clone(), Duration::MAX),
                (b.clone(), Duration::from_secs(b_secs)),
                (c.clone(), Duration::from_secs(c_secs)),
            ])
        };
        let both = Reaping {
            voters_after: Some(Duration::from_secs(10)),
            non_voters_after: Some(Duration::from_secs(2)),
        };
        assert_eq!(to_reap(&members, &unreachable(5, 1), &a, both), None);
        assert_eq!(
            to_reap(&members, &unreachable(11, 1), &a, both),
            Some(b.clone())
        );
        assert_eq!(
            to_reap(&members, &unreachable(5, 3), &a, both),
            Some(c.clone())
        );
        let voters_off = Reaping {
            voters_after: None,
            ..both
        };
        assert_eq!(to_reap(&members, &unreachable(99, 1), &a, voters_off), None);
        assert_eq!(to_reap(&members, &BTreeMap::new(), &a, both), None);
    }
}
