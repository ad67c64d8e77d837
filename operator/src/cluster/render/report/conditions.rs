//! Conditions: each with the generation it refers to, its reason, and a message that says what to do.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use operator_api::{
    RqliteClusterStatus,
    status::{
        ADVISORY, ARCHIVING, AVAILABLE, CERTIFICATES_VALID, DEGRADED, DELETION_BLOCKED, HIBERNATED,
        MANAGED, OPEN_TO_ANYONE, OperationType, PAUSED, PROGRESSING, QUORUM_LOST, RESTORING,
        STORAGE_READY, Target, UNKNOWN_MEMBER, UPDATE_PENDING,
    },
};

use super::{
    condition::{NewCondition, condition_of},
    ready, tls,
};
use crate::cluster::{
    action::Decision,
    deciders::{blocked, drain, membership, replace, rollout::is_deferred, storage},
    facts::{
        archiving, beginning, doors, ownership,
        quorum::{Outage, is_disk_needed, is_loss_reported, loss_reason, recovery_instructions},
        validate,
        view::View,
    },
    render::{blockers, disks, edits, runbook, strays, unknown_members},
};

/// The API server refuses what follows from the spec, for example because of a quota.
const REFUSED: &str = "KubernetesRefused";

pub(super) fn write(
    view: &View<'_>,
    wanted: &Target,
    decision: &Decision,
    held: Option<&Decision>,
    outage: &Outage,
    next: &mut RqliteClusterStatus,
) {
    let is_hibernated = is_hibernated(view, next);
    let available = available(view, decision, outage, is_hibernated);
    let degraded = degraded(view, decision, outage, is_hibernated);
    let progressing = progressing(view, decision, next);
    let ready = ready::ready(
        view,
        wanted,
        decision,
        held,
        next,
        is_hibernated,
        [&available, &degraded, &progressing],
    );
    let all = [
        ready,
        available,
        progressing,
        degraded,
        quorum_lost(view, outage),
        is_paused(held.is_some()),
        hibernated(view, is_hibernated),
        volumes(view),
        update_pending(view, wanted),
        unknown_member(view),
        deletion_blocked(view),
        open_to_anyone(view),
        advisory(view),
    ];
    for one in all {
        put(view, next, one);
    }
    match archiving::condition(view) {
        Some((is_true, reason, text)) => {
            put(view, next, condition_of(ARCHIVING, is_true, reason, text));
        }
        None => next.conditions.retain(|one| one.type_ != ARCHIVING),
    }
    match beginning::condition(view, next) {
        Some((is_true, reason, text)) => {
            put(view, next, condition_of(RESTORING, is_true, reason, text));
        }
        None => next.conditions.retain(|one| one.type_ != RESTORING),
    }
    if let Some(one) = tls::condition(view) {
        put(view, next, one);
    } else {
        next.conditions
            .retain(|one| one.type_ != CERTIFICATES_VALID);
    }
    // Only where an operator was uninstalled before.
    if next.condition(MANAGED).is_some() {
        let one = condition_of(MANAGED, true, "OperatorRuns", "an operator manages it");
        put(view, next, one);
    }
}

fn is_paused(paused: bool) -> NewCondition {
    if paused {
        condition_of(
            PAUSED,
            true,
            "Requested",
            "the operator changes nothing: set paused to false and remove the annotation to resume",
        )
    } else {
        condition_of(PAUSED, false, "NotRequested", "not paused")
    }
}

fn hibernated(view: &View<'_>, is_hibernated: bool) -> NewCondition {
    let pods = view.seen.pods.len();
    let (reason, text) = match (is_hibernated, view.spec.hibernated) {
        (true, true) if pods == 0 => (
            "Requested",
            "all nodes are stopped, their volumes are kept".to_owned(),
        ),
        (true, true) => ("Requested", format!("{pods} pods are to be stopped")),
        (true, false) => ("Resuming", "all nodes are to be started".to_owned()),
        (false, true) if view.is_formed() => {
            ("Stopping", format!("{pods} pods are still to be stopped"))
        }
        (false, true) => (
            "NotFormed",
            "the cluster is stopped once it has formed".to_owned(),
        ),
        (false, false) => (
            "NotRequested",
            format!("the spec asks for running nodes; {pods} pods exist"),
        ),
    };
    condition_of(HIBERNATED, is_hibernated, reason, text)
}

