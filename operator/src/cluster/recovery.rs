//! From a lost quorum back to a cluster. Before its admission a recovery only looks ([`consider`]). Afterwards the cluster's status remembers all
//! that its steps need, and it owns the cluster: everybody is stopped, the survivor alone follows the plan, is checked, and only then the new history
//! is the cluster's. The others come back as new members by the ordinary ways.
mod automatic;
mod consider;
mod files;
mod steps;
mod told;

use operator_api::{
    RqliteClusterStatus, RqliteRecovery,
    recovery::{RecoveryPhase, RecoveryRecord, RecoveryStep},
    status::{OperationType, Pool},
};

use super::{
    action::{Action, Decision, begin, finish},
    scale::resize,
    view::{View, quorum},
};

pub use automatic::{automatic, object};
pub use consider::{Considered, PATIENCE_SECONDS, consider};
pub use files::plan as plan_file;
pub use told::{Told, told};

/// The recovery under way, or the admission of the newest one that may be carried out.
pub fn decide(view: &View<'_>) -> Decision {
    if let Some(operation) = view.operating(OperationType::Recover) {
        let record = view.status.recovery.as_ref();
        return match record.filter(|record| record.uid == operation.id) {
            Some(record) => steps::advance(view, operation, record),
            None => Decision::Record(
                finish(view.status),
                "drops a recovery that nothing is known of".to_owned(),
            ),
        };
    }
    for recovery in view.seen.recoveries.iter().filter(|r| is_open(view, r)) {
        let considered = consider(view, recovery);
        if let Some(check) = considered.check {
            return Decision::Act(check, considered.message);
        }
        if let Some(record) = considered.record {
            let mut next = begin(
                view.status,
                &record.uid,
                view.now(),
                OperationType::Recover,
                Some(&record.survivor),
                None,
            );
            if recovery_is_automatic(recovery) {
                next.automatic_recoveries.push(view.now().clone());
            }
            next.recovery = Some(*record);
            return Decision::Record(next, considered.message);
        }
    }
    Decision::Pass
}

/// Has this recovery not come to an end or past its admission?
fn is_open(view: &View<'_>, recovery: &RqliteRecovery) -> bool {
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

fn recovery_is_automatic(recovery: &RqliteRecovery) -> bool {
    let labels = recovery.metadata.labels.as_ref();
    labels.is_some_and(|l| l.contains_key(operator_api::names::AUTOMATIC_LABEL))
}

/// After the new history is the cluster's: a read replica that was the survivor goes back to its place, and the end is recorded.
pub fn rejoin(view: &View<'_>) -> Decision {
    let Some(record) = view
        .status
        .recovery
        .as_ref()
        .filter(|r| r.phase == RecoveryPhase::Rejoining)
    else {
        return Decision::Pass;
    };
    let (Some(leader), Some(target)) = (view.leader, view.target()) else {
        return Decision::Pass;
    };
    if let (Some(wanted), Some(set)) = (record.read_replicas, view.set(Pool::Read))
        && set.replicas < wanted
        && view.wanted_readers().is_none()
    {
        let raise = resize(view, Pool::Read, set, wanted);
        return Decision::Act(raise, format!("brings {wanted} read replicas back"));
    }
    let there = view
        .participants()
        .into_iter()
        .filter(|name| operator_api::names::ordinal(&view.set_name(Pool::Voter), name).is_some())
        .count();
    let wanted = usize::try_from(target.replicas.min(view.spec.replicas)).unwrap_or(1);
    if there < wanted {
        return Decision::Pass;
    }
    let guest = view
        .member(&record.survivor)
        .filter(|m| m.voter)
        .filter(|_| is_reader(view, &record.survivor));
    if let Some(guest) = guest {
        // There may be voters that nobody wants any more and that do not run: they count until they are removed.
        let others = view.participants();
        let others = others.iter().filter(|name| **name != guest.name).count();
        if others < quorum(view.config_voters() - 1) {
            return Decision::Pass;
        }
        return give_back(view, leader.name, guest);
    }
    let next = ended(
        view,
        record,
        RecoveryPhase::Succeeded,
        format!("{there} voters take part; make a backup now"),
    );
    Decision::Record(next, format!("recovered from {}", record.survivor))
}

fn is_reader(view: &View<'_>, name: &str) -> bool {
    operator_api::names::ordinal(&view.set_name(Pool::Read), name).is_some()
}

/// The read replica hands over, leaves the configuration and, made anew, joins it without a vote.
fn give_back(view: &View<'_>, leader: &str, guest: &super::observation::ConfigMember) -> Decision {
    let name = &guest.name;
    if leader == name {
        let heir = view
            .participants()
            .into_iter()
            .filter(|heir| *heir != name && !is_reader(view, heir))
            .min();
        return match heir {
            Some(heir) => Decision::Act(
                Action::TransferLeader {
                    from: name.clone(),
                    to: heir.to_owned(),
                },
                format!("{name} transfers leadership to {heir}"),
            ),
            None => Decision::Pass,
        };
    }
    Decision::Act(
        Action::RemoveMember {
            leader: leader.to_owned(),
            name: name.clone(),
            raft_id: guest.raft_id.clone(),
        },
        format!("{name} votes no more and joins again as a read replica"),
    )
}

/// A status in which the recovery has reached another phase.
fn reached(
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

/// A status in which the recovery has come to an end.
fn ended(
    view: &View<'_>,
    record: &RecoveryRecord,
    phase: RecoveryPhase,
    message: String,
) -> Box<RqliteClusterStatus> {
    let (mut next, mut record) = reached(view, record, phase);
    record.message = Some(message);
    next.recovery = Some(record);
    if view.operating(OperationType::Recover).is_some() {
        next.operation = None;
    }
    next
}

#[cfg(test)]
mod tests;
