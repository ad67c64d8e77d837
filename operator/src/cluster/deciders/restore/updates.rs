//! The status of each RqliteRestore: what it undoes, its progress, its result.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use node_contract::RestoreState;
use operator_api::{
    Moment, RqliteRestore, RqliteRestoreStatus,
    restore::{RestorePhase, RestoreStep},
    status::OperationType,
};
use serde::Serialize;

use super::{
    admission::admit,
    objects::{is_over, name, phase, uid},
    progress::{Progress, of_request, progress},
    texts::succeeded,
};
use crate::cluster::facts::view::{View, seconds_between};

/// Type of the condition that says that a restore has ended.
const COMPLETE: &str = "Complete";
/// Maximum number of steps in a status.
const MAX_STEPS: usize = 16;
/// Default time limit of a restore, in seconds.
const LIMIT_SECONDS: u64 = 6 * 3600;

/// A status to write to an RqliteRestore.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RestoreUpdate {
    /// Name of the RqliteRestore.
    pub name: String,
    /// Its uid, so that a later object of the same name is not changed.
    pub uid: String,
    /// Its status.
    pub status: Box<RqliteRestoreStatus>,
}

/// The statuses to write: those that differ from the present ones.
pub fn status_updates(view: &View<'_>) -> Vec<RestoreUpdate> {
    let all = view.seen.restores.iter().filter(|r| !is_over(r));
    let changed = all.filter_map(|restore| {
        let now = restore.status.clone().unwrap_or_default();
        let mut status = of(view, restore);
        complete(view, restore, &mut status);
        (status != now).then(|| update(restore, status))
    });
    changed.collect()
}

/// The statuses while nothing may begin in the cluster: restores that have not begun say what they wait for.
pub fn held_updates(view: &View<'_>, why: &str) -> Vec<RestoreUpdate> {
    let all = view.seen.restores.iter();
    let held = all.filter(|r| [RestorePhase::Pending, RestorePhase::Planning].contains(&phase(r)));
    let changed = held.filter_map(|restore| {
        let now = restore.status.clone().unwrap_or_default();
        let mut status = now.clone();
        enter(view, &mut status, RestorePhase::Pending, why);
        complete(view, restore, &mut status);
        (status != now).then(|| update(restore, status))
    });
    changed.collect()
}

fn update(restore: &RqliteRestore, status: RqliteRestoreStatus) -> RestoreUpdate {
    RestoreUpdate {
        name: name(restore).to_owned(),
        uid: uid(restore).to_owned(),
        status: Box::new(status),
    }
}

fn of(view: &View<'_>, restore: &RqliteRestore) -> RqliteRestoreStatus {
    let mut status = restore.status.clone().unwrap_or_default();
    let own = view.operating(OperationType::Restore);
    let own = own.filter(|operation| operation.id == uid(restore));
    let under_way = match own {
        Some(operation) => Some(progress(view, operation)),
        // The operation was lost with the leader; what the present leader says still counts.
        None if phase(restore) == RestorePhase::Restoring => {
            Some(of_request(view, uid(restore), None))
        }
        None => None,
    };
    let Some(under_way) = under_way else {
        let admission = admit(view, restore);
        if let Some(found) = admission.found {
            note(&mut status, found);
        }
        let is_ours = admission.phase != RestorePhase::Rejected || status.cluster_uid.is_some();
        if is_ours && status.cluster_uid.is_none() {
            status
                .cluster_uid
                .clone_from(&view.seen.cluster.metadata.uid);
        }
        enter(view, &mut status, admission.phase, admission.message);
        return status;
    };
    let began = own.map(|operation| &operation.started_at);
    let limit = restore.spec.timeout.as_ref();
    let limit = limit.and_then(|span| span.duration().ok());
    let limit = limit.map_or(LIMIT_SECONDS, |limit| limit.as_secs());
    let late = began.is_some_and(|at| seconds_between(at, view.now()) > limit);
    let (phase, message) = match under_way {
        Progress::Done(state) => {
            note(&mut status, state);
            (RestorePhase::Succeeded, succeeded(&status))
        }
        Progress::Failed(state) => {
            let why = state.message.trim_end_matches('.');
            let text = format!("{why}. The database is unchanged");
            (RestorePhase::Failed, text)
        }
        Progress::Unknown(text) => (RestorePhase::Failed, text),
        Progress::Running(_) | Progress::Unsent | Progress::NoLeader if late => (
            RestorePhase::Failed,
            format!(
                "not done within {limit} s (spec.timeout). The leader may still finish it: kubectl rqlite archive list shows what it does"
            ),
        ),
        Progress::Running(text) => (RestorePhase::Restoring, text),
        Progress::Unsent => (
            RestorePhase::Restoring,
            "the restore is being requested from the leader".to_owned(),
        ),
        Progress::NoLeader => (
            RestorePhase::Restoring,
            "there is no leader now: the state of the restore is known again once there is one"
                .to_owned(),
        ),
    };
    enter(view, &mut status, phase, message);
    status
}

/// Copies the leader's report about the point into the status.
fn note(status: &mut RqliteRestoreStatus, state: &RestoreState) {
    let number = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
    status.index = number(state.index).or(status.index);
    status.lineage = state.lineage.clone().or(status.lineage.take());
    let time = state.time.clone().map(Moment);
    status.time = time.or(status.time.take());
    status.undone_entries = number(state.undone_entries).or(status.undone_entries);
    status.undone_seconds = number(state.undone_seconds).or(status.undone_seconds);
    status.safety_index = number(state.safety_index).or(status.safety_index);
    status.restored_at_index = number(state.restored_at_index).or(status.restored_at_index);
}

fn enter(
    view: &View<'_>,
    status: &mut RqliteRestoreStatus,
    phase: RestorePhase,
    message: impl Into<String>,
) {
    status.message = Some(message.into());
    if status.phase == Some(phase) {
        return;
    }
    status.phase = Some(phase);
    if phase.is_final() {
        status.completed_at = Some(view.now().clone());
    }
    let again = status.steps.iter().any(|step| step.phase == phase);
    if !again && status.steps.len() < MAX_STEPS {
        status.steps.push(RestoreStep {
            phase,
            at: view.now().clone(),
        });
    }
}

fn complete(view: &View<'_>, restore: &RqliteRestore, status: &mut RqliteRestoreStatus) {
    let phase = status.phase.unwrap_or_default();
    let done = if phase.is_final() { "True" } else { "False" };
    let old = status.conditions.iter().find(|c| c.type_ == COMPLETE);
    let since = old
        .filter(|c| c.status == done)
        .map_or_else(|| view.now().clone(), |c| c.last_transition_time.clone());
    let condition = Condition {
        type_: COMPLETE.to_owned(),
        status: done.to_owned(),
        reason: format!("{phase:?}"),
        message: status.message.clone().unwrap_or_default(),
        last_transition_time: since,
        observed_generation: restore.metadata.generation,
    };
    status.conditions.retain(|c| c.type_ != COMPLETE);
    status.conditions.push(condition);
}
