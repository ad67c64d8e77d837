//! Whether a recovery is admitted, waits or is rejected.
use super::*;

#[test]
fn without_consent_it_stops_and_says_what_may_be_lost() {
    let mut fixture = two_of_three();
    fixture.node("demo-2").last_log_index = 97;
    fixture.node("demo-2").commit_index = 96;
    let name = fixture.recovery(|_| {});
    inspect(&mut fixture, "demo-2");
    let status = fixture.recovery_status(&name);
    assert_eq!(status.phase, Some(AwaitingApproval));
    assert_eq!(status.survivor.as_deref(), Some("demo-2"));
    assert_eq!(status.possibly_lost_entries, Some(3));
    let message = status.message.unwrap();
    for part in [
        "index 97 of term 3",
        "highest commit index seen: 100",
        "known to be missing: 3",
        "1 of 3 voters left",
        "acceptDataLoss: true",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(fixture.action(), None, "nothing is touched");
    assert_eq!(fixture.seen.voters.as_ref().unwrap().replicas, 3);
    // The next one takes over.
    fixture.later(1);
    let next = fixture.recovery(|s| s.accept_data_loss = true);
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &name), Rejected);
    assert_eq!(phase(&fixture, &next), Fencing);
}

/// A recovery with consent, named `consents`: created in the same second as the first one, but before it by
/// name.
fn consents_in_the_same_second(fixture: &mut Fixture) {
    fixture.recovery(|s| s.accept_data_loss = true);
    let created = fixture.seen.recoveries[0]
        .metadata
        .creation_timestamp
        .clone();
    let consents = fixture.seen.recoveries.last_mut().unwrap();
    consents.metadata.creation_timestamp = created;
    consents.metadata.name = Some("consents".to_owned());
}

#[test]
fn of_two_of_the_same_second_the_one_that_was_not_looked_at_takes_over() {
    let mut fixture = two_of_three();
    let asked = fixture.recovery(|_| {});
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &asked), AwaitingApproval);
    consents_in_the_same_second(&mut fixture);
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &asked), Rejected);
    assert_eq!(phase(&fixture, "consents"), Fencing);
}

#[test]
fn who_was_rejected_for_another_does_not_take_over_from_it() {
    let mut fixture = two_of_three();
    let asked = fixture.recovery(|_| {});
    fixture.reconcile();
    // Reconciled more than once: its survivor is still to be checked.
    consents_in_the_same_second(&mut fixture);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &asked), Rejected);
    assert_eq!(phase(&fixture, "consents"), Inspecting);
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, "consents"), Fencing);
}

#[test]
fn a_dry_run_touches_nothing() {
    let mut fixture = two_of_three();
    let name = fixture.recovery(|s| {
        s.dry_run = true;
        s.accept_data_loss = true;
    });
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &name), Succeeded);
    assert!(message(&fixture, &name).starts_with("dry run"));
    assert_eq!(fixture.status().operation, None);
    assert_eq!(fixture.action(), None);
}

#[test]
fn refused_where_a_quorum_may_come_back() {
    let reject = |fixture: &mut Fixture, change: &dyn Fn(&mut operator_api::RqliteRecoverySpec)| {
        let name = fixture.recovery(|s| {
            s.accept_data_loss = true;
            change(s);
        });
        fixture.reconcile();
        fixture.later(i64::try_from(PATIENCE_SECONDS).unwrap());
        fixture.reconcile();
        let status = fixture.recovery_status(&name);
        assert_eq!(status.phase, Some(Rejected), "{status:?}");
        assert_ne!(
            fixture.status().operation.map(|o| o.kind),
            Some(OperationType::Recover)
        );
        status.message.unwrap()
    };
    let mut led = Fixture::running(3, 0);
    assert!(reject(&mut led, &|_| {}).contains("demo-0 leads"));

    let mut cut_off = Fixture::running(3, 0);
    cut_off.unreachable("demo-0");
    cut_off.unreachable("demo-1");
    cut_off.leaderless();
    assert!(reject(&mut cut_off, &|_| {}).contains("not known to be lost"));
    let text = reject(&mut cut_off, &|s| {
        s.ignore_members = vec!["demo-0".to_owned(), "demo-1".to_owned()];
    });
    assert!(
        text.contains("demo-0 is in ignoreMembers, but it runs"),
        "{text}"
    );

    // Of five, two are lost and one is unschedulable: three may come back.
    let mut five = Fixture::running(5, 0);
    five.wipe("demo-0");
    five.wipe("demo-1");
    five.down("demo-2", "0/3 nodes are available");
    five.leaderless();
    let text = reject(&mut five, &|_| {});
    assert!(text.contains("3 of 5 voters may come back"), "{text}");

    let mut asleep = two_of_three();
    asleep.seen.cluster.spec.hibernated = true;
    assert!(reject(&mut asleep, &|_| {}).contains("hibernated"));

    let mut nobody = Fixture::running(1, 0);
    nobody.wipe("demo-0");
    nobody.leaderless();
    assert!(reject(&mut nobody, &|_| {}).contains("load a backup"));
}

