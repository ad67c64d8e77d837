//! Scales the voters, one at a time. Up: the pod is created, catches up, then gets a vote. Down: the member
//! leaves the configuration, which two voters must confirm; then its pod is removed, then its claim is
//! retired.
use operator_api::{
    cluster::Deletion,
    names,
    status::{Operation, OperationType, Pool, RetiredClaim, Step},
};

use crate::cluster::{
    action::{Action, Decision, RequiredAbsence, begin, finish, step},
    facts::{
        claims,
        observation::ObservedSet,
        pods::readers_with_a_vote,
        view::{View, quorum, seconds_between},
    },
};

/// Seconds that clients get to stop using a pod that is about to leave.
pub const DRAIN_SECONDS: u64 = 5;
/// Seconds after which an unsuccessful leadership transfer is given up: the member is removed although it
/// leads.
pub const TRANSFER_SECONDS: u64 = 30;

/// Continues the present scaling.
pub fn resume(view: &View<'_>) -> Decision {
    match view.operation() {
        Some(o) if o.kind == OperationType::ScaleUp => growing(view, o),
        Some(o) if o.kind == OperationType::ScaleDown => shrinking(view, o),
        Some(_) | None => Decision::Continue,
    }
}

/// Begins a scaling, if the number of voters differs from the spec.
pub fn start(view: &View<'_>) -> Decision {
    let (Some(set), Some(target)) = (view.set(Pool::Voter), view.target()) else {
        return Decision::Continue;
    };
    let live = set.replicas;
    if live < target.replicas {
        return grow_set(view, target.replicas);
    }
    if live > view.spec.replicas {
        let victim = names::pod(&view.set_name(Pool::Voter), live - 1);
        let next = begin(
            view.status,
            &view.seen.fresh_id,
            view.now(),
            OperationType::ScaleDown,
            Some(&victim),
            None,
        );
        return Decision::Record(next, format!("removing {victim}"));
    }
    if target.replicas < view.spec.replicas {
        // If a person has already raised the StatefulSet, its pods become voters one at a time.
        let newcomer = names::pod(&view.set_name(Pool::Voter), target.replicas);
        let absent = view
            .config()
            .iter()
            .find(|m| m.voter && m.name != newcomer && !view.participates(&m.name));
        if let Some(absent) = absent {
            // A person lowered the StatefulSet below a member: its pod, and its data, come back.
            let ordinal = names::ordinal(&view.set_name(Pool::Voter), &absent.name);
            if let Some(ordinal) = ordinal.filter(|ordinal| *ordinal >= live) {
                return grow_set(view, ordinal + 1);
            }
            let text = format!("no voter is added until {} takes part", absent.name);
            return Decision::Blocked("ScaleUpBlocked", text);
        }
        let mut next = begin(
            view.status,
            &view.seen.fresh_id,
            view.now(),
            OperationType::ScaleUp,
            Some(&newcomer),
            None,
        );
        if let Some(target) = &mut next.target {
            target.replicas += 1;
        }
        return Decision::Record(next, format!("adding {newcomer}"));
    }
    Decision::Continue
}

/// Changes a StatefulSet's number of pods, where no member's absence has to be confirmed.
pub fn set_replicas(view: &View<'_>, pool: Pool, set: &ObservedSet, to: i32) -> Action {
    Action::SetReplicas {
        name: view.set_name(pool),
        uid: set.uid.clone(),
        from: set.replicas,
        to,
        absent: None,
    }
}

/// Raises the StatefulSet to a number that is already recorded.
pub fn grow_set(view: &View<'_>, to: i32) -> Decision {
    match view.set(Pool::Voter) {
        Some(set) if set.replicas < to => Decision::Act(
            set_replicas(view, Pool::Voter, set, to),
            format!("scaling the StatefulSet up to {to}"),
        ),
        Some(_) => Decision::Continue,
        None => Decision::Wait("waiting for the StatefulSet".to_owned()),
    }
}

