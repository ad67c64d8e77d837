use super::*;
use crate::cluster::{
    facts::observation::{ClaimSeen, ConfigMember, NodeStatus},
    scene::Scene,
};
use operator_api::cluster::Retention;

/// A cluster of so many that should have so many.
fn resized(from: i32, to: i32) -> Scene {
    let mut scene = Scene::running(from, 0);
    scene.seen.cluster.spec.replicas = to;
    scene
}

fn leave(scene: &mut Scene, victim: &str) {
    for pod in scene.seen.pods.clone() {
        scene.node(&pod.name).config.retain(|m| m.name != victim);
    }
}

fn join(scene: &mut Scene, name: &str, voter: bool) {
    for pod in scene.seen.pods.clone() {
        scene.node(&pod.name).config.push(ConfigMember {
            raft_id: format!("{name}#i0"),
            name: name.to_owned(),
            voter,
        });
    }
}

fn shrink(scene: &mut Scene, to: i32) {
    let removed: Vec<String> = scene.seen.pods.iter().map(|p| p.name.clone()).collect();
    for name in removed {
        if names::ordinal("demo", &name).is_some_and(|o| o >= to) {
            scene.seen.pods.retain(|p| p.name != name);
            scene.seen.nodes.remove(&name);
        }
    }
    scene.seen.voters.as_mut().unwrap().replicas = to;
}

/// Up to the proof that `demo-2` is out, with its pod still there.
fn expelled() -> Scene {
    let mut scene = resized(3, 2);
    scene.pass();
    scene.later(6);
    assert!(
        matches!(scene.action(), Some(Action::RemoveMember { name, raft_id, .. }) if name == "demo-2" && raft_id == "demo-2#i0")
    );
    leave(&mut scene, "demo-2");
    scene
}

#[test]
fn a_voter_leaves_the_configuration_before_its_pod_goes() {
    let mut scene = expelled();
    let shrunk = scene.action();
    let absent = Absent {
        leader: "demo-0".to_owned(),
        member: "demo-2".to_owned(),
        last_log_term: 3,
        last_log_index: 100,
    };
    assert!(
        matches!(&shrunk, Some(Action::SetReplicas { from: 3, to: 2, absent: Some(a), .. }) if *a == absent),
        "the leader is asked once more: {shrunk:?}"
    );
    shrink(&mut scene, 2);
    assert_eq!(scene.action(), None);
    let status = scene.status();
    assert_eq!(status.operation, None);
    assert_eq!(status.retired_claims[0].uid, "claim-demo-2");
}

#[test]
fn only_a_leader_that_knows_what_is_committed_proves_that_a_member_is_out() {
    let mut scene = expelled();
    let Some(Action::SetReplicas {
        absent: Some(absent),
        ..
    }) = scene.action()
    else {
        panic!("the pod stays");
    };
    let proven = |scene: &mut Scene, change: &dyn Fn(&mut NodeStatus)| {
        let mut node = scene.node("demo-0").clone();
        change(&mut node);
        absent.is_proven_by(&node)
    };
    assert!(proven(&mut scene, &|_| {}));
    // Busy: entry 100, of its term, was seen.
    assert!(proven(&mut scene, &|node| node.last_log_index = 130));
    assert!(!proven(&mut scene, &|node| {
        (node.last_log_index, node.commit_index) = (130, 99);
    }));
    // It was elected anew since; its configuration may be an old one.
    let elected = |node: &mut NodeStatus, commit| {
        (node.term, node.last_log_term) = (5, 5);
        (node.last_log_index, node.commit_index) = (131, commit);
    };
    assert!(!proven(&mut scene, &|node| elected(node, 130)));
    assert!(proven(&mut scene, &|node| elected(node, 131)));
    assert!(!proven(&mut scene, &|node| node.term = 5));
    assert!(!proven(&mut scene, &|node| node.is_leader = false));
    assert!(!proven(&mut scene, &|node| {
        node.leader = Some("demo-1".to_owned());
    }));
    join(&mut scene, "demo-2", false);
    assert!(!proven(&mut scene, &|_| {}));
}

#[test]
fn who_has_joined_again_is_removed_again_before_its_pod_goes() {
    let mut scene = expelled();
    scene.pass();
    join(&mut scene, "demo-2", false);
    scene.pass();
    scene.later(6);
    assert!(matches!(scene.action(), Some(Action::RemoveMember { .. })));
    assert_eq!(scene.status().operation.unwrap().step, Step::Start);
    assert_eq!(scene.status().target.unwrap().replicas, 3);
}

