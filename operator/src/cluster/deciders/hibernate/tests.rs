//! Tests of hibernation and resumption.
use super::*;
use crate::cluster::{facts::observation::ConfigMember, fixture::Fixture};
use operator_api::{names, status::HIBERNATED};

fn gone(fixture: &mut Fixture, keep: &[&str]) {
    let names: Vec<String> = fixture.seen.pods.iter().map(|p| p.name.clone()).collect();
    for name in names.iter().filter(|name| !keep.contains(&name.as_str())) {
        fixture.seen.pods.retain(|pod| pod.name != *name);
        fixture.seen.nodes.remove(name);
    }
}

fn resized(fixture: &mut Fixture) -> Option<(String, i32, i32)> {
    match fixture.action() {
        Some(Action::SetReplicas { name, from, to, .. }) => Some((name, from, to)),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

/// A hibernated cluster.
fn asleep(voters: i32, readers: i32) -> Fixture {
    let mut fixture = Fixture::running(voters, readers);
    fixture.seen.cluster.spec.hibernated = true;
    fixture.reconcile();
    let sets = [&mut fixture.seen.voters, &mut fixture.seen.readers];
    for set in sets.into_iter().flatten() {
        set.replicas = 0;
    }
    gone(&mut fixture, &[]);
    for _ in 0..6 {
        fixture.reconcile();
    }
    assert!(fixture.status().is(HIBERNATED), "{:?}", fixture.status());
    fixture
}

#[test]
fn the_first_pod_stops_last_after_it_took_the_lead() {
    let mut fixture = Fixture::running(3, 1);
    for name in ["demo-0", "demo-1", "demo-2", "demo-ro-0"] {
        let node = fixture.node(name);
        node.leader = Some("demo-1".to_owned());
        node.is_leader = name == "demo-1";
    }
    fixture.seen.cluster.spec.hibernated = true;
    assert_eq!(resized(&mut fixture), Some(("demo-ro".to_owned(), 1, 0)));
    fixture.seen.readers.as_mut().unwrap().replicas = 0;
    assert_eq!(resized(&mut fixture), None, "the read replica stops");
    gone(&mut fixture, &["demo-0", "demo-1", "demo-2"]);
    assert!(
        matches!(fixture.action(), Some(Action::TransferLeader { from, to }) if from == "demo-1" && to == "demo-0")
    );
    for name in ["demo-0", "demo-1", "demo-2"] {
        let node = fixture.node(name);
        node.leader = Some("demo-0".to_owned());
        node.is_leader = name == "demo-0";
    }
    assert_eq!(resized(&mut fixture), Some(("demo".to_owned(), 3, 1)));
    fixture.seen.voters.as_mut().unwrap().replicas = 1;
    assert_eq!(resized(&mut fixture), None, "the others stop");
    gone(&mut fixture, &["demo-0"]);
    assert_eq!(resized(&mut fixture), Some(("demo".to_owned(), 1, 0)));
    fixture.seen.voters.as_mut().unwrap().replicas = 0;
    assert_eq!(resized(&mut fixture), None);
    gone(&mut fixture, &[]);
    fixture.reconcile();
    fixture.reconcile();
    assert!(fixture.status().is(HIBERNATED));
    assert_eq!(fixture.seen.claims.len(), 4, "volumes stay");
}

#[test]
fn it_sleeps_whatever_happens_to_the_spec() {
    let mut fixture = asleep(3, 0);
    fixture.seen.cluster.spec.replicas = 5;
    assert_eq!(resized(&mut fixture), None);
    // Somebody starts pods by hand: they are stopped again.
    fixture.seen.voters.as_mut().unwrap().replicas = 2;
    assert_eq!(resized(&mut fixture), Some(("demo".to_owned(), 2, 1)));
}

#[test]
fn all_voters_start_at_once_and_read_replicas_without_waiting_for_a_leader() {
    let mut fixture = asleep(3, 2);
    fixture.seen.cluster.spec.hibernated = false;
    fixture.seen.cluster.spec.replicas = 5;
    assert_eq!(resized(&mut fixture), Some(("demo".to_owned(), 0, 3)));
    fixture.seen.voters.as_mut().unwrap().replicas = 3;
    assert_eq!(resized(&mut fixture), Some(("demo-ro".to_owned(), 0, 2)));
    fixture.seen.readers.as_mut().unwrap().replicas = 2;
    assert_eq!(resized(&mut fixture), None);
}

#[test]
fn voters_outside_of_the_target_start_as_well() {
    let mut fixture = Fixture::running(2, 0);
    // A third node was added by hand and votes.
    let third = ConfigMember {
        raft_id: "demo-2#i0".to_owned(),
        name: "demo-2".to_owned(),
        voter: true,
    };
    for name in ["demo-0", "demo-1"] {
        fixture.node(name).config.push(third.clone());
    }
    let claim = fixture.seen.claims[0].clone();
    fixture
        .seen
        .claims
        .push(crate::cluster::facts::observation::ObservedClaim {
            name: names::claim("demo-2"),
            uid: "claim-demo-2".to_owned(),
            ..claim
        });
    fixture.reconcile();
    fixture.seen.cluster.spec.hibernated = true;
    fixture.reconcile();
    fixture.seen.voters.as_mut().unwrap().replicas = 0;
    gone(&mut fixture, &[]);
    for _ in 0..6 {
        fixture.reconcile();
    }
    fixture.seen.cluster.spec.hibernated = false;
    assert_eq!(resized(&mut fixture), Some(("demo".to_owned(), 0, 3)));
}

#[test]
fn an_autoscaled_pool_wakes_with_one_pod() {
    let mut fixture = asleep(3, 2);
    let readers = fixture.seen.cluster.spec.read_replicas.as_mut().unwrap();
    (readers.replicas, readers.autoscaled) = (None, true);
    fixture.seen.cluster.spec.hibernated = false;
    let mut raised = Vec::new();
    for _ in 0..6 {
        if let Some((name, _, to)) = resized(&mut fixture) {
            let set = if name == "demo" {
                fixture.seen.voters.as_mut()
            } else {
                fixture.seen.readers.as_mut()
            };
            set.unwrap().replicas = to;
            raised.push((name, to));
        }
    }
    let expected = [("demo".to_owned(), 3), ("demo-ro".to_owned(), 1)];
    assert_eq!(raised, expected);
}
