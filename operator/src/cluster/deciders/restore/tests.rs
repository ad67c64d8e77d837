//! A restore from its creation to its end, by what the leader says; and what is refused or waits.
use std::collections::BTreeMap;

use node_contract::{RestoreState, status::ArchiveStatus};
use operator_api::{
    RqliteRestore, RqliteRestoreSpec, RqliteRestoreStatus,
    recovery::ClusterRef,
    restore::RestorePhase,
    status::{OperationType, Step},
};

use super::{ELECTION_SECONDS, note_answer};
use crate::cluster::{
    action::{Action, begin},
    facts::observation::ProbeResult,
    fixture::{Fixture, NAME},
    plan::{Plan, plan},
};

fn spec(dry_run: bool) -> RqliteRestoreSpec {
    RqliteRestoreSpec {
        cluster_ref: ClusterRef {
            name: NAME.to_owned(),
            uid: None,
        },
        to_time: None,
        to_index: Some(60),
        lineage: None,
        confirm: (!dry_run).then(|| NAME.to_owned()),
        dry_run,
        timeout: None,
        reason: None,
        ttl_seconds_after_finished: None,
    }
}

fn restore(name: &str, spec: RqliteRestoreSpec) -> RqliteRestore {
    let mut restore = RqliteRestore::new(name, spec);
    restore.metadata.uid = Some(format!("uid-{name}"));
    restore
}

/// A calm cluster with an archive and these restores.
fn fixture(restores: Vec<RqliteRestore>) -> Fixture {
    let mut fixture = Fixture::running(3, 0);
    fixture.reconcile();
    for answer in fixture.seen.nodes.values_mut() {
        if let ProbeResult::Ok(node) = answer {
            node.archive = Some(ArchiveStatus {
                enabled: true,
                ..ArchiveStatus::default()
            });
        }
    }
    fixture.seen.restores = restores;
    fixture
}

/// One reconcile, with its statuses written.
fn reconcile(fixture: &mut Fixture) -> Plan {
    let planned = fixture.reconcile();
    for update in &planned.restores.statuses {
        let all = fixture.seen.restores.iter_mut();
        for restore in all.filter(|r| r.metadata.uid.as_ref() == Some(&update.uid)) {
            restore.status = Some((*update.status).clone());
        }
    }
    planned
}

fn say(fixture: &mut Fixture, id: &str, state: &str) {
    let state = RestoreState {
        id: Some(id.to_owned()),
        state: state.to_owned(),
        index: Some(60),
        undone_entries: Some(40),
        undone_seconds: Some(12),
        safety_index: Some(100),
        message: "said".to_owned(),
        ..RestoreState::default()
    };
    fixture.seen.restore_states.insert(id.to_owned(), state);
}

fn phase(fixture: &Fixture, at: usize) -> RestorePhase {
    let status = fixture.seen.restores[at].status.clone().unwrap_or_default();
    status.phase.unwrap_or_default()
}

fn message(fixture: &Fixture, at: usize) -> String {
    let status = fixture.seen.restores[at].status.clone().unwrap_or_default();
    status.message.unwrap_or_default()
}

fn sent(planned: &Plan) -> Option<(bool, Option<u64>, Option<&str>)> {
    match planned.action.as_ref()? {
        Action::Restore { request, .. } => Some((
            request.dry_run,
            request.to_index,
            request.confirm.as_deref(),
        )),
        _ => None,
    }
}

