//! Conditions: each with the generation it refers to, its reason, and a message that says what to do.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use operator_api::{
    RqliteClusterStatus,
    status::{
        ADVISORY, AVAILABLE, DEGRADED, HIBERNATED, OperationType, PAUSED, PROGRESSING, QUORUM_LOST,
        READY, STORAGE_READY, Target, UPDATE_PENDING,
    },
};

use crate::cluster::{
    action::Decision,
    deciders::{
        replace,
        rollout::{is_deferred, is_outdated},
        storage,
    },
    facts::{
        quorum::{Outage, recovery_instructions},
        validate,
        view::View,
    },
    render::{blockers, edits, runbook},
};

/// The API server refuses what follows from the spec, for example because of a quota.
const REFUSED: &str = "KubernetesRefused";

/// A condition without its times.
struct Said {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

fn said(
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: impl Into<String>,
) -> Said {
    Said {
        kind,
        status,
        reason,
        message: message.into(),
    }
}

pub(super) fn write(
    view: &View<'_>,
    wanted: &Target,
    decision: &Decision,
    paused: bool,
    outage: &Outage,
    next: &mut RqliteClusterStatus,
) {
    let asleep = is_asleep(view, next);
    let available = available(view, decision, outage, asleep);
    let degraded = degraded(view, decision, outage, asleep);
    let progressing = progressing(view, decision, next);
    let calm = matches!(decision, Decision::Continue) && next.operation.is_none();
    let complete = usize::try_from(view.spec.replicas) == Ok(view.participants().len());
    let ready = if available.status && !degraded.status && calm && complete {
        said(
            READY,
            true,
            "Ready",
            "all voters take part and no operation is in progress",
        )
    } else if asleep {
        said(
            READY,
            false,
            "Hibernated",
            "hibernated: set hibernated to false to start it",
        )
    } else if !available.status {
        said(READY, false, available.reason, available.message.clone())
    } else if degraded.status {
        said(READY, false, degraded.reason, degraded.message.clone())
    } else {
        said(READY, false, "Changing", progressing.message.clone())
    };
    let lost = quorum_lost(view, outage);
    let paused = if paused {
        said(
            PAUSED,
            true,
            "Requested",
            "the operator changes nothing: set paused to false and remove the annotation to resume",
        )
    } else {
        said(PAUSED, false, "NotRequested", "not paused")
    };
    let hibernated = said(
        HIBERNATED,
        asleep,
        if asleep { "Requested" } else { "NotRequested" },
        if asleep {
            "all nodes are stopped, their volumes are kept"
        } else {
            "not hibernated"
        },
    );
    let all = [
        ready,
        available,
        progressing,
        degraded,
        lost,
        paused,
        hibernated,
        volumes(view),
        update_pending(view, wanted),
        advisory(view),
    ];
    for one in all {
        put(view, next, one);
    }
}

fn quorum_lost(view: &View<'_>, outage: &Outage) -> Said {
    let policy = view.spec.quorum_recovery.clone().unwrap_or_default();
    let patience = policy.detect_after.duration().map_or(300, |d| d.as_secs());
    match outage {
        Outage::Permanent(text, seconds) if *seconds >= patience => said(
            QUORUM_LOST,
            true,
            "VotersLost",
            format!("{text}. {}", recovery_instructions(view)),
        ),
        Outage::Permanent(text, _) => said(
            QUORUM_LOST,
            false,
            "LossDetected",
            format!(
                "{text}. Becomes true if that lasts for {}",
                policy.detect_after
            ),
        ),
        Outage::None => said(QUORUM_LOST, false, "LeaderSeen", "a quorum works"),
        Outage::Temporary(_) | Outage::Unreachable(_) => said(
            QUORUM_LOST,
            false,
            "NotProven",
            "no proof that a quorum is gone for good",
        ),
    }
}

/// Is the cluster hibernated, or will it be with this reconcile?
fn is_asleep(view: &View<'_>, next: &RqliteClusterStatus) -> bool {
    let kind = next.operation.as_ref().map(|o| o.kind);
    let ends = view.operating(OperationType::Hibernate).is_some() && kind.is_none();
    ends || (view.status.is(HIBERNATED) && kind != Some(OperationType::Resume))
}

fn available(view: &View<'_>, decision: &Decision, outage: &Outage, asleep: bool) -> Said {
    if let Some(leader) = view.leader {
        let text = format!("{} leads, confirmed by a quorum", leader.name);
        return said(AVAILABLE, true, "LeaderSeen", text);
    }
    if asleep {
        return said(AVAILABLE, false, "Hibernated", "hibernated");
    }
    match (outage, decision) {
        (Outage::Permanent(text, _), _) => said(AVAILABLE, false, "QuorumLost", text),
        (Outage::Temporary(text), _) => said(AVAILABLE, false, "QuorumUnavailable", text),
        (Outage::Unreachable(text), _) => said(AVAILABLE, false, "OperatorCannotReachNodes", text),
        (Outage::None, Decision::Blocked(reason, text)) => {
            said(AVAILABLE, false, reason, blockers::with_blocker(view, text))
        }
        (Outage::None, _) => {
            let text = "the cluster has not formed yet";
            let reason = blockers::problem(view).map_or("Forming", |(reason, _)| reason);
            said(AVAILABLE, false, reason, blockers::with_blocker(view, text))
        }
    }
}

fn degraded(view: &View<'_>, decision: &Decision, outage: &Outage, asleep: bool) -> Said {
    if asleep {
        return said(DEGRADED, false, "Hibernated", "hibernated");
    }
    if let Decision::Blocked(reason, text) = decision {
        return said(DEGRADED, true, reason, blockers::with_blocker(view, text));
    }
    if let Some(text) = &view.seen.refused {
        return said(DEGRADED, true, REFUSED, text);
    }
    if let Outage::Permanent(text, _) | Outage::Temporary(text) | Outage::Unreachable(text) = outage
    {
        return said(DEGRADED, true, "NoLeader", text);
    }
    if let Some(text) = replace::problem(view) {
        return said(DEGRADED, true, "MemberLost", text);
    }
    if let Some((reason, text)) = blockers::problem(view) {
        return said(DEGRADED, true, reason, text);
    }
    let (there, voters) = (view.participants().len(), view.config_voters());
    if there < voters {
        let text = format!("{there} of {voters} voters take part; see status.members");
        return said(DEGRADED, true, "MembersMissing", text);
    }
    let readers = super::members::readers(view).unwrap_or_default();
    if readers.ready < readers.desired {
        let text = format!(
            "{} of {} read replicas are ready; see status.members",
            readers.ready, readers.desired
        );
        return said(DEGRADED, true, "ReadReplicasMissing", text);
    }
    said(DEGRADED, false, "Complete", "all members take part")
}

fn progressing(view: &View<'_>, decision: &Decision, next: &RqliteClusterStatus) -> Said {
    if let Some(text) = &view.seen.refused {
        return said(PROGRESSING, false, REFUSED, text);
    }
    match decision {
        Decision::Blocked(reason, text) => said(
            PROGRESSING,
            false,
            reason,
            blockers::with_blocker(view, text),
        ),
        Decision::Record(_, text) | Decision::Act(_, text) => {
            said(PROGRESSING, true, "Working", text)
        }
        Decision::Wait(text) if next.operation.is_some() => said(
            PROGRESSING,
            true,
            "Waiting",
            blockers::with_blocker(view, text),
        ),
        Decision::Wait(text) => said(PROGRESSING, false, "Waiting", text),
        Decision::Continue => said(PROGRESSING, false, "Done", "nothing to do"),
    }
}

fn volumes(view: &View<'_>) -> Said {
    match blockers::volume_problem(view).or_else(|| storage::problem(view)) {
        Some((reason, text)) => said(STORAGE_READY, false, reason, text),
        None => said(
            STORAGE_READY,
            true,
            "UpToDate",
            "all volumes have the size that the spec asks for",
        ),
    }
}

fn update_pending(view: &View<'_>, wanted: &Target) -> Said {
    if is_deferred(view, wanted) {
        let text = "this version of the operator has another pod template; pods are replaced with the next change of the spec, or when you set the annotation rqlite.dev/restarted-at";
        return said(UPDATE_PENDING, true, "OperatorChanged", text);
    }
    let old: Vec<&str> = view
        .seen
        .pods
        .iter()
        .filter(|pod| is_outdated(view, pod))
        .map(|pod| pod.name.as_str())
        .collect();
    if old.is_empty() {
        said(UPDATE_PENDING, false, "UpToDate", "all pods are up to date")
    } else {
        let text = format!("to be replaced: {}", old.join(", "));
        said(UPDATE_PENDING, true, "PodsOutdated", text)
    }
}

fn advisory(view: &View<'_>) -> Said {
    if let Some(text) = edits::problem(view) {
        return said(ADVISORY, true, edits::REASON, text);
    }
    let hints = validate::hints(view);
    if hints.is_empty() {
        said(ADVISORY, false, "None", "no advice")
    } else {
        said(ADVISORY, true, "Hint", hints.join("; "))
    }
}

/// Writes a condition; its transition time changes only with its status.
fn put(view: &View<'_>, next: &mut RqliteClusterStatus, one: Said) {
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
        Some(place) => *place = condition,
        None => next.conditions.push(condition),
    }
}
