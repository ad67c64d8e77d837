//! Confirms leadership with the fewest messages that prove it: the leader probes as many voters as complete a
//! quorum, directly, those that responded last time first.
//!
//! openraft's own round sends a heartbeat to every member, through the core of each. Here a voter only
//! compares the vote on its disk with the leader's. That is enough: a newer leader's entry is acknowledged
//! only after a quorum has stored it, and each node of that quorum has stored the newer vote before. That
//! quorum shares a node with the voters that were probed, or it contains this leader, whose own vote is
//! checked as well. So if all of them still hold this leader's vote, nothing newer had been acknowledged when
//! the probes were sent. No clock is involved.
//!
//! Everything else (a joint membership, a new leader before its first own entry is applied, a voter that does
//! not respond or is too old) is left to openraft's round, which involves all members.
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use openraft::{ServerState, type_config::async_runtime::WatchReceiver};

use crate::raft::{
    codec::{Id, VoteRecord, id},
    network::client::{Client, Network},
    storage::{log::Log, state_machine::Raft},
    types::Metrics,
};

/// Limit of one probe: one heartbeat interval at the default timeouts.
const PROBE_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a voter that did not confirm is not probed again.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// Asks voters whether this node still leads.
pub(crate) struct Confirmation {
    raft: Raft,
    log: Log,
    network: Network,
    /// The entry of the membership that `probes` were made from.
    membership: Option<Id>,
    /// One for each other voter.
    probes: Vec<VoterProbe>,
}

/// The connection to another voter that confirms this leader's vote.
struct VoterProbe {
    client: Client,
    paused_until: Option<Instant>,
}

/// The leadership at the beginning of a round.
struct LeaderTerm {
    vote: VoteRecord,
    /// The entry of the membership, which is not joint.
    membership: Option<Id>,
}

/// The term of a leader that has applied an entry of its own term, so that its database holds everything
/// acknowledged before; otherwise `None`.
fn leader_term(metrics: &Metrics) -> Option<LeaderTerm> {
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
    (is_leader && applied_own && is_plain && votes).then(|| LeaderTerm {
        vote,
        membership: membership.log_id().as_ref().map(id),
    })
}

/// How many others form a quorum together with the leader.
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
            probes: Vec::new(),
        }
    }

    /// Whether this node led when it was called: the index that must be applied here before a read, or `None`
    /// if that is not proven.
    pub(crate) async fn confirm(&mut self) -> Option<u64> {
        let leader_term = self.leader_term()?;
        // Other nodes may have acknowledged up to here; what this node has acknowledged it has applied.
        let committed = self.log.committed().map_or(0, |id| id.1);
        let confirmed = self.is_confirmed_by_quorum(&leader_term.vote).await;
        (confirmed && self.log.vote().as_ref() == Some(&leader_term.vote)).then_some(committed)
    }

    fn leader_term(&mut self) -> Option<LeaderTerm> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader_term = leader_term(&metrics)?;
        if self.membership != leader_term.membership {
            let membership = metrics.membership_config.membership();
            let others = membership.voter_ids().filter(|id| *id != metrics.id);
            // All or none: the quorum follows from their number.
            self.probes = others
                .map(|id| {
                    let member = membership.get_node(&id)?;
                    Some(VoterProbe {
                        client: self.network.voter_probe(id, member),
                        paused_until: None,
                    })
                })
                .collect::<Option<_>>()?;
            self.membership = leader_term.membership;
        }
        Some(leader_term)
    }

    /// Probes as many as are needed, from the front; a voter that does not confirm in time moves to the end.
    async fn is_confirmed_by_quorum(&mut self, vote: &VoteRecord) -> bool {
        let needed = needed(self.probes.len());
        let Some(probed) = self.probes.get_mut(..needed) else {
            return false;
        };
        let now = Instant::now();
        if probed.iter().any(|probe| probe.is_paused(now)) {
            return false;
        }
        let responses = probed.iter_mut().map(|probe| probe.send(vote));
        let confirmed = join_all(responses)
            .await
            .into_iter()
            .all(|confirmed| confirmed);
        if !confirmed {
            self.probes.sort_by_key(|probe| probe.paused_until);
        }
        confirmed
    }
}

impl VoterProbe {
    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    async fn send(&mut self, vote: &VoteRecord) -> bool {
        let confirmed = self.client.holds_vote(vote, PROBE_TIMEOUT).await;
        self.paused_until = (!confirmed).then(|| Instant::now() + PROBE_PAUSE);
        confirmed
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
            assert_eq!(leader_term(&metrics).is_some(), confirms, "{name}");
        }
    }
}