#[test]
fn what_is_undone_is_announced_before_anything_happens() {
    let mut fixture = fixture(vec![restore("a", spec(false))]);
    let planned = reconcile(&mut fixture);
    assert_eq!(sent(&planned), Some((true, Some(60), None)));
    say(&mut fixture, "uid-a-plan", RestoreState::DONE);
    let planned = reconcile(&mut fixture);
    assert_eq!(sent(&planned), None);
    assert!(fixture.status().operation.is_none(), "only announced");
    let status = fixture.seen.restores[0].status.clone().unwrap();
    assert_eq!(status.undone_entries, Some(40));
    assert!(message(&fixture, 0).contains("undoes 40 entries, the writes of 12 s"));
    reconcile(&mut fixture);
    let operation = fixture.status().operation.clone().unwrap();
    assert_eq!(
        (operation.kind, operation.step),
        (OperationType::Restore, Step::Start)
    );
    assert_eq!(operation.id, "uid-a");
    let planned = reconcile(&mut fixture);
    assert_eq!(sent(&planned), None, "the step is recorded first");
    let planned = reconcile(&mut fixture);
    let id = fixture.status().cluster_id.clone();
    assert_eq!(sent(&planned), Some((false, Some(60), id.as_deref())));
    say(&mut fixture, "uid-a", RestoreState::RUNNING);
    assert_eq!(sent(&reconcile(&mut fixture)), None, "never twice");
    assert_eq!(phase(&fixture, 0), RestorePhase::Restoring);
    say(&mut fixture, "uid-a", RestoreState::DONE);
    reconcile(&mut fixture);
    assert_eq!(phase(&fixture, 0), RestorePhase::Succeeded);
    assert!(
        message(&fixture, 0).contains("toIndex: 100"),
        "{}",
        message(&fixture, 0)
    );
    assert!(
        fixture.status().operation.is_some(),
        "until the result is written"
    );
    reconcile(&mut fixture);
    assert!(fixture.status().operation.is_none());
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut fixture = fixture(vec![restore("a", spec(true))]);
    reconcile(&mut fixture);
    say(&mut fixture, "uid-a-plan", RestoreState::DONE);
    reconcile(&mut fixture);
    assert_eq!(phase(&fixture, 0), RestorePhase::Succeeded);
    assert!(message(&fixture, 0).starts_with("dry run: back to index 60"));
    assert!(fixture.status().operation.is_none());
}

#[test]
fn after_a_change_of_the_leader_nobody_claims_to_know() {
    for known in [true, false] {
        let mut fixture = fixture(vec![restore("a", spec(false))]);
        reconcile(&mut fixture);
        say(&mut fixture, "uid-a-plan", RestoreState::DONE);
        for _ in 0..4 {
            reconcile(&mut fixture);
        }
        for answer in fixture.seen.nodes.values_mut() {
            if let ProbeResult::Ok(node) = answer {
                node.term += 1;
                node.last_log_term = node.term;
            }
        }
        if known {
            say(&mut fixture, "uid-a", RestoreState::DONE);
        }
        let planned = reconcile(&mut fixture);
        assert_eq!(sent(&planned), None, "another process is not asked again");
        let expected = match known {
            true => RestorePhase::Succeeded,
            false => RestorePhase::Failed,
        };
        assert_eq!(phase(&fixture, 0), expected, "{}", message(&fixture, 0));
        reconcile(&mut fixture);
        assert!(fixture.status().operation.is_none());
    }
}

#[test]
fn what_a_former_leader_was_at_keeps_nothing_waiting() {
    for is_deleted in [false, true] {
        let mut fixture = fixture(vec![restore("a", spec(false))]);
        reconcile(&mut fixture);
        say(&mut fixture, "uid-a-plan", RestoreState::DONE);
        for _ in 0..4 {
            reconcile(&mut fixture);
        }
        say(&mut fixture, "uid-a", RestoreState::RUNNING);
        let planned = reconcile(&mut fixture);
        assert_eq!(planned.summary, "said", "it runs");
        if is_deleted {
            fixture.seen.restores.clear();
        }
        // Nobody leads: after a while, others may bring the leader back.
        let led = fixture.seen.nodes.clone();
        fixture.leaderless();
        fixture.later((ELECTION_SECONDS + 60).cast_signed());
        let planned = reconcile(&mut fixture);
        assert_ne!(planned.summary, "said");
        // The next leader knows nothing of it.
        fixture.seen.nodes = led;
        for answer in fixture.seen.nodes.values_mut() {
            if let ProbeResult::Ok(node) = answer {
                node.term += 1;
                node.last_log_term = node.term;
            }
        }
        note_answer(&mut fixture.seen.restore_states, None);
        for _ in 0..3 {
            reconcile(&mut fixture);
        }
        assert!(fixture.status().operation.is_none(), "{is_deleted}");
        if !is_deleted {
            assert_eq!(phase(&fixture, 0), RestorePhase::Failed);
        }
    }
}

#[test]
fn an_answer_replaces_what_runs_and_keeps_what_has_ended() {
    let state = |id: &str, state: &str| {
        let id = Some(id.to_owned());
        let state = state.to_owned();
        RestoreState {
            id,
            state,
            ..RestoreState::default()
        }
    };
    let all = [
        state("plan", RestoreState::DONE),
        state("a", RestoreState::RUNNING),
    ];
    let all: BTreeMap<_, _> = all.map(|s| (s.id.clone().unwrap(), s)).into();
    for (answer, left) in [
        (None, vec!["plan"]),
        (Some(state("a", RestoreState::RUNNING)), vec!["a", "plan"]),
        (Some(state("b", RestoreState::RUNNING)), vec!["b", "plan"]),
    ] {
        let mut states = all.clone();
        note_answer(&mut states, answer);
        assert_eq!(states.keys().collect::<Vec<_>>(), left);
    }
}

