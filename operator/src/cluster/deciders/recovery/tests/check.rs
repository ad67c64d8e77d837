//! The check of the survivor's database: progress, deadline, a person's word, one for each recovery.
use node_contract::status::CheckStatus;
use operator_api::{RqliteRecoveryStatus, recovery::RecoveryCheckState};

use super::*;

fn check_of(fixture: &Fixture, name: &str) -> operator_api::recovery::RecoveryCheck {
    fixture.recovery_status(name).check.unwrap()
}

fn stalled(status: &RqliteRecoveryStatus) -> (bool, String) {
    let condition = status
        .conditions
        .iter()
        .find(|c| c.type_ == "RecoveryStalled");
    let condition = condition.unwrap();
    (condition.status == "True", condition.message.clone())
}

fn annotate(fixture: &mut Fixture) {
    let object = fixture.seen.recoveries.last_mut().unwrap();
    let word = [(names::SKIP_CHECK_ANNOTATION.to_owned(), "true".to_owned())];
    object.metadata.annotations = Some(word.into());
}

/// A recovery whose check of `demo-2` runs.
fn checking(
    change: impl FnOnce(&mut operator_api::RqliteRecoverySpec),
) -> (Fixture, String, Action) {
    let mut fixture = two_of_three();
    fixture.node("demo-2").database_bytes = Some(10 << 30);
    let name = fixture.recovery(|spec| {
        spec.accept_data_loss = true;
        change(spec);
    });
    let action = requested(&mut fixture, "demo-2");
    fixture.checking(&action, CheckStatus::RUNNING).pages_read = 86;
    (fixture, name, action)
}

#[test]
fn its_progress_is_shown_and_nothing_is_requested_meanwhile() {
    let (mut fixture, name, _) = checking(|_| {});
    let plan = fixture.reconcile();
    assert_eq!((plan.action, plan.again_after_seconds), (None, 2));
    let check = check_of(&fixture, &name);
    assert_eq!(
        (check.state, check.percent, check.member.as_str()),
        (RecoveryCheckState::Running, 43, "demo-2")
    );
    assert_eq!(
        check.deadline.0.as_second() - check.started_at.0.as_second(),
        600 + 10 * 120,
        "by the size of the database"
    );
    let said = message(&fixture, &name);
    for part in [
        "43 % of 10.0 GiB",
        "at most 30 min",
        names::SKIP_CHECK_ANNOTATION,
    ] {
        assert!(said.contains(part), "{said}");
    }
    let before = fixture.recovery_status(&name);
    fixture.later(60);
    assert!(
        fixture.reconcile().recoveries.is_empty(),
        "no write without progress"
    );
    assert_eq!(fixture.recovery_status(&name), before);
}

#[test]
fn a_result_of_another_recovery_never_counts() {
    let (mut fixture, first, action) = checking(|spec| spec.dry_run = true);
    fixture.check(&action, None);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &first), Succeeded);
    let second = fixture.recovery(|spec| spec.dry_run = true);
    let again = requested(&mut fixture, "demo-2");
    let id = |action: &Action| match action {
        Action::CheckMember { id, .. } => id.clone(),
        other => panic!("{other:?}"),
    };
    assert_ne!(id(&action), id(&again));
    assert_eq!(phase(&fixture, &second), Inspecting);
    assert_eq!(check_of(&fixture, &second).id, id(&again));
}

#[test]
fn a_result_stays_with_its_recovery_when_the_node_checks_for_another_one() {
    let mut fixture = two_of_three();
    let name = fixture.recovery(|_| {});
    inspect(&mut fixture, "demo-2");
    let dry = fixture.recovery(|spec| spec.dry_run = true);
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &dry), Succeeded);
    assert_eq!(phase(&fixture, &name), AwaitingApproval);
    assert_eq!(fixture.action(), None);
    // A node with other data is another matter.
    fixture.node("demo-2").raft_id = "demo-2#i1".to_owned();
    fixture.node("demo-2").check = None;
    fixture.reconcile();
    assert_ne!(phase(&fixture, &name), AwaitingApproval);
}

#[test]
fn a_check_that_was_interrupted_is_requested_again_and_a_late_one_ends_the_recovery() {
    for state in [
        CheckStatus::INTERRUPTED,
        CheckStatus::CANCELLED,
        "something newer",
    ] {
        let (mut fixture, _, action) = checking(|_| {});
        fixture.checking(&action, state);
        assert_eq!(requested(&mut fixture, "demo-2"), action, "{state}");
    }
    let late: [fn(&mut Fixture, &Action); 3] = [
        |fixture, action| {
            fixture.checking(action, CheckStatus::TIMED_OUT);
        },
        // The node goes on, or has forgotten it, or never answers the request.
        |fixture, _| fixture.later(1900),
        |fixture, _| {
            fixture.node("demo-2").check = None;
            fixture.later(1900);
        },
    ];
    for make_late in late {
        let (mut fixture, name, action) = checking(|_| {});
        fixture.reconcile();
        make_late(&mut fixture, &action);
        fixture.reconcile();
        assert_eq!(phase(&fixture, &name), Rejected);
        let said = message(&fixture, &name);
        assert!(
            said.contains("skipDatabaseCheck") && said.contains("at 43 %"),
            "{said}"
        );
        assert_eq!(
            check_of(&fixture, &name).state,
            RecoveryCheckState::TimedOut
        );
    }
}

