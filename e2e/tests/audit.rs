//! The audit log with real processes: who, from where, what kind, result, on both ports.
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use e2e::{
    client::{Client, Reply},
    cluster::SETTLE_LIMIT,
    process::Node,
    wait,
};
use serde_json::{Value, json};

/// A line is written within moments.
const LINE_LIMIT: Duration = Duration::from_secs(10);
const INSERT: &str = r#"["INSERT INTO t VALUES(1)"]"#;

fn ask(
    client: &mut Client,
    method: &str,
    path: &str,
    user: Option<(&str, &str)>,
    body: &str,
) -> Result<Reply> {
    let header = user.map(|(name, password)| {
        let encoded = BASE64_STANDARD.encode(format!("{name}:{password}"));
        format!("Basic {encoded}")
    });
    let mut headers = vec![("Content-Type", "application/json")];
    headers.extend(header.iter().map(|value| ("Authorization", value.as_str())));
    Ok(client.send(method, path, &headers, body.as_bytes())?)
}

fn with_users(mut node: Node, users: &Value) -> Result<(Node, PathBuf)> {
    let path = node.scratch().join("users.json");
    fs::write(&path, users.to_string())?;
    node.args.push(format!("-auth={}", path.display()));
    Ok((node, path))
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn the_audit_log_says_who_did_what() -> Result<()> {
    let users = json!([
        { "username": "bob", "password": "secret-b", "perms": ["all"] },
        { "username": "node", "password": "secret-n", "perms": ["join"] },
        { "username": "*", "perms": ["ready", "status"] },
    ]);
    let (mut first, path) = with_users(Node::new("1")?, &users)?;
    let audit = first.scratch().join("audit.log");
    first.args.push(format!("-audit-log={}", audit.display()));
    first.start_and_ready()?;
    let bob = Some(("bob", "secret-b"));
    let mut client = first.client();
    ask(
        &mut client,
        "POST",
        "/db/execute",
        bob,
        r#"["CREATE TABLE t(x)","INSERT INTO t VALUES('value-v')"]"#,
    )?;
    ask(
        &mut client,
        "POST",
        "/db/request",
        bob,
        r#"["SELECT 'value-v'","INSERT INTO nothing VALUES(1)"]"#,
    )?;
    ask(
        &mut client,
        "POST",
        "/db/execute",
        Some(("bob", "secret-wrong")),
        INSERT,
    )?;
    ask(&mut client, "GET", "/value-v/nothing?secret-b", None, "")?;
    let audit_here = Node::new("2")?;
    let second_log = audit_here.scratch().join("audit.log");
    let mut second = audit_here.with(&[
        &format!("-auth={}", path.display()),
        &format!("-join={}", first.raft),
        "-join-as=node",
        &format!("-audit-log={}", second_log.display()),
    ]);
    second.start_and_ready()?;
    let mut client = second.client();
    ask(&mut client, "POST", "/db/execute", bob, INSERT)?;
    ask(&mut client, "GET", "/db/backup", bob, "")?;
    ask(&mut client, "POST", "/db/load", bob, "SELECT 'value-v'")?;
    ask(&mut client, "DELETE", "/remove", bob, r#"{"id":"none"}"#)?;
    let read = |path: &Path| -> Result<Vec<Value>> {
        let text = fs::read_to_string(path)?;
        for secret in ["secret-", "value-v", "INSERT", "CREATE"] {
            ensure!(!text.contains(secret), "{secret} is in {text}");
        }
        text.lines()
            .map(|line| Ok(serde_json::from_str(line)?))
            .collect()
    };
    let has = |lines: &[Value], expected: &Value| {
        lines.iter().any(|line| {
            let mut fields = expected.as_object().into_iter().flatten();
            fields.all(|(key, value)| line[key] == *value)
        })
    };
    let expected = [
        json!({ "port": "http", "action": "/db/execute", "user": "bob", "access": "allowed", "writes": 2, "status": 200, "permissions": ["execute"] }),
        json!({ "action": "/db/request", "user": "bob", "reads": 1, "writes": 1, "failed": 1, "error": "statement" }),
        json!({ "action": "/db/execute", "user": "bob", "access": "denied", "status": 401, "error": "unauthorized" }),
        json!({ "action": "", "user": null, "access": "none", "status": 404 }),
        json!({ "action": "/readyz", "user": null, "access": "anyone", "status": 200 }),
        json!({ "port": "internode", "action": "join", "user": "node", "access": "allowed", "via": "2", "target": "2" }),
        json!({ "port": "internode", "action": "write", "user": "bob", "via": "2", "writes": 1, "access": "allowed" }),
        json!({ "port": "internode", "action": "backup", "user": "bob", "via": "2" }),
        json!({ "port": "internode", "action": "load", "user": "bob", "via": "2" }),
        json!({ "port": "internode", "action": "remove", "user": "bob", "via": "2", "target": "none" }),
    ];
    wait::until("all lines", LINE_LIMIT, || {
        let lines = read(&audit).map_err(|e| e.to_string())?;
        match expected.iter().find(|one| !has(&lines, one)) {
            None => Ok(()),
            Some(missing) => Err(format!("{missing} is missing in {lines:#?}")),
        }
    })?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&audit)?.permissions());
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    let there = json!({ "port": "http", "action": "/db/load", "user": "bob", "status": 200 });
    wait::until("the other node's line", LINE_LIMIT, || {
        let lines = read(&second_log).map_err(|e| e.to_string())?;
        if has(&lines, &there) {
            Ok(())
        } else {
            Err(format!("{lines:#?}"))
        }
    })?;
    // Rotation by renaming.
    fs::rename(&audit, audit.with_extension("1"))?;
    ask(&mut first.client(), "GET", "/nodes", bob, "")?;
    wait::until("a new file", LINE_LIMIT, || {
        let lines = read(&audit).map_err(|e| e.to_string())?;
        if has(&lines, &json!({ "action": "/nodes" })) {
            Ok(())
        } else {
            Err(format!("{lines:#?}"))
        }
    })?;
    let mut wrong = Node::new("3")?.with(&["-audit-log=/no/such/folder/audit.log"]);
    wrong.start()?;
    wrong.wait_exit(SETTLE_LIMIT)?;
    ensure!(
        wrong
            .log()
            .contains("failed to open the audit log /no/such/folder/audit.log"),
        "{}",
        wrong.log()
    );
    Ok(())
}