#[test]
fn a_follower_may_believe_in_a_leader_that_is_none() {
    let lost = |left: &str| {
        let mut fixture = Fixture::running(5, 0);
        for name in ["demo-1", "demo-2", "demo-4"] {
            fixture.wipe(name);
        }
        fixture.leaderless();
        fixture.node("demo-3").leader = Some(left.to_owned());
        fixture.reconcile();
        let name = fixture.recovery(|s| s.accept_data_loss = true);
        let action = fixture.action();
        (fixture.recovery_status(&name), action)
    };
    // demo-0 answers and reports that it does not lead; demo-1 lost its disk.
    assert!(matches!(lost("demo-0").1, Some(Action::CheckMember { .. })));
    assert!(matches!(lost("demo-1").1, Some(Action::CheckMember { .. })));
    let mut fixture = Fixture::running(5, 0);
    for name in ["demo-1", "demo-2", "demo-4"] {
        fixture.wipe(name);
    }
    fixture.down("demo-0", "NodeLost");
    fixture.leaderless();
    fixture.node("demo-3").leader = Some("demo-0".to_owned());
    fixture.reconcile();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    assert_eq!(fixture.action(), None);
    assert_eq!(
        fixture.recovery_status(&name).phase,
        Some(Inspecting),
        "it may lead somewhere"
    );
}

#[test]
fn whoever_has_not_spoken_is_waited_for() {
    let mut fixture = Fixture::running(5, 0);
    for lost in ["demo-0", "demo-1", "demo-2"] {
        fixture.wipe(lost);
    }
    fixture.down("demo-3", "CrashLoopBackOff");
    fixture.leaderless();
    fixture.reconcile();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    fixture.later(1000);
    fixture.reconcile();
    let status = fixture.recovery_status(&name);
    assert_eq!(status.phase, Some(Inspecting));
    assert!(status.message.unwrap().contains("demo-3"));
    fixture.later(1);
    let next = fixture.recovery(|s| {
        s.accept_data_loss = true;
        s.ignore_members = vec!["demo-3".to_owned()];
    });
    inspect(&mut fixture, "demo-4");
    assert_eq!(phase(&fixture, &next), Fencing);
}

#[test]
fn of_a_cluster_of_which_nothing_is_known_yet_nothing_is_refused() {
    let mut fixture = Fixture::running(3, 0);
    fixture.leaderless();
    for name in ["demo-0", "demo-1", "demo-2"] {
        fixture.node(name).config_index = 5;
    }
    let nodes = std::mem::take(&mut fixture.seen.nodes);
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    // For example after an adoption.
    status.members.clear();
    status.configuration_index = None;
    let name = fixture.recovery(|s| s.mode = RecoveryMode::RewriteAddresses);
    fixture.reconcile();
    assert_eq!(
        phase(&fixture, &name),
        Inspecting,
        "{:?}",
        fixture.recovery_status(&name)
    );
    fixture.seen.nodes = nodes;
    fixture.reconcile();
    inspect(&mut fixture, "demo-0");
    assert_eq!(
        phase(&fixture, &name),
        Fencing,
        "{:?}",
        fixture.recovery_status(&name)
    );
}

#[test]
fn a_newcomer_without_a_vote_does_not_count_as_a_voter_that_is_left() {
    let mut fixture = Fixture::running(4, 0);
    for name in ["demo-0", "demo-1", "demo-2", "demo-3"] {
        for member in &mut fixture.node(name).config {
            member.voter = member.name != "demo-3";
        }
    }
    fixture.reconcile();
    fixture.wipe("demo-0");
    fixture.wipe("demo-1");
    fixture.leaderless();
    fixture.reconcile();
    let name = fixture.recovery(|_| {});
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &name), AwaitingApproval);
    let message = message(&fixture, &name);
    assert!(message.contains("1 of 3 voters left"), "{message}");
}
