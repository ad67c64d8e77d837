//! Due, late, overlapping, suspended; what goes; a walk through restarts.
use operator_api::{Span, scheduled_backup::BackupRetention};

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn spec(schedule: &str) -> RqliteScheduledBackupSpec {
    RqliteScheduledBackupSpec::new("demo", schedule)
}

fn made(name: &str, phase: BackupPhase, created: &str) -> Made {
    let created = at(created);
    Made {
        name: name.to_owned(),
        created,
        completed: phase.is_final().then_some(created),
        phase,
        deleting: false,
    }
}

fn look(
    spec: &RqliteScheduledBackupSpec,
    status: &RqliteScheduledBackupStatus,
    made: &[Made],
    now: &str,
) -> Decision {
    decide(&Seen {
        now: at(now),
        name: "nightly",
        created: at("2026-01-01T00:00:00Z"),
        generation: Some(3),
        spec,
        status,
        made,
    })
}

#[test]
fn made_once_at_its_time() {
    let spec = spec("0 3 * * *");
    let new = RqliteScheduledBackupStatus::default();
    let before = look(&spec, &new, &[], "2026-01-01T02:59:59Z");
    assert_eq!((before.create, before.again_after_seconds), (None, 1));
    let due = look(&spec, &new, &[], "2026-01-01T03:00:01Z");
    assert_eq!(due.create.as_deref(), Some("nightly-20260101030000"));
    assert_eq!(
        due.status.next_schedule_time,
        Some(Time(at("2026-01-02T03:00:00Z")))
    );
    // The status was written and the operator died, or the status was not written: the same name again.
    assert_eq!(
        look(&spec, &due.status, &[], "2026-01-01T03:00:02Z").create,
        None
    );
    let again = look(&spec, &new, &[], "2026-01-01T03:00:09Z");
    assert_eq!(again.create, due.create);
    // The operator was away for a week: one backup, of the newest time.
    let late = look(&spec, &due.status, &[], "2026-01-08T12:00:00Z");
    assert_eq!(late.create.as_deref(), Some("nightly-20260108030000"));
}

#[test]
fn immediate_late_suspended() {
    let new = RqliteScheduledBackupStatus::default();
    let mut one = spec("0 3 * * *");
    one.immediate = true;
    let first = look(&one, &new, &[], "2026-01-01T00:00:05Z");
    assert_eq!(first.create.as_deref(), Some("nightly-20260101000000"));
    assert_eq!(
        look(&one, &first.status, &[], "2026-01-01T00:00:06Z").create,
        None
    );
    one.starting_deadline = Some(Span::from("10m"));
    let late = look(&one, &first.status, &[], "2026-01-01T03:10:01Z");
    assert_eq!(late.create, None);
    assert!(late.status.message.unwrap().contains("601 s late"));
    assert!(
        look(&one, &first.status, &[], "2026-01-01T03:10:00Z")
            .create
            .is_some()
    );
    one.suspend = true;
    let off = look(&one, &first.status, &[], "2026-01-01T03:00:00Z");
    assert_eq!(
        (off.create, off.status.next_schedule_time.clone()),
        (None, None)
    );
    one.suspend = false;
    let on = look(&one, &off.status, &[], "2026-01-01T03:00:10Z");
    assert_eq!(on.create, None, "what was suspended is not made up for");
}

#[test]
fn one_that_runs_meets_the_next() {
    let mut one = spec("0 * * * *");
    let new = RqliteScheduledBackupStatus::default();
    let running = [made(
        "nightly-a",
        BackupPhase::Running,
        "2026-01-01T00:00:00Z",
    )];
    let now = "2026-01-01T01:00:00Z";
    let forbid = look(&one, &new, &running, now);
    assert_eq!(forbid.create, None);
    assert!(forbid.status.message.unwrap().contains("nightly-a"));
    assert_eq!(forbid.status.active, ["nightly-a"]);
    one.concurrency_policy = Some(Concurrency::Allow);
    let allow = look(&one, &new, &running, now);
    assert!(allow.create.is_some() && allow.delete.is_empty());
    one.concurrency_policy = Some(Concurrency::Replace);
    let replace = look(&one, &new, &running, now);
    assert!(replace.create.is_some());
    assert_eq!(replace.delete, BTreeSet::from(["nightly-a".to_owned()]));
}

#[test]
fn what_goes() {
    let mut one = spec("0 3 * * *");
    let day = |n: u32| format!("2026-01-{n:02}T03:00:00Z");
    let mut all: Vec<Made> = (1..=6)
        .map(|n| made(&format!("s{n}"), BackupPhase::Succeeded, &day(n)))
        .collect();
    all.extend((1..=5).map(|n| made(&format!("f{n}"), BackupPhase::Failed, &day(n))));
    let status = RqliteScheduledBackupStatus {
        last_schedule_time: Some(Time(at(&day(6)))),
        ..RqliteScheduledBackupStatus::default()
    };
    let names = |decision: &Decision| decision.delete.iter().cloned().collect::<Vec<_>>();
    let now = "2026-01-06T04:00:00Z";
    let found = look(&one, &status, &all, now);
    assert_eq!(names(&found), ["f1", "f2"], "three failed ones are kept");
    assert_eq!(found.status.kept, Some(6));
    one.retention = Some(BackupRetention {
        count: Some(2),
        ..BackupRetention::default()
    });
    let found = look(&one, &status, &all, now);
    assert_eq!(names(&found), ["f1", "f2", "s1", "s2", "s3", "s4"]);
    assert_eq!(found.status.kept, Some(2));
    // One that is being deleted neither counts nor is deleted again.
    all[5].deleting = true;
    let found = look(&one, &status, &all, now);
    assert_eq!(names(&found), ["f1", "f2", "s1", "s2", "s3"]);
    // A spec that is not understood deletes nothing.
    one.schedule = "0 0 30 2 *".into();
    let found = look(&one, &status, &all, now);
    assert!(found.delete.is_empty() && found.create.is_none());
    assert!(found.mistake.unwrap().contains("no month has"));
}
