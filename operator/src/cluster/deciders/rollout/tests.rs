//! Tests of the replacement of outdated pods.
use super::*;
use crate::cluster::fixture::Fixture;
use operator_api::cluster::{Image, Update};

/// A cluster whose image has changed; its pods have the old template, and the leader is stable.
fn changed(voters: i32, readers: i32) -> Fixture {
    let mut fixture = Fixture::running(voters, readers);
    fixture.seen.cluster.spec.image = Some(Image {
        tag: Some("2".to_owned()),
        ..Image::default()
    });
    fixture.keeps_pods = true;
    fixture.later(60);
    fixture
}

/// The pod was recreated and is well, or is not.
fn recreate_pod(fixture: &mut Fixture, name: &str) {
    let hash = fixture.seen.voters.as_ref().unwrap().template_hash.clone();
    let read = fixture
        .seen
        .readers
        .as_ref()
        .map(|set| set.template_hash.clone());
    let now = fixture.seen.now.clone();
    let pod = fixture.pod(name);
    pod.uid = format!("{}+", pod.uid);
    pod.template_hash = match pod.pool {
        Pool::Voter => hash,
        Pool::Read => read.unwrap_or_default(),
    };
    pod.ready_since = Some(now);
    fixture.later(30);
}

fn lead(fixture: &mut Fixture, leader: &str) {
    for pod in fixture.seen.pods.clone() {
        let node = fixture.node(&pod.name);
        node.leader = Some(leader.to_owned());
        node.is_leader = pod.name == leader;
        node.term += 1;
        node.last_log_term = node.term;
    }
}

#[test]
fn read_replicas_then_followers_then_the_leader_after_it_handed_over() {
    let mut fixture = changed(3, 1);
    for name in ["demo-ro-0", "demo-2", "demo-1"] {
        let action = fixture.action();
        assert!(
            matches!(&action, Some(Action::EvictPod { name: n, uid }) if n == name && *uid == format!("pod-{name}")),
            "{name}: {action:?}"
        );
        recreate_pod(&mut fixture, name);
        fixture.reconcile();
        assert_eq!(fixture.status().operation, None, "{name}");
    }
    let action = fixture.action();
    assert!(
        matches!(&action, Some(Action::TransferLeader { from, to }) if from == "demo-0" && to == "demo-1"),
        "{action:?}"
    );
    lead(&mut fixture, "demo-1");
    assert!(matches!(fixture.action(), Some(Action::EvictPod { name, .. }) if name == "demo-0"));
    recreate_pod(&mut fixture, "demo-0");
    assert_eq!(fixture.action(), None);
}

#[test]
fn nobody_goes_while_another_is_away_or_the_leader_is_new() {
    let mut fixture = changed(3, 0);
    fixture.reconcile();
    fixture.reconcile();
    let current = fixture.seen.voters.as_ref().unwrap().template_hash.clone();
    fixture.pod("demo-1").template_hash = current;
    fixture.down("demo-1", "CrashLoopBackOff");
    assert_eq!(fixture.action(), None);
    let mut fixture = changed(3, 0);
    lead(&mut fixture, "demo-1");
    fixture.reconcile();
    assert_eq!(fixture.action(), None, "elected just now");
    fixture.later(i64::try_from(STABLE_LEADER_SECONDS).unwrap());
    assert!(matches!(fixture.action(), Some(Action::EvictPod { .. })));
}

#[test]
fn what_takes_no_part_goes_first_and_past_the_budget() {
    let mut fixture = changed(3, 0);
    fixture.down("demo-1", "ImagePullBackOff");
    assert!(matches!(fixture.action(), Some(Action::DeletePod { name, .. }) if name == "demo-1"));
}

#[test]
fn one_that_does_not_come_back_stops_the_rest_until_the_template_changes() {
    let mut fixture = changed(3, 0);
    fixture.action();
    recreate_pod(&mut fixture, "demo-2");
    fixture.down("demo-2", "ImagePullBackOff");
    for _ in 0..5 {
        fixture.later(600);
        assert_eq!(fixture.action(), None);
    }
    let (_, reason, text) = fixture.condition(operator_api::status::PROGRESSING);
    assert_eq!(reason, "UpdateStalled", "{text}");
    fixture.seen.cluster.spec.image.as_mut().unwrap().tag = Some("3".to_owned());
    assert!(matches!(fixture.action(), Some(Action::DeletePod { name, .. }) if name == "demo-2"));
}

