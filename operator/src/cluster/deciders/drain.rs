//! Machines (Kubernetes Nodes) that are cordoned, or that an autoscaler or a provider is about to remove: a
//! leader there transfers its leadership before its pod is evicted, and a voter is moved to another machine
//! if its volume can follow. Moving is an update of that one pod (`rollout`), within the same limits.
use operator_api::{
    cluster::AntiAffinity,
    names,
    status::{DrainTransfer, OperationType, Pool},
};

use crate::cluster::{
    action::{Action, Decision},
    facts::{
        observation::ObservedPod,
        view::{View, seconds_between},
    },
};

/// Seconds for which a transfer is attempted.
const ATTEMPT_SECONDS: u64 = 15;
/// Seconds until it is attempted again for the same pod.
const AGAIN_SECONDS: u64 = 300;
/// Voters that a cluster must have at least for one of them to be moved: with fewer, each move interrupts it.
const MIN_VOTERS: usize = 3;

fn is_on(view: &View<'_>) -> bool {
    view.spec
        .disruption
        .clone()
        .unwrap_or_default()
        .follow_drains
}

/// Machine of a pod, if it is being drained.
fn drained<'a>(view: &View<'a>, pod: &'a ObservedPod) -> Option<&'a str> {
    let machine = pod.machine.as_deref()?;
    let is = view.seen.cordoned.iter().any(|name| name == machine);
    (is && is_on(view) && !pod.deleting).then_some(machine)
}

/// Transfers leadership away from a machine that is being drained, to a voter on another one.
pub fn move_leader(view: &View<'_>) -> Decision {
    let busy = view
        .operation()
        .is_some_and(|o| o.kind != OperationType::ScaleUp);
    let Some(leader) = view.leader.filter(|_| !busy && view.is_formed()) else {
        return Decision::Continue;
    };
    let Some(pod) = view.pod(leader.name) else {
        return Decision::Continue;
    };
    let Some(machine) = drained(view, pod) else {
        return Decision::Continue;
    };
    let successor = view.leadership_successor(leader.name);
    let successor = successor.and_then(|name| view.pod(name));
    let Some(successor) = successor.filter(|pod| drained(view, pod).is_none()) else {
        return Decision::Continue;
    };
    let text = format!(
        "transferring leadership from {} to {}: the machine {machine} is being drained",
        pod.name, successor.name
    );
    let last = view.status.drain_transfer.as_ref();
    let last = last.filter(|last| last.pod_uid == pod.uid);
    let since = last.map(|last| seconds_between(&last.at, view.now()));
    match since {
        Some(..ATTEMPT_SECONDS) => Decision::Act(
            Action::TransferLeader {
                from: pod.name.clone(),
                to: successor.name.clone(),
            },
            text,
        ),
        Some(..AGAIN_SECONDS) => Decision::Continue,
        _ => {
            let mut next = view.status.clone();
            next.drain_transfer = Some(DrainTransfer {
                pod_uid: pod.uid.clone(),
                at: view.now().clone(),
            });
            Decision::Record(Box::new(next), text)
        }
    }
}

/// Is this pod to be moved to another machine? Only a voter beside at least two others, only if its volume
/// can follow and if there is a machine for it.
pub fn must_move(view: &View<'_>, pod: &ObservedPod) -> bool {
    let movable = &view.seen.drain.movable;
    pod.pool == Pool::Voter
        && drained(view, pod).is_some()
        && view.config_voters() >= MIN_VOTERS
        && movable.contains(&names::claim(&pod.name))
        && has_room(view)
}

/// Is there a machine for the pod?
fn has_room(view: &View<'_>) -> bool {
    let scheduling = view.spec.scheduling.clone().unwrap_or_default();
    let alone = scheduling.anti_affinity == Some(AntiAffinity::Required);
    let used = |machine: &String| {
        let pods = view.pods(Pool::Voter);
        pods.iter().any(|pod| pod.machine.as_ref() == Some(machine))
    };
    let mut free = view.seen.drain.free.iter();
    free.any(|machine| !(alone && used(machine)))
}

/// Voters on machines that are being drained that stay there, with the reason.
pub fn problem(view: &View<'_>) -> Option<String> {
    let on = |pod: &&ObservedPod| drained(view, pod).is_some() && !must_move(view, pod);
    let pods: Vec<&ObservedPod> = view.pods(Pool::Voter).into_iter().filter(on).collect();
    let first = pods.first()?;
    let machine = first.machine.as_deref().unwrap_or_default();
    let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    let movable = &view.seen.drain.movable;
    let why = if !movable.contains(&names::claim(&first.name)) {
        "its volume is bound to that machine, or it is not known to be able to move"
    } else if view.config_voters() < MIN_VOTERS {
        "fewer than three voters vote, so that moving one interrupts service"
    } else {
        "no other machine takes it"
    };
    Some(format!(
        "{} on the machine {machine}, which is being drained, is not moved: {why}",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests;
