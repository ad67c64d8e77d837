//! Tests of what conditions say and when Ready is true.
use operator_api::{
    cluster::{Update, UpdateStrategy},
    names,
    status::{
        AVAILABLE, HIBERNATED, MemberState, PAUSED, Phase, QUORUM_LOST, READY, Role, UPDATE_PENDING,
    },
};

use crate::cluster::{facts::view::View, fixture::Fixture};

fn restart(fixture: &mut Fixture) {
    let metadata = &mut fixture.seen.cluster.metadata;
    metadata.generation = Some(2);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(names::RESTARTED_AT_ANNOTATION.to_owned(), "now".to_owned());
}

#[test]
fn paused_and_healthy_is_ready() {
    let mut fixture = Fixture::running(3, 1);
    fixture.seen.cluster.spec.paused = true;
    fixture.reconcile();
    assert!(fixture.condition(READY).0 && fixture.condition(PAUSED).0);
    assert_eq!(fixture.status().phase, Some(Phase::Paused));
    // What the spec asks for since then waits, and that is said.
    fixture.seen.cluster.spec.storage.size = operator_api::ByteSize::from("20Gi");
    fixture.seen.expandable.insert("standard".to_owned(), true);
    fixture.reconcile();
    let (ready, reason, text) = fixture.condition(READY);
    assert!(!ready && reason == "Paused", "{reason}: {text}");
    fixture.seen.cluster.spec.storage.size = operator_api::ByteSize::from("10Gi");
    fixture.unreachable("demo-1");
    fixture.reconcile();
    let (ready, reason, text) = fixture.condition(READY);
    assert!(!ready && reason == "MembersMissing", "{reason}: {text}");
}

#[test]
fn ready_is_false_from_the_edit_until_the_last_pod_is_replaced() {
    let mut fixture = Fixture::running(3, 0);
    fixture.keeps_pods = true;
    restart(&mut fixture);
    let old: Vec<String> = ["demo-0", "demo-1", "demo-2"].map(str::to_owned).into();
    for reconcile in 0..5 {
        fixture.reconcile();
        let (ready, reason, text) = fixture.condition(READY);
        assert!(
            !ready && reason == "Changing",
            "{reconcile}: {reason}: {text}"
        );
        let (pending, _, text) = fixture.condition(UPDATE_PENDING);
        assert!(pending, "{reconcile}: {text}");
        assert_eq!(fixture.status().observed_generation, Some(2));
    }
    // Pods are recreated.
    let hash = fixture.status().target.unwrap().template_hash;
    for name in &old {
        let pod = fixture.pod(name);
        (pod.uid, pod.template_hash) = (format!("{name}-new"), hash.clone());
    }
    for _ in 0..5 {
        fixture.later(20);
        fixture.reconcile();
    }
    let (ready, reason, text) = fixture.condition(READY);
    assert!(ready, "{reason}: {text}");
    assert_eq!(fixture.status().phase, Some(Phase::Running));
}

#[test]
fn pods_that_wait_for_a_person_do_not_hold_up_ready() {
    let mut fixture = Fixture::running(3, 0);
    fixture.keeps_pods = true;
    fixture.seen.cluster.spec.update = Some(Update {
        strategy: Some(UpdateStrategy::Manual),
        ..Update::default()
    });
    restart(&mut fixture);
    for _ in 0..4 {
        fixture.reconcile();
    }
    assert!(fixture.condition(READY).0, "{:?}", fixture.condition(READY));
    assert!(fixture.condition(UPDATE_PENDING).0);
    fixture.pod("demo-2").update_now = true;
    fixture.reconcile();
    assert!(!fixture.condition(READY).0);
}

#[test]
fn a_cluster_that_forms_has_lost_no_quorum_and_has_none() {
    let mut fixture = Fixture::running(3, 0);
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    status.bootstrapped_at = None;
    fixture.leaderless();
    fixture.reconcile();
    let (lost, reason, text) = fixture.condition(QUORUM_LOST);
    assert!(!lost && reason == "NotFormed", "{reason}: {text}");
    assert!(text.contains("not formed yet"), "{text}");
}

