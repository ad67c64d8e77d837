//! Due, late, overlapping, suspended; what goes; a walk through restarts.
use operator_api::{RqliteScheduledBackupSpec, Span, scheduled_backup::BackupRetention};

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
        unseen: false,
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
        class: Some("default"),
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
    assert!(found.ready.message.contains("no month has"));
}

/// A clock that jumped ahead and back: what it wrote stops nothing.
#[test]
fn a_time_that_lies_ahead_is_no_reason_to_wait() {
    let daily = spec("0 3 * * *");
    let now = "2026-01-08T12:00:00Z";
    let ahead = |last: &str| RqliteScheduledBackupStatus {
        last_schedule_time: Some(Time(at(last))),
        ..RqliteScheduledBackupStatus::default()
    };
    let cases = [
        ("2027-06-01T03:00:00Z", Some("nightly-20260108030000")),
        // Clocks of two machines differ a little.
        ("2026-01-08T12:00:59Z", None),
        ("2026-01-08T03:00:00Z", None),
    ];
    for (last, expected) in cases {
        let found = look(&daily, &ahead(last), &[], now);
        assert_eq!(found.create.as_deref(), expected, "{last}");
        if expected.is_some() {
            let last = found.status.last_schedule_time.clone();
            assert_eq!(last, Some(Time(at("2026-01-08T03:00:00Z"))));
            assert_eq!(look(&daily, &found.status, &[], now).create, None, "once");
        }
    }
    // The schedule itself was created by that clock: the next time of the schedule counts.
    let young = |status: &RqliteScheduledBackupStatus, now: &str| {
        decide(&Seen {
            now: at(now),
            name: "nightly",
            created: at("2027-06-01T00:00:00Z"),
            generation: Some(3),
            spec: &daily,
            status,
            made: &[],
            class: Some("default"),
        })
    };
    let first = young(&RqliteScheduledBackupStatus::default(), now);
    assert_eq!(first.create, None);
    let next = young(&first.status, "2026-01-09T03:00:01Z");
    assert_eq!(next.create.as_deref(), Some("nightly-20260109030000"));
}

#[test]
fn ready_says_whether_backups_are_made() {
    let mut one = spec("0 3 * * *");
    let new = RqliteScheduledBackupStatus::default();
    let good = [made(
        "nightly-1",
        BackupPhase::Succeeded,
        "2026-01-01T03:00:10Z",
    )];
    let bad = [made(
        "nightly-1",
        BackupPhase::Failed,
        "2026-01-01T03:00:10Z",
    )];
    let runs = [made(
        "nightly-1",
        BackupPhase::Running,
        "2026-01-01T03:00:10Z",
    )];
    let cases: [(&[Made], &str, &str); 8] = [
        (&[], "2026-01-01T00:00:00Z", "Unknown/NoBackupYet"),
        (&good, "2026-01-01T04:00:00Z", "True/BackupSucceeded"),
        (&bad, "2026-01-01T04:00:00Z", "False/BackupFailed"),
        // One that was left out is no alarm; the second one is, after what a backup takes.
        (&good, "2026-01-02T04:00:00Z", "True/BackupSucceeded"),
        (&good, "2026-01-03T03:09:59Z", "True/BackupSucceeded"),
        (&good, "2026-01-03T03:10:00Z", "False/Overdue"),
        (&runs, "2026-01-02T03:00:00Z", "Unknown/NoBackupYet"),
        (&runs, "2026-01-02T03:10:00Z", "False/Overdue"),
    ];
    let said = |ready: &Ready| format!("{}/{}", ready.is, ready.reason);
    for (made, now, expected) in cases {
        let found = look(&one, &new, made, now);
        assert_eq!(said(&found.ready), expected, "{now}");
    }
    // Those that are deleted meanwhile have been made.
    let known = look(&one, &new, &good, "2026-01-01T04:00:00Z").status;
    let found = look(&one, &known, &[], "2026-01-03T03:09:59Z");
    assert_eq!(said(&found.ready), "Unknown/NoBackupYet");
    let found = look(&one, &known, &[], "2026-01-03T03:10:00Z");
    assert_eq!(said(&found.ready), "False/Overdue");
    assert!(
        found.ready.message.contains("since 2026-01-01T03:00:10Z"),
        "{}",
        found.ready.message
    );
    // Nothing is owed while it is suspended, nor for that time.
    one.suspend = true;
    let off = look(&one, &known, &good, "2026-01-20T00:00:00Z");
    assert_eq!(said(&off.ready), "True/BackupSucceeded");
    one.suspend = false;
    let on = look(&one, &off.status, &good, "2026-01-20T00:10:00Z");
    assert_eq!(said(&on.ready), "True/BackupSucceeded");
    let later = look(&one, &on.status, &good, "2026-01-20T04:00:00Z");
    assert_eq!(later.status.resumed_at, on.status.resumed_at, "once");
    let late = look(&one, &later.status, &good, "2026-01-21T03:10:00Z");
    assert_eq!(said(&late.ready), "False/Overdue");
    // A backup takes hours: the one that is due may, too.
    let slow = [Made {
        created: at("2026-01-01T03:00:00Z"),
        ..made("nightly-1", BackupPhase::Succeeded, "2026-01-01T04:30:00Z")
    }];
    let found = look(&one, &new, &slow, "2026-01-03T07:00:00Z");
    assert_eq!(said(&found.ready), "True/BackupSucceeded");
    let found = look(&one, &new, &slow, "2026-01-03T07:30:00Z");
    assert_eq!(said(&found.ready), "False/Overdue");
}

#[test]
fn a_cluster_that_is_gone_is_said_and_its_class_is_kept() {
    let one = spec("0 3 * * *");
    let new = RqliteScheduledBackupStatus::default();
    let with = |status: &RqliteScheduledBackupStatus, class: Option<&str>| {
        decide(&Seen {
            now: at("2026-01-01T01:00:00Z"),
            name: "nightly",
            created: at("2026-01-01T00:00:00Z"),
            generation: Some(3),
            spec: &one,
            status,
            made: &[],
            class,
        })
    };
    let there = with(&new, Some("second"));
    assert_eq!(there.status.operator_class.as_deref(), Some("second"));
    let gone = with(&there.status, None);
    assert_eq!(gone.ready.reason, "ClusterMissing");
    assert_eq!(gone.status.operator_class.as_deref(), Some("second"));
    let moved = with(&there.status, Some("default"));
    assert_eq!(moved.status.operator_class, None);
}

#[test]
fn what_nobody_saw_end_is_not_deleted_as_a_failure() {
    let one = spec("0 3 * * *");
    let new = RqliteScheduledBackupStatus::default();
    let mut all: Vec<Made> = (1..=5)
        .map(|n| {
            let at = format!("2026-01-0{n}T03:00:00Z");
            made(&format!("f{n}"), BackupPhase::Failed, &at)
        })
        .collect();
    all[0].unseen = true;
    all[4].unseen = true;
    let found = look(&one, &new, &all, "2026-01-05T04:00:00Z");
    assert!(found.delete.is_empty(), "{:?}", found.delete);
    assert!(
        found.ready.message.contains("f5, ended is unknown"),
        "{}",
        found.ready.message
    );
    all[4].unseen = false;
    let found = look(&one, &new, &all, "2026-01-05T04:00:00Z");
    assert_eq!(found.delete, BTreeSet::from(["f2".to_owned()]));
}
