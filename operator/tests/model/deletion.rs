//! Deleted clusters: by an ordinary cascade and in the foreground, protected and not, at any moment of any
//! operation; and the garbage collector.
use operator_api::{
    cluster::{Deletion, Retention},
    names,
    status::Pool,
};
use rand::{Rng, rngs::StdRng};
use rqlite_operator::cluster::{Action, Plan};

use crate::{
    kubernetes::{set_name, stop},
    world::World,
};

/// Finalizer of a deletion in the foreground: the garbage collector deletes the dependents first.
const FOREGROUND: &str = "foregroundDeletion";

/// What is known of the cluster's deletion.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    /// Disks that held data when it began and were not deleted with it, by uid of their claim.
    disks: Vec<String>,
    /// Did the object have the operator's finalizer and protection then?
    protected: bool,
}

fn finalizers(world: &mut World) -> &mut Vec<String> {
    let metadata = &mut world.cluster.metadata;
    metadata.finalizers.get_or_insert_default()
}

fn has(world: &World, name: &str) -> bool {
    let metadata = &world.cluster.metadata;
    let all = metadata.finalizers.as_deref().unwrap_or_default();
    all.iter().any(|f| f == name)
}

pub(crate) fn is_deleting(world: &World) -> bool {
    world.cluster.metadata.deletion_timestamp.is_some()
}

/// Is the object protected by its spec and by the operator's finalizer?
fn is_protected(world: &World) -> bool {
    world.cluster.spec.deletion_protection && has(world, names::FINALIZER)
}

/// Is the cluster deleted, and nothing keeps it?
pub(crate) fn ends(world: &World) -> bool {
    is_deleting(world) && !is_protected(world)
}

/// Somebody deletes the cluster.
pub(crate) fn ask(world: &mut World, rng: &mut StdRng) {
    if is_deleting(world) {
        return;
    }
    world.cluster.metadata.deletion_timestamp = Some(world.time(world.now));
    let foreground = rng.random_bool(0.6);
    if foreground {
        finalizers(world).push(FOREGROUND.to_owned());
    }
    world.ending = Ending {
        disks: data(world),
        protected: is_protected(world),
    };
    *world.cluster.metadata.generation.get_or_insert(0) += 1;
    let protected = world.ending.protected;
    world.deleted += 1;
    world.note(|| format!("! deleted, in the foreground {foreground}, protected {protected}"));
}

fn data(world: &World) -> Vec<String> {
    let claims = world.claims.values();
    let full = claims.filter(|claim| !claim.lost && !claim.doomed && claim.disk.log > 0);
    full.map(|claim| claim.uid.clone()).collect()
}

/// What a person changes about deletion.
pub(crate) fn edit(world: &mut World, rng: &mut StdRng) -> String {
    let spec = &mut world.cluster.spec;
    if rng.random_bool(0.7) {
        spec.deletion_protection = rng.random_bool(0.5);
        return format!("protection {}", spec.deletion_protection);
    }
    let deletes = rng.random_bool(0.5).then_some(Deletion::Delete);
    let before = spec.storage.retention.take().unwrap_or_default();
    spec.storage.retention = Some(Retention {
        when_deleted: deletes,
        ..before
    });
    format!("claims when deleted {deletes:?}")
}

/// The finalizers of a plan are written before anything else.
pub(crate) fn write_finalizers(world: &mut World, plan: &Plan) {
    let all = finalizers(world);
    all.retain(|name| !plan.drop_finalizers.contains(&name.as_str()));
    match plan.finalizer {
        Some(true) if !all.iter().any(|f| f == names::FINALIZER) => {
            all.push(names::FINALIZER.to_owned());
        }
        Some(false) => all.retain(|f| f != names::FINALIZER),
        _ => {}
    }
}

