//! Lost disks, and people who recover a cluster. Checks the rules that a recovery must not break.
use node_contract::{FormingPhase, PlanFile};
use operator_api::{
    RqliteRecovery, RqliteRecoverySpec,
    cluster::ReadReplicas,
    names,
    recovery::RecoveryPhase,
    status::{OperationType, Role},
};
use rand::{Rng, rngs::StdRng, seq::IteratorRandom};
use rqlite_operator::cluster::facts::view::quorum;

use crate::{
    kubernetes::stop,
    world::{Disk, EndedLineage, NAME, Voter, World},
};

/// A survivor has rewritten its membership: from now on its lineage is the valid one.
pub(crate) fn begin_lineage(world: &mut World, plan: &PlanFile, config: Vec<Voter>, log: u64) {
    let of_plan = |r: &&RqliteRecovery| r.metadata.uid.as_ref() == Some(&plan.plan_id);
    let spec = world
        .recoveries
        .iter()
        .find(of_plan)
        .map(|r| r.spec.clone());
    let left = world.committed.saturating_sub(log);
    world.note(|| format!("  a new lineage from {} without {left} entries", plan.seed));
    let consent = spec.as_ref().is_some_and(|s| s.accept_data_loss);
    if left > 0 && !consent {
        world.violation = Some(format!(
            "{left} acknowledged entries are lost without consent"
        ));
    }
    if left > 0 && world.promised_lossless.contains(&plan.plan_id) {
        world.violation = Some(format!(
            "{left} acknowledged entries are lost although it was said that none can be"
        ));
    }
    let ended = EndedLineage {
        lineage: plan.from_lineage.clone(),
        config: std::mem::replace(&mut world.config, config),
    };
    world.ended.push(ended);
    world.lost_entries += left;
    world.recovered += 1;
    world.committed = log;
    world.config_index = log;
    world.lineage = Some(plan.to_lineage.clone());
    world.leader = None;
    world.term += 1;
}

/// The members of an ended lineage must never have a quorum of it again.
///
/// # Errors
/// They have one.
pub(crate) fn check_ended(world: &World) -> Result<(), String> {
    if let Some(violation) = &world.violation {
        return Err(violation.clone());
    }
    for ended in &world.ended {
        let voters: Vec<&Voter> = ended.config.iter().filter(|m| m.voter).collect();
        let up = voters.iter().filter(|m| {
            let same = |disk: &Disk| {
                disk.raft_id.as_ref() == Some(&m.raft_id)
                    && disk.lineage.as_ref() == Some(&ended.lineage)
            };
            world.is_up(&m.name) && world.disk(&m.name).is_some_and(same)
        });
        if up.count() >= quorum(voters.len()) {
            return Err(format!("two lineages can acknowledge writes: {ended:?}"));
        }
    }
    Ok(())
}

/// The operator stops all nodes for a recovery: this is wrong if a quorum has its data, unless a person gave
/// members up.
///
/// # Errors
/// A quorum has its data.
pub(crate) fn check_fence(world: &World) -> Result<(), String> {
    let status = world.cluster.status.clone().unwrap_or_default();
    let recovers = status.operation.as_ref().map(|o| o.kind) == Some(OperationType::Recover);
    let Some(record) = status.recovery.filter(|_| recovers) else {
        return Ok(());
    };
    let of_record = |r: &&RqliteRecovery| r.metadata.uid.as_ref() == Some(&record.uid);
    let spec = world.recoveries.iter().find(of_record).map(|r| &r.spec);
    let given_up = spec.is_some_and(|s| !s.ignore_members.is_empty());
    if !given_up && world.intact_voters() >= quorum(world.voters()) {
        return Err("all are stopped for a recovery although a quorum has its disks".to_owned());
    }
    Ok(())
}

/// Does the status record the present configuration? A change that was committed unobserved before the quorum
/// was lost is a known limit: see Limits in `src/cluster/deciders/recovery/DESIGN.md`.
fn is_confirmed(world: &World) -> bool {
    let members = world.cluster.status.iter().flat_map(|s| &s.members);
    let known = members.filter(|m| matches!(m.role, Role::Leader | Role::Voter));
    let mut known: Vec<_> = known.filter_map(|m| m.raft_id.as_ref()).collect();
    let voters = world.config.iter().filter(|m| m.voter);
    let mut voters: Vec<_> = voters.map(|m| &m.raft_id).collect();
    known.sort();
    voters.sort();
    known == voters
}