fn quorum_lost(view: &View<'_>, outage: &Outage) -> NewCondition {
    match outage {
        Outage::Permanent(text, seconds) if is_loss_reported(view, *seconds) => condition_of(
            QUORUM_LOST,
            true,
            "VotersLost",
            format!("{text}. {}", recovery_instructions(view)),
        ),
        Outage::Permanent(text, _) => {
            let policy = view.spec.quorum_recovery.clone().unwrap_or_default();
            let text = format!(
                "{text}. Becomes true if that lasts for {}",
                policy.detect_after
            );
            condition_of(QUORUM_LOST, false, "LossDetected", text)
        }
        Outage::None if view.leader.is_some() => condition_of(
            QUORUM_LOST,
            false,
            "LeaderSeen",
            "a quorum follows the leader",
        ),
        Outage::None => condition_of(
            QUORUM_LOST,
            false,
            "NotFormed",
            "the cluster has not formed yet: there is no quorum that could be lost",
        ),
        Outage::Temporary(_) | Outage::Unreachable(_) => condition_of(
            QUORUM_LOST,
            false,
            "NotProven",
            "no proof that a quorum is gone for good",
        ),
    }
}

/// Text about names of this cluster's that objects of others have.
fn names_taken(view: &View<'_>) -> Option<String> {
    let taken = &view.seen.taken;
    (!taken.is_empty()).then(|| ownership::describe(&view.seen.cluster, taken))
}

/// Is the cluster hibernated, or will it be with this reconcile?
fn is_hibernated(view: &View<'_>, next: &RqliteClusterStatus) -> bool {
    let kind = next.operation.as_ref().map(|o| o.kind);
    let ends = view.operating(OperationType::Hibernate).is_some() && kind.is_none();
    ends || (view.status.is(HIBERNATED) && kind != Some(OperationType::Resume))
}

fn available(
    view: &View<'_>,
    decision: &Decision,
    outage: &Outage,
    is_hibernated: bool,
) -> NewCondition {
    if let Some(leader) = view.leader {
        let text = format!("{} leads, confirmed by a quorum", leader.name);
        return condition_of(AVAILABLE, true, "LeaderSeen", text);
    }
    if is_hibernated {
        return condition_of(AVAILABLE, false, "Hibernated", "hibernated");
    }
    match (outage, decision) {
        (Outage::Permanent(text, seconds), _) => {
            condition_of(AVAILABLE, false, loss_reason(view, *seconds), text)
        }
        (Outage::Temporary(text), _) => condition_of(AVAILABLE, false, "QuorumUnavailable", text),
        (Outage::Unreachable(text), _) => {
            condition_of(AVAILABLE, false, "OperatorCannotReachNodes", text)
        }
        (Outage::None, Decision::Blocked(reason, text)) => {
            condition_of(AVAILABLE, false, reason, blockers::with_blocker(view, text))
        }
        (Outage::None, _) => {
            let text = "the cluster has not formed yet";
            let reason = blockers::problem(view).map_or("Forming", |(reason, _)| reason);
            condition_of(AVAILABLE, false, reason, blockers::with_blocker(view, text))
        }
    }
}

fn degraded(
    view: &View<'_>,
    decision: &Decision,
    outage: &Outage,
    is_hibernated: bool,
) -> NewCondition {
    if is_hibernated {
        return condition_of(DEGRADED, false, "Hibernated", "hibernated");
    }
    if let Some(text) = unknown_members::problem(view) {
        return condition_of(DEGRADED, true, unknown_members::REASON, text);
    }
    if let Decision::Blocked(reason, text) = decision {
        return condition_of(DEGRADED, true, reason, blockers::with_blocker(view, text));
    }
    if let Some(text) = &view.seen.refused {
        return condition_of(DEGRADED, true, REFUSED, text);
    }
    if let Some(text) = names_taken(view) {
        return condition_of(DEGRADED, true, ownership::REASON, text);
    }
    if let Outage::Permanent(text, _) | Outage::Temporary(text) | Outage::Unreachable(text) = outage
    {
        return condition_of(DEGRADED, true, "NoLeader", text);
    }
    if let Some(text) = replace::problem(view) {
        return condition_of(DEGRADED, true, "MemberLost", text);
    }
    if let Some((reason, text)) = blockers::problem(view) {
        return condition_of(DEGRADED, true, reason, text);
    }
    let (there, voters) = (view.participants().len(), view.config_voters());
    if there < voters {
        let text = format!("{there} of {voters} voters take part; see status.members");
        return condition_of(DEGRADED, true, "MembersMissing", text);
    }
    if let Some(text) = membership::foreign_reader(view) {
        return condition_of(DEGRADED, true, "ForeignData", text);
    }
    let readers = super::members::readers(view).unwrap_or_default();
    if readers.ready < readers.desired {
        let text = format!(
            "{} of {} read replicas are ready; see status.members",
            readers.ready, readers.desired
        );
        return condition_of(DEGRADED, true, "ReadReplicasMissing", text);
    }
    condition_of(DEGRADED, false, "Complete", "all members take part")
}

