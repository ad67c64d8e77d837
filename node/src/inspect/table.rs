//! The facts as text for people.
use std::fmt::Display;

use node_contract::LogPosition;

use super::facts::{DirectoryState, Facts};

const NONE: &str = "-";

fn or_none(value: Option<&impl Display>) -> String {
    value.map_or_else(|| NONE.to_owned(), ToString::to_string)
}

fn place(entry: Option<LogPosition>) -> String {
    entry.map_or_else(
        || NONE.to_owned(),
        |LogPosition { term, index }| format!("index {index}, term {term}"),
    )
}

fn word(state: DirectoryState) -> &'static str {
    match state {
        DirectoryState::Empty => "empty",
        DirectoryState::Uninitialized => "uninitialized",
        DirectoryState::Joining => "joining",
        DirectoryState::Member => "member",
        DirectoryState::Removed => "removed, or not admitted yet",
        DirectoryState::Recovering => "recovering",
        DirectoryState::Damaged => "DAMAGED",
    }
}

/// One fact per line, then the members, then the damage.
pub(super) fn show(facts: &Facts) -> String {
    let lineage = facts
        .lineage
        .as_ref()
        .map(|lineage| format!("{} (epoch {})", lineage.id, lineage.epoch));
    let vote = facts.vote.as_ref().map(|vote| {
        let granted = if vote.committed { ", granted" } else { "" };
        format!("{} in term {}{granted}", vote.voted_for, vote.term)
    });
    let mut lines: Vec<String> = [
        ("state", word(facts.state).to_owned()),
        ("node ID", or_none(facts.name.as_ref())),
        ("Raft ID", or_none(facts.raft_id.as_ref())),
        ("cluster", or_none(facts.cluster_id.as_ref())),
        ("lineage", or_none(lineage.as_ref())),
        ("vote", or_none(vote.as_ref())),
        ("last entry", place(facts.last_log)),
        ("purged up to", place(facts.purged)),
        ("committed", place(facts.committed)),
        ("database at", place(facts.database)),
        ("integrity", facts.integrity.result.clone()),
    ]
    .into_iter()
    .map(|(name, value)| format!("{name:13}{value}"))
    .collect();
    if let Some(membership) = &facts.membership {
        let joint = if membership.joint {
            ", half-way between two voter sets"
        } else {
            ""
        };
        lines.push(format!("membership   of {}{joint}", place(membership.log)));
        lines.extend(membership.members.iter().map(|member| {
            let role = if member.voter { "voter" } else { "non-voter" };
            format!("  {role:9} {}  {}", member.raft_id, member.address)
        }));
    }
    if facts.pending_peers {
        lines.push("raft/peers.json exists: the next start recovers with it".into());
    }
    if facts.recovery_under_way {
        lines.push("a recovery was interrupted: the next start finishes it".into());
    }
    if let Some(torn) = &facts.torn_tail {
        lines.push(format!("the next start drops {torn}"));
    }
    lines.extend(
        facts
            .damage
            .iter()
            .map(|damage| format!("damage: {damage}")),
    );
    lines.join("\n")
}