#[test]
fn what_is_refused_and_what_waits() {
    let wrong = |change: fn(&mut RqliteRestoreSpec)| {
        let mut wrong = spec(false);
        change(&mut wrong);
        wrong
    };
    let cases = [
        (
            wrong(|s| s.confirm = Some("prod".to_owned())),
            "spec.confirm has to be",
        ),
        (wrong(|s| s.confirm = None), "spec.confirm has to be"),
        (wrong(|s| s.to_index = None), "exactly one of"),
        (
            wrong(|s| s.cluster_ref.uid = Some("x".to_owned())),
            "has uid",
        ),
    ];
    for (spec, part) in cases {
        let mut fixture = fixture(vec![restore("a", spec)]);
        let planned = reconcile(&mut fixture);
        assert_eq!(sent(&planned), None);
        assert_eq!(phase(&fixture, 0), RestorePhase::Rejected);
        assert!(
            message(&fixture, 0).contains(part),
            "{}",
            message(&fixture, 0)
        );
    }
    let mut busy = fixture(vec![restore("a", spec(false))]);
    let status = busy.status().clone();
    let kind = OperationType::Update;
    busy.seen.cluster.status = Some(*begin(
        &status,
        "o",
        &busy.seen.now,
        kind,
        Some("demo-1"),
        None,
    ));
    assert_eq!(sent(&plan(&busy.seen)), None);
    reconcile(&mut busy);
    assert_eq!(phase(&busy, 0), RestorePhase::Pending);
    let mut none = fixture(vec![restore("a", spec(false))]);
    for answer in none.seen.nodes.values_mut() {
        if let ProbeResult::Ok(node) = answer {
            node.archive = None;
        }
    }
    reconcile(&mut none);
    assert!(
        message(&none, 0).contains("has no archive"),
        "{}",
        message(&none, 0)
    );
}

#[test]
fn where_nothing_may_begin_the_object_says_why() {
    let mut fixture = fixture(vec![restore("a", spec(false))]);
    fixture.recovery(|_| {});
    fixture.seen.cluster.spec.paused = true;
    let planned = reconcile(&mut fixture);
    assert!(message(&fixture, 0).contains("paused"));
    assert_eq!(phase(&fixture, 0), RestorePhase::Pending);
    let recovery = &planned.recoveries.first().unwrap().status;
    assert!(recovery.message.as_ref().unwrap().contains("paused"));
    fixture.seen.cluster.spec.paused = false;
    let planned = reconcile(&mut fixture);
    assert!(matches!(sent(&planned), Some((true, ..))), "{planned:?}");
}

#[test]
fn what_a_newer_operator_ended_is_over() {
    let mut fixture = fixture(vec![restore("a", spec(false))]);
    fixture.seen.restores[0].status = Some(RqliteRestoreStatus {
        phase: serde_json::from_str("\"Reverted\"").unwrap(),
        completed_at: Some(fixture.seen.now.clone()),
        ..RqliteRestoreStatus::default()
    });
    for _ in 0..4 {
        assert_eq!(sent(&reconcile(&mut fixture)), None);
    }
}

#[test]
fn one_at_a_time() {
    let mut fixture = fixture(vec![
        restore("a", spec(false)),
        restore("b", spec(false)),
        restore("c", spec(true)),
    ]);
    reconcile(&mut fixture);
    assert_eq!(phase(&fixture, 1), RestorePhase::Pending);
    say(&mut fixture, "uid-a-plan", RestoreState::DONE);
    for _ in 0..4 {
        reconcile(&mut fixture);
    }
    assert_eq!(phase(&fixture, 0), RestorePhase::Restoring);
    assert_eq!(
        phase(&fixture, 1),
        RestorePhase::Rejected,
        "{}",
        message(&fixture, 1)
    );
    assert_eq!(phase(&fixture, 2), RestorePhase::Pending, "a dry run waits");
    assert_eq!(fixture.seen.restore_states.keys().len(), 1);
}

#[test]
fn the_leaders_refusal_is_shown() {
    let mut fixture = fixture(vec![restore("a", spec(false))]);
    reconcile(&mut fixture);
    say(&mut fixture, "uid-a-plan", RestoreState::FAILED);
    reconcile(&mut fixture);
    assert_eq!(phase(&fixture, 0), RestorePhase::Rejected);
    assert!(message(&fixture, 0).contains("said. Nothing was changed"));
    let states: BTreeMap<_, _> = fixture.seen.restore_states.clone();
    assert_eq!(states.len(), 1);
}