fn growing(view: &View<'_>, operation: &Operation) -> Decision {
    let (Some(newcomer), Some(target)) = (operation.member.as_deref(), view.target()) else {
        return Decision::Record(
            finish(view.status),
            "dropping an operation without a member".to_owned(),
        );
    };
    let wanted = view.spec.replicas.max(1);
    let is_in = view.member(newcomer).is_some();
    if !is_in && target.replicas > wanted && view.is_proven_absent(newcomer) {
        let text = format!("{newcomer} never became a member, and the spec no longer asks for it");
        return Decision::Record(finish(view.status), text);
    }
    // It is a member already, and may be lost already: it is removed like any other.
    if is_in && target.replicas > wanted && !view.participates(newcomer) {
        let text = format!("the spec no longer asks for {newcomer}");
        return Decision::Record(finish(view.status), text);
    }
    match grow_set(view, target.replicas) {
        Decision::Continue => {}
        decision => return decision,
    }
    let votes = view.member(newcomer).is_some_and(|m| m.voter);
    if votes && view.participates(newcomer) {
        let mut next = finish(view.status);
        let claim = names::claim(newcomer);
        next.retired_claims.retain(|retired| retired.name != claim);
        return Decision::Record(next, format!("{newcomer} votes"));
    }
    let text = match (view.pod(newcomer), is_in) {
        (None, _) => format!("waiting for the pod {newcomer}"),
        (Some(pod), false) => match &pod.stuck {
            Some(stuck) => format!("{newcomer} does not start: {stuck}"),
            None => format!("{newcomer} is starting and joining"),
        },
        (Some(_), true) => format!("{newcomer} is catching up"),
    };
    wait_or_blocked(view, operation, "ScaleUpStalled", text)
}

fn shrinking(view: &View<'_>, operation: &Operation) -> Decision {
    let set_name = view.set_name(Pool::Voter);
    let victim = operation.member.as_deref().unwrap_or_default();
    let (Some(ordinal), Some(set)) = (names::ordinal(&set_name, victim), view.set(Pool::Voter))
    else {
        return Decision::Record(
            finish(view.status),
            "dropping an operation without a member".to_owned(),
        );
    };
    if operation.step == Step::Shrink {
        return remove_pod(view, operation, victim, ordinal, set.replicas);
    }
    if set.replicas <= view.spec.replicas {
        let text = format!("{victim} is kept after all");
        return Decision::Record(finish(view.status), text);
    }
    if set.replicas != ordinal + 1 {
        let text = format!("{victim} is not the last one any more");
        return Decision::Record(finish(view.status), text);
    }
    if view.is_proven_absent(victim) {
        let mut next = step(view.status, view.now(), Step::Shrink);
        if let Some(target) = &mut next.target {
            target.replicas = ordinal;
        }
        let text = format!("{victim} is out of the configuration");
        return Decision::Record(next, text);
    }
    remove_member(view, operation, victim)
}

/// The member is in the configuration, or its absence is not confirmed: removes it, if the others remain a
/// quorum.
fn remove_member(view: &View<'_>, operation: &Operation, victim: &str) -> Decision {
    let Some(leader) = view.leader else {
        return Decision::Wait("waiting for a leader".to_owned());
    };
    let Some(member) = view.member(victim) else {
        return Decision::Wait(format!(
            "waiting for a second voter to confirm that {victim} is out of the configuration"
        ));
    };
    let voters = view.config_voters();
    let participants = view.participants();
    let after = voters.saturating_sub(usize::from(member.voter));
    let staying = participants.iter().filter(|name| **name != victim).count();
    let wanted = usize::try_from(view.spec.replicas).unwrap_or(1);
    if after == 0 || staying < quorum(after.max(wanted)) || participants.len() < quorum(voters) {
        let away: Vec<_> = view
            .config()
            .iter()
            .filter(|m| m.voter && !view.participates(&m.name))
            .map(|m| m.name.as_str())
            .collect();
        let text = format!(
            "{staying} of the {after} voters that would remain take part; removing {victim} needs {}; away: {}",
            quorum(after.max(wanted)),
            away.join(", ")
        );
        return Decision::Blocked("ScaleDownBlocked", text);
    }
    if seconds_between(&operation.step_at, view.now()) < DRAIN_SECONDS {
        return Decision::Wait(format!("waiting for clients to stop using {victim}"));
    }
    let may_transfer = seconds_between(&operation.step_at, view.now()) < TRANSFER_SECONDS;
    if leader.name == victim
        && may_transfer
        && let Some(successor) = view.leadership_successor(victim)
    {
        let transfer = Action::TransferLeader {
            from: victim.to_owned(),
            to: successor.to_owned(),
        };
        return Decision::Act(
            transfer,
            format!("transferring leadership from {victim} to {successor}"),
        );
    }
    let remove = Action::RemoveMember {
        leader: leader.name.to_owned(),
        name: victim.to_owned(),
        raft_id: member.raft_id.clone(),
    };
    Decision::Act(remove, format!("removing {victim} from the configuration"))
}

