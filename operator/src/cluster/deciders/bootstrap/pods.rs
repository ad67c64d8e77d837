//! The pods of a cluster that has not formed: surplus ones are removed, and those of an outdated template are
//! recreated, one at a time.
//!
//! The difficulty is the scheduler. A pod that is deleted while it is being bound to its machine conflicts
//! with its successor of the same name, and keeps its place on the machine meanwhile. A pod that was refused
//! because of the affinity of another one is tried again only five minutes after that one is gone. Therefore
//! no pod is deleted while it is being placed, and pods that were refused before the last replacement are
//! recreated once after it.
use operator_api::{
    names,
    status::{Operation, Pool, Target},
};

use crate::cluster::{
    action::{Action, Decision},
    deciders::scale::set_replicas,
    facts::{
        forming,
        observation::ObservedPod,
        view::{View, seconds_between},
    },
};

/// A pod that was created this much before another one was refused without regard to it.
const SAME_TIME_SECONDS: u64 = 2;
/// Seconds for which the scheduler must have refused a pod with the present template before it is recreated.
const REFUSED_SECONDS: u64 = 60;
/// After this time the scheduler tries a pod again by itself.
const TRIED_AGAIN_SECONDS: u64 = 300;

/// Recreates or removes pods that the new cluster must not wait for: those beyond its number of voters, those
/// of an outdated template, and those that the scheduler does not try again.
pub(super) fn remake(view: &View<'_>, target: &Target, operation: &Operation) -> Decision {
    match replace_outdated(view, target) {
        Decision::Continue => {}
        replaced => return replaced,
    }
    let pods = view.pods(Pool::Voter);
    let all_present = pods
        .iter()
        .all(|pod| pod.template_hash == target.template_hash);
    if !all_present || is_replacing(view) {
        return Decision::Continue;
    }
    let newest = pods.iter().filter(|pod| pod.machine.is_some());
    let newest = newest.filter_map(|pod| pod.created.as_ref()).max();
    let mut refused = pods.iter().filter(|pod| is_refused(pod));
    let forgotten = refused.find(|pod| {
        let created = pod.created.as_ref();
        let overlooked = created
            .zip(newest)
            .is_some_and(|(created, newest)| seconds_between(created, newest) > SAME_TIME_SECONDS);
        overlooked || has_waited(view, pod, operation)
    });
    match forgotten {
        Some(pod) => {
            let text = format!(
                "recreating {}, so that the scheduler looks for a machine again",
                pod.name
            );
            Decision::Act(Action::delete_pod(pod), text)
        }
        None => Decision::Continue,
    }
}

/// Is a pod stopping or being placed?
fn is_replacing(view: &View<'_>) -> bool {
    forming::is_placing(view) || view.pods(Pool::Voter).iter().any(|pod| pod.deleting)
}

/// Has the scheduler no machine for it, so that nothing runs in it?
fn is_refused(pod: &ObservedPod) -> bool {
    pod.machine.is_none() && pod.stuck.is_some()
}

/// Is it time to recreate a pod that was refused? After twice as long each time, counted from when the
/// cluster began to form, and never once the scheduler tries again by itself: at most four times.
fn has_waited(view: &View<'_>, pod: &ObservedPod, operation: &Operation) -> bool {
    let forming = seconds_between(&operation.started_at, view.now());
    let wait = REFUSED_SECONDS.max(forming / 2);
    let since = pod.unscheduled_since.as_ref();
    let waited = since.map_or(0, |since| seconds_between(since, view.now()));
    wait < TRIED_AGAIN_SECONDS && waited >= wait
}

/// Replaces one outdated pod. A running one keeps others from its machine by its old affinity, and expects
/// the old number of voters. Pods without a machine go first: otherwise they take the place of one that is
/// being replaced.
fn replace_outdated(view: &View<'_>, target: &Target) -> Decision {
    let Some(set) = view.set(Pool::Voter) else {
        return Decision::Continue;
    };
    if forming::doubt(view).is_some() {
        return Decision::Continue;
    }
    if set.replicas > target.replicas {
        let to = set.replicas - 1;
        let shrink = set_replicas(view, Pool::Voter, set, to);
        let pod = names::pod(&view.set_name(Pool::Voter), to);
        let text = format!("deleting the pod {pod}: the new cluster forms without it");
        return Decision::Act(shrink, text);
    }
    if set.template_hash != target.template_hash || is_replacing(view) {
        return Decision::Continue;
    }
    let pods = view.pods(Pool::Voter).into_iter();
    let outdated = pods.filter(|pod| pod.template_hash != target.template_hash);
    match outdated.min_by_key(|pod| pod.machine.is_some()) {
        Some(pod) => {
            let text = format!(
                "recreating {}: the new cluster forms with the present template",
                pod.name
            );
            Decision::Act(Action::delete_pod(pod), text)
        }
        None => Decision::Continue,
    }
}

#[cfg(test)]
mod tests;
