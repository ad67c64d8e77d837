use super::*;
use crate::cluster::scene::Scene;
use operator_api::{cluster::Retention, status::Phase};

/// A cluster whose object is deleted.
fn deleted(claims: bool, protected: bool) -> Scene {
    let mut scene = Scene::running(2, 1);
    scene.seen.cluster.spec.deletion_protection = protected;
    if claims {
        scene.seen.cluster.spec.storage.retention = Some(Retention {
            when_deleted: Some(Deletion::Delete),
            ..Retention::default()
        });
    }
    let metadata = &mut scene.seen.cluster.metadata;
    metadata.deletion_timestamp = Some(scene.seen.now.clone());
    metadata.finalizers = Some(vec![names::FINALIZER.to_owned()]);
    scene
}

fn set_deleted(action: Option<Action>) -> String {
    match action {
        Some(Action::DeleteStatefulSet {
            name,
            orphan: false,
            ..
        }) => name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_needs_the_finalizer() {
    for (claims, protected, needed) in [
        (false, false, false),
        (true, false, true),
        (false, true, true),
    ] {
        let mut scene = deleted(claims, protected);
        scene.seen.cluster.metadata.deletion_timestamp = None;
        assert_eq!(scene.pass().finalizer, Some(needed), "{claims} {protected}");
    }
}

#[test]
fn volumes_stay_unless_asked_otherwise() {
    let mut scene = deleted(false, false);
    assert_eq!(scene.action(), Some(Action::ReleaseFinalizer));
}

#[test]
fn claims_go_after_the_pods_and_the_object_last() {
    let mut scene = deleted(true, false);
    assert_eq!(set_deleted(scene.action()), "demo-ro");
    scene.seen.readers.as_mut().unwrap().deleting = true;
    assert_eq!(scene.action(), None);
    scene.seen.readers = None;
    assert_eq!(set_deleted(scene.action()), "demo");
    scene.seen.voters = None;
    assert_eq!(scene.action(), None, "pods run");
    scene.seen.pods.clear();
    for left in (0..3).rev() {
        let Some(Action::DeleteClaim { name, uid }) = scene.action() else {
            panic!("{left} claims are left");
        };
        assert_eq!(format!("claim-{}", name.replace("data-", "")), uid);
        scene.seen.claims.retain(|claim| claim.uid != uid);
    }
    assert_eq!(scene.action(), Some(Action::ReleaseFinalizer));
}

#[test]
fn a_claim_that_is_still_held_is_waited_for() {
    let mut scene = deleted(true, false);
    (scene.seen.readers, scene.seen.voters) = (None, None);
    scene.seen.pods.clear();
    for claim in &mut scene.seen.claims {
        claim.deleting = true;
    }
    assert_eq!(scene.action(), None);
}

#[test]
fn a_protected_one_runs_on() {
    let mut scene = deleted(true, true);
    for _ in 0..5 {
        let plan = scene.pass();
        assert_eq!(plan.action, None);
        assert!(!plan.objects.is_empty(), "its objects are kept as they are");
    }
    assert_ne!(scene.status().phase, Some(Phase::Deleting));
    scene.seen.cluster.spec.deletion_protection = false;
    assert_eq!(set_deleted(scene.action()), "demo-ro");
    assert_eq!(scene.status().phase, Some(Phase::Deleting));
}

#[test]
fn without_the_finalizer_nothing_is_done() {
    let mut scene = deleted(true, false);
    scene.seen.cluster.metadata.finalizers = None;
    assert_eq!(scene.action(), None);
}
