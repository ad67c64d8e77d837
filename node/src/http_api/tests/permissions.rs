//! Every endpoint, every permission, and callers without, with a wrong and with the right password.
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Got, new_state, send};
use crate::auth::Perm;

/// Method, path, and the permissions that are needed.
const ENDPOINTS: &[(&str, &str, &[Perm])] = &[
    ("POST", "/db/execute", &[Perm::Execute]),
    ("POST", "/db/execute?queue&noleader", &[Perm::Execute]),
    ("POST", "/db/execute?redirect", &[Perm::Execute]),
    ("GET", "/db/execute", &[Perm::Execute]),
    ("POST", "/db/executefoo", &[Perm::Execute]),
    ("GET", "/db/query?q=SELECT%201", &[Perm::Query]),
    ("POST", "/db/query", &[Perm::Query]),
    ("GET", "/db/query?q=SELECT%201&redirect", &[Perm::Query]),
    ("HEAD", "/db/query", &[Perm::Query]),
    ("POST", "/db/request", &[Perm::Query, Perm::Execute]),
    ("GET", "/db/request", &[Perm::Query, Perm::Execute]),
    ("GET", "/db/sql?q=SELECT%201", &[Perm::Query]),
    ("POST", "/db/sql", &[Perm::Query]),
    ("GET", "/db/backup", &[Perm::Backup]),
    ("GET", "/db/backup?fmt=sql", &[Perm::Backup]),
    ("GET", "/db/backup?noleader", &[Perm::Backup]),
    ("POST", "/db/load", &[Perm::Load]),
    ("POST", "/boot", &[Perm::Load]),
    ("POST", "/snapshot", &[Perm::Snapshot]),
    ("POST", "/reap", &[Perm::Snapshot]),
    ("POST", "/db/compare", &[Perm::LeaderOps]),
    ("GET", "/db/check", &[Perm::LeaderOps]),
    ("POST", "/db/check", &[Perm::LeaderOps]),
    ("DELETE", "/db/check", &[Perm::LeaderOps]),
    ("GET", "/db/running", &[Perm::Status]),
    ("DELETE", "/db/running/7", &[Perm::LeaderOps]),
    ("DELETE", "/remove", &[Perm::Remove]),
    ("GET", "/leader", &[Perm::LeaderOps]),
    ("POST", "/leader", &[Perm::LeaderOps]),
    ("GET", "/status", &[Perm::Status]),
    ("HEAD", "/status", &[Perm::Status]),
    ("GET", "/status?key=http", &[Perm::Status]),
    ("GET", "/nodes", &[Perm::Status]),
    ("GET", "/readyz", &[Perm::Ready]),
    ("GET", "/readyz?noleader", &[Perm::Ready]),
    ("GET", "/licenses", &[Perm::Status]),
    ("GET", "/debug/vars", &[Perm::Status]),
    ("GET", "/debug/pprof/", &[Perm::Status]),
    ("GET", "/debug/pprof/cmdline", &[Perm::Status]),
    ("GET", "/metrics", &[Perm::Status]),
    ("GET", "/console", &[Perm::Ui]),
    ("GET", "/console/", &[Perm::Ui]),
    ("HEAD", "/console/", &[Perm::Ui]),
];

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// A user of each set of permissions, named after it.
fn users() -> (String, Vec<(String, Vec<Perm>)>) {
    let mut users: Vec<(String, Vec<Perm>)> = vec![
        ("nothing".to_owned(), Vec::new()),
        ("both".to_owned(), vec![Perm::Query, Perm::Execute]),
        ("root".to_owned(), Perm::ALL.to_vec()),
    ];
    users.extend(Perm::ALL.map(|perm| (format!("only-{}", perm.name()), vec![perm])));
    let entries = users.iter().map(|(name, perms)| {
        let mut names: Vec<&str> = perms.iter().map(|perm| perm.name()).collect();
        if name == "root" {
            names = vec!["all"];
        }
        serde_json::json!({ "username": name, "password": format!("{name}!"), "perms": names })
    });
    let file = serde_json::Value::Array(entries.collect()).to_string();
    (file, users)
}

fn denied(got: &Got, what: &str) {
    assert_eq!((got.status, got.body.as_str()), (401, ""), "{what}");
    assert_eq!(
        got.header("www-authenticate"),
        "Basic realm=\"rqlite\"",
        "{what}"
    );
    assert_eq!(got.header("x-rqlite-served-by"), "", "{what}");
    assert_eq!(got.header("location"), "", "{what}");
}

