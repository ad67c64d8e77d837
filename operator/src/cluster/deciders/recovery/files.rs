//! The plan file that `rqlited prepare` follows, from the recovery on record.
use operator_api::{
    recovery::{RecoveryMode, RecoveryPhase, RecoveryRecord},
    state::{PlanExpect, PlanOthers, PlanPeer, RecoveryPlan, StateLineage},
    status::Lineage,
};

use crate::cluster::facts::{addresses::raft_address, view::View};

/// The plan that pods should see: from step Apply of a recovery until the next recovery, so that data which
/// comes back late is parked.
pub fn plan(view: &View<'_>) -> Option<RecoveryPlan> {
    let record = view.status.recovery.as_ref()?;
    let out = view.recovering().is_some()
        || matches!(
            record.phase,
            RecoveryPhase::Rejoining | RecoveryPhase::Succeeded
        );
    out.then(|| of(view, record)).flatten()
}

/// The plan of a recovery.
pub(super) fn of(view: &View<'_>, record: &RecoveryRecord) -> Option<RecoveryPlan> {
    let peer = |name: &str, voter: bool| PlanPeer {
        id: name.to_owned(),
        address: raft_address(view, name),
        non_voter: !voter,
    };
    let mut peers = vec![peer(&record.survivor, true)];
    peers.extend(record.peers.iter().map(|p| peer(&p.name, p.voter)));
    Some(RecoveryPlan {
        plan_id: record.uid.clone(),
        cluster_id: view.status.cluster_id.clone()?,
        from_lineage: lineage(&record.from),
        to_lineage: lineage(&record.to),
        seed: record.survivor.clone(),
        expect: PlanExpect {
            incarnation: record.incarnation.clone(),
            min_last_log: record.last_log,
        },
        peers,
        others: match record.mode {
            RecoveryMode::SingleSurvivor => PlanOthers::Park,
            RecoveryMode::RewriteAddresses => PlanOthers::Recover,
        },
    })
}

fn lineage(lineage: &Lineage) -> StateLineage {
    StateLineage {
        id: lineage.id.clone(),
        epoch: lineage.epoch,
    }
}
