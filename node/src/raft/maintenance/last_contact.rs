//! Time since the last contact with each member, by the leader's own clock.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use openraft::Instant as _;

use crate::raft::{consensus::Consensus, types::RaftId};

/// After a leader regains its quorum, members count as unreachable only after this time: members that were
/// cut off together reconnect one after the other, and replication retries after at most 2 s.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// When this leader first knew each member: time under another leader, or before the member was admitted,
/// does not count.
#[derive(Debug, Default)]
pub(super) struct ContactTracker {
    term: u64,
    known: BTreeMap<RaftId, Instant>,
    /// When the quorum was lost.
    lost: Option<Instant>,
    /// When the quorum was regained.
    regained: Option<Instant>,
    /// When this was last evaluated.
    looked: Option<Instant>,
}

/// A member that responded within this time is healthy.
const HEALTHY_WITHIN: Duration = Duration::from_secs(2);
/// Entries by which a healthy member may lag.
const HEALTHY_LAG_ENTRIES: u64 = 64;

impl Consensus {
    /// As leader: Raft id, whether it votes, and whether it responds and has almost the whole log. Without a
    /// quorum no other member counts as healthy.
    pub fn healthy_members(&self) -> Vec<(String, bool, bool)> {
        let unreachable = self.unreachable();
        let metrics = self.metrics();
        let last = metrics.last_log_index.unwrap_or(0);
        let replication = metrics.replication.unwrap_or_default();
        let own = self.local().raft_id();
        let members = self.members().into_iter();
        members
            .map(|(id, _, voter)| {
                let answers = unreachable.get(&id).is_some_and(|s| *s < HEALTHY_WITHIN);
                let matched = replication.get(&id).copied().flatten();
                let has_log = matched.is_some_and(|m| m.index + HEALTHY_LAG_ENTRIES >= last);
                let healthy = id.0.as_ref() == own || (answers && has_log);
                (id.0.to_string(), voter, healthy)
            })
            .collect()
    }
}

impl ContactTracker {
    pub(super) fn leading_since(&mut self, term: u64) {
        if self.term != term {
            *self = Self {
                term,
                ..Self::default()
            };
        }
    }

    /// How long each other member has been unreachable. Empty if this leader has no quorum: it may be cut off
    /// itself, and a membership change proposed now could commit later, when the members have returned.
    pub(super) fn unreachable_members(
        &mut self,
        consensus: &Consensus,
    ) -> BTreeMap<RaftId, Duration> {
        let own = RaftId::from(consensus.local().raft_id());
        let heartbeat = consensus.metrics().heartbeat.unwrap_or_default();
        let members = consensus.members();
        let others: Vec<RaftId> = members
            .into_iter()
            .map(|(id, ..)| id)
            .filter(|id| *id != own)
            .collect();
        let settled = self.is_settled(consensus.leads());
        let unreachable = self.unreachable_for(&others, |id| {
            let at = heartbeat.get(id).and_then(Option::as_ref);
            at.map(|at| at.elapsed())
        });
        if settled {
            unreachable
        } else {
            BTreeMap::new()
        }
    }

    /// Whether this leader's view of the others can be trusted. Time in which it had no quorum, or did not
    /// run, says nothing about them.
    fn is_settled(&mut self, leads: bool) -> bool {
        let slept = self.looked.is_some_and(|at| at.elapsed() >= SETTLED_AFTER);
        self.looked = Some(Instant::now());
        if !leads {
            self.lost = self.lost.or(self.looked);
            return false;
        }
        let lost = self.lost.take();
        if slept || lost.is_some_and(|at| at.elapsed() >= SETTLED_AFTER) {
            self.known.clear();
        }
        if slept || lost.is_some() {
            self.regained = self.looked;
        }
        self.regained.is_none_or(|at| at.elapsed() >= SETTLED_AFTER)
    }

    /// `heard`: time since the member's last response, if it ever responded.
    fn unreachable_for(
        &mut self,
        members: &[RaftId],
        heard: impl Fn(&RaftId) -> Option<Duration>,
    ) -> BTreeMap<RaftId, Duration> {
        self.known.retain(|id, _| members.contains(id));
        let unreachable = members.iter().map(|id| {
            let known = *self.known.entry(id.clone()).or_insert_with(Instant::now);
            let unreachable_for = heard(id).unwrap_or(Duration::MAX).min(known.elapsed());
            (id.clone(), unreachable_for)
        });
        unreachable.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_silent_only_since_it_is_known() {
        let members = [RaftId::from("a#1"), RaftId::from("b#1")];
        let mut tracker = ContactTracker::default();
        tracker.leading_since(3);
        let never = |_: &RaftId| None;
        let unreachable = tracker.unreachable_for(&members, never);
        assert!(
            unreachable
                .values()
                .all(|unreachable_for| *unreachable_for < Duration::from_secs(60))
        );
        let heard = tracker.unreachable_for(&members, |_| Some(Duration::ZERO));
        assert!(heard.values().all(Duration::is_zero));
        tracker.unreachable_for(&members[..1], never);
        assert_eq!(tracker.known.len(), 1, "those that left are forgotten");
        tracker.leading_since(4);
        assert!(tracker.known.is_empty(), "a new term begins empty");
    }

    #[test]
    fn nobody_is_silent_to_a_leader_that_was_cut_off() {
        let long_ago = Instant::now().checked_sub(SETTLED_AFTER);
        let known = || BTreeMap::from([(RaftId::from("a#1"), Instant::now())]);
        let mut tracker = ContactTracker {
            known: known(),
            ..ContactTracker::default()
        };
        assert!(tracker.is_settled(true), "never lost");
        assert!(!tracker.is_settled(false), "no quorum");
        assert!(!tracker.is_settled(true), "one that was just found again");
        assert!(!tracker.known.is_empty(), "a short loss");
        tracker.regained = long_ago;
        assert!(tracker.is_settled(true));
        tracker.lost = long_ago;
        assert!(
            !tracker.is_settled(true) && tracker.known.is_empty(),
            "a long loss"
        );
        tracker = ContactTracker {
            known: known(),
            looked: long_ago,
            ..ContactTracker::default()
        };
        assert!(
            !tracker.is_settled(true) && tracker.known.is_empty(),
            "did not run"
        );
    }
}
