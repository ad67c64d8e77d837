//! For how long members have been silent, by the leader's own clock.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use openraft::Instant as _;

use crate::raft::{consensus::Consensus, types::RaftId};

/// A leader that found its quorum again waits this long before it takes anybody for silent: members that were cut off together come back
/// one after the other, and replication tries again after at most 2 s.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// Since when this node as leader has known each member: a silence that began under another leader, or before the member was admitted, does
/// not count.
#[derive(Debug, Default)]
pub(super) struct Silence {
    term: u64,
    known: BTreeMap<RaftId, Instant>,
    /// Since when there is no quorum.
    lost: Option<Instant>,
    /// Since when there is one again.
    regained: Option<Instant>,
    /// When this was looked at last.
    looked: Option<Instant>,
}

/// A member that answered within this time takes part.
const HEALTHY_WITHIN: Duration = Duration::from_secs(2);
/// Entries that a healthy member may lack.
const HEALTHY_LAG_ENTRIES: u64 = 64;

impl Consensus {
    /// As leader: Raft id, whether it votes, and whether it answers and has (almost) the whole log. Nobody else is healthy to a leader
    /// that does not hear a quorum.
    pub fn healthy_members(&self) -> Vec<(String, bool, bool)> {
        let silences = self.silences();
        let metrics = self.metrics();
        let last = metrics.last_log_index.unwrap_or(0);
        let replication = metrics.replication.unwrap_or_default();
        let own = self.local().raft_id();
        let members = self.members().into_iter();
        members
            .map(|(id, _, voter)| {
                let answers = silences.get(&id).is_some_and(|s| *s < HEALTHY_WITHIN);
                let matched = replication.get(&id).copied().flatten();
                let has_log = matched.is_some_and(|m| m.index + HEALTHY_LAG_ENTRIES >= last);
                let healthy = id.0.as_ref() == own || (answers && has_log);
                (id.0.to_string(), voter, healthy)
            })
            .collect()
    }
}

impl Silence {
    pub(super) fn leading_since(&mut self, term: u64) {
        if self.term != term {
            *self = Self {
                term,
                ..Self::default()
            };
        }
    }

    /// How long each other member has been silent. Nothing of a leader that does not hear a quorum: it is itself cut off, and what it would
    /// propose could not be committed now, but might be when those that it takes for dead are back.
    pub(super) fn of_others(&mut self, consensus: &Consensus) -> BTreeMap<RaftId, Duration> {
        let own = RaftId::from(consensus.local().raft_id());
        let heartbeat = consensus.metrics().heartbeat.unwrap_or_default();
        let members = consensus.members();
        let others: Vec<RaftId> = members
            .into_iter()
            .map(|(id, ..)| id)
            .filter(|id| *id != own)
            .collect();
        let settled = self.is_settled(consensus.leads());
        let silences = self.of(&others, |id| {
            let at = heartbeat.get(id).and_then(Option::as_ref);
            at.map(|at| at.elapsed())
        });
        if settled { silences } else { BTreeMap::new() }
    }

    /// Is what this leader hears of others worth anything? Time in which it had no quorum, or did not run, says nothing about them.
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

    /// `heard`: since a member was last heard, if ever.
    fn of(
        &mut self,
        members: &[RaftId],
        heard: impl Fn(&RaftId) -> Option<Duration>,
    ) -> BTreeMap<RaftId, Duration> {
        self.known.retain(|id, _| members.contains(id));
        let silences = members.iter().map(|id| {
            let known = *self.known.entry(id.clone()).or_insert_with(Instant::now);
            let silent = heard(id).unwrap_or(Duration::MAX).min(known.elapsed());
            (id.clone(), silent)
        });
        silences.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_silent_only_since_it_is_known() {
        let members = [RaftId::from("a#1"), RaftId::from("b#1")];
        let mut silence = Silence::default();
        silence.leading_since(3);
        let never = |_: &RaftId| None;
        let silences = silence.of(&members, never);
        assert!(
            silences
                .values()
                .all(|silent| *silent < Duration::from_secs(60))
        );
        let heard = silence.of(&members, |_| Some(Duration::ZERO));
        assert!(heard.values().all(Duration::is_zero));
        silence.of(&members[..1], never);
        assert_eq!(silence.known.len(), 1, "those that left are forgotten");
        silence.leading_since(4);
        assert!(silence.known.is_empty(), "a new term begins anew");
    }

    #[test]
    fn nobody_is_silent_to_a_leader_that_was_cut_off() {
        let long_ago = Instant::now().checked_sub(SETTLED_AFTER);
        let known = || BTreeMap::from([(RaftId::from("a#1"), Instant::now())]);
        let mut silence = Silence {
            known: known(),
            ..Silence::default()
        };
        assert!(silence.is_settled(true), "never lost");
        assert!(!silence.is_settled(false), "no quorum");
        assert!(!silence.is_settled(true), "one that was just found again");
        assert!(!silence.known.is_empty(), "a short loss");
        silence.regained = long_ago;
        assert!(silence.is_settled(true));
        silence.lost = long_ago;
        assert!(
            !silence.is_settled(true) && silence.known.is_empty(),
            "a long loss"
        );
        silence = Silence {
            known: known(),
            looked: long_ago,
            ..Silence::default()
        };
        assert!(
            !silence.is_settled(true) && silence.known.is_empty(),
            "did not run"
        );
    }
}
