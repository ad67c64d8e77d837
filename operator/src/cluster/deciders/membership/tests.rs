//! Tests of configurations on record and foreign data.
use super::*;
use crate::cluster::{facts::view::View, fixture::Fixture};

/// The status records a configuration of three; the nodes in `knows` know a newer one of two.
fn removed(fixture: &mut Fixture, knows: &[&str]) {
    for name in ["demo-0", "demo-1", "demo-2"] {
        let node = fixture.node(name);
        node.config_index = 7;
        if knows.contains(&name) {
            node.config_index = 9;
            node.config.retain(|m| m.name != "demo-2");
        }
    }
}

#[test]
fn a_leader_that_lags_behind_its_predecessor_is_not_believed() {
    let cases: [(&[&str], bool, Option<i64>, bool); 6] = [
        (&[], false, None, true),
        (&["demo-0", "demo-1"], false, None, true),
        (&["demo-1"], false, None, false),
        (&[], false, Some(9), false),
        // The leader has committed an entry of its own term: it knows all configurations.
        (&["demo-1"], true, None, true),
        (&[], true, Some(9), true),
    ];
    for (knows, settled, on_record, believed) in cases {
        let mut fixture = Fixture::running(3, 0);
        removed(&mut fixture, knows);
        for name in ["demo-0", "demo-1", "demo-2"] {
            fixture.node(name).term = 4;
        }
        let leader = fixture.node("demo-0");
        leader.last_log_term = if settled { 4 } else { 3 };
        let status = fixture.seen.cluster.status.as_mut().unwrap();
        status.configuration_index = on_record;
        let view = View::of(&fixture.seen);
        assert_eq!(
            view.leader.is_some(),
            believed,
            "{knows:?} {settled} {on_record:?}"
        );
    }
}

#[test]
fn without_a_leader_the_newest_committed_configuration_is_judged() {
    let mut fixture = Fixture::running(3, 0);
    removed(&mut fixture, &["demo-0"]);
    fixture.leaderless();
    let plan = fixture.reconcile();
    assert!(plan.summary.contains("index 9"), "{}", plan.summary);
    let status = fixture.status();
    assert_eq!(status.configuration_index, Some(9));
    let voters = status.members.iter().filter(|m| m.role == Role::Voter);
    let voters: Vec<_> = voters.map(|m| m.name.as_str()).collect();
    assert_eq!(voters, ["demo-0", "demo-1"]);
    // One of two is lost, not one of three: the quorum is lost for good.
    fixture.wipe("demo-1");
    fixture.reconcile();
    fixture.later(3600);
    fixture.reconcile();
    let (lost, _, text) = fixture.condition(operator_api::status::QUORUM_LOST);
    assert!(lost, "{text}");
    assert!(text.contains("1 of 2 voters"), "{text}");
    let plan = fixture.reconcile();
    assert!(!plan.summary.contains("recording"), "once is enough");
}

#[test]
fn what_another_history_has_committed_does_not_count() {
    let mut fixture = Fixture::running(3, 0);
    removed(&mut fixture, &["demo-0"]);
    fixture.leaderless();
    fixture.node("demo-0").lineage.as_mut().unwrap().id = "other".to_owned();
    fixture.reconcile();
    assert_ne!(fixture.status().configuration_index, Some(9));
}

#[test]
fn a_foreign_volume_of_a_read_replica_holds_nothing_up() {
    use crate::cluster::{action::Action, facts::observation::PrepareReport};
    let mut fixture = Fixture::running(3, 2);
    fixture.later(60);
    fixture.down("demo-ro-0", "prepare: CrashLoopBackOff");
    fixture.pod("demo-ro-0").prepared = Some(PrepareReport {
        state: "Foreign".to_owned(),
        cluster_id: Some("other".to_owned()),
        lineage: None,
        raft_id: None,
        last_log: None,
        reason: "belongs to cluster other".to_owned(),
    });
    assert_eq!(fixture.action(), None);
    let (degraded, reason, text) = fixture.condition("Degraded");
    assert!(degraded && reason == "ForeignData", "{reason}");
    assert!(text.contains("kubectl delete pvc data-demo-ro-0"), "{text}");
    // An update restarts it once and goes on with the others.
    fixture.keeps_pods = true;
    fixture.seen.cluster.spec.termination_grace_period_seconds += 1;
    let restart = fixture.action();
    assert!(
        matches!(&restart, Some(Action::DeletePod { name, .. }) if name == "demo-ro-0"),
        "{restart:?}"
    );
    let hash = fixture.status().target.unwrap().read_template_hash;
    let pod = fixture.pod("demo-ro-0");
    (pod.uid, pod.template_hash) = ("new".to_owned(), hash.unwrap());
    let next = fixture.action();
    assert!(
        matches!(&next, Some(Action::EvictPod { name, .. }) if name == "demo-ro-1"),
        "{next:?}"
    );
    // The voters' are another matter.
    let mut fixture = Fixture::running(3, 0);
    fixture.node("demo-2").cluster_id = Some("other".to_owned());
    fixture.seen.cluster.spec.replicas = 5;
    assert_eq!(fixture.action(), None);
    assert_eq!(fixture.condition("Degraded").1, "ForeignData");
}