#[test]
fn a_person_may_go_on_without_it_before_and_after() {
    let mut skipped = two_of_three();
    let name = skipped.recovery(|spec| {
        spec.accept_data_loss = true;
        spec.skip_database_check = true;
    });
    skipped.reconcile();
    assert_eq!(phase(&skipped, &name), Fencing);
    assert!(skipped.status().recovery.unwrap().skip_database_check);

    let (mut fixture, name, _) = checking(|_| {});
    fixture.reconcile();
    annotate(&mut fixture);
    assert!(matches!(fixture.action(), Some(Action::EndCheck { name, .. }) if name == "demo-2"));
    fixture.node("demo-2").check = None;
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Fencing);
    assert_eq!(check_of(&fixture, &name).state, RecoveryCheckState::Skipped);

    let (mut fixture, name) = verifying();
    let action = requested(&mut fixture, "demo-2");
    fixture.checking(&action, CheckStatus::TIMED_OUT);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Verifying);
    let (_, reason, said) = fixture.condition(operator_api::status::PROGRESSING);
    assert_eq!(reason, "RecoveryStalled");
    assert!(said.contains(names::SKIP_CHECK_ANNOTATION), "{said}");
    annotate(&mut fixture);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Rejoining);
}

/// The survivor runs in the new lineage.
fn verifying() -> (Fixture, String) {
    let (mut fixture, name) = fenced();
    let model = Fixture::running(3, 0);
    fixture.reconcile();
    set(&mut fixture, 3);
    survivor_runs(&mut fixture, &model, "demo-2", &format!("uid-{name}"), 1);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Verifying);
    (fixture, name)
}

#[test]
fn checks_that_no_recovery_needs_are_ended() {
    let (mut fixture, _, _) = checking(|_| {});
    fixture.seen.recoveries.clear();
    assert!(
        matches!(fixture.action(), Some(Action::EndCheck { .. })),
        "deleted"
    );
    let (mut fixture, _, _) = checking(|spec| spec.dry_run = true);
    assert_eq!(fixture.reconcile().action, None);
    fixture.recovery(|_| {});
    assert!(
        matches!(fixture.action(), Some(Action::EndCheck { .. })),
        "a dry run gives way"
    );
    let (mut fixture, name, action) = checking(|_| {});
    fixture.checking(&action, CheckStatus::RUNNING).id = "of a person".to_owned();
    assert_eq!(fixture.action(), None);
    assert!(message(&fixture, &name).contains("waiting until the check of a person"));
}

#[test]
fn nodes_of_earlier_versions_are_asked_as_before() {
    let (mut fixture, name, action) = checking(|_| {});
    fixture.node("demo-2").check = None;
    let Action::CheckMember { raft_id, id, .. } = action else {
        panic!("{action:?}");
    };
    let mut checked = crate::cluster::facts::observation::DatabaseCheck {
        raft_id,
        id: "an earlier one".to_owned(),
        fault: None,
    };
    fixture
        .seen
        .checks
        .insert("demo-2".to_owned(), checked.clone());
    assert!(matches!(fixture.action(), Some(Action::CheckMember { .. })));
    checked.id = id;
    fixture.seen.checks.insert("demo-2".to_owned(), checked);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Fencing);
    assert_eq!(check_of(&fixture, &name).state, RecoveryCheckState::Passed);
}

#[test]
fn a_recovery_that_does_not_move_says_so() {
    let (mut fixture, name, action) = checking(|_| {});
    fixture.reconcile();
    assert!(!stalled(&fixture.recovery_status(&name)).0);
    fixture.later(130);
    fixture.checking(&action, CheckStatus::RUNNING).pages_read = 90;
    fixture.reconcile();
    assert!(!stalled(&fixture.recovery_status(&name)).0, "it moves");
    fixture.later(130);
    fixture.reconcile();
    let (is, said) = stalled(&fixture.recovery_status(&name));
    assert!(
        is && said.contains("45 %") && said.contains("Runbook: recovery-stalled"),
        "{said}"
    );
    fixture.reconcile();
    let (_, reason, said) = fixture.condition(operator_api::status::PROGRESSING);
    assert_eq!(reason, "RecoveryStalled", "{said}");
    assert!(said.contains(&name), "{said}");
    fixture.check(&action, None);
    fixture.reconcile();
    assert!(!stalled(&fixture.recovery_status(&name)).0, "it goes on");

    let (mut fixture, name) = fenced();
    fixture.later(301);
    fixture.reconcile();
    let (is, said) = stalled(&fixture.recovery_status(&name));
    assert!(is && said.contains("no progress for 300 s"), "{said}");
}
