//! What the operator does without a leader.
use crate::cluster::{
    action::Decision,
    deciders::{
        scale::{grow_readers, grow_set},
        unstick::unstick,
    },
    facts::{
        pods::pods_of_members,
        quorum::{Outage, classify_outage, loss_reason, recovery_instructions},
        view::View,
    },
};

/// Decides what is done without a leader: only pods are started or recreated.
pub fn outage(view: &View<'_>) -> Decision {
    let blocked = match classify_outage(view) {
        Outage::None => return Decision::Continue,
        Outage::Unreachable(text) => return Decision::Blocked("OperatorCannotReachNodes", text),
        Outage::Permanent(text, seconds) => Decision::Blocked(
            loss_reason(view, seconds),
            format!("{text}. {}", recovery_instructions(view)),
        ),
        Outage::Temporary(text) => Decision::Blocked("QuorumUnavailable", text),
    };
    // Pods that a person removed by lowering the StatefulSet come back with their volumes.
    if let Decision::Act(action, text) = grow_set(view, pods_of_members(view)) {
        return Decision::Act(action, text);
    }
    // A recovery needs to know what data the read replicas have.
    if let Decision::Act(action, text) = grow_readers(view) {
        return Decision::Act(action, text);
    }
    match unstick(view) {
        Decision::Continue => blocked,
        repair => repair,
    }
}
