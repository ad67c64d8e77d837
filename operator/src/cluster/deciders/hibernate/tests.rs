use super::*;
use crate::cluster::{facts::observation::ConfigMember, scene::Scene};
use operator_api::{names, status::HIBERNATED};

fn gone(scene: &mut Scene, keep: &[&str]) {
    let names: Vec<String> = scene.seen.pods.iter().map(|p| p.name.clone()).collect();
    for name in names.iter().filter(|name| !keep.contains(&name.as_str())) {
        scene.seen.pods.retain(|pod| pod.name != *name);
        scene.seen.nodes.remove(name);
    }
}

fn resized(scene: &mut Scene) -> Option<(String, i32, i32)> {
    match scene.action() {
        Some(Action::SetReplicas { name, from, to, .. }) => Some((name, from, to)),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

/// A cluster that sleeps.
fn asleep(voters: i32, readers: i32) -> Scene {
    let mut scene = Scene::running(voters, readers);
    scene.seen.cluster.spec.hibernated = true;
    scene.pass();
    let sets = [&mut scene.seen.voters, &mut scene.seen.readers];
    for set in sets.into_iter().flatten() {
        set.replicas = 0;
    }
    gone(&mut scene, &[]);
    for _ in 0..6 {
        scene.pass();
    }
    assert!(scene.status().is(HIBERNATED), "{:?}", scene.status());
    scene
}

#[test]
fn the_first_pod_stops_last_after_it_took_the_lead() {
    let mut scene = Scene::running(3, 1);
    for name in ["demo-0", "demo-1", "demo-2", "demo-ro-0"] {
        let node = scene.node(name);
        node.leader = Some("demo-1".to_owned());
        node.is_leader = name == "demo-1";
    }
    scene.seen.cluster.spec.hibernated = true;
    assert_eq!(resized(&mut scene), Some(("demo-ro".to_owned(), 1, 0)));
    scene.seen.readers.as_mut().unwrap().replicas = 0;
    assert_eq!(resized(&mut scene), None, "the read replica stops");
    gone(&mut scene, &["demo-0", "demo-1", "demo-2"]);
    assert!(
        matches!(scene.action(), Some(Action::TransferLeader { from, to }) if from == "demo-1" && to == "demo-0")
    );
    for name in ["demo-0", "demo-1", "demo-2"] {
        let node = scene.node(name);
        node.leader = Some("demo-0".to_owned());
        node.is_leader = name == "demo-0";
    }
    assert_eq!(resized(&mut scene), Some(("demo".to_owned(), 3, 1)));
    scene.seen.voters.as_mut().unwrap().replicas = 1;
    assert_eq!(resized(&mut scene), None, "the others stop");
    gone(&mut scene, &["demo-0"]);
    assert_eq!(resized(&mut scene), Some(("demo".to_owned(), 1, 0)));
    scene.seen.voters.as_mut().unwrap().replicas = 0;
    assert_eq!(resized(&mut scene), None);
    gone(&mut scene, &[]);
    scene.pass();
    scene.pass();
    assert!(scene.status().is(HIBERNATED));
    assert_eq!(scene.seen.claims.len(), 4, "volumes stay");
}

#[test]
fn it_sleeps_whatever_happens_to_the_spec() {
    let mut scene = asleep(3, 0);
    scene.seen.cluster.spec.replicas = 5;
    assert_eq!(resized(&mut scene), None);
    // Somebody starts pods by hand: stopped again.
    scene.seen.voters.as_mut().unwrap().replicas = 2;
    assert_eq!(resized(&mut scene), Some(("demo".to_owned(), 2, 1)));
}

#[test]
fn all_voters_start_at_once_and_read_replicas_without_waiting_for_a_leader() {
    let mut scene = asleep(3, 2);
    scene.seen.cluster.spec.hibernated = false;
    scene.seen.cluster.spec.replicas = 5;
    assert_eq!(resized(&mut scene), Some(("demo".to_owned(), 0, 3)));
    scene.seen.voters.as_mut().unwrap().replicas = 3;
    assert_eq!(resized(&mut scene), Some(("demo-ro".to_owned(), 0, 2)));
    scene.seen.readers.as_mut().unwrap().replicas = 2;
    assert_eq!(resized(&mut scene), None);
}

#[test]
fn voters_outside_of_the_target_start_as_well() {
    let mut scene = Scene::running(2, 0);
    // A third was added by hand and votes.
    let third = ConfigMember {
        raft_id: "demo-2#i0".to_owned(),
        name: "demo-2".to_owned(),
        voter: true,
    };
    for name in ["demo-0", "demo-1"] {
        scene.node(name).config.push(third.clone());
    }
    let claim = scene.seen.claims[0].clone();
    scene
        .seen
        .claims
        .push(crate::cluster::facts::observation::ClaimSeen {
            name: names::claim("demo-2"),
            uid: "claim-demo-2".to_owned(),
            ..claim
        });
    scene.pass();
    scene.seen.cluster.spec.hibernated = true;
    scene.pass();
    scene.seen.voters.as_mut().unwrap().replicas = 0;
    gone(&mut scene, &[]);
    for _ in 0..6 {
        scene.pass();
    }
    scene.seen.cluster.spec.hibernated = false;
    assert_eq!(resized(&mut scene), Some(("demo".to_owned(), 0, 3)));
}

#[test]
fn an_autoscaled_pool_wakes_with_one_pod() {
    let mut scene = asleep(3, 2);
    let readers = scene.seen.cluster.spec.read_replicas.as_mut().unwrap();
    (readers.replicas, readers.autoscaled) = (None, true);
    scene.seen.cluster.spec.hibernated = false;
    let mut raised = Vec::new();
    for _ in 0..6 {
        if let Some((name, _, to)) = resized(&mut scene) {
            let set = if name == "demo" {
                scene.seen.voters.as_mut()
            } else {
                scene.seen.readers.as_mut()
            };
            set.unwrap().replicas = to;
            raised.push((name, to));
        }
    }
    let expected = [("demo".to_owned(), 3), ("demo-ro".to_owned(), 1)];
    assert_eq!(raised, expected);
}
