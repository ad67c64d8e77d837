//! Tests of the scaling of voters and read replicas.
use super::*;
use crate::cluster::{
    facts::observation::{ConfigMember, NodeStatus, ObservedClaim},
    fixture::Fixture,
};
use operator_api::cluster::Retention;

/// A cluster of `from` voters whose spec asks for `to`.
fn resized(from: i32, to: i32) -> Fixture {
    let mut fixture = Fixture::running(from, 0);
    fixture.seen.cluster.spec.replicas = to;
    fixture
}

fn leave(fixture: &mut Fixture, victim: &str) {
    for pod in fixture.seen.pods.clone() {
        fixture.node(&pod.name).config.retain(|m| m.name != victim);
    }
}

fn join(fixture: &mut Fixture, name: &str, voter: bool) {
    for pod in fixture.seen.pods.clone() {
        fixture.node(&pod.name).config.push(ConfigMember {
            raft_id: format!("{name}#i0"),
            name: name.to_owned(),
            voter,
        });
    }
}

fn shrink(fixture: &mut Fixture, to: i32) {
    let removed: Vec<String> = fixture.seen.pods.iter().map(|p| p.name.clone()).collect();
    for name in removed {
        if names::ordinal("demo", &name).is_some_and(|o| o >= to) {
            fixture.seen.pods.retain(|p| p.name != name);
            fixture.seen.nodes.remove(&name);
        }
    }
    fixture.seen.voters.as_mut().unwrap().replicas = to;
}

/// Up to the proof that `demo-2` is out of the configuration; its pod still exists.
fn expelled() -> Fixture {
    let mut fixture = resized(3, 2);
    fixture.reconcile();
    fixture.later(6);
    assert!(
        matches!(fixture.action(), Some(Action::RemoveMember { name, raft_id, .. }) if name == "demo-2" && raft_id == "demo-2#i0")
    );
    leave(&mut fixture, "demo-2");
    fixture
}

#[test]
fn a_voter_leaves_the_configuration_before_its_pod_goes() {
    let mut fixture = expelled();
    let shrunk = fixture.action();
    let absent = RequiredAbsence {
        leader: "demo-0".to_owned(),
        member: "demo-2".to_owned(),
        last_log_term: 3,
        last_log_index: 100,
    };
    assert!(
        matches!(&shrunk, Some(Action::SetReplicas { from: 3, to: 2, absent: Some(a), .. }) if *a == absent),
        "the leader is asked once more: {shrunk:?}"
    );
    shrink(&mut fixture, 2);
    assert_eq!(fixture.action(), None);
    let status = fixture.status();
    assert_eq!(status.operation, None);
    assert_eq!(status.retired_claims[0].uid, "claim-demo-2");
}

#[test]
fn only_a_leader_that_knows_what_is_committed_proves_that_a_member_is_out() {
    let mut fixture = expelled();
    let Some(Action::SetReplicas {
        absent: Some(absent),
        ..
    }) = fixture.action()
    else {
        panic!("the pod stays");
    };
    let proven = |fixture: &mut Fixture, change: &dyn Fn(&mut NodeStatus)| {
        let mut node = fixture.node("demo-0").clone();
        change(&mut node);
        absent.is_proven_by(&node)
    };
    assert!(proven(&mut fixture, &|_| {}));
    // A busy leader: entry 100, of its term, was observed.
    assert!(proven(&mut fixture, &|node| node.last_log_index = 130));
    assert!(!proven(&mut fixture, &|node| {
        (node.last_log_index, node.commit_index) = (130, 99);
    }));
    // It was elected again since; its configuration may be an old one.
    let elected = |node: &mut NodeStatus, commit| {
        (node.term, node.last_log_term) = (5, 5);
        (node.last_log_index, node.commit_index) = (131, commit);
    };
    assert!(!proven(&mut fixture, &|node| elected(node, 130)));
    assert!(proven(&mut fixture, &|node| elected(node, 131)));
    assert!(!proven(&mut fixture, &|node| node.term = 5));
    assert!(!proven(&mut fixture, &|node| node.is_leader = false));
    assert!(!proven(&mut fixture, &|node| {
        node.leader = Some("demo-1".to_owned());
    }));
    join(&mut fixture, "demo-2", false);
    assert!(!proven(&mut fixture, &|_| {}));
}

#[test]
fn who_has_joined_again_is_removed_again_before_its_pod_goes() {
    let mut fixture = expelled();
    fixture.reconcile();
    join(&mut fixture, "demo-2", false);
    fixture.reconcile();
    fixture.later(6);
    assert!(matches!(
        fixture.action(),
        Some(Action::RemoveMember { .. })
    ));
    assert_eq!(fixture.status().operation.unwrap().step, Step::Start);
    assert_eq!(fixture.status().target.unwrap().replicas, 3);
}

