//! Removes members of the configuration that belong to no pod of the cluster, at once: whoever reaches the
//! inter-node port can join a node, which would have a vote and the whole database. Readers may be kept by
//! the spec. A member that comes back is removed again, after a pause that grows.
use operator_api::status::{OperationType, UnknownMember, UnknownRemovals};

use crate::cluster::{
    action::{Action, Decision},
    facts::{
        observation::ConfigMember,
        view::{View, seconds_between},
    },
};

/// Seconds to wait after the second removal in a row; doubled with each further one.
const FIRST_WAIT_SECONDS: u64 = 5;
/// Maximum wait.
const MOST_SECONDS: u64 = 60;
/// Seconds without a removal after which the next one counts as the first.
const FORGET_SECONDS: u64 = 3600;

/// May unknown members of this kind stay, because the spec says so?
pub fn is_kept(view: &View<'_>, voter: bool) -> bool {
    let reaping = view.spec.reaping.as_ref();
    !voter && reaping.is_some_and(|reaping| reaping.keep_unknown_readers)
}

/// Is an unknown member to be removed, now or later?
pub fn is_pending(view: &View<'_>) -> bool {
    let mut unknown = view.unknown_members().into_iter();
    view.leader.is_some() && unknown.any(|m| !is_kept(view, m.voter))
}

/// Removes one unknown member.
pub fn remove(view: &View<'_>) -> Decision {
    if view.operating(OperationType::Recover).is_some() || !view.is_formed() {
        return Decision::Continue;
    }
    let (contact, candidate) = if let Some(leader) = view.leader {
        let Some(member) = next(view) else {
            return Decision::Continue;
        };
        (leader.name, member)
    } else {
        match view.unknown_leader() {
            Some(unknown) => (unknown.contact, unknown.member),
            None => return Decision::Continue,
        }
    };
    let what = describe(candidate, view.advertised(candidate));
    let recorded = view.status.unknown_members.iter();
    let mut recorded = recorded.filter(|m| m.raft_id == candidate.raft_id);
    let Some(known) = recorded.next() else {
        // The report of this reconcile records it.
        return Decision::Record(Box::new(view.status.clone()), format!("found the {what}"));
    };
    if !is_begun(view, known) {
        return begin(view, candidate, &what);
    }
    let remove = Action::RemoveMember {
        leader: contact.to_owned(),
        name: candidate.name.clone(),
        raft_id: candidate.raft_id.clone(),
    };
    Decision::Act(
        remove,
        format!("removing the {what} from the configuration: it belongs to no pod of this cluster"),
    )
}

/// The member to remove next: first voters that do not respond, then other voters, then readers.
fn next<'a>(view: &View<'a>) -> Option<&'a ConfigMember> {
    let leader = view.leader?;
    let mut unknown = view.unknown_members();
    unknown.retain(|m| !is_kept(view, m.voter) && view.may_remove_unknown(m));
    let away = |m: &ConfigMember| leader.status.unreachable_seconds.contains_key(&m.raft_id);
    unknown.sort_by_key(|m| (!m.voter, !away(m), m.name.as_str()));
    unknown.first().copied()
}

/// Was the removal recorded since this member was last found?
fn is_begun(view: &View<'_>, known: &UnknownMember) -> bool {
    let last = view.status.unknown_removals.as_ref();
    last.is_some_and(|last| last.raft_id == known.raft_id && last.at.0 >= known.since.0)
}

/// Records the removal, unless the last one is too recent.
fn begin(view: &View<'_>, member: &ConfigMember, what: &str) -> Decision {
    let last = view.status.unknown_removals.as_ref();
    let since = last.map(|last| seconds_between(&last.at, view.now()));
    let before = last
        .filter(|_| since.is_some_and(|since| since < FORGET_SECONDS))
        .map_or(0, |last| last.count);
    if since.is_some_and(|since| since < wait_seconds(before)) {
        return Decision::Continue;
    }
    let mut next = view.status.clone();
    next.unknown_removals = Some(UnknownRemovals {
        raft_id: member.raft_id.clone(),
        at: view.now().clone(),
        count: before.saturating_add(1),
    });
    Decision::Record(Box::new(next), format!("the {what} is to be removed"))
}

/// Seconds to wait after this number of removals in a row.
fn wait_seconds(removals: i32) -> u64 {
    let doublings = u32::try_from(removals.saturating_sub(2)).unwrap_or(0);
    match removals {
        ..=1 => 0,
        _ => FIRST_WAIT_SECONDS
            .saturating_mul(2_u64.saturating_pow(doublings.min(16)))
            .min(MOST_SECONDS),
    }
}

/// `unknown voter rogue (rogue#i1 at 10.0.0.7:4002)`.
pub fn describe(member: &ConfigMember, address: Option<&str>) -> String {
    let kind = if member.voter { "voter" } else { "reader" };
    let at = address.map_or_else(String::new, |address| format!(" at {address}"));
    format!("unknown {kind} {} ({}{at})", member.name, member.raft_id)
}

#[cfg(test)]
mod tests;
