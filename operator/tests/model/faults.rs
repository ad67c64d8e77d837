//! Faults, and changes by users.
use operator_api::{
    ByteSize, RqliteClusterSpec,
    cluster::{Image, OnStall, UpdateStrategy},
    names,
    status::{Pool, READY, UPDATE_ROLLED_BACK},
};
use rand::{Rng, rngs::StdRng, seq::IteratorRandom};

use crate::{
    deletion,
    kubernetes::{set_name, stop},
    others, raft, recovery,
    world::{Voter, World, nodes_tls},
};

/// With some probability, something happens in this second.
pub(crate) fn inject(world: &mut World, rng: &mut StdRng) {
    if !rng.random_bool(0.12) {
        return;
    }
    match rng.random_range(0..20) {
        0..=1 => {
            let Some(name) = world.pods.keys().choose(rng).cloned() else {
                return;
            };
            world.note(|| format!("! {name} is deleted"));
            stop(world, rng, &name);
        }
        2..=4 => {
            let until = world.now + rng.random_range(1..90);
            if let Some((name, pod)) = world.pods.iter_mut().choose(rng) {
                // A node that restarts rejoins, even if it was removed.
                (pod.runs_from, pod.removed) = (until, false);
                let name = name.clone();
                if world.leader.as_ref() == Some(&name) {
                    world.leader = None;
                }
                world.note(|| format!("! {name} is down until {until}"));
            }
        }
        5 => {
            let until = world.now + rng.random_range(1..60);
            for pod in world.pods.values_mut().filter(|_| rng.random_bool(0.7)) {
                pod.cut_until = until;
            }
            world.note(|| "! the operator is cut off".to_owned());
        }
        6 => world.operator_down_until = world.now + rng.random_range(1..60),
        7 => world.leader = None,
        8..=13 => edit(world, rng),
        14..=15 => recovery::lose_a_disk(world, rng),
        16 if rng.random_bool(0.3) => recovery::create_random(world, rng),
        17 => join_unknown(world, rng),
        18 => others::appear(world, rng),
        19 if rng.random_bool(0.15) => deletion::ask(world, rng),
        _ => {}
    }
}

/// Somebody joins a node that is no pod of the cluster; it gets a vote, and is never heard of again. Where
/// disks are lost as well, only a person could bring the quorum back.
fn join_unknown(world: &mut World, rng: &mut StdRng) {
    if world.leader.is_none() || world.disk_budget > 0 || world.lost_disks > 0 {
        return;
    }
    let name = world.fresh("rogue");
    let mut next = world.config.clone();
    next.push(Voter {
        raft_id: format!("{name}#1"),
        name: name.clone(),
        voter: rng.random_bool(0.8),
    });
    if raft::change(world, rng, next) {
        world.unknown += 1;
        world.note(|| format!("! {name} has joined"));
    }
}

/// How updates are carried out from now on.
fn update_rules(spec: &mut RqliteClusterSpec, rng: &mut StdRng) -> String {
    let update = spec.update.get_or_insert_default();
    update.strategy = rng.random_bool(0.5).then_some(UpdateStrategy::Manual);
    update.on_stall = rng.random_bool(0.5).then_some(OnStall::RollBack);
    update.progress_deadline = "60s".into();
    format!("update {update:?}")
}

/// Somebody rewrites the template of the voters' StatefulSet. New pods are made of it until it is reverted.
fn rewrite(world: &mut World) -> String {
    let template = world.fresh("rewritten");
    if let Some(set) = world.sets.get_mut(&Pool::Voter) {
        set.hash.clone_from(&template);
        set.version += 1;
    }
    template
}

fn edit(world: &mut World, rng: &mut StdRng) {
    if world.moves && rng.random_bool(0.4) {
        let on = rng.random_bool(0.5);
        world.cluster.spec.tls = Some(nodes_tls(on));
        *world.cluster.metadata.generation.get_or_insert(0) += 1;
        world.note(|| format!("! TLS between nodes {on}"));
        return;
    }
    let which = rng.random_range(0..12);
    let spec = &mut world.cluster.spec;
    let text = match which {
        0..=2 => {
            spec.replicas = rng.random_range(1..=5);
            format!("replicas {}", spec.replicas)
        }
        3 => {
            let tag = ["2", "3", "bad"][rng.random_range(0..3)];
            spec.image = Some(Image {
                tag: Some(tag.to_owned()),
                ..Image::default()
            });
            format!("image {tag}")
        }
        4 => {
            spec.hibernated = rng.random_bool(0.5);
            format!("hibernated {}", spec.hibernated)
        }
        5 => {
            let now = world.now.to_string();
            let annotations = world.cluster.metadata.annotations.get_or_insert_default();
            annotations.insert(names::RESTARTED_AT_ANNOTATION.to_owned(), now);
            "restart".to_owned()
        }
        6 => {
            if spec.storage.size.0 == "10Gi" {
                spec.storage.size = ByteSize::from("20Gi");
            }
            "volumes 20Gi".to_owned()
        }
        7 => {
            if rng.random_bool(0.1) {
                spec.read_replicas = None;
            } else if let Some(readers) = &mut spec.read_replicas {
                readers.replicas = Some(rng.random_range(0..=2));
            }
            "read replicas".to_owned()
        }
        8 => deletion::edit(world, rng),
        9 => update_rules(spec, rng),
        10 => rewrite(world),
        _ => {
            // Somebody changes the StatefulSet's replicas by hand. Lowering it removes pods before the
            // operator can prevent it; they come back.
            let pool = if rng.random_bool(0.8) {
                Pool::Voter
            } else {
                Pool::Read
            };
            let by = rng.random_range(-2..=2);
            if let Some(set) = world.sets.get_mut(&pool) {
                set.replicas = (set.replicas + by).clamp(1, 7);
                set.version += 1;
            }
            format!("{} changed by hand by {by}", set_name(pool))
        }
    };
    *world.cluster.metadata.generation.get_or_insert(0) += 1;
    world.note(|| format!("! {text}"));
}

/// A person corrects the image of an update that was rolled back. A restart would keep the former template.
pub(crate) fn update_again(world: &mut World) {
    let status = world.cluster.status.as_ref();
    let ready = status.and_then(|status| status.condition(READY));
    if ready.is_none_or(|ready| ready.reason != UPDATE_ROLLED_BACK) {
        return;
    }
    world.cluster.spec.image = Some(Image {
        tag: Some(world.fresh("corrected")),
        ..Image::default()
    });
    *world.cluster.metadata.generation.get_or_insert(0) += 1;
    world.note(|| "! the image is corrected".to_owned());
}

/// Ends the faults, and removes a spec that cannot work.
pub(crate) fn calm(world: &mut World) {
    let spec = &mut world.cluster.spec;
    if let Some(image) = &mut spec.image
        && image.tag.as_deref() == Some("bad")
    {
        image.tag = Some("4".to_owned());
    }
    if let Some(update) = &mut spec.update {
        update.strategy = None;
    }
    world.operator_down_until = 0;
    world.note(|| "calm".to_owned());
}