#[test]
fn hibernated_says_what_runs() {
    let mut fixture = Fixture::running(3, 0);
    assert_eq!(fixture.condition(HIBERNATED).1, "NotRequested");
    fixture.seen.cluster.spec.hibernated = true;
    fixture.reconcile();
    let (hibernated, reason, text) = fixture.condition(HIBERNATED);
    assert!(!hibernated && reason == "Stopping", "{reason}: {text}");
    assert!(text.contains("3 pods"), "{text}");
}

#[test]
fn a_lost_member_leads_nothing() {
    let mut fixture = Fixture::running(3, 0);
    assert_eq!(fixture.status().members[0].role, Role::Leader);
    for name in ["demo-0", "demo-1"] {
        fixture.wipe(name);
    }
    fixture.leaderless();
    fixture.reconcile();
    let status = fixture.status();
    assert_eq!(status.members[0].state, MemberState::Lost);
    assert!(status.members.iter().all(|m| m.role == Role::Voter));
    assert_eq!((status.leader, status.leader_since), (None, None));
    assert!(!fixture.condition(AVAILABLE).0);
}

#[test]
fn a_calm_cluster_causes_no_write() {
    let mut fixture = Fixture::running(3, 0);
    let calm = fixture.status();
    let commit = |fixture: &mut Fixture, index: u64| {
        for name in ["demo-0", "demo-1", "demo-2"] {
            let node = fixture.node(name);
            (node.commit_index, node.applied_index) = (index, index);
        }
        remember(fixture);
        fixture.reconcile();
        fixture.status().commit_index
    };
    for _ in 0..100 {
        fixture.later(45);
        fixture.reconcile();
    }
    assert_eq!(fixture.status(), calm, "nothing has happened for an hour");
    // Under writes the commit index is written now and then: at first, because an hour has passed.
    assert_eq!(commit(&mut fixture, 500), Some(500));
    fixture.later(300);
    assert_eq!(commit(&mut fixture, 900), Some(500));
    fixture.later(300);
    assert_eq!(commit(&mut fixture, 1000), Some(1000));
    // With any other change, too.
    fixture.later(10);
    fixture.unreachable("demo-2");
    fixture.node("demo-0").commit_index = 1100;
    remember(&mut fixture);
    fixture.reconcile();
    assert_eq!(fixture.status().commit_index, Some(1100));
}

/// What the process remembers after this observation.
fn remember(fixture: &mut Fixture) {
    fixture.seen.leader_seen = View::of(&fixture.seen).leader_seen();
}

#[test]
fn what_was_committed_last_is_on_record_once_the_leader_is_gone() {
    let mut fixture = Fixture::running(3, 0);
    for name in ["demo-0", "demo-1"] {
        let node = fixture.node(name);
        (node.commit_index, node.applied_index) = (150, 150);
    }
    remember(&mut fixture);
    let seen_at = fixture.seen.now.clone();
    fixture.reconcile();
    assert_eq!(fixture.status().commit_index, Some(100), "not written yet");
    fixture.later(60);
    for name in ["demo-0", "demo-1"] {
        fixture.wipe(name);
    }
    fixture.leaderless();
    fixture.reconcile();
    let status = fixture.status();
    assert_eq!(status.commit_index, Some(150));
    assert_eq!(status.last_leader_seen.as_ref(), Some(&seen_at));
    // Once on record, an operator without a memory knows it.
    fixture.seen.leader_seen = None;
    fixture.later(301);
    fixture.reconcile();
    let (lost, _, text) = fixture.condition(QUORUM_LOST);
    assert!(
        lost && text.contains("highest commit index seen: 150"),
        "{text}"
    );
    assert!(
        text.contains(&format!("last seen, at {}", seen_at.0)),
        "{text}"
    );
}
