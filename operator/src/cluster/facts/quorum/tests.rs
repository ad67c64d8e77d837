//! Tests of members' states and outages.
use super::*;
use crate::cluster::facts::observation::{Failure, FailureKind::*};
use crate::cluster::{action::Action, facts::observation::PrepareReport, fixture::Fixture};
use operator_api::status::{AVAILABLE, QUORUM_LOST, READY};

#[test]
fn survivors_that_meet_every_quorum_have_everything() {
    // voters, survivors, may lose
    let cases = [
        (1, 0, true),
        (2, 1, false),
        (3, 1, true),
        (3, 2, false),
        (4, 1, true),
        (4, 2, false),
        (5, 2, true),
        (5, 3, false),
        (9, 4, true),
    ];
    for (voters, survivors, loses) in cases {
        assert_eq!(
            may_lose_writes(voters, survivors),
            loses,
            "{survivors} of {voters}"
        );
    }
}

/// What happens to one voter of three.
type Harm = fn(&mut Fixture, &str);

const CUT_OFF: Harm = |s, n| s.unreachable(n);
const CRASHES: Harm = |s, n| s.down(n, "CrashLoopBackOff, after OOMKilled");
const NO_POD: Harm = |s, n| {
    s.unreachable(n);
    s.seen.pods.retain(|p| p.name != n);
};
const NO_CLAIM: Harm = |s, n| {
    NO_POD(s, n);
    let claim = names::claim(n);
    s.seen.claims.retain(|c| c.name != claim);
};
const NEW_CLAIM: Harm = |s, n| s.wipe(n);
const NO_VOLUME: Harm = |s, n| {
    s.down(n, "volume node affinity conflict");
    s.claim(n).lost = Some("its machine is gone".to_owned());
};
const EMPTIED: Harm = |s, n| s.node(n).raft_id = format!("{n}#i9");
const DAMAGED: Harm = |s, n| {
    s.down(n, "prepare: Error");
    s.pod(n).prepared = Some(report("Damaged", &format!("{n}#i0")));
};
const RECREATED: Harm = |s, n| {
    s.down(n, "starts");
    s.pod(n).prepared = Some(report("Ready", &format!("{n}#i9")));
};

fn report(state: &str, raft_id: &str) -> PrepareReport {
    PrepareReport {
        state: state.to_owned(),
        cluster_id: None,
        lineage: None,
        raft_id: Some(raft_id.to_owned()),
        last_log: None,
        reason: "torn".to_owned(),
    }
}

use operator_api::names;

#[test]
fn only_positive_evidence_makes_an_outage_permanent() {
    let lost: [(&str, Harm); 6] = [
        ("claim gone", NO_CLAIM),
        ("claim replaced", NEW_CLAIM),
        ("volume gone", NO_VOLUME),
        ("directory emptied", EMPTIED),
        ("data damaged", DAMAGED),
        ("data recreated", RECREATED),
    ];
    let away: [(&str, Harm); 3] = [
        ("cut off", CUT_OFF),
        ("crashes", CRASHES),
        ("no pod", NO_POD),
    ];
    for (a, harm) in lost.iter().chain(&away) {
        for (b, other) in lost.iter().chain(&away) {
            let mut fixture = Fixture::running(3, 0);
            harm(&mut fixture, "demo-0");
            other(&mut fixture, "demo-1");
            fixture.leaderless();
            let view = View::of(&fixture.seen);
            let permanent = matches!(classify_outage(&view), Outage::Permanent(..));
            let expected = [a, b].iter().all(|n| lost.iter().any(|(l, _)| l == *n));
            assert_eq!(
                permanent,
                expected,
                "{a} and {b}: {:?}",
                classify_outage(&view)
            );
        }
    }
}

#[test]
fn all_cut_off_is_not_knowing() {
    let mut fixture = Fixture::running(3, 0);
    for name in ["demo-0", "demo-1", "demo-2"] {
        fixture.unreachable(name);
    }
    assert!(matches!(
        classify_outage(&View::of(&fixture.seen)),
        Outage::Unreachable(_)
    ));
}

#[test]
fn what_responds_in_a_nodes_place_proves_nothing() {
    // All pods are ready. A node: does not respond in this way, or sees a leader (Ok true) or none (Ok
    // false).
    let cases = [
        ([Err(Interrupted), Err(Interrupted), Err(Interrupted)], true),
        ([Err(Timeout), Err(Refused), Err(Unauthorized)], true),
        ([Ok(true), Err(Interrupted), Err(Interrupted)], true),
        ([Ok(false), Err(Interrupted), Err(Interrupted)], false),
        ([Err(Malformed), Err(Interrupted), Err(Interrupted)], false),
        ([Ok(false), Ok(false), Ok(false)], false),
    ];
    for (responses, unreachable) in cases {
        let mut fixture = Fixture::running(3, 0);
        for (name, response) in ["demo-0", "demo-1", "demo-2"].into_iter().zip(responses) {
            match response {
                Ok(leader) => {
                    let node = fixture.node(name);
                    (node.is_leader, node.ready) = (false, leader);
                    node.leader = leader.then(|| "demo-0".to_owned());
                }
                Err(failure) => {
                    let failure = Failure {
                        failure,
                        message: "connection reset by peer".to_owned(),
                    };
                    let nodes = &mut fixture.seen.nodes;
                    nodes.insert(name.to_owned(), ProbeResult::Failed(failure));
                }
            }
        }
        let outage = classify_outage(&View::of(&fixture.seen));
        let found = matches!(outage, Outage::Unreachable(_));
        assert_eq!(found, unreachable, "{responses:?}: {outage:?}");
    }
}