/// With some probability, a disk is lost in one of four ways.
pub(crate) fn lose_a_disk(world: &mut World, rng: &mut StdRng) {
    // Until the state file says that the cluster has formed, nodes that all lose their disks form a new
    // cluster.
    let formed = world.state.as_ref();
    let formed = formed.is_some_and(|s| s.phase != FormingPhase::Forming);
    if !formed || world.disk_budget == 0 || !is_confirmed(world) {
        return;
    }
    let Some(name) = world.pods.keys().choose(rng).cloned() else {
        return;
    };
    let Some(claim) = world.claims.get_mut(&names::claim(&name)) else {
        return;
    };
    if claim.lost || claim.doomed || claim.disk.damaged {
        return;
    }
    let how = match rng.random_range(0..4) {
        0 => {
            claim.doomed = true;
            "its claim is deleted"
        }
        1 => {
            claim.disk = Disk::default();
            "its directory is emptied"
        }
        2 => {
            claim.lost = true;
            "its machine is gone"
        }
        _ => {
            claim.disk.damaged = true;
            "its data is damaged"
        }
    };
    world.disk_budget -= 1;
    world.lost_disks += 1;
    world.note(|| format!("! {name} loses its disk: {how}"));
    stop(world, rng, &name);
}

/// Somebody creates a recovery.
pub(crate) fn create_recovery(world: &mut World, change: impl FnOnce(&mut RqliteRecoverySpec)) {
    let name = world.fresh("recovery");
    let mut spec = RqliteRecoverySpec::new(NAME, "the model");
    change(&mut spec);
    create(world, RqliteRecovery::new(&name, spec));
}

/// Creates the object, unless one of this name exists.
pub(crate) fn create(world: &mut World, mut recovery: RqliteRecovery) {
    let name = recovery.metadata.name.clone();
    if world.recoveries.iter().any(|r| r.metadata.name == name) {
        return;
    }
    recovery.metadata.uid = Some(world.fresh("uid"));
    recovery.metadata.generation = Some(1);
    recovery.metadata.creation_timestamp = Some(world.time(world.now));
    world.note(|| format!("! {name:?} is created: {:?}", recovery.spec));
    world.recoveries.push(recovery);
}

/// Somebody creates a random recovery, also if there is nothing to recover.
pub(crate) fn create_random(world: &mut World, rng: &mut StdRng) {
    if world.disk_budget == 0 {
        return;
    }
    let members: Vec<String> = world.pods.keys().cloned().collect();
    let some = members.iter().filter(|_| rng.random_bool(0.3)).cloned();
    let ignored: Vec<String> = some.collect();
    let survivor = members.iter().choose(rng).cloned();
    let (named, gives_up) = (rng.random_bool(0.2), rng.random_bool(0.3));
    let (consent, dry) = (rng.random_bool(0.5), rng.random_bool(0.2));
    create_recovery(world, |spec| {
        spec.accept_data_loss = consent;
        spec.dry_run = dry;
        if named {
            spec.survivor = survivor;
        }
        if gives_up {
            spec.ignore_members = ignored;
            spec.ignore_members
                .retain(|m| Some(m) != spec.survivor.as_ref());
        }
    });
}

/// After the faults, a careful person reads the status and gives consent.
pub(crate) fn give_consent(world: &mut World) {
    let cluster = world.cluster.status.clone().unwrap_or_default();
    if cluster.operation.as_ref().map(|o| o.kind) == Some(OperationType::Recover) {
        return;
    }
    let open = world.recoveries.iter().rev().find(|r| {
        let phase = r.status.as_ref().and_then(|s| s.phase);
        let phase = phase.unwrap_or(RecoveryPhase::Pending);
        // A quorum may be lost again while the others rejoin.
        !phase.is_final() && phase != RecoveryPhase::Rejoining && !r.spec.dry_run
    });
    let status = open.and_then(|r| r.status.clone()).unwrap_or_default();
    match status.phase {
        Some(RecoveryPhase::AwaitingApproval) => {
            let usable = status.candidates.iter().filter(|c| c.reason.is_none());
            let readers = names::readers(NAME);
            let best = usable.max_by_key(|c| {
                let voter = names::ordinal(&readers, &c.member).is_none();
                (voter, c.last_log)
            });
            let survivor = best.map(|c| c.member.clone());
            create_recovery(world, |spec| {
                spec.accept_data_loss = true;
                spec.survivor = survivor;
            });
        }
        Some(RecoveryPhase::Inspecting) => {
            let message = status.message.unwrap_or_default();
            if message.contains("set readReplicas.replicas") {
                world.cluster.spec.read_replicas = Some(ReadReplicas {
                    replicas: Some(2),
                    ..ReadReplicas::default()
                });
                *world.cluster.metadata.generation.get_or_insert(0) += 1;
                world.note(|| "! read replicas 2, as the status says".to_owned());
            }
            // An unknown voter never answers the operator: without the person's word nothing goes on.
            let unknown = cluster.unknown_members.iter().map(|m| m.name.clone());
            let unknown: Vec<String> = unknown.filter(|name| message.contains(name)).collect();
            if message.contains("ignoreMembers") && !unknown.is_empty() {
                create_recovery(world, |spec| {
                    spec.accept_data_loss = true;
                    spec.ignore_members = unknown;
                });
            }
        }
        _ if open.is_none() && cluster.is(operator_api::status::QUORUM_LOST) => {
            create_recovery(world, |spec| spec.accept_data_loss = true);
        }
        _ => {}
    }
}