#[test]
fn a_claim_is_not_put_away_while_the_configuration_has_its_member() {
    for (voter, deletes) in [(false, false), (true, false), (true, true)] {
        let mut scene = expelled();
        if deletes {
            scene.seen.cluster.spec.storage.retention = Some(Retention {
                when_scaled: Some(Deletion::Delete),
                ..Retention::default()
            });
        }
        assert!(matches!(scene.action(), Some(Action::SetReplicas { .. })));
        // It was started again just before, and its pod goes while it is in.
        join(&mut scene, "demo-2", voter);
        shrink(&mut scene, 2);
        scene.later(6);
        let action = scene.action();
        assert!(
            matches!(&action, Some(Action::RemoveMember { name, .. }) if name == "demo-2"),
            "{voter} {deletes}: {action:?}"
        );
        leave(&mut scene, "demo-2");
        let action = scene.action();
        let deleted = matches!(action, Some(Action::DeleteClaim { .. }));
        assert_eq!(deleted, deletes, "{action:?}");
        assert_eq!(scene.status().retired_claims.len(), usize::from(!deletes));
    }
}

#[test]
fn what_the_remaining_cannot_carry_is_blocked() {
    let mut scene = resized(3, 2);
    scene.down("demo-1", "CrashLoopBackOff");
    scene.pass();
    scene.later(6);
    assert_eq!(scene.action(), None);
    let plan = scene.pass();
    assert!(plan.summary.contains("needs 2"), "{}", plan.summary);
}

#[test]
fn one_voter_is_added_at_a_time_and_only_to_complete_ones() {
    let mut scene = resized(3, 5);
    scene.down("demo-1", "CrashLoopBackOff");
    assert_eq!(scene.action(), None);
    assert_eq!(scene.status().operation, None);
    let mut scene = resized(3, 5);
    let raised = scene.action();
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
        scene.status().operation.unwrap().member.as_deref(),
        Some("demo-3")
    );
}

#[test]
fn a_newcomer_that_never_joined_goes_where_it_is_not_wanted_any_more() {
    let mut scene = resized(3, 4);
    scene.action();
    scene.seen.voters.as_mut().unwrap().replicas = 4;
    scene.seen.claims.push(ClaimSeen {
        name: "data-demo-3".to_owned(),
        uid: "claim-demo-3".to_owned(),
        ..scene.seen.claims[0].clone()
    });
    assert_eq!(scene.action(), None, "it starts and joins");
    scene.seen.cluster.spec.replicas = 3;
    let shrunk = (0..6).find_map(|_| scene.pass().action);
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
    let mut scene = resized(3, 4);
    scene.action();
    scene.seen.voters.as_mut().unwrap().replicas = 4;
    join(&mut scene, "demo-3", true);
    assert_eq!(scene.action(), None, "it catches up");
    scene.seen.cluster.spec.replicas = 1;
    scene.pass();
    scene.later(6);
    scene.pass();
    scene.later(6);
    let action = scene.action();
    assert!(
        matches!(&action, Some(Action::RemoveMember { name, .. }) if name == "demo-3"),
        "{action:?}"
    );
}

#[test]
fn read_replicas_follow_at_once_except_for_one_that_votes() {
    let mut scene = Scene::running(3, 2);
    let reads = |scene: &mut Scene, wanted| {
        let pool = scene.seen.cluster.spec.read_replicas.as_mut().unwrap();
        pool.replicas = Some(wanted);
    };
    reads(&mut scene, 0);
    assert!(matches!(
        scene.action(),
        Some(Action::SetReplicas {
            from: 2,
            to: 0,
            absent: None,
            ..
        })
    ));
    // A recovery has started from demo-ro-0: nobody else votes.
    for pod in scene.seen.pods.clone() {
        let node = scene.node(&pod.name);
        node.leader = Some("demo-ro-0".to_owned());
        node.is_leader = pod.name == "demo-ro-0";
        for member in &mut node.config {
            member.voter = member.name == "demo-ro-0";
        }
    }
    assert!(matches!(
        scene.action(),
        Some(Action::SetReplicas { from: 2, to: 1, .. })
    ));
    scene.leaderless();
    scene.seen.pods.retain(|p| p.pool == Pool::Voter);
    scene.seen.readers.as_mut().unwrap().replicas = 0;
    assert!(
        matches!(
            scene.action(),
            Some(Action::SetReplicas { from: 0, to: 1, .. })
        ),
        "without it there is no leader"
    );
}