#[test]
fn the_condition_takes_its_time_and_then_says_what_to_type() {
    let mut fixture = Fixture::running(3, 0);
    NEW_CLAIM(&mut fixture, "demo-0");
    NO_VOLUME(&mut fixture, "demo-1");
    fixture.leaderless();
    fixture.reconcile();
    let (lost, reason, text) = fixture.condition(QUORUM_LOST);
    assert!(!lost && reason == "LossDetected", "{text}");
    assert_eq!(fixture.condition(AVAILABLE).1, "LossDetected");
    assert_eq!(fixture.condition(READY).1, "LossDetected");
    fixture.later(301);
    fixture.reconcile();
    let (lost, reason, text) = fixture.condition(QUORUM_LOST);
    assert!(lost && reason == "VotersLost", "{text}");
    assert_eq!(fixture.condition(READY).1, "QuorumLost");
    for part in [
        "2 of 3 voters are lost for good and 2 are needed",
        "demo-0 (Lost): its claim was replaced",
        "demo-1 (Lost): its machine is gone",
        "Survivors: demo-2 (log ends at index 100, term 3)",
        "highest commit index seen: 100",
        "acknowledged writes may be lost",
        "kind: RqliteRecovery",
        "acceptDataLoss: true",
        "kubectl rqlite recover demo -n shop",
        "Runbook: quorum-lost",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn each_missing_voter_has_its_reason_and_what_helps() {
    let cases = [
        ("ImagePullBackOff: not found", "correct spec.image"),
        ("0/5 nodes are available: cordoned", "uncordon"),
        (
            "0/5: volume node affinity conflict",
            "delete its Node object",
        ),
        ("rqlited: OOMKilled (exit code 137)", "limits.memory"),
        (
            "CrashLoopBackOff, after Error (exit code 1)",
            "logs --previous",
        ),
    ];
    for (stuck, helps) in cases {
        let mut fixture = Fixture::running(3, 0);
        fixture.down("demo-1", stuck);
        fixture.down("demo-2", stuck);
        fixture.leaderless();
        let Outage::Temporary(text) = classify_outage(&View::of(&fixture.seen)) else {
            panic!("{stuck}");
        };
        assert!(text.contains(stuck) && text.contains(helps), "{text}");
    }
}

#[test]
fn a_pod_with_a_vote_comes_back_whoever_lowered_its_set() {
    // The StatefulSet was raised to three and lowered again by hand. The third node votes, which is known to
    // the status, to a node, or to nobody.
    for (confirmed, by_node, expected) in [
        (true, false, true),
        (false, true, true),
        (false, false, false),
    ] {
        let mut fixture = Fixture::running(3, 0);
        fixture.seen.cluster.spec.replicas = 2;
        let status = fixture.seen.cluster.status.as_mut().unwrap();
        status.target.as_mut().unwrap().replicas = 2;
        status.members.retain(|m| confirmed || m.name != "demo-2");
        fixture.seen.voters.as_mut().unwrap().replicas = 2;
        fixture.leaderless();
        NO_POD(&mut fixture, "demo-2");
        for name in ["demo-0", "demo-1"] {
            fixture
                .node(name)
                .config
                .retain(|m| by_node || m.name != "demo-2");
        }
        let raised = match fixture.action() {
            Some(Action::SetReplicas { from, to, .. }) => (from, to) == (2, 3),
            _ => false,
        };
        assert_eq!(raised, expected, "confirmed {confirmed}, told {by_node}");
    }
}

#[test]
fn a_member_without_a_vote_comes_back_as_well_unless_its_claim_is_known_to_be_gone() {
    // The third pod's claim: does it exist, and was it recorded with its node?
    for (there, seen, expected) in [
        (true, true, true),
        (true, false, true),
        (false, true, false),
        (false, false, true),
    ] {
        let mut fixture = Fixture::running(3, 0);
        for name in ["demo-0", "demo-1", "demo-2"] {
            fixture.node(name).config[2].voter = false;
        }
        fixture.reconcile();
        let status = fixture.seen.cluster.status.as_mut().unwrap();
        status.target.as_mut().unwrap().replicas = 2;
        if !seen {
            status.members[2].claim_uid = None;
        }
        fixture.seen.cluster.spec.replicas = 2;
        fixture.seen.voters.as_mut().unwrap().replicas = 2;
        let harm = if there { NO_POD } else { NO_CLAIM };
        harm(&mut fixture, "demo-2");
        fixture.leaderless();
        let action = fixture.action();
        let raised = matches!(action, Some(Action::SetReplicas { from: 2, to: 3, .. }));
        assert_eq!(raised, expected, "{there} {seen}: {action:?}");
    }
}
