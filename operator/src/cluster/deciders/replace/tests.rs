//! Tests of the replacement of a lost member.
use super::*;
use crate::cluster::{facts::observation::PrepareReport, fixture::Fixture};
use operator_api::{cluster::MemberReplacement, status::DEGRADED};

fn lose_volume(fixture: &mut Fixture, name: &str) {
    fixture.down(name, "volume node affinity conflict");
    fixture.claim(name).lost = Some("its machine is gone".to_owned());
}

fn damage(fixture: &mut Fixture, name: &str) {
    fixture.down(name, "prepare: Error (exit code 1)");
    fixture.pod(name).prepared = Some(PrepareReport {
        state: "Damaged".to_owned(),
        cluster_id: None,
        lineage: None,
        raft_id: Some(format!("{name}#i0")),
        last_log: None,
        reason: "torn page".to_owned(),
    });
}

/// All nodes report the configuration without this member.
fn expelled(fixture: &mut Fixture, name: &str) {
    for other in ["demo-0", "demo-1", "demo-2"] {
        if other != name {
            fixture.node(other).config.retain(|m| m.name != name);
        }
    }
}

#[test]
fn a_lost_volume_is_replaced_claim_and_pod() {
    let mut fixture = Fixture::running(3, 0);
    lose_volume(&mut fixture, "demo-2");
    assert_eq!(fixture.action(), None, "not before its time");
    let (_, reason, text) = fixture.condition(DEGRADED);
    assert_eq!(reason, "MemberLost", "{text}");
    assert!(
        text.contains("demo-2 is lost (its machine is gone)"),
        "{text}"
    );
    fixture.later(600);
    assert!(
        matches!(fixture.action(), Some(Action::RemoveMember { name, raft_id, .. }) if name == "demo-2" && raft_id == "demo-2#i0")
    );
    expelled(&mut fixture, "demo-2");
    let uid = "claim-demo-2".to_owned();
    assert!(matches!(fixture.action(), Some(Action::DeleteClaim { uid: u, .. }) if u == uid));
    fixture.claim("demo-2").deleting = true;
    assert!(matches!(fixture.action(), Some(Action::DeletePod { uid, .. }) if uid == "pod-demo-2"));
    let claim = fixture.claim("demo-2");
    (claim.uid, claim.deleting, claim.lost) = ("new".to_owned(), false, None);
    let pod = fixture.pod("demo-2");
    (pod.uid, pod.stuck) = ("new".to_owned(), None);
    assert_eq!(fixture.action(), None);
    assert_eq!(fixture.status().operation.unwrap().step, Step::Recreate);
}

#[test]
fn damaged_data_is_put_aside_and_kept() {
    let mut fixture = Fixture::running(3, 0);
    damage(&mut fixture, "demo-1");
    fixture.action();
    fixture.later(600);
    assert!(
        matches!(fixture.action(), Some(Action::RemoveMember { name, .. }) if name == "demo-1")
    );
    assert!(fixture.seen.state.as_ref().unwrap().park.is_empty());
    expelled(&mut fixture, "demo-1");
    assert!(matches!(fixture.action(), Some(Action::DeletePod { uid, .. }) if uid == "pod-demo-1"));
    let token = fixture
        .seen
        .state
        .as_ref()
        .unwrap()
        .park
        .get("demo-1")
        .cloned();
    assert_eq!(token, fixture.status().operation.map(|o| o.id));
    // The new pod is left alone, whatever becomes of it.
    fixture.pod("demo-1").uid = "new".to_owned();
    assert_eq!(fixture.action(), None);
}

#[test]
fn never_two_at_once_and_never_without_a_quorum() {
    let mut fixture = Fixture::running(5, 0);
    lose_volume(&mut fixture, "demo-3");
    lose_volume(&mut fixture, "demo-4");
    fixture.reconcile();
    fixture.later(601);
    assert!(
        matches!(fixture.action(), Some(Action::RemoveMember { name, .. }) if name == "demo-3")
    );
    let mut fixture = Fixture::running(5, 0);
    lose_volume(&mut fixture, "demo-4");
    fixture.reconcile();
    fixture.later(601);
    fixture.down("demo-3", "x");
    fixture.down("demo-2", "x");
    assert_eq!(
        fixture.action(),
        None,
        "two of five take part beside the leader's"
    );
    let mut fixture = Fixture::running(3, 0);
    lose_volume(&mut fixture, "demo-2");
    fixture.reconcile();
    fixture.later(601);
    fixture.pod("demo-1").deleting = true;
    assert_eq!(fixture.action(), None);
}

