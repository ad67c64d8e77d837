//! Removes members of the configuration that have no node. A member beyond both pools is removed once it has
//! no pod. One that belongs to a pool, or an unknown reader that the spec keeps, is removed only when the
//! leader has not reached it for long, by the leader's own clock. Other unknown members are removed by
//! `unknown`.
use operator_api::{
    cluster::Reaping,
    names,
    status::{MemberState, Pool, Reaped},
};

use crate::cluster::{
    action::{Action, Decision},
    facts::{
        observation::ConfigMember,
        quorum::member_state,
        view::{View, quorum, seconds_between},
    },
};

/// Minimum seconds between the removals of two voters.
const SPACING_SECONDS: u64 = 300;

/// Removes one such member, if the other voters remain a quorum without it.
pub fn start(view: &View<'_>) -> Decision {
    let Some(leader) = view.leader else {
        return Decision::Continue;
    };
    let orphan = view
        .config()
        .iter()
        .filter(|m| m.name != leader.name)
        .filter_map(|m| Some((m, removal_reason(view, m)?)))
        .find(|(m, _)| others_have_quorum(view, m));
    let Some((orphan, why)) = orphan else {
        return Decision::Continue;
    };
    let text = format!("removing {} from the configuration: {why}", orphan.name);
    if orphan.voter {
        let last = view.status.last_reaped.as_ref();
        if last.is_none_or(|r| r.raft_id != orphan.raft_id) {
            let early = last.is_some_and(|r| seconds_between(&r.at, view.now()) < SPACING_SECONDS);
            if early {
                return Decision::Continue;
            }
            let mut next = view.status.clone();
            next.last_reaped = Some(Reaped {
                raft_id: orphan.raft_id.clone(),
                at: view.now().clone(),
            });
            return Decision::Record(Box::new(next), text);
        }
    }
    let remove = Action::RemoveMember {
        leader: leader.name.to_owned(),
        name: orphan.name.clone(),
        raft_id: orphan.raft_id.clone(),
    };
    Decision::Act(remove, text)
}

/// Why a member should be removed.
fn removal_reason(view: &View<'_>, member: &ConfigMember) -> Option<String> {
    if view.pod(&member.name).is_some() {
        return lost_for_long(view, member);
    }
    match is_beyond(view, &member.name) {
        Some(true) => Some("the spec does not ask for it, and it has no pod".to_owned()),
        Some(false) => lost_for_long(view, member),
        // The name belongs to neither pool, so only the time since its last contact counts.
        None => unreachable_for(view, member)
            .map(|unreachable| format!("it belongs to no pool, and {unreachable}")),
    }
}

/// Is this name beyond the pods that its pool has and should have? None for names of neither pool.
fn is_beyond(view: &View<'_>, name: &str) -> Option<bool> {
    let beyond = |pool: Pool, wanted: Option<i32>| {
        let ordinal = names::ordinal(&view.set_name(pool), name)?;
        let live = view.set(pool).map_or(0, |set| set.replicas);
        Some(ordinal >= live && wanted.is_none_or(|wanted| ordinal >= wanted))
    };
    let voters = view.target().map(|t| t.replicas);
    beyond(Pool::Voter, voters).or_else(|| beyond(Pool::Read, view.wanted_readers()))
}

fn lost_for_long(view: &View<'_>, member: &ConfigMember) -> Option<String> {
    let reaping = view.spec.reaping.clone().unwrap_or_default();
    if member.voter && !reaping.voters {
        return None;
    }
    let known = view.status.members.iter();
    let known = known
        .into_iter()
        .find(|m| m.raft_id.as_ref() == Some(&member.raft_id))?;
    let (state, reason) = member_state(view, known);
    if state != MemberState::Lost || view.node(&member.name).is_some() {
        return None;
    }
    let unreachable = unreachable_for(view, member)?;
    Some(format!("{}, and {unreachable}", reason.unwrap_or_default()))
}

/// Uses the leader's own measurement, so that a clock that jumps never removes a member.
fn unreachable_for(view: &View<'_>, member: &ConfigMember) -> Option<String> {
    let reaping: Reaping = view.spec.reaping.clone().unwrap_or_default();
    let limit = if member.voter {
        &reaping.voter_timeout
    } else {
        &reaping.read_replica_timeout
    };
    let seconds = view
        .leader?
        .status
        .unreachable_seconds
        .get(&member.raft_id)?;
    let enough = limit
        .duration()
        .is_ok_and(|limit| *seconds >= limit.as_secs());
    enough.then(|| format!("the leader has not reached it for {limit}"))
}

fn others_have_quorum(view: &View<'_>, member: &ConfigMember) -> bool {
    if !member.voter {
        return true;
    }
    let after = view.config_voters() - 1;
    let wanted = usize::try_from(view.spec.replicas).unwrap_or(1);
    let needed = quorum(after.max(wanted)).max(quorum(view.config_voters()));
    let others = view.participants();
    others.iter().filter(|name| **name != member.name).count() >= needed
}

#[cfg(test)]
mod tests;
