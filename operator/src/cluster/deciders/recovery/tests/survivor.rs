//! Which member a recovery starts from.
use super::*;

#[test]
fn the_newest_log_by_term_then_index() {
    let mut fixture = Fixture::running(5, 0);
    for lost in ["demo-0", "demo-1", "demo-2"] {
        fixture.wipe(lost);
    }
    fixture.leaderless();
    fixture.reconcile();
    // A longer log of an older term is not newer.
    (
        fixture.node("demo-3").last_log_term,
        fixture.node("demo-3").last_log_index,
    ) = (2, 500);
    (
        fixture.node("demo-4").last_log_term,
        fixture.node("demo-4").last_log_index,
    ) = (3, 101);
    let name = fixture.recovery(|_| {});
    inspect(&mut fixture, "demo-4");
    assert_eq!(
        fixture.recovery_status(&name).survivor.as_deref(),
        Some("demo-4")
    );
    assert_eq!(fixture.recovery_status(&name).candidates.len(), 5);
}

#[test]
fn a_corrupt_survivor_is_passed_over() {
    let mut fixture = Fixture::running(5, 0);
    for lost in ["demo-0", "demo-1", "demo-2"] {
        fixture.wipe(lost);
    }
    fixture.leaderless();
    fixture.node("demo-4").last_log_index = 110;
    fixture.reconcile();
    let name = fixture.recovery(|_| {});
    let of_newest = requested(&mut fixture, "demo-4");
    fixture.check(&of_newest, Some("row 7 missing from index"));
    inspect(&mut fixture, "demo-3");
    let status = fixture.recovery_status(&name);
    assert_eq!(status.survivor.as_deref(), Some("demo-3"));
    let passed_over = status
        .candidates
        .iter()
        .find(|c| c.member == "demo-4")
        .unwrap();
    assert!(passed_over.reason.as_ref().unwrap().contains("row 7"));
}

#[test]
fn a_read_replica_only_if_a_person_names_it() {
    let mut fixture = Fixture::running(3, 1);
    fixture.wipe("demo-0");
    fixture.wipe("demo-1");
    fixture.leaderless();
    fixture.node("demo-ro-0").last_log_index = 105;
    fixture.reconcile();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    fixture.reconcile();
    let status = fixture.recovery_status(&name);
    assert_eq!(status.phase, Some(AwaitingApproval));
    assert!(
        status
            .message
            .unwrap()
            .contains("demo-ro-0 has a newer log")
    );
    fixture.later(1);
    let next = fixture.recovery(|s| {
        s.accept_data_loss = true;
        s.survivor = Some("demo-ro-0".to_owned());
    });
    inspect(&mut fixture, "demo-ro-0");
    assert_eq!(phase(&fixture, &next), Fencing);
    assert_eq!(fixture.status().recovery.unwrap().survivor, "demo-ro-0");
}

#[test]
fn read_replicas_that_were_put_away_are_not_waited_for_unless_nobody_else_is_left() {
    let scaled_away = |lost: &[&str]| {
        let mut fixture = Fixture::running(3, 1);
        fixture.leaderless();
        let readers = fixture.seen.cluster.spec.read_replicas.as_mut().unwrap();
        readers.replicas = Some(0);
        fixture.seen.readers.as_mut().unwrap().replicas = 0;
        fixture.seen.pods.retain(|pod| pod.pool == Pool::Voter);
        fixture.seen.nodes.remove("demo-ro-0");
        for name in lost {
            fixture.wipe(name);
        }
        fixture.reconcile();
        fixture
    };
    let mut fixture = scaled_away(&["demo-0", "demo-1"]);
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &name), Fencing);
    let status = fixture.recovery_status(&name).candidates;
    let reader = status.iter().find(|c| c.member == "demo-ro-0").unwrap();
    let reason = reader.reason.as_deref().unwrap();
    assert!(reason.contains("readReplicas.replicas to 1"), "{reason}");
    let mut fixture = scaled_away(&["demo-0", "demo-1", "demo-2"]);
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    fixture.reconcile();
    let status = fixture.recovery_status(&name);
    assert_eq!(status.phase, Some(Inspecting));
    let message = status.message.unwrap();
    assert!(message.contains("readReplicas.replicas to 1"), "{message}");
    // As the message says; it is started even without a leader.
    let readers = fixture.seen.cluster.spec.read_replicas.as_mut().unwrap();
    readers.replicas = Some(1);
    assert!(matches!(
        fixture.action(),
        Some(Action::SetReplicas { from: 0, to: 1, .. })
    ));
}

#[test]
fn a_read_replica_that_joined_unseen_can_be_the_survivor() {
    let mut fixture = Fixture::running(1, 1);
    // The last configuration on record does not contain it.
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    status.members.retain(|m| m.name == "demo-0");
    status.configuration_index = Some(3);
    fixture.node("demo-ro-0").config_index = 5;
    fixture.wipe("demo-0");
    fixture.leaderless();
    fixture.reconcile();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), AwaitingApproval);
    let message = message(&fixture, &name);
    assert!(
        message.contains("the read replica demo-ro-0 is"),
        "{message}"
    );
}

#[test]
fn who_left_the_configuration_is_the_last_hope_and_only_by_name() {
    let smaller = |lost: &[&str]| {
        let mut fixture = Fixture::running(3, 0);
        fixture.seen.cluster.spec.replicas = 2;
        for name in ["demo-0", "demo-1"] {
            let node = fixture.node(name);
            node.config.retain(|m| m.name != "demo-2");
            node.config_index = 9;
        }
        fixture.node("demo-2").last_log_index = 98;
        fixture.reconcile();
        for name in lost {
            fixture.wipe(name);
        }
        fixture.leaderless();
        fixture.reconcile();
        fixture
    };
    // A member of the configuration is left.
    let mut fixture = smaller(&["demo-0"]);
    let name = fixture.recovery(|s| s.survivor = Some("demo-2".to_owned()));
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Rejected);
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    inspect(&mut fixture, "demo-1");
    assert_eq!(phase(&fixture, &name), Fencing);
    // None is left.
    let mut fixture = smaller(&["demo-0", "demo-1"]);
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    assert_eq!(fixture.action(), None);
    let status = fixture.recovery_status(&name);
    assert_eq!(status.phase, Some(AwaitingApproval));
    let message = status.message.unwrap();
    assert!(
        message.contains("demo-2 has some") && message.contains("index 98"),
        "{message}"
    );
    assert!(
        status
            .candidates
            .iter()
            .any(|c| c.member == "demo-2" && c.reason.is_none())
    );
    fixture.later(1);
    let named = |s: &mut operator_api::RqliteRecoverySpec| s.survivor = Some("demo-2".to_owned());
    let name = fixture.recovery(named);
    inspect(&mut fixture, "demo-2");
    let status = fixture.recovery_status(&name);
    assert_eq!(status.phase, Some(AwaitingApproval));
    assert_eq!(status.possibly_lost_entries, Some(2));
    fixture.later(1);
    let name = fixture.recovery(|s| {
        named(s);
        s.accept_data_loss = true;
    });
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &name), Fencing);
    assert_eq!(fixture.status().recovery.unwrap().survivor, "demo-2");
    // Without data it cannot be used.
    let mut fixture = smaller(&["demo-0", "demo-1"]);
    fixture.node("demo-2").config.clear();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Rejected);
}
