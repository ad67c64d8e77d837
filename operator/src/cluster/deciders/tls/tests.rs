//! A move to TLS and back: stages, what they wait for, and that no two pods are ever cut off.
use std::collections::BTreeSet;

use node_contract::status::SecurityStatus;
use operator_api::cluster::{ClientTls, NodeTls, NodeTlsMode, Tls};

use super::*;
use crate::cluster::{
    facts::stages::{ORDER, PodTls},
    fixture::Fixture,
};

#[test]
fn no_reachable_state_has_two_pods_that_cannot_speak() {
    // What is on record, and the stage of each of three pods.
    let mut reached = BTreeSet::new();
    let mut open: Vec<(TlsStage, [TlsStage; 3])> =
        ORDER.iter().map(|stage| (*stage, [*stage; 3])).collect();
    while let Some(state) = open.pop() {
        if !reached.insert(state) {
            continue;
        }
        let (recorded, pods) = state;
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            assert!(can_speak(pods[one], pods[other]), "{state:?}");
        }
        // A pod is made of the recorded template, in any order, at any time.
        for index in 0..3 {
            let mut next = pods;
            next[index] = recorded;
            open.push((recorded, next));
        }
        // A person may change the goal in every state. The StatefulSet has the recorded template, or the one
        // that some pod still has.
        for goal in ORDER {
            let mut all = pods.to_vec();
            all.push(recorded);
            open.extend(next_stage(recorded, &all, goal, Side::Nodes).map(|next| (next, pods)));
        }
    }
    assert!(
        reached.len() > 16 && reached.len() < 64,
        "{}",
        reached.len()
    );
}

/// A cluster from before TLS whose nodes speak it, or not.
fn old(speaks: bool) -> Fixture {
    let mut fixture = Fixture::running(3, 0);
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    status.tls = None;
    fixture.seen.cluster.spec.tls = None;
    for name in ["demo-0", "demo-1", "demo-2"] {
        fixture.node(name).security = speaks.then(SecurityStatus::default);
    }
    for _ in 0..6 {
        fixture.reconcile();
    }
    fixture
}

fn ask(fixture: &mut Fixture, mode: NodeTlsMode) {
    fixture.seen.cluster.spec.tls = Some(Tls {
        nodes: Some(NodeTls {
            mode: Some(mode),
            certificate: None,
        }),
        clients: Some(ClientTls::default()),
    });
}

fn stage(fixture: &Fixture) -> TlsStage {
    fixture.status().tls.unwrap().nodes.stage
}

#[test]
fn a_cluster_from_before_stays_as_it_is_until_its_spec_asks() {
    let mut fixture = old(true);
    assert_eq!(stage(&fixture), TlsStage::Plain);
    let hash = fixture.status().target.unwrap().template_hash;
    for _ in 0..4 {
        let plan = fixture.reconcile();
        assert!(plan.secrets.is_empty() && plan.action.is_none());
    }
    assert_eq!(fixture.status().target.unwrap().template_hash, hash);
}

#[test]
fn nothing_begins_while_a_node_does_not_speak_tls() {
    let mut fixture = old(false);
    ask(&mut fixture, NodeTlsMode::Required);
    for _ in 0..5 {
        fixture.reconcile();
    }
    assert_eq!(stage(&fixture), TlsStage::Plain);
    let (ready, _, text) = fixture.condition(operator_api::status::READY);
    assert!(!ready && text.contains("update the image first"), "{text}");
}

#[test]
fn nothing_begins_before_there_is_a_certificate() {
    let mut fixture = old(true);
    ask(&mut fixture, NodeTlsMode::Required);
    for _ in 0..5 {
        let plan = fixture.reconcile();
        assert!(
            plan.secrets
                .make
                .iter()
                .any(|secret| secret.name == "demo-rqlite-ca")
        );
    }
    assert_eq!(stage(&fixture), TlsStage::Plain);
}

#[test]
fn the_next_stage_waits_for_every_pod_of_the_present_one() {
    let mut fixture = Fixture::running(3, 0);
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    let known = status.tls.as_mut().unwrap();
    (known.nodes.mode, known.nodes.stage) = (TlsMode::Required, TlsStage::Require);
    let settle = |fixture: &mut Fixture, late: Option<TlsStage>| {
        for _ in 0..8 {
            if let Some(nodes) = late {
                fixture.pod("demo-1").tls.nodes = nodes;
            }
            fixture.reconcile();
        }
    };
    settle(&mut fixture, None);
    assert_eq!(fixture.pod("demo-1").tls.nodes, TlsStage::Require);
    ask(&mut fixture, NodeTlsMode::Disabled);
    settle(&mut fixture, Some(TlsStage::Require));
    assert_eq!(stage(&fixture), TlsStage::Use, "one pod has not followed");
    fixture.down("demo-1", "OOMKilled");
    settle(&mut fixture, Some(TlsStage::Use));
    assert_eq!(stage(&fixture), TlsStage::Use, "one does not take part");
    let mut fixture = Fixture::running(3, 0);
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    let known = status.tls.as_mut().unwrap();
    (known.nodes.mode, known.nodes.stage) = (TlsMode::Required, TlsStage::Require);
    settle(&mut fixture, None);
    ask(&mut fixture, NodeTlsMode::Disabled);
    for _ in 0..4 {
        settle(&mut fixture, None);
    }
    assert_eq!(stage(&fixture), TlsStage::Plain);
    assert_eq!(fixture.pod("demo-1").tls, PodTls::default());
}