/// The member is out of the configuration: removes its pod, then retires its claim.
fn remove_pod(
    view: &View<'_>,
    operation: &Operation,
    victim: &str,
    ordinal: i32,
    live: i32,
) -> Decision {
    if live > ordinal + 1 {
        let text = format!("{victim} is not the last one any more");
        return Decision::Record(finish(view.status), text);
    }
    if live > ordinal {
        if !view.is_proven_absent(victim) {
            if view.member(victim).is_none() {
                return Decision::Wait(format!(
                    "waiting for proof that {victim} is out of the configuration"
                ));
            }
            let mut next = step(view.status, view.now(), Step::Start);
            if let Some(target) = &mut next.target {
                target.replicas = live;
            }
            return Decision::Record(next, format!("{victim} has rejoined"));
        }
        let (Some(set), Some(leader)) = (view.set(Pool::Voter), view.leader) else {
            return Decision::Wait("waiting for the StatefulSet".to_owned());
        };
        let shrink = Action::SetReplicas {
            name: view.set_name(Pool::Voter),
            uid: set.uid.clone(),
            from: live,
            to: ordinal,
            absent: Some(RequiredAbsence {
                leader: leader.name.to_owned(),
                member: victim.to_owned(),
                last_log_term: leader.status.last_log_term,
                last_log_index: leader.status.last_log_index,
            }),
        };
        return Decision::Act(shrink, format!("deleting the pod {victim}"));
    }
    if view.pod(victim).is_some() {
        return wait_or_blocked(
            view,
            operation,
            "ScaleDownStalled",
            format!("{victim} is stopping"),
        );
    }
    // It rejoined between the last check and its stop: its claim is retired once it is out again.
    if view.member(victim).is_some() {
        return remove_member(view, operation, victim);
    }
    retire_claim(view, victim)
}

fn retire_claim(view: &View<'_>, victim: &str) -> Decision {
    let retention = view.spec.storage.retention.clone().unwrap_or_default();
    let Some(claim) = view.claim(victim) else {
        return Decision::Record(finish(view.status), format!("{victim} is gone"));
    };
    if retention.when_scaled.unwrap_or_default() == Deletion::Delete && claims::is_own(view, claim)
    {
        if claim.deleting {
            return Decision::Wait(format!(
                "waiting for the claim {} to be deleted",
                claim.name
            ));
        }
        let delete = Action::DeleteClaim {
            name: claim.name.clone(),
            uid: claim.uid.clone(),
        };
        return Decision::Act(delete, format!("deleting the claim of {victim}"));
    }
    let mut next = finish(view.status);
    next.retired_claims
        .retain(|retired| retired.name != claim.name);
    next.retired_claims.push(RetiredClaim {
        name: claim.name.clone(),
        uid: claim.uid.clone(),
        member: victim.to_owned(),
        retired_at: view.now().clone(),
    });
    Decision::Record(next, format!("{victim} is gone, its claim is kept"))
}

/// `Wait`, or `Blocked` with this reason once the progress deadline has passed.
pub fn wait_or_blocked(
    view: &View<'_>,
    operation: &Operation,
    reason: &'static str,
    text: String,
) -> Decision {
    let update = view.spec.update.clone().unwrap_or_default();
    let deadline = update
        .progress_deadline
        .duration()
        .map_or(600, |d| d.as_secs());
    if seconds_between(&operation.step_at, view.now()) > deadline {
        Decision::Blocked(reason, text)
    } else {
        Decision::Wait(text)
    }
}

/// Adjusts the read replicas' StatefulSet to the spec at once: they are in no quorum, except for one that a
/// recovery started from.
pub fn readers(view: &View<'_>) -> Decision {
    let (Some(set), Some(wanted)) = (view.set(Pool::Read), view.wanted_readers()) else {
        return Decision::Continue;
    };
    let wanted = wanted.max(readers_with_a_vote(view));
    if set.replicas == wanted {
        return Decision::Continue;
    }
    let set_replicas = set_replicas(view, Pool::Read, set, wanted);
    Decision::Act(
        set_replicas,
        format!("scaling the read replicas to {wanted}"),
    )
}

/// As [`readers`], but only adds pods.
pub fn grow_readers(view: &View<'_>) -> Decision {
    match readers(view) {
        Decision::Act(Action::SetReplicas { from, to, .. }, _) if to < from => Decision::Continue,
        decision => decision,
    }
}

#[cfg(test)]
mod tests;
