//! Hibernation and resumption. The first pod is stopped last, after the others, so that its data includes
//! everything that was acknowledged.
use operator_api::status::{OperationType, Pool, Step};

use crate::cluster::{
    action::{Action, Decision, begin, finish, step},
    deciders::{
        scale::{TRANSFER_SECONDS, grow_readers, grow_set, set_replicas},
        unstick::unstick,
    },
    facts::{
        observation::ObservedSet,
        pods::pods_of_members,
        view::{View, seconds_between},
    },
};

/// Begins or continues hibernation or resumption.
pub fn decide(view: &View<'_>) -> Decision {
    if view.operating(OperationType::Hibernate).is_some() && view.spec.hibernated {
        return stop(view);
    }
    if let Some(operation) = view.operating(OperationType::Resume)
        && !view.spec.hibernated
    {
        return start(view, &operation.started_at);
    }
    if !view.is_formed() {
        return Decision::Continue;
    }
    let is_hibernating = view.is_hibernating();
    let kind = match (view.spec.hibernated, is_hibernating) {
        (true, false) => OperationType::Hibernate,
        (false, true) => OperationType::Resume,
        // A person has started pods: they are stopped in the usual order.
        (true, true) if is_awake(view) => OperationType::Hibernate,
        (true, true) => return Decision::Wait("hibernates".to_owned()),
        (false, false) => return Decision::Continue,
    };
    // A StatefulSet is being recreated, which takes seconds; nothing else may happen meanwhile.
    if view.operating(OperationType::Resize).is_some() {
        return Decision::Continue;
    }
    let next = begin(
        view.status,
        &view.seen.fresh_id,
        view.now(),
        kind,
        None,
        None,
    );
    let text = if kind == OperationType::Hibernate {
        "stopping all nodes"
    } else {
        "starting all nodes"
    };
    Decision::Record(next, text.to_owned())
}

fn is_awake(view: &View<'_>) -> bool {
    let raised = |pool| view.set(pool).is_some_and(|set| set.replicas > 0);
    raised(Pool::Voter) || raised(Pool::Read)
}

fn lower(view: &View<'_>, pool: Pool, set: &ObservedSet, to: i32) -> Decision {
    let text = format!("scaling {} down to {to} pods", view.set_name(pool));
    Decision::Act(set_replicas(view, pool, set, to), text)
}

fn stop(view: &View<'_>) -> Decision {
    if let Some(set) = view.set(Pool::Read)
        && set.replicas > 0
    {
        return lower(view, Pool::Read, set, 0);
    }
    if !view.pods(Pool::Read).is_empty() {
        return Decision::Wait("waiting for the read replicas to stop".to_owned());
    }
    let Some(set) = view.set(Pool::Voter) else {
        return Decision::Wait("waiting for the StatefulSet".to_owned());
    };
    let first = operator_api::names::pod(&view.set_name(Pool::Voter), 0);
    let since = view.operation().map(|o| &o.step_at);
    let waited = since.map_or(0, |at| seconds_between(at, view.now()));
    match view.operation().map(|o| o.step).unwrap_or_default() {
        // Steps of other operations have no meaning here: start from the beginning.
        Step::Start
        | Step::Shrink
        | Step::Recreate
        | Step::Park
        | Step::Apply
        | Step::Verify
        | Step::Other(_)
        | Step::Transfer => {
            if let Some(leader) = view.leader
                && leader.name != first
                && view.participates(&first)
                && waited < TRANSFER_SECONDS
            {
                let transfer = Action::TransferLeader {
                    from: leader.name.to_owned(),
                    to: first.clone(),
                };
                return Decision::Act(
                    transfer,
                    format!("transferring leadership from {} to {first}", leader.name),
                );
            }
            let next = step(view.status, view.now(), Step::StopOthers);
            Decision::Record(next, format!("stopping all pods but {first}"))
        }
        Step::StopOthers => {
            if set.replicas > 1 {
                return lower(view, Pool::Voter, set, 1);
            }
            if view.pods(Pool::Voter).iter().any(|pod| pod.name != first) {
                return Decision::Wait(format!("waiting for all pods but {first} to stop"));
            }
            let next = step(view.status, view.now(), Step::StopLast);
            Decision::Record(next, format!("stopping {first}"))
        }
        Step::StopLast => {
            if set.replicas > 0 {
                return lower(view, Pool::Voter, set, 0);
            }
            if !view.seen.pods.is_empty() {
                return Decision::Wait(format!("waiting for {first} to stop"));
            }
            Decision::Record(finish(view.status), "hibernates".to_owned())
        }
    }
}

fn start(
    view: &View<'_>,
    since: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time,
) -> Decision {
    let Some(target) = view.target() else {
        return Decision::Continue;
    };
    // There may be members that are not in the target yet, if a person raised the StatefulSet.
    match grow_set(view, pods_of_members(view)) {
        Decision::Continue => {}
        decision => return decision,
    }
    // If no quorum comes back, the read replicas may have the only data that is left.
    match grow_readers(view) {
        Decision::Continue => {}
        decision => return decision,
    }
    match wake_autoscaled(view) {
        Decision::Continue => {}
        decision => return decision,
    }
    match unstick(view) {
        Decision::Continue => {}
        decision => return decision,
    }
    let (there, voters) = (view.participants().len(), view.config_voters());
    if voters > 0 && there == voters {
        return Decision::Record(
            finish(view.status),
            "the cluster is running again".to_owned(),
        );
    }
    let text = format!("{there} of {} voters take part", target.replicas);
    let update = view.spec.update.clone().unwrap_or_default();
    let deadline = update
        .progress_deadline
        .duration()
        .map_or(600, |d| d.as_secs());
    if view.leader.is_some() && seconds_between(since, view.now()) > deadline {
        // A quorum works: what is missing is handled like any other member that is away.
        return Decision::Record(finish(view.status), text);
    }
    Decision::Wait(text)
}

/// An autoscaler does nothing at a scale of zero, so it gets one pod to scale.
fn wake_autoscaled(view: &View<'_>) -> Decision {
    match view.set(Pool::Read) {
        Some(set) if set.replicas == 0 && view.wanted_readers().is_none() => Decision::Act(
            set_replicas(view, Pool::Read, set, 1),
            "starting one read replica for the autoscaler to scale".to_owned(),
        ),
        Some(_) | None => Decision::Continue,
    }
}

#[cfg(test)]
mod tests;
