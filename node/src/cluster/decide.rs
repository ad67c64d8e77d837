//! The decision to form a cluster, from the notices of one round. A pure function, without I/O, clock or
//! randomness.
//!
//! Invariants, tested by a random walk: two clusters never form from one list of addresses; an empty node
//! never forms a cluster while any node responds that it has state.
use std::collections::BTreeMap;

use crate::{
    identity::name_of,
    internode::messages::{Notice, NoticeState},
};

/// The deciding node. It is empty.
#[derive(Clone, Debug)]
pub struct Own {
    /// Raft id.
    pub id: String,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// `-bootstrap-expect`.
    pub expect: usize,
    /// Members of the cluster that it has pledged to form.
    pub pledged: Option<Vec<String>>,
}

/// The next action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Wait. The text says what is missing, for the log.
    Wait(String),
    /// Withdraw this node's pledge, because that cluster cannot be formed any more.
    Release,
    /// Coordinate the forming of a cluster of exactly these members (Raft id to address).
    Form(BTreeMap<String, String>),
}

/// The number of nodes that form a cluster: as many as expected, and more than half of those listed, so that
/// two disjoint groups can never both suffice.
pub fn needed(expect: usize, listed: usize) -> usize {
    expect.max(listed / 2 + 1)
}

/// Decides from the notices of this round; `None` where there was no response. `listed` is the number of
/// nodes behind the contacted addresses, since a node may have several.
pub fn decide(own: &Own, listed: usize, notices: &[Option<Notice>]) -> Decision {
    let heard: Vec<&Notice> = notices.iter().flatten().collect();
    if let Some(pledged) = &own.pledged {
        return decide_pledged(own, pledged, &heard);
    }
    if let Some(member) = heard.iter().find(|n| n.state == NoticeState::Member) {
        return Decision::Wait(format!(
            "node {} at {} belongs to a cluster; waiting for its leader to admit this node",
            name_of(&member.id),
            member.raft_addr
        ));
    }
    let mut empty: BTreeMap<String, String> = heard
        .iter()
        .filter(|n| matches!(n.state, NoticeState::Empty { .. }))
        .map(|n| (n.id.clone(), n.raft_addr.clone()))
        .collect();
    empty.insert(own.id.clone(), own.raft_addr.clone());
    let needed = needed(own.expect, listed);
    if empty.len() < needed {
        return Decision::Wait(format!("{} of {needed} nodes seen", empty.len()));
    }
    let members: BTreeMap<String, String> = empty.into_iter().take(needed).collect();
    match members.keys().next() {
        Some(first) if *first == own.id => Decision::Form(members),
        Some(first) => Decision::Wait(format!("node {} coordinates the forming", name_of(first))),
        None => Decision::Wait("no node seen".into()),
    }
}

/// A pledged node takes part only in forming that one cluster. The coordinator repeats its attempt until all
/// have pledged; the others wait, unless it is certain that the coordinator will never finish.
fn decide_pledged(own: &Own, pledged: &[String], heard: &[&Notice]) -> Decision {
    let Some(coordinator) = pledged.iter().min() else {
        return Decision::Release;
    };
    if *coordinator == own.id {
        let mut members = BTreeMap::from([(own.id.clone(), own.raft_addr.clone())]);
        members.extend(
            heard
                .iter()
                .filter(|n| pledged.contains(&n.id))
                .map(|n| (n.id.clone(), n.raft_addr.clone())),
        );
        return if members.len() == pledged.len() {
            Decision::Form(members)
        } else {
            // A member with another data directory will never pledge. No node has been initialized, because
            // only this one would do that.
            let replaced = pledged.iter().any(|id| {
                heard
                    .iter()
                    .any(|n| name_of(&n.id) == name_of(id) && n.id != *id)
            });
            if replaced {
                Decision::Release
            } else {
                Decision::Wait("waiting for the pledged nodes".into())
            }
        };
    }
    for notice in heard {
        if notice.id == *coordinator
            && let NoticeState::Empty { pledged: theirs } = &notice.state
            && theirs.as_deref() != Some(pledged)
        {
            return Decision::Release;
        }
    }
    // The coordinator has lost its disk. If every other member is still empty, it had not initialized Raft.
    let replaced = heard
        .iter()
        .any(|n| name_of(&n.id) == name_of(coordinator) && n.id != *coordinator && is_empty(n));
    let others_empty = pledged
        .iter()
        .filter(|id| **id != own.id && *id != coordinator)
        .all(|id| {
            heard
                .iter()
                .any(|n| name_of(&n.id) == name_of(id) && is_empty(n))
        });
    if replaced && others_empty {
        return Decision::Release;
    }
    Decision::Wait(format!(
        "node {} coordinates the forming",
        name_of(coordinator)
    ))
}

fn is_empty(notice: &Notice) -> bool {
    matches!(notice.state, NoticeState::Empty { .. })
}

#[cfg(test)]
mod tests;
