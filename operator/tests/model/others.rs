//! Other people's pods and claims with the cluster's labels, and operators of other versions: none of them
//! may change what the operator does to the cluster, and none may be touched.
use operator_api::names;
use rand::{Rng, rngs::StdRng};
use rqlite_operator::cluster::{
    Action, Plan,
    facts::observation::{ObservedClaim, TakenName},
};

use crate::world::{Claim, Disk, World};

/// Default images of operators of different versions.
const DEFAULT_IMAGES: [&str; 3] = ["rqlited:1", "rqlited:2", "rqlited:3"];

/// Something of somebody else appears, or the operator is exchanged for another version.
pub(crate) fn appear(world: &mut World, rng: &mut StdRng) {
    match rng.random_range(0..4) {
        0 => {
            let stray = world.fresh("demo-0-debug");
            world.note(|| format!("! a stray pod {stray}"));
            world.strays.push(stray);
        }
        1 => {
            let copy = world.fresh("copy-of-data-demo-0");
            let uid = world.fresh("claim");
            world.note(|| format!("! another's claim {copy}"));
            world.others_claims.insert(uid.clone(), copy);
        }
        2 => {
            // It waits under the name that a voter to come will look for, and belongs to nobody until then.
            let name = names::claim(&names::pod(crate::world::NAME, rng.random_range(3..6)));
            if !world.claims.contains_key(&name) && !world.sets.is_empty() {
                let claim = Claim {
                    uid: world.fresh("claim"),
                    requested: world.cluster.spec.storage.size.0.clone(),
                    disk: Disk::default(),
                    doomed: false,
                    lost: false,
                };
                world.note(|| format!("! another's claim {name}"));
                world.others_claims.insert(claim.uid.clone(), name.clone());
                world.claims.insert(name, claim);
            }
        }
        _ => {
            let image = DEFAULT_IMAGES[rng.random_range(0..DEFAULT_IMAGES.len())];
            world.note(|| format!("! an operator whose default image is {image}"));
            image.clone_into(&mut world.default_image);
            world.operator_down_until = world.now + rng.random_range(1..20);
            world.checks.clear();
        }
    }
}

/// Other people's claims as the operator observes them: with the cluster's label.
pub(crate) fn claims(world: &World) -> impl Iterator<Item = ObservedClaim> + '_ {
    let elsewhere = world
        .others_claims
        .iter()
        .filter(|(_, name)| !world.claims.contains_key(*name));
    elsewhere.map(|(uid, name)| ObservedClaim {
        name: name.clone(),
        uid: uid.clone(),
        requested: "10Gi".to_owned(),
        capacity: Some("10Gi".to_owned()),
        class: Some("standard".to_owned()),
        resize_pending: false,
        lost: None,
        deleting: false,
    })
}

/// Somebody else's object has the name of the voters' StatefulSet when the cluster is created.
pub(crate) fn taken(world: &World) -> Vec<TakenName> {
    let taken = world.taken_until > world.now && world.sets.is_empty();
    let one = || TakenName {
        kind: "StatefulSet".to_owned(),
        name: names::voters(crate::world::NAME),
        owner: None,
        former: false,
    };
    taken.then(one).into_iter().collect()
}

/// What a plan may never do.
pub(crate) fn check(world: &World, plan: &Plan) -> Result<(), String> {
    if !taken(world).is_empty() && !plan.objects.is_empty() {
        return Err("objects are created although their name is somebody else's".to_owned());
    }
    let stray = |name: &String| world.strays.contains(name);
    if let Some(labels) = plan.labels.iter().find(|labels| stray(&labels.pod)) {
        return Err(format!("the stray pod {} is labelled", labels.pod));
    }
    match &plan.action {
        Some(Action::EvictPod { name, .. } | Action::DeletePod { name, .. }) if stray(name) => {
            return Err(format!("the stray pod {name} is deleted"));
        }
        Some(Action::DeleteClaim { name, uid } | Action::ExpandClaim { name, uid, .. })
            if world.others_claims.contains_key(uid) =>
        {
            return Err(format!("another's claim {name} is changed"));
        }
        _ => {}
    }
    let leader = plan.status.leader.as_ref();
    let members = plan.status.members.iter().map(|member| &member.name);
    if let Some(name) = leader.into_iter().chain(members).find(|name| stray(name)) {
        return Err(format!("the stray pod {name} is a member"));
    }
    check_image(world, plan)
}

/// The image changes only if the spec names another one.
fn check_image(world: &World, plan: &Plan) -> Result<(), String> {
    let before = world
        .cluster
        .status
        .as_ref()
        .and_then(|s| s.target.as_ref());
    let (Some(before), Some(after)) = (before, &plan.status.target) else {
        return Ok(());
    };
    let asked = world.cluster.spec.image.is_some();
    if before.image != after.image && !asked {
        return Err(format!(
            "the image becomes {} instead of {}, and nobody has asked for it",
            after.image, before.image
        ));
    }
    Ok(())
}