fn progressing(view: &View<'_>, decision: &Decision, next: &RqliteClusterStatus) -> NewCondition {
    if let Some(text) = &view.seen.refused {
        return condition_of(PROGRESSING, false, REFUSED, text);
    }
    match decision {
        Decision::Blocked(reason, text) => condition_of(
            PROGRESSING,
            false,
            reason,
            blockers::with_blocker(view, text),
        ),
        Decision::Record(_, text) | Decision::Act(_, text) => {
            condition_of(PROGRESSING, true, "Working", text)
        }
        Decision::Wait(text) if next.operation.is_some() => condition_of(
            PROGRESSING,
            true,
            "Waiting",
            blockers::with_blocker(view, text),
        ),
        Decision::Wait(text) => condition_of(PROGRESSING, false, "Waiting", text),
        Decision::Continue if !view.seen.taken.is_empty() => {
            let text = names_taken(view).unwrap_or_default();
            condition_of(PROGRESSING, false, ownership::REASON, text)
        }
        Decision::Continue => condition_of(PROGRESSING, false, "Done", "nothing to do"),
    }
}

fn volumes(view: &View<'_>) -> NewCondition {
    match blockers::volume_problem(view).or_else(|| storage::problem(view)) {
        Some((reason, text)) => condition_of(STORAGE_READY, false, reason, text),
        None => condition_of(
            STORAGE_READY,
            true,
            "UpToDate",
            "all volumes have the size that the spec asks for",
        ),
    }
}

fn update_pending(view: &View<'_>, wanted: &Target) -> NewCondition {
    if is_deferred(view, wanted) {
        let text = "this version of the operator has another pod template; pods are replaced with the next change of the spec, or when you set the annotation rqlite.dev/restarted-at";
        return condition_of(UPDATE_PENDING, true, "OperatorChanged", text);
    }
    let old = ready::outdated(view, wanted);
    if old.is_empty() {
        condition_of(UPDATE_PENDING, false, "UpToDate", "all pods are up to date")
    } else {
        let names: Vec<&str> = old.iter().map(|pod| pod.name.as_str()).collect();
        let mut text = format!("to be replaced: {}", names.join(", "));
        if old.iter().any(|pod| is_disk_needed(view, pod)) {
            text += ". The cluster is ephemeral: a pod is replaced only while the other voters are a quorum, or once it has the annotation rqlite.dev/update-now: \"true\"";
        }
        condition_of(UPDATE_PENDING, true, "PodsOutdated", text)
    }
}

fn unknown_member(view: &View<'_>) -> NewCondition {
    let (status, reason, text) = unknown_members::condition(view);
    condition_of(UNKNOWN_MEMBER, status, reason, text)
}

fn open_to_anyone(view: &View<'_>) -> NewCondition {
    let (is_open, reason, text) = doors::condition(view);
    condition_of(OPEN_TO_ANYONE, is_open, reason, text)
}

fn deletion_blocked(view: &View<'_>) -> NewCondition {
    if let Some((reason, text)) = blocked::explain(view) {
        return condition_of(DELETION_BLOCKED, true, reason, text);
    }
    if view.seen.cluster.metadata.deletion_timestamp.is_some() {
        let text = "the cluster is being deleted";
        return condition_of(DELETION_BLOCKED, false, "Deleting", text);
    }
    let text = "nobody has deleted the cluster";
    condition_of(DELETION_BLOCKED, false, "NotRequested", text)
}

fn advisory(view: &View<'_>) -> NewCondition {
    let hints = validate::hints(view);
    let all = [
        edits::problem(view).map(|text| (edits::REASON, text)),
        strays::problem(view).map(|text| (strays::REASON, text)),
        drain::problem(view).map(|text| ("MachineDrained", text)),
        disks::problem(view).map(|text| (disks::REASON, text)),
        (!hints.is_empty()).then(|| ("Hint", hints.join("; "))),
    ];
    let all: Vec<_> = all.into_iter().flatten().collect();
    let Some((reason, _)) = all.first() else {
        return condition_of(ADVISORY, false, "None", "no advice");
    };
    let texts: Vec<_> = all.iter().map(|(_, text)| text.as_str()).collect();
    condition_of(ADVISORY, true, reason, texts.join("; "))
}

/// Writes a condition; its transition time changes only with its status.
pub(super) fn put(view: &View<'_>, next: &mut RqliteClusterStatus, one: NewCondition) {
    let status = if one.status { "True" } else { "False" }.to_owned();
    let since = next
        .condition(one.kind)
        .filter(|old| old.status == status)
        .map_or_else(
            || view.now().clone(),
            |old| old.last_transition_time.clone(),
        );
    let condition = Condition {
        type_: one.kind.to_owned(),
        status,
        reason: one.reason.to_owned(),
        message: runbook::refer(one.reason, one.message),
        last_transition_time: since,
        observed_generation: view.seen.cluster.metadata.generation,
    };
    match next.conditions.iter_mut().find(|c| c.type_ == one.kind) {
        Some(existing) => *existing = condition,
        None => next.conditions.push(condition),
    }
}
