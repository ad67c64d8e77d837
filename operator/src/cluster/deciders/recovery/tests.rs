//! Tests of recoveries; here is what they share.
mod admission;
mod automatic;
mod belonging;
mod check;
mod from_archive;
mod steps;
mod survivor;

use super::*;
use crate::cluster::{
    action::Action,
    facts::observation::{ConfigMember, PrepareReport},
    fixture::{Fixture, NAME},
};
use node_contract::FormingPhase;
use operator_api::{
    cluster::{QuorumRecovery, RecoveryPolicy},
    names,
    recovery::{RecoveryMode, RecoveryPhase, RecoveryRecord},
    status::{OperationType, Phase, Pool, Step},
};

use RecoveryPhase::{
    Applying, AwaitingApproval, Failed, Fencing, Inspecting, Rejected, Rejoining, Succeeded,
    Verifying,
};

/// Two of three voters have lost their claims; `demo-2` is left.
fn two_of_three() -> Fixture {
    let mut fixture = Fixture::running(3, 0);
    fixture.wipe("demo-0");
    fixture.wipe("demo-1");
    fixture.leaderless();
    fixture.reconcile();
    fixture
}

fn phase(fixture: &Fixture, name: &str) -> RecoveryPhase {
    fixture.recovery_status(name).phase.unwrap()
}

fn message(fixture: &Fixture, name: &str) -> String {
    fixture.recovery_status(name).message.unwrap()
}

/// Reconciles until the survivor has been checked and the recovery has left that phase.
fn inspect(fixture: &mut Fixture, survivor: &str) {
    let requested = requested(fixture, survivor);
    fixture.check(&requested, None);
    fixture.reconcile();
}

/// The request for a check of this member, within the next reconciles.
fn requested(fixture: &mut Fixture, member: &str) -> Action {
    match fixture.action() {
        Some(action) if matches!(&action, Action::CheckMember { name, .. } if name == member) => {
            action
        }
        other => panic!("{other:?}"),
    }
}

fn stopped(fixture: &mut Fixture) {
    fixture.seen.pods.clear();
    fixture.seen.nodes.clear();
}

fn set(fixture: &mut Fixture, replicas: i32) {
    fixture.seen.voters.as_mut().unwrap().replicas = replicas;
}

/// The survivor runs again, as the only member of the new lineage.
fn survivor_runs(fixture: &mut Fixture, model: &Fixture, name: &str, lineage: &str, epoch: u64) {
    let pod = model.seen.pods.iter().find(|p| p.name == name).unwrap();
    fixture.seen.pods.push(pod.clone());
    let node = model.seen.nodes[name].clone();
    fixture.seen.nodes.insert(name.to_owned(), node);
    let node = fixture.node(name);
    node.raft_id = format!("{name}#new");
    node.lineage = Some(node_contract::Lineage {
        id: lineage.to_owned(),
        epoch,
    });
    (node.leader, node.is_leader, node.term, node.ready) = (Some(name.to_owned()), true, 9, true);
    node.config = vec![ConfigMember {
        raft_id: format!("{name}#new"),
        name: name.to_owned(),
        voter: true,
    }];
}

/// A recovery up to the moment when the survivor is to be started.
fn fenced() -> (Fixture, String) {
    let mut fixture = two_of_three();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &name), Fencing);
    assert_eq!(fixture.status().phase, Some(Phase::Recovering));
    assert!(matches!(
        fixture.action(),
        Some(Action::SetReplicas { from: 3, to: 0, .. })
    ));
    assert_eq!(
        fixture.seen.state.as_ref().unwrap().phase,
        FormingPhase::Formed,
        "no plan before all have stopped"
    );
    set(&mut fixture, 0);
    fixture.reconcile();
    let text = fixture.recovery_status(&name).message.unwrap();
    assert!(
        text.contains("demo-0 on m1, demo-1 on m1, demo-2 on m1"),
        "{text}"
    );
    stopped(&mut fixture);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Applying);
    (fixture, name)
}
