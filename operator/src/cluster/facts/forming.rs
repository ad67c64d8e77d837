//! Whether a new cluster has certainly not formed yet. While that is certain, the number of voters with which
//! it forms can change and its pods can be recreated without losing data.
use operator_api::{
    names,
    status::{OperationType, Pool},
};

use crate::cluster::facts::{
    beginning,
    observation::{NodeStatus, ObservedPod, ProbeResult},
    view::{View, seconds_between},
};

/// Seconds within which a pod is placed, its volume included, or the scheduler says why not. A pod with the
/// name of a scheduler that does not exist gets neither.
const PLACING_SECONDS: u64 = 30;

/// Why it cannot be excluded that the cluster has formed; None if that is certain. A node that forms a
/// cluster pledges to it durably before, so that no second one can form beside it whatever the operator does;
/// what is proven here is that no member of a cluster would be stopped.
pub fn doubt(view: &View<'_>) -> Option<String> {
    if view.is_formed() {
        return Some("the cluster has formed".to_owned());
    }
    let other = view
        .operation()
        .filter(|o| o.kind != OperationType::Bootstrap);
    if let Some(operation) = other {
        return Some(format!("the operation {:?} is in progress", operation.kind));
    }
    for (name, answer) in &view.seen.nodes {
        if let ProbeResult::Ok(node) = answer
            && !is_empty(node)
        {
            return Some(format!("{name} is a member of a cluster already"));
        }
    }
    let pods = view.pods(Pool::Voter);
    if let Some(pod) = pods.iter().find(|pod| !is_idle(view, pod)) {
        return Some(format!("{} does not answer", pod.name));
    }
    let answers = |pod: &&ObservedPod| view.node(&pod.name).is_some() || beginning::has_failed(pod);
    let answers = pods.iter().any(answers);
    let unused = || {
        let set = names::voters(view.name);
        let mut claims = view.seen.claims.iter();
        claims.all(|claim| {
            let pod = claim.name.strip_prefix(&names::claim("")).unwrap_or("");
            names::ordinal(&set, pod).is_none() || claim.capacity.is_none()
        })
    };
    (!answers && !unused()).then(|| "no node answers".to_owned())
}

/// Has this node no part in any cluster?
fn is_empty(node: &NodeStatus) -> bool {
    node.config.is_empty() && node.last_log_index == 0 && node.leader.is_none() && !node.is_leader
}

/// Does no node run in this pod, or an empty one that says so? Its node is only ready with a leader.
fn is_idle(view: &View<'_>, pod: &ObservedPod) -> bool {
    let runs_none = pod.machine.is_none() || beginning::has_failed(pod);
    !pod.ready && (runs_none || view.node(&pod.name).is_some())
}

/// Is a pod of a voter being placed on a machine? What the scheduler says of the others meanwhile may be
/// untrue at once. A pod that it says nothing about for long is not being placed.
pub fn is_placing(view: &View<'_>) -> bool {
    view.pods(Pool::Voter).iter().any(|pod| {
        let age = pod.created.as_ref();
        let is_young = age.is_some_and(|at| seconds_between(at, view.now()) < PLACING_SECONDS);
        pod.machine.is_none() && pod.stuck.is_none() && is_young
    })
}

/// Number of voters with which the cluster forms: that of the spec while it has certainly not formed, then
/// the recorded one.
pub fn voters_to_form(view: &View<'_>) -> i32 {
    match view.target() {
        Some(target) if doubt(view).is_some() => target.bootstrap_replicas,
        _ if beginning::is_restoring(view) => 1,
        _ => view.spec.replicas,
    }
}

#[cfg(test)]
mod tests;
