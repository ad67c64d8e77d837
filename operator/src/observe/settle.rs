//! Queries nodes again if the first responses, which differ in age, may be misleading: during an election
//! there is no leader, and under load a follower seems to lag by what was written between two responses.
use std::{collections::BTreeMap, time::Duration};

use crate::cluster::facts::{
    observation::{NodeStatus, Observation, ProbeResult},
    view::{MAX_LAG_ENTRIES, View},
};

/// Pause before nodes are queried again.
pub(super) const PAUSE: Duration = Duration::from_millis(400);
/// Maximum number of repetitions: five pauses are two seconds, in which a follower that keeps up reaches the
/// leader's first commit index, and in which an election ends.
pub(super) const ROUNDS: usize = 5;
/// Time limit of all repetitions.
pub(super) const LIMIT: Duration = Duration::from_secs(3);

/// Which nodes to query again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// None.
    Nothing,
    /// All nodes: there was a leader, most nodes respond, and they agree on none at present.
    Everything,
    /// Nodes that have not applied what the leader had committed.
    Lagging(Vec<String>),
}

pub(super) fn again(seen: &Observation) -> Again {
    let view = View::of(seen);
    let responding = seen.nodes.keys().filter(|n| view.node(n).is_some());
    let Some(leader) = view.leader else {
        let newly = view.status.leader.is_some();
        let most = responding.count() * 2 > seen.pods.len();
        return match newly && most {
            true => Again::Everything,
            false => Again::Nothing,
        };
    };
    let lagging = responding.filter(|name| {
        let member = view.member(name).map(|member| &member.raft_id);
        view.node(name).is_some_and(|node| {
            Some(&node.raft_id) == member
                && node.ready
                && node.applied_index.saturating_add(MAX_LAG_ENTRIES) < leader.status.commit_index
        })
    });
    let lagging: Vec<String> = lagging.cloned().collect();
    match lagging.is_empty() {
        true => Again::Nothing,
        false => Again::Lagging(lagging),
    }
}

/// Takes the progress of the nodes from the later responses, and nothing else: the rest of an observation is
/// of one moment.
pub(super) fn advance(
    nodes: &mut BTreeMap<String, ProbeResult>,
    later: BTreeMap<String, ProbeResult>,
) {
    for (name, response) in later {
        if let (Some(ProbeResult::Ok(node)), ProbeResult::Ok(later)) =
            (nodes.get_mut(&name), response)
        {
            advance_one(node, &later);
        }
    }
}

fn advance_one(node: &mut NodeStatus, later: &NodeStatus) {
    if node.raft_id == later.raft_id {
        node.applied_index = node.applied_index.max(later.applied_index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture::Fixture;

    #[test]
    fn who_is_asked_again() {
        let mut fixture = Fixture::running(3, 0);
        assert_eq!(again(&fixture.seen), Again::Nothing);
        // Five thousand writes a second, and a follower whose response is 0.2 s older.
        let leader = fixture.node("demo-0");
        (leader.commit_index, leader.applied_index) = (10_000, 10_000);
        fixture.node("demo-1").applied_index = 9_000;
        fixture.node("demo-2").applied_index = 9_950;
        let lagging = Again::Lagging(vec!["demo-1".to_owned()]);
        assert_eq!(again(&fixture.seen), lagging);
        assert!(!View::of(&fixture.seen).participates("demo-1"));
        let mut later = fixture.seen.nodes.clone();
        later.retain(|name, _| name == "demo-1");
        for response in later.values_mut() {
            if let ProbeResult::Ok(node) = response {
                (node.applied_index, node.term) = (10_001, 99);
            }
        }
        let before = fixture.node("demo-1").term;
        advance(&mut fixture.seen.nodes, later.clone());
        assert!(View::of(&fixture.seen).participates("demo-1"));
        assert_eq!(fixture.node("demo-1").term, before);
        // Another incarnation of the node proves nothing of this one.
        fixture.node("demo-1").applied_index = 9_000;
        fixture.node("demo-1").raft_id = "demo-1#other".to_owned();
        advance(&mut fixture.seen.nodes, later);
        assert_eq!(fixture.node("demo-1").applied_index, 9_000);
    }

    #[test]
    fn an_election_is_waited_for_once() {
        let mut fixture = Fixture::running(3, 0);
        fixture.leaderless();
        assert_eq!(again(&fixture.seen), Again::Everything);
        fixture.reconcile();
        assert_eq!(again(&fixture.seen), Again::Nothing, "it is on record");
        let mut fixture = Fixture::running(3, 0);
        fixture.leaderless();
        for name in ["demo-0", "demo-1"] {
            fixture.unreachable(name);
        }
        assert_eq!(again(&fixture.seen), Again::Nothing, "most are away");
    }
}
