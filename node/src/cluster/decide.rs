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
    /// One of the listed addresses is its own.
    pub is_listed: bool,
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
    expect.max(majority(listed))
}

/// More than half.
fn majority(listed: usize) -> usize {
    listed / 2 + 1
}

/// What a round has shown.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// The number of nodes behind the listed addresses, since a node may have several.
    pub listed: usize,
    /// Notices of the listed addresses; `None` where there was no response.
    pub from_listed: &'a [Option<Notice>],
    /// Notices of other nodes, which have contacted this one.
    pub from_callers: &'a [Option<Notice>],
}

/// Decides from the notices of this round.
///
/// Nodes that are not listed count as found, but more than half of the listed ones must take part: every node
/// has the same list, so two disjoint groups can never both suffice.
pub fn decide(own: &Own, round: &Round<'_>) -> Decision {
    let heard: Vec<&Notice> = round
        .from_listed
        .iter()
        .chain(round.from_callers)
        .flatten()
        .collect();
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
    let (mut listed, mut others) = (empty(round.from_listed), empty(round.from_callers));
    let group = if own.is_listed {
        &mut listed
    } else {
        &mut others
    };
    group.insert(own.id.clone(), own.raft_addr.clone());
    others.retain(|id, _| !listed.contains_key(id));
    if let Some(why) = name_used_twice(listed.iter().chain(&others)) {
        return Decision::Wait(why);
    }
    let (needed, majority) = (needed(own.expect, round.listed), majority(round.listed));
    let found = listed.len() + others.len();
    if found < needed {
        let why = why_more(own.expect, round.listed);
        return Decision::Wait(format!("{found} of {needed} nodes seen{why}"));
    }
    if listed.len() < majority {
        return Decision::Wait(format!(
            "{} of {majority} listed nodes seen: more than half of the listed addresses must take part, so that two parts of the list never \
             form two clusters",
            listed.len()
        ));
    }
    let members: BTreeMap<String, String> = listed.into_iter().chain(others).take(needed).collect();
    match members.keys().next() {
        Some(first) if *first == own.id => Decision::Form(members),
        Some(first) => Decision::Wait(format!("node {} coordinates the forming", name_of(first))),
        None => Decision::Wait("no node seen".into()),
    }
}

/// The nodes that may take part (Raft id to address).
fn empty(notices: &[Option<Notice>]) -> BTreeMap<String, String> {
    let notices = notices.iter().flatten().filter(|n| is_empty(n));
    notices
        .map(|n| (n.id.clone(), n.raft_addr.clone()))
        .collect()
}

/// Says so if two of these nodes have one name. Members are removed and replaced by name, so a cluster must
/// not begin with two of one. A node that lost its disk does not respond with its old Raft id any more.
fn name_used_twice<'a>(nodes: impl Iterator<Item = (&'a String, &'a String)>) -> Option<String> {
    let mut names = BTreeMap::new();
    for (id, address) in nodes {
        let name = name_of(id);
        if let Some(other) = names.insert(name, address) {
            return Some(format!(
                "node ID {name} is in use by two nodes, at {other} and at {address}: give each node its own -node-id"
            ));
        }
    }
    None
}

/// Why more nodes are needed than were expected, if that is so.
fn why_more(expect: usize, listed: usize) -> String {
    let majority = majority(listed);
    if majority <= expect {
        return String::new();
    }
    format!(
        ": -bootstrap-expect is {expect}, but {listed} addresses are listed, so {majority} nodes are needed, so that two halves of the list \
         never form two clusters; remove stale addresses or start more nodes"
    )
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
