//! On the leader: flattens a joint membership that was left behind, promotes learners that have caught up, removes members that do not answer.
use std::{collections::BTreeMap, time::Duration};

use tokio_util::sync::CancellationToken;

use super::last_contact::Silence;
use crate::{
    metrics::Counter,
    raft::{
        consensus::Consensus,
        membership::{ChangeError, Goals},
        types::RaftId,
    },
    stop::stopped_within,
};

/// How often the leader looks at its members. A learner that has caught up waits at most this long for its vote.
const MEMBERS_INTERVAL: Duration = Duration::from_millis(100);

/// When members that do not answer are removed. `None` is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reaping {
    /// Voters.
    pub voters_after: Option<Duration>,
    /// Read-only nodes.
    pub non_voters_after: Option<Duration>,
}

/// Runs the leader's duties until stopped.
pub async fn keep_members(consensus: Consensus, reaping: Reaping, stop: CancellationToken) {
    let mut silence = Silence::default();
    let mut goals = Goals::default();
    while !stopped_within(&stop, MEMBERS_INTERVAL).await {
        let leadership = consensus.leadership();
        if !leadership.mine {
            silence = Silence::default();
            goals.clear();
            continue;
        }
        silence.leading_since(leadership.term);
        let silences = silence.of_others(&consensus);
        consensus.note_silences(silences.clone());
        let members = consensus.metrics().membership_config;
        if members.membership().get_joint_config().len() > 1 {
            if consensus.changing().try_lock().is_err() {
                continue;
            }
            // Left behind by a leader that died in the middle of a change.
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
        reap(&consensus, reaping, &silences).await;
    }
}

/// Members to reap: silent for longer than their kind's limit, counted from the later of their last answer and the start of this leadership.
pub fn to_reap(
    members: &[(RaftId, bool)],
    silence: &BTreeMap<RaftId, Duration>,
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
            limit.is_some_and(|limit| silence.get(id).is_some_and(|silent| *silent > limit))
        })
        .map(|(id, _)| id.clone())
}

async fn reap(consensus: &Consensus, reaping: Reaping, silences: &BTreeMap<RaftId, Duration>) {
    // Who has joined to vote and only has to catch up is a voter here.
    let members: Vec<_> = consensus
        .members()
        .into_iter()
        .map(|(id, member, voter)| (id, voter || member.wants_vote))
        .collect();
    let own = RaftId::from(consensus.local().raft_id());
    let Some(id) = to_reap(&members, silences, &own, reaping) else {
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
        let silence = |b_secs, c_secs| {
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
        assert_eq!(to_reap(&members, &silence(5, 1), &a, both), None);
        assert_eq!(
            to_reap(&members, &silence(11, 1), &a, both),
            Some(b.clone())
        );
        assert_eq!(to_reap(&members, &silence(5, 3), &a, both), Some(c.clone()));
        let voters_off = Reaping {
            voters_after: None,
            ..both
        };
        assert_eq!(to_reap(&members, &silence(99, 1), &a, voters_off), None);
        assert_eq!(to_reap(&members, &BTreeMap::new(), &a, both), None);
    }
}
