//! Fencing: stops all pods before a recovery changes anything.
use operator_api::{
    recovery::RecoveryRecord,
    status::{Operation, Pool},
};

use crate::cluster::{
    action::Decision,
    deciders::scale::{set_replicas, wait_or_blocked},
    facts::view::View,
};

/// Stops all pods of both pools; None once none can be running.
pub(super) fn stop_all(
    view: &View<'_>,
    operation: &Operation,
    record: &RecoveryRecord,
) -> Option<Decision> {
    for pool in [Pool::Read, Pool::Voter] {
        if let Some(set) = view.set(pool)
            && set.replicas > 0
        {
            let text = format!("stopping all pods of {}", view.set_name(pool));
            return Some(Decision::Act(set_replicas(view, pool, set, 0), text));
        }
    }
    let running: Vec<String> = view
        .seen
        .pods
        .iter()
        .filter(|pod| !record.assume_stopped.contains(&pod.name) || pod.name == record.survivor)
        .map(|pod| match &pod.machine {
            Some(machine) => format!("{} on {machine}", pod.name),
            None => pod.name.clone(),
        })
        .collect();
    if !running.is_empty() {
        let text = format!(
            "waiting for these pods to stop: {}. If a machine is gone, delete its Node object, give it the taint node.kubernetes.io/out-of-service, or \
             delete the pod by force once you know that it does not run",
            running.join(", ")
        );
        return Some(wait_or_blocked(view, operation, "RecoveryStalled", text));
    }
    None
}
