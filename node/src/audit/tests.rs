//! Lines as they are written, rotation of the file, and lost lines.
use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use super::*;
use crate::metrics::Counter;

fn entry(user: &str) -> Entry {
    let mut entry = Entry {
        port: "http",
        action: "/db/execute",
        method: "POST".to_owned(),
        remote: Some(([10, 0, 0, 1], 5000).into()),
        ..Entry::default()
    };
    entry.set_permissions(&[Perm::Execute]);
    entry.set_user(Some(&Credentials {
        username: user.to_owned(),
        password: "hunter2".to_owned(),
    }));
    entry
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn lines_are_appended_and_a_moved_file_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let metrics = Arc::new(Metrics::default());
    let audit = Audit::open(&path, "n1", Arc::clone(&metrics)).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let pending = audit.begin(entry("bob"));
    let notes = pending.notes();
    notes.access(Access::Allowed);
    notes.statements(Counts {
        reads: 0,
        writes: 2,
    });
    notes.failed(1);
    notes.status(200);
    pending.finish();
    drop(audit.begin(entry("")));
    audit.flush();
    let written = lines(&path);
    let first = &written[0];
    for (key, value) in [
        ("node", "n1".into()),
        ("port", "http".into()),
        ("action", "/db/execute".into()),
        ("method", "POST".into()),
        ("permissions", serde_json::json!(["execute"])),
        ("user", "bob".into()),
        ("remote", "10.0.0.1:5000".into()),
        ("access", "allowed".into()),
        ("writes", 2.into()),
        ("failed", 1.into()),
        ("status", 200.into()),
        ("error", "statement".into()),
    ] {
        assert_eq!(first[key], value, "{key}");
    }
    assert!(first["duration_ms"].is_number() && first["time"].is_string());
    assert!(first.get("reads").is_none() && first.get("via").is_none());
    let second = &written[1];
    assert_eq!(
        (&second["user"], &second["access"]),
        (&Value::Null, &"none".into())
    );
    assert_eq!(second["error"], "client_gone");

    let rotated = dir.path().join("audit.log.1");
    fs::rename(&path, &rotated).unwrap();
    audit.begin(entry("eve")).finish();
    audit.flush();
    assert_eq!(lines(&rotated).len(), 2);
    assert_eq!(lines(&path)[0]["user"], "eve");
    fs::remove_file(&path).unwrap();
    audit.begin(entry("joe")).finish();
    audit.flush();
    assert_eq!(lines(&path)[0]["user"], "joe");
    assert_eq!(metrics.get(Counter::AuditRecords), 4);
    // After a restart it goes on.
    drop(audit);
    let again = Audit::open(&path, "n1", metrics).unwrap();
    again.begin(entry("kim")).finish();
    again.flush();
    assert_eq!(lines(&path).len(), 2);
}

#[test]
fn lost_lines_are_counted_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("logs");
    fs::create_dir(&folder).unwrap();
    let path = folder.join("audit.log");
    let metrics = Arc::new(Metrics::default());
    let audit = Audit::open(&path, "n1", Arc::clone(&metrics)).unwrap();
    let away = dir.path().join("away");
    fs::rename(&folder, &away).unwrap();
    for _ in 0..3 {
        audit.begin(entry("bob")).finish();
    }
    audit.flush();
    assert_eq!(metrics.get(Counter::AuditRecordsLost), 3);
    fs::rename(&away, &folder).unwrap();
    audit.begin(entry("eve")).finish();
    audit.flush();
    let written = lines(&path);
    assert_eq!(written[0]["user"], "eve");
    assert_eq!(
        (&written[1]["action"], &written[1]["lost"]),
        (&"lost".into(), &3.into())
    );
}

#[test]
fn hostile_names_are_one_short_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let audit = Audit::open(&path, "n1", Arc::default()).unwrap();
    for name in [
        "a\n{\"user\":\"root\"}",
        "\0\u{1b}[31m",
        &"x".repeat(100_000),
    ] {
        audit.begin(entry(name)).finish();
    }
    audit.flush();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(lines(&path).len(), 3);
    assert!(text.len() < 2000 && !text.contains('\u{1b}'));
}

#[test]
fn what_cannot_be_opened_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("no/such/folder")] {
        assert!(Audit::open(&path, "n1", Arc::default()).is_err());
    }
    assert!(Audit::open(Path::new("stderr"), "n1", Arc::default()).is_ok());
}

#[test]
fn errors_have_classes() {
    let class = |note: &dyn Fn(&Notes)| {
        let notes = Notes::default();
        note(&notes);
        notes.error_class()
    };
    for (status, expected) in [
        (200, None),
        (301, None),
        (401, Some("unauthorized")),
        (404, Some("not_found")),
        (414, Some("bad_request")),
        (429, Some("too_many_logins")),
        (500, Some("internal")),
        (503, Some("unavailable")),
    ] {
        assert_eq!(class(&|notes| notes.status(status)), expected, "{status}");
    }
    let of_store = class(&|notes| {
        notes.store_error(&StoreError::LeaderNotFound);
        notes.status(503);
    });
    assert_eq!(of_store, Some("no_leader"));
    for known in CLASSES {
        assert_eq!(class(&|notes| notes.error(known)), Some(known));
    }
}