#[test]
fn a_claim_is_not_put_away_while_the_configuration_has_its_member() {
    for (voter, deletes) in [(false, false), (true, false), (true, true)] {
        let mut fixture = expelled();
        if deletes {
            fixture.seen.cluster.spec.storage.retention = Some(Retention {
                when_scaled: Some(Deletion::Delete),
                ..Retention::default()
            });
        }
        assert!(matches!(fixture.action(), Some(Action::SetReplicas { .. })));
        // Its node was restarted just before and has rejoined, and its pod is deleted while it is a member.
        join(&mut fixture, "demo-2", voter);
        shrink(&mut fixture, 2);
        fixture.later(6);
        let action = fixture.action();
        assert!(
            matches!(&action, Some(Action::RemoveMember { name, .. }) if name == "demo-2"),
            "{voter} {deletes}: {action:?}"
        );
        leave(&mut fixture, "demo-2");
        let action = fixture.action();
        let deleted = matches!(action, Some(Action::DeleteClaim { .. }));
        assert_eq!(deleted, deletes, "{action:?}");
        assert_eq!(fixture.status().retired_claims.len(), usize::from(!deletes));
    }
}

#[test]
fn what_the_remaining_cannot_carry_is_blocked() {
    let mut fixture = resized(3, 2);
    fixture.down("demo-1", "CrashLoopBackOff");
    fixture.reconcile();
    fixture.later(6);
    assert_eq!(fixture.action(), None);
    let plan = fixture.reconcile();
    assert!(plan.summary.contains("needs 2"), "{}", plan.summary);
}

#[test]
fn one_voter_is_added_at_a_time_and_only_to_complete_ones() {
    let mut fixture = resized(3, 5);
    fixture.down("demo-1", "CrashLoopBackOff");
    assert_eq!(fixture.action(), None);
    assert_eq!(fixture.status().operation, None);
    let mut fixture = resized(3, 5);
    let raised = fixture.action();
    assert!(
        matches!(
            raised,
            Some(Action::SetReplicas {
                from: 3,
                to: 4,
                absent: None,
                ..
            })
        ),
        "{raised:?}"
    );
    assert_eq!(
        fixture.status().operation.unwrap().member.as_deref(),
        Some("demo-3")
    );
}

#[test]
fn a_member_whose_pod_went_with_a_lowered_statefulset_comes_back_first() {
    for wanted in [5, 4] {
        let mut fixture = resized(2, wanted);
        join(&mut fixture, "demo-3", true);
        let raised = fixture.action();
        assert!(
            matches!(
                raised,
                Some(Action::SetReplicas {
                    from: 2,
                    to: 4,
                    absent: None,
                    ..
                })
            ),
            "{wanted}: {raised:?}"
        );
        assert_eq!(fixture.status().target.unwrap().replicas, 2);
    }
}

#[test]
fn a_newcomer_that_never_joined_goes_where_it_is_not_wanted_any_more() {
    let mut fixture = resized(3, 4);
    fixture.action();
    fixture.seen.voters.as_mut().unwrap().replicas = 4;
    fixture.seen.claims.push(ObservedClaim {
        name: "data-demo-3".to_owned(),
        uid: "claim-demo-3".to_owned(),
        ..fixture.seen.claims[0].clone()
    });
    assert_eq!(fixture.action(), None, "it starts and joins");
    fixture.seen.cluster.spec.replicas = 3;
    let shrunk = (0..6).find_map(|_| fixture.reconcile().action);
    assert!(
        matches!(
            shrunk,
            Some(Action::SetReplicas {
                from: 4,
                to: 3,
                absent: Some(_),
                ..
            })
        ),
        "{shrunk:?}"
    );
}

#[test]
fn a_newcomer_that_is_lost_before_it_takes_part_does_not_hold_a_smaller_size_up() {
    let mut fixture = resized(3, 4);
    fixture.action();
    fixture.seen.voters.as_mut().unwrap().replicas = 4;
    join(&mut fixture, "demo-3", true);
    assert_eq!(fixture.action(), None, "it catches up");
    fixture.seen.cluster.spec.replicas = 1;
    fixture.reconcile();
    fixture.later(6);
    fixture.reconcile();
    fixture.later(6);
    let action = fixture.action();
    assert!(
        matches!(&action, Some(Action::RemoveMember { name, .. }) if name == "demo-3"),
        "{action:?}"
    );
}

#[test]
fn read_replicas_follow_at_once_except_for_one_that_votes() {
    let mut fixture = Fixture::running(3, 2);
    let reads = |fixture: &mut Fixture, wanted| {
        let pool = fixture.seen.cluster.spec.read_replicas.as_mut().unwrap();
        pool.replicas = Some(wanted);
    };
    reads(&mut fixture, 0);
    assert!(matches!(
        fixture.action(),
        Some(Action::SetReplicas {
            from: 2,
            to: 0,
            absent: None,
            ..
        })
    ));
    // A recovery has started from demo-ro-0, which alone votes.
    for pod in fixture.seen.pods.clone() {
        let node = fixture.node(&pod.name);
        node.leader = Some("demo-ro-0".to_owned());
        node.is_leader = pod.name == "demo-ro-0";
        for member in &mut node.config {
            member.voter = member.name == "demo-ro-0";
        }
    }
    assert!(matches!(
        fixture.action(),
        Some(Action::SetReplicas { from: 2, to: 1, .. })
    ));
    fixture.leaderless();
    fixture.seen.pods.retain(|p| p.pool == Pool::Voter);
    fixture.seen.readers.as_mut().unwrap().replicas = 0;
    assert!(
        matches!(
            fixture.action(),
            Some(Action::SetReplicas { from: 0, to: 1, .. })
        ),
        "without it there is no leader"
    );
}
