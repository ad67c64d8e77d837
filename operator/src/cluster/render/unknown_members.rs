//! Texts about members that belong to no pod of the cluster.
use crate::cluster::{
    deciders::unknown::{describe, is_kept},
    facts::{observation::ConfigMember, view::View},
};

/// Reason of the event and of the condition Degraded.
pub const REASON: &str = "UnknownMember";
/// Members that a text names; of further ones it gives the number.
const MAX_NAMED: usize = 3;

fn name_all(view: &View<'_>, all: &[&ConfigMember]) -> String {
    let named = all.iter().take(MAX_NAMED);
    let named: Vec<String> = named.map(|m| describe(m, view.advertised(m))).collect();
    let more = all.len().saturating_sub(MAX_NAMED);
    match more {
        0 => named.join(", "),
        _ => format!("{} and {more} more", named.join(", ")),
    }
}

/// The unknown members that may not stay.
fn unwanted<'a>(view: &View<'a>) -> Vec<&'a ConfigMember> {
    let mut all = view.unknown_members();
    all.retain(|m| !is_kept(view, m.voter));
    all.sort_by_key(|m| (!m.voter, m.name.as_str()));
    all
}

/// What is wrong, and what happens next.
pub fn problem(view: &View<'_>) -> Option<String> {
    let all = unwanted(view);
    let first = all.first()?;
    let next = if view.leader.is_none() && view.unknown_leader().is_none() {
        let name = &first.name;
        format!(
            "without a leader it cannot be removed. If only it is missing for a quorum and will not return: kubectl rqlite recover {} --ignore {name}",
            view.name
        )
    } else if view.leader.is_some() && !all.iter().any(|m| view.may_remove_unknown(m)) {
        let voters = view.config_voters();
        format!(
            "removed as soon as the voters of this cluster's own pods are a quorum without it ({} of {voters} voters take part)",
            view.participants().len()
        )
    } else {
        "being removed".to_owned()
    };
    Some(format!(
        "{}: joined, but belongs to no pod of this cluster. It has a copy of the database; {next}. \
         Stop that process, and close the inter-node port: spec.networkPolicy and a network plugin that enforces it",
        name_all(view, &all)
    ))
}

/// Status, reason and message of the condition.
pub fn condition(view: &View<'_>) -> (bool, &'static str, String) {
    if let Some(text) = problem(view) {
        let voter = unwanted(view).iter().any(|m| m.voter);
        let reason = if voter {
            "UnknownVoter"
        } else {
            "UnknownReader"
        };
        return (true, reason, text);
    }
    let kept = view.unknown_members();
    if !kept.is_empty() {
        let text = format!(
            "{}: kept, because spec.reaping.keepUnknownReaders is true",
            name_all(view, &kept)
        );
        return (true, "Kept", text);
    }
    match &view.status.unknown_removals {
        Some(last) => {
            let text = format!(
                "all members belong to pods of this cluster; {} was removed (removals in a row: {})",
                last.raft_id, last.count
            );
            (false, "Removed", text)
        }
        None => {
            let text = "all members belong to pods of this cluster";
            (false, "None", text.to_owned())
        }
    }
}

/// Unknown members that the status does not contain yet.
pub fn news(view: &View<'_>) -> Option<String> {
    let known = &view.status.unknown_members;
    let mut new = view.unknown_members();
    let recorded = |m: &&ConfigMember| {
        let before = known.iter().find(|k| k.raft_id == m.raft_id);
        before.is_some_and(|before| before.voter || !m.voter)
    };
    new.retain(|m| !recorded(m));
    if new.is_empty() {
        return None;
    }
    let before = view.status.unknown_removals.as_ref();
    let again = before.filter(|last| new.iter().any(|m| m.raft_id == last.raft_id));
    let again = again.map_or_else(String::new, |last| {
        format!(" again, after {} removals", last.count)
    });
    Some(format!(
        "{} joined{again}, but belongs to no pod of this cluster",
        name_all(view, &new)
    ))
}
