use super::*;
use crate::cluster::scene::Scene;
use operator_api::cluster::{Image, Update};

/// A cluster whose image has changed; its pods still are of the old template, and a leader has led for long.
fn changed(voters: i32, readers: i32) -> Scene {
    let mut scene = Scene::running(voters, readers);
    scene.seen.cluster.spec.image = Some(Image {
        tag: Some("2".to_owned()),
        ..Image::default()
    });
    scene.keeps_pods = true;
    scene.later(60);
    scene
}

/// The pod was made anew and is well, or is not.
fn renew(scene: &mut Scene, name: &str) {
    let hash = scene.seen.voters.as_ref().unwrap().template_hash.clone();
    let read = scene
        .seen
        .readers
        .as_ref()
        .map(|set| set.template_hash.clone());
    let now = scene.seen.now.clone();
    let pod = scene.pod(name);
    pod.uid = format!("{}+", pod.uid);
    pod.template_hash = match pod.pool {
        Pool::Voter => hash,
        Pool::Read => read.unwrap_or_default(),
    };
    pod.ready_since = Some(now);
    scene.later(30);
}

fn lead(scene: &mut Scene, leader: &str) {
    for pod in scene.seen.pods.clone() {
        let node = scene.node(&pod.name);
        node.leader = Some(leader.to_owned());
        node.is_leader = pod.name == leader;
        node.term += 1;
        node.last_log_term = node.term;
    }
}

#[test]
fn read_replicas_then_followers_then_the_leader_after_it_handed_over() {
    let mut scene = changed(3, 1);
    for name in ["demo-ro-0", "demo-2", "demo-1"] {
        let action = scene.action();
        assert!(
            matches!(&action, Some(Action::EvictPod { name: n, uid }) if n == name && *uid == format!("pod-{name}")),
            "{name}: {action:?}"
        );
        renew(&mut scene, name);
        scene.pass();
        assert_eq!(scene.status().operation, None, "{name}");
    }
    let action = scene.action();
    assert!(
        matches!(&action, Some(Action::TransferLeader { from, to }) if from == "demo-0" && to == "demo-1"),
        "{action:?}"
    );
    lead(&mut scene, "demo-1");
    assert!(matches!(scene.action(), Some(Action::EvictPod { name, .. }) if name == "demo-0"));
    renew(&mut scene, "demo-0");
    assert_eq!(scene.action(), None);
}

#[test]
fn nobody_goes_while_another_is_away_or_the_leader_is_new() {
    let mut scene = changed(3, 0);
    scene.pass();
    scene.pass();
    let current = scene.seen.voters.as_ref().unwrap().template_hash.clone();
    scene.pod("demo-1").template_hash = current;
    scene.down("demo-1", "CrashLoopBackOff");
    assert_eq!(scene.action(), None);
    let mut scene = changed(3, 0);
    lead(&mut scene, "demo-1");
    scene.pass();
    assert_eq!(scene.action(), None, "elected just now");
    scene.later(i64::try_from(STABLE_LEADER_SECONDS).unwrap());
    assert!(matches!(scene.action(), Some(Action::EvictPod { .. })));
}

#[test]
fn what_takes_no_part_goes_first_and_past_the_budget() {
    let mut scene = changed(3, 0);
    scene.down("demo-1", "ImagePullBackOff");
    assert!(matches!(scene.action(), Some(Action::DeletePod { name, .. }) if name == "demo-1"));
}

#[test]
fn one_that_does_not_come_back_stops_the_rest_until_the_template_changes() {
    let mut scene = changed(3, 0);
    scene.action();
    renew(&mut scene, "demo-2");
    scene.down("demo-2", "ImagePullBackOff");
    for _ in 0..5 {
        scene.later(600);
        assert_eq!(scene.action(), None);
    }
    let (_, reason, text) = scene.condition(operator_api::status::PROGRESSING);
    assert_eq!(reason, "UpdateStalled", "{text}");
    scene.seen.cluster.spec.image.as_mut().unwrap().tag = Some("3".to_owned());
    assert!(matches!(scene.action(), Some(Action::DeletePod { name, .. }) if name == "demo-2"));
}

#[test]
fn one_that_is_not_wanted_any_more_is_not_waited_for() {
    let mut scene = changed(3, 0);
    scene.action();
    renew(&mut scene, "demo-2");
    scene.down("demo-2", "prepare: Damaged");
    scene.seen.cluster.spec.replicas = 2;
    scene.pass();
    let kind = |scene: &mut Scene| scene.status().operation.map(|o| o.kind);
    assert_ne!(kind(&mut scene), Some(OperationType::Update));
    scene.pass();
    assert_eq!(kind(&mut scene), Some(OperationType::ScaleDown));
}

#[test]
fn by_hand_only_pods_that_are_named() {
    let mut scene = changed(3, 0);
    scene.seen.cluster.spec.update = Some(Update {
        strategy: Some(UpdateStrategy::Manual),
        ..Update::default()
    });
    scene.pass();
    assert_eq!(scene.action(), None);
    scene.pod("demo-1").update_now = true;
    assert!(matches!(scene.action(), Some(Action::EvictPod { name, .. }) if name == "demo-1"));
}

#[test]
fn a_grown_volume_restarts_its_pod_once() {
    let mut scene = Scene::running(3, 0);
    scene.later(60);
    scene.claim("demo-1").resize_pending = true;
    assert!(matches!(scene.action(), Some(Action::EvictPod { name, .. }) if name == "demo-1"));
    renew(&mut scene, "demo-1");
    scene.down("demo-1", "CrashLoopBackOff");
    assert_eq!(scene.action(), None, "another restart would not help");
}

#[test]
fn a_template_is_taken_over_where_a_set_is_made_anew_from_it() {
    for gone in [Pool::Voter, Pool::Read] {
        let mut scene = Scene::running(2, 1);
        scene.seen.cluster.spec.storage.size = "20Gi".into();
        for claim in &mut scene.seen.claims {
            claim.requested = "20Gi".to_owned();
        }
        if gone == Pool::Read {
            scene.seen.voters.as_mut().unwrap().claim_size = "20Gi".to_owned();
        }
        assert!(matches!(
            scene.action(),
            Some(Action::DeleteStatefulSet { orphan: true, .. })
        ));
        let before = scene.status().target;
        scene.seen.cluster.spec.image = Some(Image {
            tag: Some("2".to_owned()),
            ..Image::default()
        });
        scene.pass();
        assert_eq!(scene.status().target, before, "amid the operation");
        match gone {
            Pool::Voter => scene.seen.voters = None,
            Pool::Read => scene.seen.readers = None,
        }
        scene.pass();
        assert_ne!(scene.status().target, before, "{gone:?}");
        let made = scene.pass().objects;
        let sets = made.iter().filter(|o| o.id().0 == "StatefulSet");
        assert_eq!(sets.count(), 2, "{gone:?}");
    }
}

#[test]
fn a_corrected_template_is_taken_over_while_a_smaller_size_waits_for_it() {
    let mut scene = Scene::running(3, 0);
    scene.keeps_pods = true;
    scene.seen.cluster.spec.replicas = 2;
    scene.down("demo-1", "ImagePullBackOff");
    assert_eq!(scene.action(), None, "demo-1 is needed");
    scene.seen.cluster.spec.image = Some(Image {
        tag: Some("2".to_owned()),
        ..Image::default()
    });
    assert!(matches!(scene.action(), Some(Action::DeletePod { name, .. }) if name == "demo-1"));
}
