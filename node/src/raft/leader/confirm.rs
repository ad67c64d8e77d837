//! Confirms a leadership with the fewest messages that prove it: as many voters as a quorum needs are asked directly, those first that answered last.
//!
//! openraft's own round beats to every member and goes through the core of each. Here a voter compares the vote on its disk with the leader's and
//! answers. That is enough. A newer leader's entry is acknowledged only after a quorum has stored it, each of them after having stored the newer vote.
//! That quorum shares a voter with the one that is heard here, or the leader itself, whose own vote is looked at as well. So if all of them still hold
//! this leader's vote, nobody had acknowledged anything newer when they were asked. No clock takes part.
//!
//! Whatever is not plain (a joint membership, a leader that is just taking office, a voter that does not answer or is of an older version) is left
//! to openraft's round, which asks everybody.
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use openraft::{ServerState, type_config::async_runtime::WatchReceiver};

use crate::raft::{
    codec::{Id, VoteRecord, id},
    network::client::{Client, Network},
    storage::{log::Log, state_machine::Raft},
    types::Metrics,
};

/// A voter that takes longer is not waited for: one heartbeat interval at the default timeouts.
const PATIENCE: Duration = Duration::from_millis(100);
/// For how long a voter that did not answer, or not with yes, is left alone.
const REST: Duration = Duration::from_secs(1);

/// Asks voters whether this node still leads.
pub(crate) struct Confirmation {
    raft: Raft,
    log: Log,
    network: Network,
    /// The entry with the membership that `witnesses` are of.
    membership: Option<Id>,
    /// The other voters.
    witnesses: Vec<Witness>,
}

/// Another voter.
struct Witness {
    client: Client,
    rests_until: Option<Instant>,
}

/// What was leading when a round began.
struct Office {
    vote: VoteRecord,
    /// Entry with the membership, which is not joint.
    membership: Option<Id>,
}

/// Of a leader that has applied an entry of its own term, so that its database holds whatever was acknowledged before it.
fn office(metrics: &Metrics) -> Option<Office> {
    let vote = VoteRecord::from(&metrics.vote);
    let is_leader =
        metrics.state == ServerState::Leader && vote.committed && vote.voted_for == metrics.id;
    let applied_own = metrics
        .last_applied
        .is_some_and(|applied| applied.leader_id.term == vote.term);
    let membership = &metrics.membership_config;
    let is_plain = membership.membership().get_joint_config().len() == 1;
    let votes = membership
        .membership()
        .voter_ids()
        .any(|id| id == metrics.id);
    (is_leader && applied_own && is_plain && votes).then(|| Office {
        vote,
        membership: membership.log_id().as_ref().map(id),
    })
}

/// How many others make a quorum together with the leader.
const fn needed(others: usize) -> usize {
    others.div_ceil(2)
}

impl Confirmation {
    pub(crate) fn new(raft: Raft, log: Log, network: Network) -> Self {
        Self {
            raft,
            log,
            network,
            membership: None,
            witnesses: Vec::new(),
        }
    }

    /// Did this node lead when it was asked? The index that has to be applied here before a read; `None` says nothing.
    pub(crate) async fn confirm(&mut self) -> Option<u64> {
        let office = self.office()?;
        // What others may have been told of; what this node has acknowledged it has applied.
        let committed = self.log.committed().map_or(0, |id| id.1);
        let confirmed = self.heard(&office.vote).await;
        (confirmed && self.log.vote().as_ref() == Some(&office.vote)).then_some(committed)
    }

    fn office(&mut self) -> Option<Office> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let office = office(&metrics)?;
        if self.membership != office.membership {
            let membership = metrics.membership_config.membership();
            let others = membership.voter_ids().filter(|id| *id != metrics.id);
            // All or none: how many are needed follows from how many there are.
            self.witnesses = others
                .map(|id| {
                    let member = membership.get_node(&id)?;
                    Some(Witness {
                        client: self.network.witness(id, member),
                        rests_until: None,
                    })
                })
                .collect::<Option<_>>()?;
            self.membership = office.membership;
        }
        Some(office)
    }

    /// Asks as many as are needed, from the front; who did not say yes in time goes to the end.
    async fn heard(&mut self, vote: &VoteRecord) -> bool {
        let needed = needed(self.witnesses.len());
        let Some(asked) = self.witnesses.get_mut(..needed) else {
            return false;
        };
        let now = Instant::now();
        if asked.iter().any(|witness| witness.rests(now)) {
            return false;
        }
        let answers = asked.iter_mut().map(|witness| witness.ask(vote));
        let confirmed = join_all(answers).await.into_iter().all(|yes| yes);
        if !confirmed {
            self.witnesses.sort_by_key(|witness| witness.rests_until);
        }
        confirmed
    }
}

impl Witness {
    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    async fn ask(&mut self, vote: &VoteRecord) -> bool {
        let yes = self.client.holds(vote, PATIENCE).await;
        self.rests_until = (!yes).then(|| Instant::now() + REST);
        yes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::raft::types::{Member, Membership, RaftId, StoredMembership, Vote, log_id};

    #[test]
    fn with_this_node_they_are_a_majority() {
        for voters in 1_usize..=9 {
            let majority = voters / 2 + 1;
            assert_eq!(needed(voters - 1) + 1, majority, "{voters} voters");
        }
    }

    #[test]
    fn only_a_settled_leader_confirms_by_itself() {
        let voters = |sets: &[&[&str]]| {
            let sets: Vec<BTreeSet<RaftId>> = sets
                .iter()
                .map(|set| set.iter().map(|id| RaftId::from(*id)).collect())
                .collect();
            let member = |id: &RaftId| {
                let member = Member {
                    raft_addr: id.to_string(),
                    wants_vote: true,
                };
                (id.clone(), member)
            };
            let nodes: BTreeMap<_, _> = sets.iter().flatten().map(member).collect();
            let membership = Membership::new(sets, nodes).unwrap();
            std::sync::Arc::new(StoredMembership::new(Some(log_id(1, 1)), membership))
        };
        let leading = || {
            let mut metrics = Metrics::new_initial(RaftId::from("a#1"));
            metrics.state = ServerState::Leader;
            metrics.vote = Vote::from(VoteRecord {
                term: 3,
                voted_for: "a#1".into(),
                committed: true,
            });
            metrics.last_applied = Some(log_id(3, 7));
            metrics.membership_config = voters(&[&["a#1", "b#1", "c#1"]]);
            metrics
        };
        type Change<'c> = &'c dyn Fn(&mut Metrics);
        let cases: [(&str, Change<'_>, bool); 7] = [
            ("settled", &|_| (), true),
            ("follows", &|m| m.state = ServerState::Follower, false),
            ("not elected yet", &|m| m.vote.committed = false, false),
            (
                "has voted for another",
                &|m| m.vote.leader_id.voted_for = "b#1".into(),
                false,
            ),
            (
                "nothing of its term applied",
                &|m| m.last_applied = Some(log_id(2, 7)),
                false,
            ),
            (
                "two sets of voters",
                &|m| m.membership_config = voters(&[&["a#1", "b#1"], &["a#1", "c#1"]]),
                false,
            ),
            (
                "on its way out",
                &|m| m.membership_config = voters(&[&["b#1", "c#1"]]),
                false,
            ),
        ];
        for (name, change, confirms) in cases {
            let mut metrics = leading();
            change(&mut metrics);
            assert_eq!(office(&metrics).is_some(), confirms, "{name}");
        }
    }
}
