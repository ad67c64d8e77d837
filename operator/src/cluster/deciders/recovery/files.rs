//! The plan file that `rqlited prepare` follows, from the recovery that the status records.
use node_contract::{Others, Peer, PlanFile, SeedExpectation};
use operator_api::recovery::{RecoveryMode, RecoveryPhase, RecoveryRecord};

use crate::cluster::facts::{addresses::raft_address, view::View};

/// The plan that pods should see: from step Apply of a recovery until the next recovery, so that data that
/// appears late is parked.
pub fn plan(view: &View<'_>) -> Option<PlanFile> {
    let record = view.status.recovery.as_ref()?;
    let out = view.recovering().is_some()
        || matches!(
            record.phase,
            RecoveryPhase::Rejoining | RecoveryPhase::Succeeded
        );
    out.then(|| of(view, record)).flatten()
}

/// The plan of a recovery.
pub(super) fn of(view: &View<'_>, record: &RecoveryRecord) -> Option<PlanFile> {
    let peer = |name: &str, voter: bool| Peer {
        id: name.to_owned(),
        address: raft_address(view, name),
        non_voter: !voter,
    };
    let mut peers = vec![peer(&record.survivor, true)];
    peers.extend(record.peers.iter().map(|p| peer(&p.name, p.voter)));
    Some(PlanFile {
        plan_id: record.uid.clone(),
        cluster_id: view.status.cluster_id.clone()?,
        from_lineage: (&record.from).into(),
        to_lineage: (&record.to).into(),
        seed: record.survivor.clone(),
        expect: SeedExpectation {
            incarnation: record.incarnation.clone(),
            min_last_log: record.last_log.into(),
        },
        peers,
        others: match record.mode {
            RecoveryMode::SingleSurvivor => Others::Park,
            RecoveryMode::RewriteAddresses => Others::Recover,
            // No survivor to follow: remaining data is parked like that of a removed member. For a mode of a
            // newer operator nothing is decided.
            RecoveryMode::FromArchive | RecoveryMode::Other(_) => return None,
        },
    })
}