/// One second of the garbage collector: in the foreground it deletes the dependents, and gives the object
/// free when none is left.
pub(crate) fn collect(world: &mut World, rng: &mut StdRng) {
    if !is_deleting(world) || !has(world, FOREGROUND) || rng.random_bool(0.5) {
        return;
    }
    let next = world.sets.keys().next().copied();
    match next {
        Some(pool) => remove_set(world, rng, pool),
        None if world.pods.is_empty() => finalizers(world).retain(|f| f != FOREGROUND),
        None => {}
    }
}

/// A StatefulSet is deleted with its pods.
pub(crate) fn remove_set(world: &mut World, rng: &mut StdRng, pool: Pool) {
    world.sets.remove(&pool);
    let own = set_name(pool);
    let pods: Vec<String> = world
        .pods
        .keys()
        .filter(|pod| names::ordinal(&own, pod).is_some())
        .cloned()
        .collect();
    for pod in pods {
        stop(world, rng, &pod);
    }
    world.note(|| format!("{own} is deleted with its pods"));
}

/// The operator gives the object free.
///
/// # Errors
/// It is not deleted, or protected.
pub(crate) fn release(world: &mut World) -> Result<(), String> {
    if !is_deleting(world) {
        return Err("the finalizer is removed of a cluster that nobody deleted".to_owned());
    }
    if is_protected(world) {
        return Err("a protected cluster is given free".to_owned());
    }
    finalizers(world).retain(|f| f != names::FINALIZER);
    Ok(())
}

/// May this claim be deleted now, with its cluster? Checked when the request is sent: one that is under way
/// takes effect whatever changes meanwhile.
///
/// # Errors
/// The spec keeps the claims, or a pod uses it.
pub(crate) fn check_claim(world: &World, name: &str) -> Result<(), String> {
    let retention = world.cluster.spec.storage.retention.clone();
    let deletes = retention.and_then(|r| r.when_deleted) == Some(Deletion::Delete);
    let used = world.pods.keys().any(|pod| names::claim(pod) == *name);
    if !deletes || used {
        return Err(format!(
            "{name} is deleted: the spec deletes {deletes}, in use {used}"
        ));
    }
    Ok(())
}

/// A claim is deleted with its cluster, as the spec said when that was decided.
pub(crate) fn delete_claim(world: &mut World, uid: &str) {
    world.claims.retain(|_, claim| claim.uid != uid);
    world.ending.disks.retain(|disk| disk != uid);
}

/// Rules for a plan of a cluster that ends.
///
/// # Errors
/// The rule that was broken.
pub(crate) fn check(world: &World, plan: &Plan) -> Result<(), String> {
    if !ends(world) {
        return Ok(());
    }
    if !plan.objects.is_empty() {
        return Err("objects of a cluster that ends are created".to_owned());
    }
    match &plan.action {
        None
        | Some(
            Action::DeleteStatefulSet { .. }
            | Action::DeletePod { .. }
            | Action::DeleteClaim { .. }
            | Action::ReleaseFinalizer,
        ) => Ok(()),
        Some(other) => Err(format!("{other:?} for a cluster that ends")),
    }
}

/// Is the object gone? Then its data is there, unless its spec said otherwise.
///
/// # Errors
/// It was protected, or data is gone that was to stay.
pub(crate) fn is_gone(world: &World) -> Result<bool, String> {
    let metadata = &world.cluster.metadata;
    if !is_deleting(world) || metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty()) {
        return Ok(false);
    }
    if world.ending.protected && world.cluster.spec.deletion_protection {
        return Err("a protected cluster is gone".to_owned());
    }
    let spec = &world.cluster.spec;
    let retention = spec.storage.retention.clone().unwrap_or_default();
    let scales = retention.when_scaled == Some(Deletion::Delete);
    let there = data(world);
    let lost_by_faults = world.lost_disks > 0;
    let missing: Vec<_> = world
        .ending
        .disks
        .iter()
        .filter(|uid| !there.contains(uid))
        .collect();
    if !scales && !lost_by_faults && !missing.is_empty() {
        return Err(format!(
            "data is gone with a cluster that keeps it: {missing:?}"
        ));
    }
    Ok(true)
}
