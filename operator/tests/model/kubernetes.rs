//! A StatefulSet controller (Parallel, OnDelete, claims retained) and a kubelet.
use operator_api::{names, state::FormingPhase, status::Pool};
use rand::{Rng, rngs::StdRng};

use crate::world::{Claim, Disk, Pod, World, starts};

/// The StatefulSet of a pool.
pub(crate) fn set_name(pool: Pool) -> String {
    match pool {
        Pool::Voter => names::voters(crate::world::NAME),
        Pool::Read => names::readers(crate::world::NAME),
    }
}

/// One second of Kubernetes.
pub(crate) fn tick(world: &mut World, rng: &mut StdRng) {
    let now = world.now;
    world
        .pods
        .retain(|_, pod| pod.gone_at.is_none_or(|at| at > now));
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
            // The controller is slow now and then.
            if !world.pods.contains_key(&name) && rng.random_bool(0.7) {
                create(world, rng, &name, pool);
            }
        }
    }
    prepare(world);
    let readable = world.leader.is_some();
    let config: Vec<String> = world.config.iter().map(|m| m.name.clone()).collect();
    for (name, pod) in &mut world.pods {
        let runs = pod.gone_at.is_none() && pod.runs_from <= now && starts(pod);
        if runs && readable && config.contains(name) {
            pod.ready_since.get_or_insert(now);
        } else {
            pod.ready_since = None;
        }
    }
}

/// Begins the end of a pod.
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

fn create(world: &mut World, rng: &mut StdRng, name: &str, pool: Pool) {
    let set = world.sets[&pool].clone();
    let claim = names::claim(name);
    if !world.claims.contains_key(&claim) {
        let uid = world.fresh("claim");
        let requested = set.claim_size.clone();
        let disk = Disk::default();
        let one = Claim {
            uid,
            requested,
            disk,
        };
        world.claims.insert(claim, one);
    }
    let uid = world.fresh("pod");
    let pod = Pod {
        uid,
        pool,
        hash: set.hash,
        image: set.image,
        labels: [(names::SERVING_LABEL.to_owned(), "true".to_owned())].into(),
        runs_from: world.now + rng.random_range(1..6),
        gone_at: None,
        ready_since: None,
        removed: false,
        cut_until: 0,
    };
    world.pods.insert(name.to_owned(), pod);
}

/// What `rqlited prepare` does to an empty directory.
fn prepare(world: &mut World) {
    let Some(state) = world.state.clone() else {
        return;
    };
    let starting: Vec<String> = world
        .pods
        .iter()
        .filter(|(_, pod)| pod.runs_from == world.now && starts(pod))
        .map(|(name, _)| name.clone())
        .collect();
    for name in starting {
        let fresh = world.fresh("incarnation");
        let Some(disk) = world.disk_mut(&name) else {
            continue;
        };
        if disk.raft_id.is_none() {
            disk.raft_id = Some(format!("{name}#{fresh}"));
            disk.cluster_id = Some(state.cluster_id.clone());
            disk.may_form = state.phase == FormingPhase::Forming && state.members.contains(&name);
        }
    }
}
