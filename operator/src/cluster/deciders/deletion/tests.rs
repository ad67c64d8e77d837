//! Tests of the deletion of a cluster.
use super::*;
use crate::cluster::fixture::Fixture;
use operator_api::{cluster::Retention, status::Phase};

/// A cluster whose object was deleted.
fn deleted(claims: bool, protected: bool) -> Fixture {
    let mut fixture = Fixture::running(2, 1);
    fixture.seen.cluster.spec.deletion_protection = protected;
    if claims {
        fixture.seen.cluster.spec.storage.retention = Some(Retention {
            when_deleted: Some(Deletion::Delete),
            ..Retention::default()
        });
    }
    let metadata = &mut fixture.seen.cluster.metadata;
    metadata.deletion_timestamp = Some(fixture.seen.now.clone());
    metadata.finalizers = Some(vec![names::FINALIZER.to_owned()]);
    fixture
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
        let mut fixture = deleted(claims, protected);
        fixture.seen.cluster.metadata.deletion_timestamp = None;
        assert_eq!(
            fixture.reconcile().finalizer,
            Some(needed),
            "{claims} {protected}"
        );
    }
}

#[test]
fn volumes_stay_unless_asked_otherwise() {
    let mut fixture = deleted(false, false);
    assert_eq!(fixture.action(), Some(Action::ReleaseFinalizer));
}

#[test]
fn claims_go_after_the_pods_and_the_object_last() {
    let mut fixture = deleted(true, false);
    assert_eq!(set_deleted(fixture.action()), "demo-ro");
    fixture.seen.readers.as_mut().unwrap().deleting = true;
    assert_eq!(fixture.action(), None);
    fixture.seen.readers = None;
    assert_eq!(set_deleted(fixture.action()), "demo");
    fixture.seen.voters = None;
    assert_eq!(fixture.action(), None, "pods run");
    fixture.seen.pods.clear();
    for left in (0..3).rev() {
        let Some(Action::DeleteClaim { name, uid }) = fixture.action() else {
            panic!("{left} claims are left");
        };
        assert_eq!(format!("claim-{}", name.replace("data-", "")), uid);
        fixture.seen.claims.retain(|claim| claim.uid != uid);
    }
    assert_eq!(fixture.action(), Some(Action::ReleaseFinalizer));
}

#[test]
fn a_claim_that_is_still_held_is_waited_for() {
    let mut fixture = deleted(true, false);
    (fixture.seen.readers, fixture.seen.voters) = (None, None);
    fixture.seen.pods.clear();
    for claim in &mut fixture.seen.claims {
        claim.deleting = true;
    }
    assert_eq!(fixture.action(), None);
}

#[test]
fn a_protected_one_runs_on() {
    let mut fixture = deleted(true, true);
    for _ in 0..5 {
        let plan = fixture.reconcile();
        assert_eq!(plan.action, None);
        assert!(!plan.objects.is_empty(), "its objects are kept as they are");
    }
    assert_ne!(fixture.status().phase, Some(Phase::Deleting));
    fixture.seen.cluster.spec.deletion_protection = false;
    assert_eq!(set_deleted(fixture.action()), "demo-ro");
    assert_eq!(fixture.status().phase, Some(Phase::Deleting));
}

#[test]
fn without_the_finalizer_nothing_is_done() {
    let mut fixture = deleted(true, false);
    fixture.seen.cluster.metadata.finalizers = None;
    assert_eq!(fixture.action(), None);
}