#[tokio::test]
async fn who_may_what() {
    let dir = tempfile::tempdir().unwrap();
    let (file, users) = users();
    let state = new_state(dir.path(), Some(&file));
    let mut allowed = 0;
    for (method, path, needed) in ENDPOINTS.iter().copied() {
        let got = send(&state, method, path, &[], "").await;
        denied(&got, &format!("{method} {path} by nobody"));
        for (name, perms) in &users {
            let what = format!("{method} {path} by {name}");
            for wrong in ["", "wrong", &format!("{name}!!"), &format!("{name}!\0")] {
                let header = basic(name, wrong);
                let got = send(&state, method, path, &[("authorization", &header)], "").await;
                denied(&got, &what);
            }
            let header = basic(name, &format!("{name}!"));
            let got = send(&state, method, path, &[("authorization", &header)], "").await;
            if needed.iter().all(|perm| perms.contains(perm)) {
                allowed += 1;
                assert_ne!(got.status, 401, "{what}");
            } else {
                denied(&got, &what);
            }
        }
    }
    // Each endpoint: the user of its permission and root; two with both permissions.
    assert!(allowed >= 2 * ENDPOINTS.len(), "{allowed}");
}

#[tokio::test]
async fn what_everyone_may_needs_no_password() {
    for (method, path, needed) in ENDPOINTS.iter().copied() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<&str> = needed.iter().map(|perm| perm.name()).collect();
        let file = serde_json::json!([
            { "username": "*", "perms": names },
            { "username": "bob", "password": "b" },
        ]);
        let state = new_state(dir.path(), Some(&file.to_string()));
        for header in [
            basic("bob", "wrong"),
            basic("nobody", "x"),
            "nonsense".to_owned(),
        ] {
            let got = send(&state, method, path, &[("authorization", &header)], "").await;
            assert_ne!(got.status, 401, "{method} {path} {header}");
        }
        assert_ne!(
            send(&state, method, path, &[], "").await.status,
            401,
            "{method} {path}"
        );
        for (method, path, others) in ENDPOINTS.iter().copied() {
            if others.iter().any(|perm| !needed.contains(perm)) {
                let got = send(&state, method, path, &[], "").await;
                denied(&got, &format!("{method} {path} with {names:?}"));
            }
        }
    }
}

#[tokio::test]
async fn what_needs_no_user() {
    let dir = tempfile::tempdir().unwrap();
    let state = new_state(dir.path(), Some(&users().0));
    for (method, path, status) in [
        ("OPTIONS", "/db/execute", 200),
        ("OPTIONS", "/nothing", 200),
        ("GET", "/", 302),
        ("GET", "/nothing", 404),
        ("GET", "/db", 404),
        ("GET", "/db/../status", 404),
        ("GET", "/STATUS", 404),
        ("GET", "/%73tatuz", 404),
        // An escape hides no path from the check.
        ("GET", "/%73tatus", 401),
        ("GET", "//status", 404),
        ("GET", "/status?%zz", 400),
    ] {
        let got = send(&state, method, path, &[], "").await;
        assert_eq!(got.status, status, "{method} {path}");
        assert!(!got.body.contains("build"), "{method} {path}");
    }
}

#[tokio::test]
async fn headers_that_are_no_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let state = new_state(dir.path(), Some(&users().0));
    let huge = basic("root", &"x".repeat(100_000));
    let long_name = basic(&"root".repeat(50_000), "root!");
    let invalid = format!("Basic {}", STANDARD.encode(b"root\xff:root!"));
    for header in [
        "",
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic cm9vdA==",
        "Basic cm9vdDpyb290IQ",
        "Bearer root:root!",
        "Digest username=root",
        &invalid,
        &huge,
        &long_name,
        &basic("root\0", "root!"),
        &basic("ROOT", "root!"),
        &basic(" root", "root!"),
        &basic("*", ""),
        &basic("", "root!"),
        &basic("", ""),
    ] {
        let got = send(&state, "GET", "/status", &[("authorization", header)], "").await;
        denied(&got, &header.chars().take(60).collect::<String>());
    }
    // The first of two headers counts.
    let (good, bad) = (basic("root", "root!"), basic("root", "x"));
    for (first, second, status) in [(&good, &bad, 200), (&bad, &good, 401)] {
        let headers = [
            ("authorization", first.as_str()),
            ("authorization", second.as_str()),
        ];
        assert_eq!(
            send(&state, "GET", "/status", &headers, "").await.status,
            status
        );
    }
    let lower = good.replace("Basic", "bAsIc");
    assert_eq!(
        send(&state, "GET", "/status", &[("authorization", &lower)], "")
            .await
            .status,
        200
    );
}
