//! Tests of the bootstrap of a cluster.
use super::*;
use crate::cluster::{
    Plan,
    action::Action,
    facts::observation::{ConfigMember, ObservedClaim},
    fixture::Fixture,
    plan,
};
use node_contract::StateFile;
use operator_api::cluster::Bootstrap;

/// A cluster of three whose pods run and that has not formed yet.
fn forming() -> Fixture {
    let mut fixture = Fixture::running(3, 0);
    fixture.leaderless();
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    status.bootstrapped_at = None;
    status.members.clear();
    status.configuration_index = None;
    for name in ["demo-0", "demo-1", "demo-2"] {
        fixture.node(name).config.clear();
    }
    fixture.reconcile();
    fixture
}

fn lead(fixture: &mut Fixture, members: &[&str]) {
    let config: Vec<ConfigMember> = members
        .iter()
        .map(|name| ConfigMember {
            raft_id: format!("{name}#i0"),
            name: (*name).to_owned(),
            voter: true,
        })
        .collect();
    for name in members {
        let node = fixture.node(name);
        (node.leader, node.ready) = (Some("demo-0".to_owned()), true);
        node.is_leader = *name == "demo-0";
        node.config.clone_from(&config);
    }
}

fn phase(fixture: &Fixture) -> FormingPhase {
    fixture.seen.state.as_ref().unwrap().phase
}

#[test]
fn an_identity_is_on_record_before_anything_is_made() {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.status = None;
    fixture.seen.state = None;
    let Plan {
        status, objects, ..
    } = plan(&fixture.seen);
    assert_eq!(objects, []);
    assert_eq!(
        status.cluster_id.as_deref(),
        Some(fixture.seen.fresh_id.as_str())
    );
    assert_eq!(status.target.as_ref().unwrap().bootstrap_replicas, 3);
    assert_eq!(status.operation.unwrap().kind, OperationType::Bootstrap);
    assert_eq!(status.bootstrapped_at, None);
}

#[test]
fn the_gate_closes_once_all_take_part_and_never_opens_again() {
    let mut fixture = forming();
    assert_eq!(phase(&fixture), FormingPhase::Forming);
    lead(&mut fixture, &["demo-0", "demo-1"]);
    fixture.reconcile();
    assert_eq!(phase(&fixture), FormingPhase::Forming, "two of three");
    lead(&mut fixture, &["demo-0", "demo-1", "demo-2"]);
    fixture.reconcile();
    fixture.reconcile();
    assert_eq!(phase(&fixture), FormingPhase::Formed);
    fixture.leaderless();
    for name in ["demo-0", "demo-1", "demo-2"] {
        fixture.wipe(name);
    }
    for _ in 0..5 {
        fixture.later(600);
        fixture.reconcile();
        assert_eq!(phase(&fixture), FormingPhase::Formed);
    }
}

#[test]
fn what_takes_too_long_is_told_and_goes_on() {
    let mut fixture = forming();
    let limit = Bootstrap::default().timeout.duration().unwrap();
    fixture.later(i64::try_from(limit.as_secs()).unwrap() + 1);
    fixture.reconcile();
    let (_, reason, _) = fixture.condition(operator_api::status::READY);
    assert_eq!(reason, "BootstrapFailed");
    lead(&mut fixture, &["demo-0", "demo-1", "demo-2"]);
    fixture.reconcile();
    assert!(fixture.status().bootstrapped_at.is_some());
}

#[test]
fn pods_that_somebody_took_away_come_back_also_those_that_somebody_added() {
    let mut fixture = forming();
    fixture.seen.voters.as_mut().unwrap().replicas = 1;
    assert!(matches!(
        fixture.action(),
        Some(Action::SetReplicas { from: 1, to: 3, .. })
    ));
    // Raised by hand, a fourth node has joined and votes; lowered again, its pod is missing.
    let mut fixture = forming();
    let fourth = "demo-3#i0".to_owned();
    fixture.seen.claims.push(ObservedClaim {
        name: names::claim("demo-3"),
        uid: "claim-demo-3".to_owned(),
        ..fixture.seen.claims[0].clone()
    });
    fixture.node("demo-0").config = vec![ConfigMember {
        raft_id: fourth,
        name: "demo-3".to_owned(),
        voter: true,
    }];
    assert!(matches!(
        fixture.action(),
        Some(Action::SetReplicas { from: 3, to: 4, .. })
    ));
}

/// Carries out what is done to pods and StatefulSet, until nothing is.
fn settle(fixture: &mut Fixture) -> Vec<String> {
    let mut done = Vec::new();
    let mut idle = 0;
    while idle < 4 {
        idle += 1;
        match fixture.reconcile().action {
            Some(Action::SetReplicas { to, .. }) => {
                fixture.seen.voters.as_mut().unwrap().replicas = to;
                let gone = format!("demo-{to}");
                fixture.seen.pods.retain(|pod| pod.name != gone);
                fixture.seen.nodes.remove(&gone);
                done.push(format!("to {to}"));
            }
            Some(Action::DeletePod { name, .. }) => {
                let hash = fixture.seen.voters.as_ref().unwrap().template_hash.clone();
                let now = fixture.seen.now.clone();
                let pod = fixture.pod(&name);
                (pod.template_hash, pod.created) = (hash, Some(now));
                done.push(name);
            }
            None => continue,
            other => panic!("{other:?}"),
        }
        idle = 0;
    }
    done
}

