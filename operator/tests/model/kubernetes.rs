//! A model of the StatefulSet controller (Parallel, OnDelete, claims retained) and of the kubelet.
use node_contract::{FormingPhase, LogPosition, PlanFile, StateFile};
use operator_api::{names, status::Pool};
use rand::{Rng, rngs::StdRng};

use crate::{
    recovery,
    world::{Claim, Disk, Pod, Voter, World, starts},
};

/// Name of the StatefulSet of a pool.
pub(crate) fn set_name(pool: Pool) -> String {
    match pool {
        Pool::Voter => names::voters(crate::world::NAME),
        Pool::Read => names::readers(crate::world::NAME),
    }
}

/// Simulates one second of Kubernetes.
pub(crate) fn tick(world: &mut World, rng: &mut StdRng) {
    let now = world.now;
    world
        .pods
        .retain(|_, pod| pod.gone_at.is_none_or(|at| at > now));
    let pods: Vec<String> = world.pods.keys().map(|name| names::claim(name)).collect();
    world
        .claims
        .retain(|name, claim| !claim.doomed || pods.contains(name));
    for pool in [Pool::Voter, Pool::Read] {
        let Some(set) = world.sets.get(&pool).cloned() else {
            continue;
        };
        let surplus: Vec<String> = world
            .pods
            .iter()
            .filter(|(name, pod)| {
                let ordinal = names::ordinal(&set_name(pool), name);
                pod.pool == pool && ordinal.is_some_and(|o| o >= set.replicas)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in surplus {
            stop(world, rng, &name);
        }
        for ordinal in 0..set.replicas {
            let name = names::pod(&set_name(pool), ordinal);
            // The controller is sometimes slow.
            if !world.pods.contains_key(&name) && rng.random_bool(0.7) {
                create(world, rng, &name, pool);
            } else if world.pods.contains_key(&name) {
                // A pod that waits for a claim gets one.
                claim_for(world, &name, pool);
            }
        }
    }
    prepare(world, rng);
    let readable = world.leader.is_some();
    let config: Vec<String> = world.config.iter().map(|m| m.name.clone()).collect();
    let up: Vec<String> = world
        .pods
        .keys()
        .filter(|n| world.is_up(n))
        .cloned()
        .collect();
    for (name, pod) in &mut world.pods {
        if up.contains(name) && readable && config.contains(name) {
            pod.ready_since.get_or_insert(now);
        } else {
            pod.ready_since = None;
        }
    }
}

/// Begins to stop a pod.
pub(crate) fn stop(world: &mut World, rng: &mut StdRng, name: &str) {
    let at = world.now + rng.random_range(1..4);
    let leads = world.leader.as_deref() == Some(name);
    if let Some(pod) = world.pods.get_mut(name) {
        pod.gone_at.get_or_insert(at);
    }
    if leads {
        world.leader = None;
    }
}

fn claim_for(world: &mut World, name: &str, pool: Pool) {
    let claim = names::claim(name);
    if !world.claims.contains_key(&claim) {
        let one = Claim {
            uid: world.fresh("claim"),
            requested: world.sets[&pool].claim_size.clone(),
            disk: Disk::default(),
            doomed: false,
            lost: false,
        };
        world.claims.insert(claim, one);
    }
}

fn create(world: &mut World, rng: &mut StdRng, name: &str, pool: Pool) {
    if world
        .claims
        .get(&names::claim(name))
        .is_some_and(|c| c.doomed)
    {
        return;
    }
    claim_for(world, name, pool);
    let used = world.claims[&names::claim(name)].uid.clone();
    world.others_claims.remove(&used);
    let set = world.sets[&pool].clone();
    let uid = world.fresh("pod");
    let pod = Pod {
        uid,
        pool,
        hash: set.hash,
        image: set.image,
        tls: set.tls,
        labels: [(names::SERVING_LABEL.to_owned(), "true".to_owned())].into(),
        runs_from: world.now + rng.random_range(1..6),
        gone_at: None,
        ready_since: None,
        removed: false,
        cut_until: 0,
        files: (world.state.clone(), world.plan.clone()),
        held: true,
        report: None,
    };
    world.pods.insert(name.to_owned(), pod);
}

/// Simulates `rqlited prepare`: once when a pod starts, and repeatedly while it holds or has failed.
fn prepare(world: &mut World, rng: &mut StdRng) {
    let looking: Vec<String> = world
        .pods
        .iter()
        .filter(|(_, pod)| pod.gone_at.is_none() && starts(pod))
        .filter(|(_, pod)| {
            let waits = pod.held || pod.report.is_some();
            pod.runs_from == world.now || (waits && pod.runs_from < world.now)
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in looking {
        let first = world.pods[&name].runs_from == world.now;
        if !first && rng.random_bool(0.7) {
            continue;
        }
        // A kubelet may still show the files of the time when the pod was created.
        let newest = (world.state.clone(), world.plan.clone());
        let pod = world.pods.get_mut(&name).unwrap();
        if rng.random_bool(0.7) {
            pod.files = newest;
        }
        let (state, plan) = pod.files.clone();
        let verdict = match state {
            Some(state) => prepare_one(world, &name, &state, plan.as_ref()),
            None => Err("Held"),
        };
        let pod = world.pods.get_mut(&name).unwrap();
        pod.held = verdict == Err("Held");
        pod.report = verdict.err().filter(|v| *v != "Held");
    }
}

/// What `rqlited prepare` decides and does. The error is the state in its report.
fn prepare_one(
    world: &mut World,
    name: &str,
    state: &StateFile,
    plan: Option<&PlanFile>,
) -> Result<(), &'static str> {
    let fresh = world.fresh("incarnation");
    let born = |parked| Disk {
        raft_id: Some(format!("{name}#{fresh}")),
        cluster_id: Some(state.cluster_id.clone()),
        lineage: Some(state.lineage.clone()),
        parked,
        ..Disk::default()
    };
    let Some(claim) = world.claims.get_mut(&names::claim(name)) else {
        return Err("Held");
    };
    if claim.lost {
        return Err("Held");
    }
    let disk = &mut claim.disk;
    if let Some(token) = state.park.get(name)
        && state.phase != FormingPhase::Recovering
        && !disk.parked.contains(token)
    {
        let mut parked = disk.parked.clone();
        parked.insert(token.clone());
        *disk = born(parked);
        return Ok(());
    }
    if disk.damaged {
        return Err("Damaged");
    }
    if state.phase == FormingPhase::Recovering {
        let Some(plan) = plan.filter(|plan| plan.seed == name) else {
            return Err("Held");
        };
        return follow(world, name, plan, &fresh);
    }
    let empty = disk.raft_id.is_none() || (disk.log == 0 && disk.config.is_empty());
    if disk.raft_id.is_none() {
        *disk = born(disk.parked.clone());
    }
    if empty {
        disk.lineage = Some(state.lineage.clone());
        disk.may_form =
            state.phase == FormingPhase::Forming && state.members.iter().any(|m| m == name);
        return Ok(());
    }
    let lineage = disk.lineage.clone().unwrap();
    if lineage == state.lineage {
        return Ok(());
    }
    if lineage.epoch >= state.lineage.epoch {
        return Err("UnknownLineage");
    }
    if plan.is_some_and(|plan| plan.to_lineage == state.lineage && plan.seed != name) {
        *disk = born(disk.parked.clone());
        return Ok(());
    }
    Err("StaleLineage")
}

/// The survivor rewrites its membership.
fn follow(world: &mut World, name: &str, plan: &PlanFile, fresh: &str) -> Result<(), &'static str> {
    let claim = world.claims.get_mut(&names::claim(name)).unwrap();
    let disk = &mut claim.disk;
    if disk.plan_done.as_ref() == Some(&plan.plan_id) {
        return Ok(());
    }
    let raft_id = disk.raft_id.clone().unwrap_or_default();
    let (_, incarnation) = raft_id.split_once('#').unwrap_or_default();
    let has = LogPosition {
        term: disk.log_term,
        index: disk.log,
    };
    if disk.lineage.as_ref() != Some(&plan.from_lineage)
        || incarnation != plan.expect.incarnation
        || has < plan.expect.min_last_log
    {
        return Err("Refused");
    }
    assert_eq!(plan.peers.len(), 1, "the data of the others is parked");
    let raft_id = format!("{name}#{fresh}");
    let config = vec![Voter {
        raft_id: raft_id.clone(),
        name: name.to_owned(),
        voter: true,
    }];
    disk.raft_id = Some(raft_id);
    disk.lineage = Some(plan.to_lineage.clone());
    disk.plan_done = Some(plan.plan_id.clone());
    disk.config.clone_from(&config);
    let log = disk.log;
    disk.config_index = log;
    recovery::begin_lineage(world, plan, config, log);
    Ok(())
}
