//! The status of each RqliteRecovery. Once a recovery is admitted, its status mirrors the record in the
//! cluster's status.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use operator_api::{
    RqliteClusterStatus, RqliteRecovery, RqliteRecoveryStatus,
    recovery::{RecoveryPhase, RecoveryRecord, RecoveryStep},
};
use serde::Serialize;

use super::{
    admission::check_admission,
    belonging::{COMPLETE, other_cluster},
    check::{NeededCheck, settle},
    record::is_open,
    stalled,
};
use crate::cluster::facts::view::View;

/// Beginning of the message of a recovery that is for a cluster that no longer exists.
const SUPERSEDED: &str = "superseded";

/// A status of an RqliteRecovery to write.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusUpdate {
    /// Name of the RqliteRecovery.
    pub name: String,
    /// Its uid, so that a later object of the same name is not changed.
    pub uid: String,
    /// Its status.
    pub status: Box<RqliteRecoveryStatus>,
}

/// The statuses that differ from what they should be. `next`: the cluster's status as it is about to be
/// written.
pub fn status_updates(
    view: &View<'_>,
    next: &RqliteClusterStatus,
    message: Option<&str>,
) -> Vec<StatusUpdate> {
    let all = view.seen.recoveries.iter();
    let all = all.filter_map(|recovery| {
        let now = recovery.status.clone().unwrap_or_default();
        let mut status = of(view, next, recovery, message)?;
        complete(view, recovery, &mut status);
        stalled::report(view, recovery, &mut status);
        (status != now).then(|| update(recovery, status))
    });
    all.collect()
}

/// The statuses while nothing may begin in the cluster: recoveries that have not begun say what they wait
/// for.
pub fn held_updates(view: &View<'_>, why: &str) -> Vec<StatusUpdate> {
    let all = view.seen.recoveries.iter();
    let held = all.filter_map(|recovery| {
        let now = recovery.status.clone().unwrap_or_default();
        let phase = now.phase.unwrap_or(RecoveryPhase::Pending);
        let mut status = now.clone();
        enter(view, &mut status, RecoveryPhase::Pending);
        status.message = Some(why.to_owned());
        complete(view, recovery, &mut status);
        (phase == RecoveryPhase::Pending && status != now).then(|| update(recovery, status))
    });
    held.collect()
}

fn update(recovery: &RqliteRecovery, status: RqliteRecoveryStatus) -> StatusUpdate {
    StatusUpdate {
        name: recovery.metadata.name.clone().unwrap_or_default(),
        uid: recovery.metadata.uid.clone().unwrap_or_default(),
        status: Box::new(status),
    }
}

fn of(
    view: &View<'_>,
    next: &RqliteClusterStatus,
    recovery: &RqliteRecovery,
    message: Option<&str>,
) -> Option<RqliteRecoveryStatus> {
    let uid = recovery.metadata.uid.as_ref();
    let mut status = recovery.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or(RecoveryPhase::Pending);
    if phase.is_final() {
        return None;
    }
    if let Some(other) = other_cluster(view, recovery) {
        enter(view, &mut status, RecoveryPhase::Rejected);
        status.message = Some(format!("{SUPERSEDED}: {other}. Nothing was changed"));
        return Some(status);
    }
    status.plan_id = uid.cloned();
    status
        .cluster_uid
        .clone_from(&view.seen.cluster.metadata.uid);
    let record = next.recovery.as_ref().filter(|r| Some(&r.uid) == uid);
    if let Some(record) = record {
        mirror(&mut status, record, message);
        if let (RecoveryPhase::Verifying, Some(operation), Some(leader)) =
            (record.phase, view.operation(), view.leader)
        {
            let check = NeededCheck::of_survivor(view, operation, record, leader.status);
            let now = check.report(view, &check.state(view));
            status.check = Some(now);
        }
        if let Some(check) = &mut status.check {
            settle(view, recovery, record, check);
        }
        return Some(status);
    }
    if !is_open(view, recovery) {
        // It was admitted once, and the cluster's status has moved on to another recovery.
        enter(view, &mut status, RecoveryPhase::Failed);
        status.message = Some("the quorum was lost again before all members were back: see the RqliteRecovery after this one".to_owned());
        return Some(status);
    }
    let admission = check_admission(view, recovery);
    enter(view, &mut status, admission.phase);
    status.message = Some(admission.message);
    if !admission.candidates.is_empty() {
        status.candidates = admission.candidates;
    }
    status.survivor = admission.chosen.or(status.survivor);
    status.check = admission.check_report.or(status.check);
    status.possibly_lost_entries = admission
        .possibly_lost_entries
        .or(status.possibly_lost_entries);
    // Not admitted in this reconcile: something more urgent was decided.
    if admission.phase == RecoveryPhase::Fencing {
        enter(view, &mut status, RecoveryPhase::Inspecting);
    }
    Some(status)
}

fn mirror(status: &mut RqliteRecoveryStatus, record: &RecoveryRecord, message: Option<&str>) {
    status.phase = Some(record.phase);
    status.survivor = Some(record.survivor.clone());
    status.possibly_lost_entries = record.possibly_lost_entries;
    let own = record.message.clone();
    let now = match (record.phase, message) {
        (RecoveryPhase::Rejoining, None) => Some("the others rejoin as new members"),
        _ => message,
    };
    status.message = own.or_else(|| now.map(str::to_owned));
    for step in &record.steps {
        if !status.steps.contains(step) && status.steps.len() < MAX_STEPS {
            status.steps.push(step.clone());
        }
    }
}

/// Maximum number of steps in a status.
const MAX_STEPS: usize = 32;

fn enter(view: &View<'_>, status: &mut RqliteRecoveryStatus, phase: RecoveryPhase) {
    if status.phase == Some(phase) {
        return;
    }
    status.phase = Some(phase);
    let again = status.steps.iter().any(|step| step.phase == phase);
    if !again && phase != RecoveryPhase::Fencing && status.steps.len() < MAX_STEPS {
        status.steps.push(RecoveryStep {
            phase,
            at: view.now().clone(),
        });
    }
}

fn complete(view: &View<'_>, recovery: &RqliteRecovery, status: &mut RqliteRecoveryStatus) {
    let phase = status.phase.unwrap_or(RecoveryPhase::Pending);
    let done = if phase.is_final() { "True" } else { "False" };
    let old = status.conditions.iter().find(|c| c.type_ == COMPLETE);
    let since = old
        .filter(|c| c.status == done)
        .map_or_else(|| view.now().clone(), |c| c.last_transition_time.clone());
    let message = status.message.clone().unwrap_or_default();
    let condition = Condition {
        type_: COMPLETE.to_owned(),
        status: done.to_owned(),
        reason: if message.starts_with(SUPERSEDED) {
            "Superseded".to_owned()
        } else {
            format!("{phase:?}")
        },
        message,
        last_transition_time: since,
        observed_generation: recovery.metadata.generation,
    };
    status.conditions.retain(|c| c.type_ != COMPLETE);
    status.conditions.push(condition);
}