/// Five voters of which two find no machine.
fn stuck_at_three() -> Fixture {
    let mut fixture = Fixture::forming(5);
    fixture.keeps_pods = true;
    for name in ["demo-3", "demo-4"] {
        fixture.down(name, "Unschedulable: no machine");
        fixture.pod(name).machine = None;
        fixture.claim(name).capacity = None;
    }
    fixture
}

#[test]
fn fewer_voters_before_it_has_formed() {
    let mut fixture = stuck_at_three();
    fixture.seen.cluster.spec.replicas = 3;
    let done = settle(&mut fixture);
    assert_eq!(done, ["to 4", "to 3", "demo-0", "demo-1", "demo-2"]);
    let target = fixture.status().target.unwrap();
    assert_eq!((target.replicas, target.bootstrap_replicas), (3, 3));
    assert_eq!(fixture.seen.state.as_ref().unwrap().expect, 3);
    assert_eq!(fixture.seen.state.as_ref().unwrap().members.len(), 3);
    lead(&mut fixture, &["demo-0", "demo-1", "demo-2"]);
    fixture.reconcile();
    assert!(fixture.status().bootstrapped_at.is_some());
}

#[test]
fn more_voters_before_it_has_formed() {
    let mut fixture = Fixture::forming(3);
    fixture.seen.cluster.spec.replicas = 5;
    fixture.reconcile();
    let target = fixture.status().target.unwrap();
    assert_eq!((target.replicas, target.bootstrap_replicas), (5, 5));
    assert!(matches!(
        fixture.action(),
        Some(Action::SetReplicas { from: 3, to: 5, .. })
    ));
}

#[test]
fn another_template_before_it_has_formed() {
    let mut fixture = stuck_at_three();
    let relaxed = operator_api::cluster::Scheduling {
        anti_affinity: Some(operator_api::cluster::AntiAffinity::None),
        ..Default::default()
    };
    fixture.seen.cluster.spec.scheduling = Some(relaxed);
    let done = settle(&mut fixture);
    // Those without a machine first, and again once those that kept them from their machines are gone.
    let expected = [
        "demo-3", "demo-4", "demo-0", "demo-1", "demo-2", "demo-3", "demo-4",
    ];
    assert_eq!(done, expected);
}

#[test]
fn nothing_is_corrected_if_it_may_have_formed() {
    let mut fixture = stuck_at_three();
    fixture.seen.cluster.spec.replicas = 3;
    fixture.unreachable("demo-2");
    assert_eq!(settle(&mut fixture), Vec::<String>::new());
    assert_eq!(fixture.status().target.unwrap().bootstrap_replicas, 5);
    let (_, _, text) = fixture.condition(operator_api::status::PROGRESSING);
    assert!(text.contains("demo-2 does not answer"), "{text}");
    // One that is a member says that the cluster has formed: it is scaled like any other.
    let mut fixture = stuck_at_three();
    fixture.seen.cluster.spec.replicas = 3;
    fixture.node("demo-1").last_log_index = 1;
    assert_eq!(settle(&mut fixture), Vec::<String>::new());
}

#[test]
fn a_claim_that_a_pod_may_have_used_is_parked_when_it_comes_back() {
    let mut fixture = Fixture::forming(3);
    fixture.keeps_pods = true;
    fixture.seen.cluster.spec.replicas = 1;
    assert_eq!(settle(&mut fixture), ["to 2", "to 1", "demo-0"]);
    let retired: Vec<String> = fixture
        .status()
        .retired_claims
        .into_iter()
        .map(|r| r.member)
        .collect();
    assert_eq!(retired, ["demo-1", "demo-2"]);
}

#[test]
fn a_lost_status_is_read_back_from_the_state_file() {
    for (phase, formed) in [
        (FormingPhase::Forming, false),
        (FormingPhase::Formed, true),
        (FormingPhase::Recovering, true),
    ] {
        let mut fixture = Fixture::running(3, 0);
        let state = StateFile {
            phase,
            ..fixture.seen.state.clone().unwrap()
        };
        let before = fixture.status();
        fixture.seen.state = Some(state);
        fixture.seen.cluster.status = None;
        let status = plan(&fixture.seen).status;
        assert_eq!(status.cluster_id, before.cluster_id);
        assert_eq!(
            status.lineage.map(|l| (l.id, l.epoch)),
            before.lineage.map(|l| (l.id, l.epoch))
        );
        assert_eq!(status.bootstrapped_at.is_some(), formed, "{phase:?}");
    }
}

#[test]
fn retained_volumes_are_adopted_by_annotation_only() {
    let cases = [
        ("c-1/l-1/2", Some(("c-1", "l-1", 2))),
        ("c-1/l-1", None),
        ("c-1/l-1/2/3", None),
        ("c-1/l-1/-1", None),
        ("c-1//2", None),
        ("/l-1/2", None),
        ("", None),
    ];
    for (text, read) in cases {
        let mut fixture = Fixture::running(3, 0);
        fixture.seen.cluster.status = None;
        fixture.seen.state = None;
        let annotations = &mut fixture.seen.cluster.metadata.annotations;
        *annotations = Some([(names::ADOPT_ANNOTATION.to_owned(), text.to_owned())].into());
        let status = plan(&fixture.seen).status;
        let adopted = status.cluster_id.as_deref();
        let adopted = adopted.zip(status.lineage.as_ref());
        let adopted = adopted.map(|(id, lineage)| (id, lineage.id.as_str(), lineage.epoch));
        assert_eq!(adopted, read, "{text}");
        assert_eq!(status.bootstrapped_at.is_some(), read.is_some(), "{text}");
    }
}
