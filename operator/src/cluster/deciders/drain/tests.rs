//! Tests of machines that are being drained.
use operator_api::cluster::{Disruption, Scheduling};

use super::*;
use crate::cluster::fixture::Fixture;

/// Three voters on three machines of four, with volumes that can move.
fn spread() -> Fixture {
    let mut fixture = Fixture::running(3, 0);
    for (pod, machine) in fixture.seen.pods.iter_mut().zip(["m0", "m1", "m2"]) {
        pod.machine = Some(machine.to_owned());
    }
    let drain = &mut fixture.seen.drain;
    drain.movable = (0..3).map(|n| format!("data-demo-{n}")).collect();
    drain.free = ["m0", "m1", "m2", "m3"].map(str::to_owned).to_vec();
    fixture
}

fn cordon(fixture: &mut Fixture, machine: &str) {
    fixture.seen.cordoned.push(machine.to_owned());
    fixture.seen.drain.free.retain(|free| free != machine);
}

fn lead(fixture: &mut Fixture, name: &str) {
    for node in ["demo-0", "demo-1", "demo-2"] {
        let status = fixture.node(node);
        status.is_leader = node == name;
        status.leader = Some(name.to_owned());
        status.term += 1;
    }
}

#[test]
fn the_leader_gives_its_leadership_away_once_and_then_its_pod_is_moved() {
    let mut fixture = spread();
    cordon(&mut fixture, "m0");
    cordon(&mut fixture, "m1");
    assert_eq!(fixture.reconcile().action, None, "recorded before");
    match fixture.reconcile().action {
        Some(Action::TransferLeader { from, to }) => {
            assert_eq!((from.as_str(), to.as_str()), ("demo-0", "demo-2"));
        }
        other => panic!("{other:?}"),
    }
    lead(&mut fixture, "demo-2");
    fixture.reconcile();
    fixture.later(20);
    match fixture.action() {
        Some(Action::EvictPod { name, .. }) => assert_eq!(name, "demo-1"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_leadership_that_comes_back_stays_for_a_while() {
    let mut fixture = spread();
    fixture.seen.drain.movable.clear();
    cordon(&mut fixture, "m0");
    let transfers = |fixture: &mut Fixture, rounds: usize| {
        let plans = (0..rounds).map(|_| fixture.reconcile().action);
        plans.flatten().count()
    };
    assert!(transfers(&mut fixture, 12) > 0);
    fixture.later(10);
    assert_eq!(transfers(&mut fixture, 100), 0);
    fixture.later(300);
    assert!(transfers(&mut fixture, 5) > 0);
}

#[test]
fn nobody_moves_where_it_would_not_help() {
    type Change = fn(&mut Fixture);
    let cases: [(&str, Change); 6] = [
        ("switched off", |f| {
            f.seen.cluster.spec.disruption = Some(Disruption {
                follow_drains: false,
                ..Disruption::default()
            });
        }),
        ("all machines are drained", |f| {
            for machine in ["m0", "m2", "m3"] {
                cordon(f, machine);
            }
        }),
        ("the volume cannot move", |f| f.seen.drain.movable.clear()),
        ("another voter is away", |f| f.node("demo-2").ready = false),
        ("no machine without a voter", |f| {
            f.seen.cluster.spec.scheduling = Some(Scheduling {
                anti_affinity: Some(AntiAffinity::Required),
                ..Scheduling::default()
            });
            f.keeps_pods = false;
            f.seen.drain.free.retain(|free| free != "m3");
        }),
        ("no permission to read machines", |f| {
            f.seen.drain.free.clear()
        }),
    ];
    for (name, change) in cases {
        let mut fixture = spread();
        cordon(&mut fixture, "m1");
        change(&mut fixture);
        fixture.later(60);
        for _ in 0..6 {
            assert_eq!(fixture.reconcile().action, None, "{name}");
        }
        let (_, _, text) = fixture.condition("Advisory");
        let said = text.contains("demo-1 on the machine m1");
        let silent = ["switched off", "another voter is away"].contains(&name);
        let all = name == "all machines are drained";
        assert!(said != silent || all, "{name}: {text}");
    }
}

#[test]
fn two_voters_are_left_alone() {
    let mut fixture = Fixture::running(2, 0);
    fixture.pod("demo-1").machine = Some("m2".to_owned());
    fixture.seen.drain.movable = (0..2).map(|n| format!("data-demo-{n}")).collect();
    fixture.seen.drain.free = vec!["m3".to_owned()];
    fixture.seen.cordoned.push("m2".to_owned());
    assert_eq!(fixture.action(), None);
}
