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

#[test]
fn claims_that_no_pod_of_the_cluster_used_are_left_and_named() {
    let mut fixture = deleted(true, false);
    let copy = crate::cluster::facts::observation::ObservedClaim {
        name: "copy-of-data-demo-0".to_owned(),
        uid: "copy".to_owned(),
        ..fixture.seen.claims[0].clone()
    };
    // Of another cluster of this name, whose claims were kept.
    let old = crate::cluster::facts::observation::ObservedClaim {
        name: "data-demo-5".to_owned(),
        uid: "old".to_owned(),
        ..copy.clone()
    };
    fixture.seen.claims.extend([copy, old]);
    // The first reconcile of an operator that records claims is that of a deleted cluster.
    fixture.seen.cluster.status.as_mut().unwrap().claims.clear();
    assert_eq!(set_deleted(fixture.action()), "demo-ro");
    (fixture.seen.readers, fixture.seen.voters) = (None, None);
    fixture.seen.pods.clear();
    for _ in 0..3 {
        let Some(Action::DeleteClaim { uid, .. }) = fixture.action() else {
            panic!("a claim of a pod stays");
        };
        assert!(uid.starts_with("claim-demo-"), "{uid}");
        fixture.seen.claims.retain(|claim| claim.uid != uid);
    }
    let last = fixture.reconcile();
    assert_eq!(last.action, Some(Action::ReleaseFinalizer));
    let event = last.event.unwrap();
    assert_eq!(event.reason, "ClaimsLeft");
    let names = "copy-of-data-demo-0, data-demo-5";
    assert!(event.message.contains(names), "{}", event.message);
}

#[test]
fn while_a_stateful_set_is_made_anew_its_pods_are_deleted_one_by_one() {
    for claims in [false, true] {
        let mut fixture = deleted(claims, false);
        fixture.seen.cluster.metadata.deletion_timestamp = None;
        fixture.seen.cluster.spec.storage.size = "20Gi".into();
        for claim in &mut fixture.seen.claims {
            claim.requested = "20Gi".to_owned();
        }
        let mut planned = (0..4).map(|_| fixture.reconcile());
        let remade = planned.find(|plan| plan.action.is_some()).unwrap();
        assert!(
            matches!(
                remade.action,
                Some(Action::DeleteStatefulSet { orphan: true, .. })
            ),
            "{:?}",
            remade.action
        );
        assert_eq!(
            remade.finalizer,
            Some(true),
            "nobody else would stop its pods"
        );
        // Now the cluster is deleted; the garbage collector has only begun.
        fixture.seen.cluster.metadata.deletion_timestamp = Some(fixture.seen.now.clone());
        fixture.seen.voters.as_mut().unwrap().deleting = true;
        for pod in &mut fixture.seen.pods {
            pod.orphaned = pod.pool == Pool::Voter;
        }
        assert_eq!(set_deleted(fixture.action()), "demo-ro");
        fixture.seen.readers = None;
        fixture.seen.pods.retain(|pod| pod.pool == Pool::Voter);
        assert_eq!(fixture.action(), None, "the StatefulSet is still there");
        fixture.seen.voters = None;
        for expected in ["demo-0", "demo-1"] {
            let Some(Action::DeletePod { name, .. }) = fixture.action() else {
                panic!("{expected} runs for ever");
            };
            assert_eq!(name, expected);
            fixture.pod(expected).deleting = true;
        }
        assert_eq!(fixture.action(), None, "they stop");
        fixture.seen.pods.clear();
        if claims {
            assert!(matches!(fixture.action(), Some(Action::DeleteClaim { .. })));
        } else {
            assert_eq!(fixture.action(), Some(Action::ReleaseFinalizer));
        }
    }
}
