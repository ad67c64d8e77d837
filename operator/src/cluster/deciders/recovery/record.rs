//! The record of a recovery in the cluster's status, and its changes of phase.
use operator_api::{
    RqliteClusterStatus, RqliteRecovery,
    recovery::{RecoveryPhase, RecoveryRecord, RecoveryStep},
    status::OperationType,
};

use crate::cluster::facts::view::View;

/// Is this recovery neither admitted nor ended?
pub(super) fn is_open(view: &View<'_>, recovery: &RqliteRecovery) -> bool {
    let status = recovery.status.as_ref();
    let phase = status
        .and_then(|s| s.phase)
        .unwrap_or(RecoveryPhase::Pending);
    let admitted = view.status.recovery.as_ref();
    let admitted = admitted.is_some_and(|r| Some(&r.uid) == recovery.metadata.uid.as_ref());
    let before = matches!(
        phase,
        RecoveryPhase::Pending | RecoveryPhase::Inspecting | RecoveryPhase::AwaitingApproval
    );
    before && !admitted && recovery.metadata.deletion_timestamp.is_none()
}

/// The status and the record after a change of phase.
pub(super) fn with_phase(
    view: &View<'_>,
    record: &RecoveryRecord,
    phase: RecoveryPhase,
) -> (Box<RqliteClusterStatus>, RecoveryRecord) {
    let mut record = record.clone();
    record.phase = phase;
    record.message = None;
    record.steps.push(RecoveryStep {
        phase,
        at: view.now().clone(),
    });
    (Box::new(view.status.clone()), record)
}

/// The status after the recovery has ended.
pub(super) fn with_outcome(
    view: &View<'_>,
    record: &RecoveryRecord,
    phase: RecoveryPhase,
    message: String,
) -> Box<RqliteClusterStatus> {
    let (mut next, mut record) = with_phase(view, record, phase);
    record.message = Some(message);
    next.recovery = Some(record);
    if view.operating(OperationType::Recover).is_some() {
        next.operation = None;
    }
    next
}
