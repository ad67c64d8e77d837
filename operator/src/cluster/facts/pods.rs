//! How many pods the StatefulSets need so that every member that may come back or vote has one.
use operator_api::{
    names,
    status::{MemberState, Pool, Role},
};

use crate::cluster::facts::{observation::ProbeResult, quorum::member_state, view::View};

/// Number of pods that the voters' StatefulSet needs: those of the target, and all up to the last member that
/// may come back. A member without a vote counts too, because it may have the newest data that is left. If a
/// person raised the StatefulSet and lowered it again before the new members were in the target, only the
/// nodes know them: voters in any node's committed configuration count as long as they have a claim. If a
/// member's claim is not known, its pod shows what data there is.
pub fn pods_of_members(view: &View<'_>) -> i32 {
    let set = view.set_name(Pool::Voter);
    let confirmed = view.status.members.iter().filter(|member| {
        let lost = matches!(
            member_state(view, member).0,
            MemberState::Lost | MemberState::Foreign
        );
        let leaves = view.claim(&member.name).is_some_and(|claim| claim.deleting);
        let unknown = view.is_recorded_unknown(&member.name);
        member.role != Role::Absent && !lost && !leaves && !unknown
    });
    let answers = view.seen.nodes.values().filter_map(|answer| match answer {
        ProbeResult::Ok(node) if view.is_ours(node) => Some(node),
        ProbeResult::Ok(_) | ProbeResult::Failed(_) => None,
    });
    let reported = answers.flat_map(|node| node.config.iter().filter(|m| m.voter));
    let reported = reported.filter(|m| view.claim(&m.name).is_some_and(|claim| !claim.deleting));
    let reported = reported.filter(|m| !view.is_recorded_unknown(&m.name));
    let names = confirmed.map(|m| &m.name).chain(reported.map(|m| &m.name));
    let ordinals = names.filter_map(|name| names::ordinal(&set, name));
    let target = view.target().map_or(0, |target| target.replicas);
    ordinals.map(|ordinal| ordinal + 1).fold(target, i32::max)
}

/// Number of pods that the read replicas' StatefulSet needs for those of them that vote: after a recovery
/// from a read replica, that one votes until the voters are back.
pub fn readers_with_a_vote(view: &View<'_>) -> i32 {
    let set = view.set_name(Pool::Read);
    let now = view.config().iter().filter(|m| m.voter);
    let before = view.status.members.iter();
    let before = before
        .filter(|m| view.leader.is_none() && matches!(m.role, Role::Leader | Role::Voter))
        .map(|m| m.name.as_str());
    let voters = now.map(|m| m.name.as_str()).chain(before);
    let voters = voters.filter(|name| !view.is_recorded_unknown(name));
    let ordinals = voters.filter_map(|name| names::ordinal(&set, name));
    ordinals.map(|ordinal| ordinal + 1).fold(0, i32::max)
}