#[test]
fn one_that_is_not_wanted_any_more_is_not_waited_for() {
    let mut fixture = changed(3, 0);
    fixture.action();
    recreate_pod(&mut fixture, "demo-2");
    fixture.down("demo-2", "prepare: Damaged");
    fixture.seen.cluster.spec.replicas = 2;
    fixture.reconcile();
    let kind = |fixture: &mut Fixture| fixture.status().operation.map(|o| o.kind);
    assert_ne!(kind(&mut fixture), Some(OperationType::Update));
    fixture.reconcile();
    assert_eq!(kind(&mut fixture), Some(OperationType::ScaleDown));
}

#[test]
fn by_hand_only_pods_that_are_named() {
    let mut fixture = changed(3, 0);
    fixture.seen.cluster.spec.update = Some(Update {
        strategy: Some(UpdateStrategy::Manual),
        ..Update::default()
    });
    fixture.reconcile();
    assert_eq!(fixture.action(), None);
    fixture.pod("demo-1").update_now = true;
    assert!(matches!(fixture.action(), Some(Action::EvictPod { name, .. }) if name == "demo-1"));
}

#[test]
fn a_grown_volume_restarts_its_pod_once() {
    let mut fixture = Fixture::running(3, 0);
    fixture.later(60);
    fixture.claim("demo-1").resize_pending = true;
    assert_eq!(fixture.action(), None, "its file system may grow online");
    fixture.later(120);
    assert!(matches!(fixture.action(), Some(Action::EvictPod { name, .. }) if name == "demo-1"));
    recreate_pod(&mut fixture, "demo-1");
    fixture.down("demo-1", "CrashLoopBackOff");
    assert_eq!(fixture.action(), None, "another restart would not help");
}

#[test]
fn a_template_is_taken_over_where_a_set_is_made_anew_from_it() {
    for gone in [Pool::Voter, Pool::Read] {
        let mut fixture = Fixture::running(2, 1);
        fixture.seen.cluster.spec.storage.size = "20Gi".into();
        for claim in &mut fixture.seen.claims {
            claim.requested = "20Gi".to_owned();
        }
        if gone == Pool::Read {
            fixture.seen.voters.as_mut().unwrap().claim_size = "20Gi".to_owned();
        }
        assert!(matches!(
            fixture.action(),
            Some(Action::DeleteStatefulSet { orphan: true, .. })
        ));
        let before = fixture.status().target;
        fixture.seen.cluster.spec.image = Some(Image {
            tag: Some("2".to_owned()),
            ..Image::default()
        });
        fixture.reconcile();
        assert_eq!(fixture.status().target, before, "amid the operation");
        match gone {
            Pool::Voter => fixture.seen.voters = None,
            Pool::Read => fixture.seen.readers = None,
        }
        fixture.reconcile();
        assert_ne!(fixture.status().target, before, "{gone:?}");
        let made = fixture.reconcile().objects;
        let sets = made.iter().filter(|o| o.id().0 == "StatefulSet");
        assert_eq!(sets.count(), 2, "{gone:?}");
    }
}

#[test]
fn a_corrected_template_is_taken_over_while_a_smaller_size_waits_for_it() {
    let mut fixture = Fixture::running(3, 0);
    fixture.keeps_pods = true;
    fixture.seen.cluster.spec.replicas = 2;
    fixture.down("demo-1", "ImagePullBackOff");
    assert_eq!(fixture.action(), None, "demo-1 is needed");
    fixture.seen.cluster.spec.image = Some(Image {
        tag: Some("2".to_owned()),
        ..Image::default()
    });
    assert!(matches!(fixture.action(), Some(Action::DeletePod { name, .. }) if name == "demo-1"));
}