#[test]
fn what_is_merely_away_is_never_replaced() {
    for stuck in [
        "CrashLoopBackOff, after OOMKilled",
        "0/3 nodes are available",
    ] {
        let mut fixture = Fixture::running(3, 0);
        fixture.down("demo-2", stuck);
        fixture.reconcile();
        fixture.later(1_000_000);
        assert_eq!(fixture.action(), None, "{stuck}");
    }
}

#[test]
fn evidence_that_goes_away_ends_it() {
    let mut fixture = Fixture::running(3, 0);
    lose_volume(&mut fixture, "demo-2");
    fixture.reconcile();
    fixture.later(601);
    fixture.reconcile();
    assert!(fixture.status().operation.is_some());
    fixture.claim("demo-2").lost = None;
    assert_eq!(fixture.action(), None);
    assert_eq!(fixture.status().operation, None);
}

#[test]
fn manual_says_what_to_type() {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.spec.member_replacement = Some(MemberReplacement {
        policy: Some(RepairPolicy::Manual),
        ..MemberReplacement::default()
    });
    lose_volume(&mut fixture, "demo-2");
    fixture.reconcile();
    fixture.later(1_000_000);
    assert_eq!(fixture.action(), None);
    let (_, _, text) = fixture.condition(DEGRADED);
    assert!(text.contains("kubectl delete pvc data-demo-2"), "{text}");
}

#[test]
fn who_was_removed_while_it_ran_is_started_again_once() {
    let mut fixture = Fixture::running(3, 0);
    expelled(&mut fixture, "demo-2");
    let node = fixture.node("demo-2");
    (node.leader, node.ready) = (None, false);
    assert!(matches!(fixture.action(), Some(Action::DeletePod { uid, .. }) if uid == "pod-demo-2"));
    fixture.pod("demo-2").uid = "new".to_owned();
    assert_eq!(fixture.action(), None);
    // A node that never was a member joins by itself.
    let mut fixture = Fixture::running(3, 0);
    expelled(&mut fixture, "demo-2");
    let node = fixture.node("demo-2");
    (node.leader, node.ready) = (None, false);
    node.config.clear();
    assert_eq!(fixture.action(), None);
}

#[test]
fn a_lost_surplus_voter_is_replaced_where_the_others_could_not_shrink_without_it() {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.spec.replicas = 1;
    fixture.reconcile();
    lose_volume(&mut fixture, "demo-1");
    fixture.later(6);
    assert_eq!(
        fixture.action(),
        None,
        "one of two would be left: too few without it"
    );
    fixture.later(601);
    let action = fixture.action();
    assert!(
        matches!(&action, Some(Action::RemoveMember { name, .. }) if name == "demo-1"),
        "{action:?}"
    );
    // The last pod is about to be removed anyway: it is not recreated first.
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.spec.replicas = 1;
    lose_volume(&mut fixture, "demo-2");
    fixture.reconcile();
    fixture.later(601);
    fixture.action();
    assert_eq!(
        fixture.status().operation.unwrap().kind,
        OperationType::ScaleDown
    );
}

#[test]
fn a_new_member_that_is_damaged_at_once_is_replaced_as_well() {
    let mut fixture = Fixture::running(3, 0);
    lose_volume(&mut fixture, "demo-2");
    fixture.reconcile();
    fixture.later(601);
    fixture.action();
    expelled(&mut fixture, "demo-2");
    assert!(matches!(fixture.action(), Some(Action::DeleteClaim { .. })));
    let claim = fixture.claim("demo-2");
    (claim.uid, claim.lost) = ("new".to_owned(), None);
    fixture.pod("demo-2").uid = "new".to_owned();
    damage(&mut fixture, "demo-2");
    assert_eq!(fixture.action(), None, "its kubelet may lag behind");
    fixture.later(601);
    assert!(matches!(fixture.action(), Some(Action::DeletePod { uid, .. }) if uid == "new"));
    assert_eq!(fixture.status().operation.unwrap().step, Step::Park);
}
