//! The record of a recovery in the cluster's status, and its changes of phase.
use operator_api::{
    RqliteClusterStatus, RqliteRecovery,
    lineage::Lineage,
    recovery::{
        LogPosition, RecoveryMode, RecoveryPeer, RecoveryPhase, RecoveryRecord, RecoveryStep,
    },
    status::{OperationType, Pool, Role},
};

use super::belonging::other_cluster;
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
    before
        && !admitted
        && other_cluster(view, recovery).is_none()
        && recovery.metadata.deletion_timestamp.is_none()
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

/// The incarnation of the data directory in a Raft id, `<name>#<incarnation>`.
pub(super) fn incarnation(raft_id: &str) -> String {
    let (_, incarnation) = raft_id.rsplit_once('#').unwrap_or(("", raft_id));
    incarnation.to_owned()
}

/// The record of a recovery that is admitted.
pub(super) fn admitted(
    view: &View<'_>,
    recovery: &RqliteRecovery,
    (survivor, raft_id, last_log): (&str, &str, LogPosition),
    possibly_lost_entries: Option<i64>,
) -> RecoveryRecord {
    let uid = recovery.metadata.uid.clone().unwrap_or_default();
    let from = view.status.lineage.clone().unwrap_or_default();
    // A failed recovery may have left data of its own lineage behind: the new epoch must be higher.
    let tried = view.status.recovery.as_ref().map_or(0, |r| r.to.epoch);
    let others = view.status.members.iter();
    let others = others.filter(|m| m.role != Role::Absent && m.name != survivor);
    let rewrite = recovery.spec.mode == RecoveryMode::RewriteAddresses;
    let autoscaled = view.wanted_readers().is_none();
    RecoveryRecord {
        name: recovery.metadata.name.clone().unwrap_or_default(),
        mode: recovery.spec.mode,
        phase: RecoveryPhase::Fencing,
        survivor: survivor.to_owned(),
        incarnation: incarnation(raft_id),
        last_log,
        to: Lineage {
            id: uid.clone(),
            epoch: from.epoch.max(tried) + 1,
            since: None,
        },
        from: Lineage {
            since: None,
            ..from
        },
        peers: others
            .filter(|_| rewrite)
            .map(|m| RecoveryPeer {
                name: m.name.clone(),
                voter: m.role != Role::Learner,
            })
            .collect(),
        to_time: recovery.spec.to_time.clone(),
        to_index: recovery.spec.to_index,
        assume_stopped: recovery.spec.assume_stopped.clone(),
        read_replicas: view
            .set(Pool::Read)
            .filter(|_| autoscaled)
            .map(|set| set.replicas),
        skip_database_check: recovery.spec.skip_database_check,
        database_check_timeout: recovery.spec.database_check_timeout.clone(),
        possibly_lost_entries,
        message: None,
        steps: vec![RecoveryStep {
            phase: RecoveryPhase::Fencing,
            at: view.now().clone(),
        }],
        uid,
    }
}
