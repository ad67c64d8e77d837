//! Tests of plans that wait for a person.
use operator_api::{
    cluster::{Image, Management},
    names,
    status::{APPROVAL_PENDING, READY},
};

use crate::cluster::{action::Action, fixture::Fixture};

fn manual(voters: i32) -> Fixture {
    let mut fixture = Fixture::running(voters, 0);
    fixture.seen.cluster.spec.management = Some(Management::Manual);
    fixture.keeps_pods = true;
    fixture.later(60);
    fixture.reconcile();
    assert_eq!(fixture.status().proposed_plan, None, "nothing to do");
    assert!(fixture.condition(READY).0);
    fixture
}

fn approve(fixture: &mut Fixture, id: &str) {
    let all = fixture
        .seen
        .cluster
        .metadata
        .annotations
        .get_or_insert_default();
    all.insert(names::APPROVE_ANNOTATION.to_owned(), id.to_owned());
}

/// The id of the plan that is proposed while nothing is done.
fn proposed(fixture: &mut Fixture, part: &str) -> String {
    for _ in 0..4 {
        let plan = fixture.reconcile();
        assert_eq!(plan.action, None);
    }
    let status = fixture.status();
    assert_eq!(status.operation, None);
    let plan = status.proposed_plan.unwrap();
    assert!(plan.text.contains(part), "{plan:?}");
    let (pending, reason, text) = fixture.condition(APPROVAL_PENDING);
    assert!(pending && reason == "PlanProposed", "{reason}");
    assert!(
        text.contains(&format!("approve demo {}", plan.id)),
        "{text}"
    );
    let (ready, reason, _) = fixture.condition(READY);
    assert!(!ready && reason == "ApprovalPending", "{reason}");
    plan.id
}

fn image(fixture: &mut Fixture, tag: &str) {
    fixture.seen.cluster.spec.image = Some(Image {
        tag: Some(tag.to_owned()),
        ..Image::default()
    });
}

#[test]
fn a_roll_is_one_plan_for_all_pods() {
    let mut fixture = manual(3);
    let before = fixture.status().target.unwrap();
    image(&mut fixture, "2");
    let id = proposed(&mut fixture, "from rqlited:1 to rqlited:2");
    let now = fixture.status().target.unwrap();
    assert_eq!(
        now.template_hash, before.template_hash,
        "nothing is adopted"
    );
    approve(&mut fixture, "another");
    assert_eq!(proposed(&mut fixture, "rqlited:2"), id, "of no effect");
    approve(&mut fixture, &id);
    for name in ["demo-2", "demo-1"] {
        let action = (0..8).find_map(|_| fixture.reconcile().action);
        assert!(
            matches!(&action, Some(Action::EvictPod { name: n, .. }) if n == name),
            "{action:?}"
        );
        let hash = fixture.seen.voters.as_ref().unwrap().template_hash.clone();
        let now = fixture.seen.now.clone();
        let pod = fixture.pod(name);
        (pod.uid, pod.template_hash, pod.ready_since) = (format!("{name}+"), hash, Some(now));
        fixture.later(30);
    }
    assert!(fixture.status().approved_plan.is_some());
    // The last one needs no further word; then the approval is used up.
    let action = (0..8).find_map(|_| fixture.reconcile().action);
    assert!(
        matches!(action, Some(Action::TransferLeader { .. })),
        "{action:?}"
    );
    let hash = fixture.seen.voters.as_ref().unwrap().template_hash.clone();
    let now = fixture.seen.now.clone();
    let pod = fixture.pod("demo-0");
    (pod.uid, pod.template_hash, pod.ready_since) = ("demo-0+".to_owned(), hash, Some(now));
    fixture.later(30);
    for _ in 0..4 {
        assert_eq!(fixture.reconcile().action, None);
    }
    let status = fixture.status();
    assert_eq!((status.approved_plan, status.proposed_plan), (None, None));
    assert!(fixture.condition(READY).0, "{:?}", fixture.condition(READY));
    image(&mut fixture, "3");
    assert_ne!(proposed(&mut fixture, "rqlited:3"), id);
    image(&mut fixture, "2");
    for _ in 0..3 {
        fixture.reconcile();
    }
    image(&mut fixture, "3");
    assert_ne!(
        proposed(&mut fixture, "rqlited:3"),
        id,
        "an old word does nothing"
    );
}

#[test]
fn another_number_of_voters_is_one_plan() {
    let mut fixture = manual(3);
    fixture.seen.cluster.spec.replicas = 1;
    let id = proposed(&mut fixture, "removing demo-2");
    approve(&mut fixture, &id);
    fixture.reconcile();
    fixture.reconcile();
    let operation = fixture.status().operation.unwrap();
    assert_eq!(operation.member.as_deref(), Some("demo-2"));
    // The number changes: that is another plan, which waits until the operation has ended.
    fixture.seen.cluster.spec.replicas = 5;
    let mut status = fixture.status();
    status.operation = None;
    fixture.seen.cluster.status = Some(status);
    assert_ne!(proposed(&mut fixture, "adding demo-3"), id);
}

#[test]
fn a_lost_member_waits_and_a_missing_pod_does_not() {
    let mut fixture = manual(3);
    fixture.seen.voters.as_mut().unwrap().replicas = 2;
    let action = fixture.action();
    assert!(
        matches!(action, Some(Action::SetReplicas { to: 3, .. })),
        "{action:?}"
    );
    let mut fixture = manual(3);
    fixture.down("demo-1", "");
    fixture.claim("demo-1").lost = Some("its volume is gone".to_owned());
    for _ in 0..4 {
        fixture.later(10_000);
        assert_eq!(fixture.reconcile().action, None);
        assert_eq!(fixture.status().operation, None);
    }
    let plan = fixture.status().proposed_plan.unwrap();
    assert!(plan.key.starts_with("Replace/demo-1"), "{plan:?}");
    approve(&mut fixture, &plan.id);
    assert!(fixture.action().is_some());
}

#[test]
fn automatic_again_means_at_once() {
    let mut fixture = manual(3);
    image(&mut fixture, "2");
    proposed(&mut fixture, "rqlited:2");
    fixture.seen.cluster.spec.management = None;
    assert!(matches!(fixture.action(), Some(Action::EvictPod { .. })));
    assert_eq!(fixture.status().proposed_plan, None);
}
