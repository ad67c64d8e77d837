//! Users with real processes: forms of passwords, reloads, forwarded requests, joins, floods of wrong
//! passwords.
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use e2e::{
    binary,
    client::{Client, Reply},
    cluster::SETTLE_LIMIT,
    process::Node,
    wait,
};
use serde_json::{Value, json};

/// The node reads the file once a second.
const RELOAD_LIMIT: Duration = Duration::from_secs(10);
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

fn status_of(node: &Node, path: &str, user: Option<(&str, &str)>) -> Result<u16> {
    Ok(ask(&mut node.client(), "GET", path, user, "")?.status)
}

/// Runs `rqlited hash-password` with standard input.
fn hash_password(args: &[&str], input: &str) -> Result<(bool, String)> {
    let mut child = Command::new(binary::rqlited()?)
        .arg("hash-password")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It may have ended before it read anything.
    let _ = child
        .stdin
        .take()
        .context("stdin")?
        .write_all(input.as_bytes());
    let output = child.wait_with_output()?;
    let text = if output.status.success() {
        output.stdout
    } else {
        output.stderr
    };
    Ok((
        output.status.success(),
        String::from_utf8(text)?.trim_end().to_owned(),
    ))
}

fn argon2id(password: &str) -> Result<String> {
    let (done, hash) = hash_password(&[], password)?;
    ensure!(done && hash.starts_with("$argon2id$"), "{hash}");
    Ok(hash)
}

fn with_users(mut node: Node, users: &Value) -> Result<(Node, PathBuf)> {
    let path = node.scratch().join("users.json");
    fs::write(&path, users.to_string())?;
    node.args.push(format!("-auth={}", path.display()));
    Ok((node, path))
}

/// Waits until a request has this status.
fn await_status(node: &Node, path: &str, user: (&str, &str), status: u16) -> Result<()> {
    wait::until(
        &format!("{status} for {}", user.0),
        RELOAD_LIMIT,
        || match status_of(node, path, Some(user)) {
            Ok(got) if got == status => Ok(()),
            Ok(got) => Err(got.to_string()),
            Err(error) => Err(error.to_string()),
        },
    )
}

fn credentials_status(node: &Node) -> Result<Value> {
    let reply = ask(&mut node.client(), "GET", "/status", None, "")?;
    let status: Value = serde_json::from_str(&reply.text())?;
    Ok(status["security"]["credentials"].clone())
}

#[test]
fn hashes_are_made_and_accepted() -> Result<()> {
    let argon2 = argon2id("päss:wörd\n")?;
    let (done, bcrypt) = hash_password(&["--algorithm", "bcrypt"], "b-secret")?;
    ensure!(done && bcrypt.starts_with("$2b$"), "{bcrypt}");
    for (args, input) in [
        (&["secret"][..], ""),
        (&[], ""),
        (&[], "two\nlines\n"),
        (&["--algorithm", "md5"], "x"),
        (&["--algorithm", "bcrypt"], &*"x".repeat(73)),
    ] {
        let (done, text) = hash_password(args, input)?;
        ensure!(!done && !text.is_empty(), "{args:?}: {text}");
    }
    let users = json!([
        { "username": "a", "password": argon2, "perms": ["status"] },
        { "username": "b", "password": bcrypt, "previous_passwords": ["old", argon2id("older")?], "perms": ["status"] },
        { "username": "p", "password": "plain", "perms": ["status"] },
        { "username": "*", "perms": ["ready"] },
    ]);
    let (mut node, _) = with_users(Node::new("1")?, &users)?;
    node.start_and_ready()?;
    for (name, password, status) in [
        ("a", "päss:wörd", 200),
        ("a", "päss:wörd ", 401),
        ("a", argon2.as_str(), 401),
        ("b", "b-secret", 200),
        ("b", "old", 200),
        ("b", "older", 200),
        ("b", "oldest", 401),
        ("p", "plain", 200),
        ("p", "b-secret", 401),
        ("nobody", "plain", 401),
    ] {
        let got = status_of(&node, "/status", Some((name, password)))?;
        ensure!(got == status, "{name}:{password}: {got}");
    }
    ensure!(
        !node.log().contains("plain") && !node.log().contains("b-secret"),
        "{}",
        node.log()
    );
    Ok(())
}

#[test]
fn a_bad_file_ends_the_start_and_says_why() -> Result<()> {
    for (text, why) in [
        ("[", "it is not valid JSON"),
        (
            r#"[{"username":"a","password":"$argon2id$v=19$m=9999999,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"}]"#,
            "asks for too much",
        ),
        (
            r#"[{"username":"a","password":"$2b$hunter2"}]"#,
            "not a well-formed bcrypt hash",
        ),
        (
            r#"[{"username":"a","password":"hunter2"},{"username":"a","password":"hunter2"}]"#,
            "listed twice",
        ),
    ] {
        let (mut node, path) = with_users(Node::new("1")?, &json!([]))?;
        fs::write(path, text)?;
        node.start()?;
        let status = node.wait_exit(SETTLE_LIMIT)?;
        let log = node.log();
        let said = log.contains("failed to get credential store: ") && log.contains(why);
        ensure!(
            status.code() == Some(1) && said && !log.contains("hunter2"),
            "{status} {log}"
        );
        ensure!(
            log.matches("failed to get credential store").count() == 1,
            "{log}"
        );
    }
    Ok(())
}

#[test]
fn the_file_is_read_again() -> Result<()> {
    let users = |password: &str| {
        json!([
            { "username": "bob", "password": password, "perms": ["query"] },
            { "username": "*", "perms": ["ready", "status"] },
        ])
    };
    let (mut node, path) = with_users(Node::new("1")?, &users("one"))?;
    node.start_and_ready()?;
    let query = "/db/query?q=SELECT%201";
    await_status(&node, query, ("bob", "one"), 200)?;
    let before = credentials_status(&node)?;
    ensure!(
        before["enabled"] == true && before.get("last_error").is_none(),
        "{before}"
    );

    // The same length and the same time.
    let modified = fs::metadata(&path)?.modified()?;
    fs::write(&path, users("two").to_string())?;
    fs::File::options()
        .write(true)
        .open(&path)?
        .set_modified(modified)?;
    await_status(&node, query, ("bob", "two"), 200)?;
    ensure!(status_of(&node, query, Some(("bob", "one")))? == 401);
    let after = credentials_status(&node)?;
    ensure!(after["file_sha256"] != before["file_sha256"], "{after}");

    fs::write(&path, "[{")?;
    wait::until("an error in /status", RELOAD_LIMIT, || {
        let status = credentials_status(&node).map_err(|e| e.to_string())?;
        match status["last_error"].as_str() {
            Some(text) if text.contains("not valid JSON") => Ok(()),
            _ => Err(status.to_string()),
        }
    })?;
    ensure!(status_of(&node, query, Some(("bob", "two")))? == 200);
    let vars: Value = node.client().get_json("/debug/vars?key=auth")?;
    ensure!(
        vars["auth"]["file_refused"] == 1 && vars["auth"]["reloads_failed"] == 1,
        "{vars}"
    );

    // As Kubernetes replaces a Secret's files: by another target of a link.
    let dir = node.scratch().join("mounted");
    for (version, password) in [("..1", "three"), ("..2", "four")] {
        fs::create_dir_all(dir.join(version))?;
        fs::write(
            dir.join(version).join("users.json"),
            users(password).to_string(),
        )?;
    }
    std::os::unix::fs::symlink("..1", dir.join("..data"))?;
    fs::remove_file(&path)?;
    std::os::unix::fs::symlink(dir.join("..data/users.json"), &path)?;
    await_status(&node, query, ("bob", "three"), 200)?;
    std::os::unix::fs::symlink("..2", dir.join("..tmp"))?;
    fs::rename(dir.join("..tmp"), dir.join("..data"))?;
    await_status(&node, query, ("bob", "four"), 200)?;
    ensure!(credentials_status(&node)?.get("last_error").is_none());
    Ok(())
}

/// Each node checks with its own file; the leader checks what a follower forwards once more.
#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn the_leader_checks_with_its_own_file() -> Result<()> {
    let join = json!({ "username": "node", "password": "n", "perms": ["join", "remove"] });
    let everyone = json!({ "username": "*", "perms": ["ready", "status"] });
    let all = ["execute", "query", "backup", "load", "remove", "leader-ops"];
    let hash = argon2id("both")?;
    let (mut leader, _) = with_users(
        Node::new("1")?,
        &json!([
            join, everyone,
            { "username": "both", "password": hash, "perms": all },
            { "username": "changed", "password": "at-leader", "perms": all },
            { "username": "reader", "password": "r", "perms": ["query"] },
        ]),
    )?;
    leader.start_and_ready()?;
    let admin = Some(("both", "both"));
    ask(
        &mut leader.client(),
        "POST",
        "/db/execute",
        admin,
        r#"["CREATE TABLE t(x)"]"#,
    )?;
    let (mut follower, _) = with_users(
        Node::new("2")?.with(&[&format!("-join={}", leader.raft), "-join-as=node"]),
        &json!([
            join, everyone,
            { "username": "both", "password": "both", "perms": all },
            { "username": "changed", "password": "at-follower", "perms": all },
            { "username": "reader", "password": "r", "perms": all },
            { "username": "unknown-there", "password": "u", "perms": all },
        ]),
    )?;
    follower.start_and_ready()?;
    let mut client = follower.client();
    for (name, password, status) in [
        ("both", "both", 200),
        ("both", "wrong", 401),
        ("changed", "at-follower", 401),
        ("changed", "at-leader", 401),
        ("reader", "r", 401),
        ("unknown-there", "u", 401),
    ] {
        for (method, path, body, text) in [
            (
                "POST",
                "/db/execute",
                INSERT,
                "remote Execute not authorized\n",
            ),
            (
                "POST",
                "/db/execute?queue&wait",
                INSERT,
                "remote Execute not authorized\n",
            ),
            (
                "POST",
                "/db/request",
                INSERT,
                "remote Request not authorized\n",
            ),
            ("GET", "/db/backup", "", "remote backup not authorized\n"),
            (
                "POST",
                "/db/load",
                "SELECT 1",
                "remote load not authorized\n",
            ),
            (
                "DELETE",
                "/remove",
                r#"{"id":"none"}"#,
                "remote remove node not authorized\n",
            ),
        ] {
            let reply = ask(&mut client, method, path, Some((name, password)), body)?;
            ensure!(
                reply.status == status,
                "{name} {method} {path}: {} {}",
                reply.status,
                reply.text()
            );
            let local = matches!(
                (name, password),
                ("both", "wrong") | ("changed", "at-leader")
            );
            if status == 401 {
                let expected = if local { "" } else { text };
                ensure!(
                    reply.text() == expected,
                    "{name} {method} {path}: {}",
                    reply.text()
                );
            }
        }
    }
    let reply = ask(
        &mut client,
        "GET",
        "/db/query?q=SELECT%20count(*)%20FROM%20t",
        Some(("reader", "r")),
        "",
    )?;
    ensure!(
        reply.status == 200 && reply.text().contains("[[3]]"),
        "{}",
        reply.text()
    );
    Ok(())
}

#[test]
fn joining_needs_its_own_permission() -> Result<()> {
    let users = json!([
        { "username": "voter", "password": "v", "perms": ["join"] },
        { "username": "reader", "password": "r", "perms": ["join-read-only"] },
        { "username": "*", "perms": ["ready", "status"] },
    ]);
    let (mut first, path) = with_users(Node::new("1")?, &users)?;
    first.start_and_ready()?;
    let auth = format!("-auth={}", path.display());
    let join = format!("-join={}", first.raft);
    // Members stay, for the quorum.
    let mut members = Vec::new();
    for (name, flags, joins) in [
        ("2", vec!["-join-as=voter"], true),
        ("3", vec!["-join-as=reader", "-raft-non-voter=true"], true),
        ("4", vec!["-join-as=voter", "-raft-non-voter=true"], false),
        ("5", vec!["-join-as=reader"], false),
        ("6", vec![], false),
        ("7", vec!["-join-as=nobody"], false),
    ] {
        let mut node = Node::new(name)?
            .with(&[&auth, &join, "-join-attempts=1", "-join-interval=100ms"])
            .with(&flags);
        node.start()?;
        if joins {
            node.wait_ready(SETTLE_LIMIT)?;
            members.push(node);
        } else {
            let status = node.wait_exit(SETTLE_LIMIT)?;
            ensure!(
                status.code() == Some(1) && node.log().contains("unauthorized"),
                "{name}: {}",
                node.log()
            );
        }
    }
    // What this node sends to others must be known in clear text.
    let hashed = json!([{ "username": "voter", "password": argon2id("v")?, "perms": ["join"] }]);
    let (node, _) = with_users(Node::new("8")?, &hashed)?;
    let mut node = node.with(&[&join, "-join-as=voter"]);
    node.start()?;
    node.wait_exit(SETTLE_LIMIT)?;
    ensure!(
        node.log().contains("must be in clear text, not a hash"),
        "{}",
        node.log()
    );
    Ok(())
}

/// Resident memory of a process.
fn resident_mib(node: &Node) -> Result<u64> {
    let pid = node.pid().context("pid")?;
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}

/// Many connections try passwords, all of them different, of a user and of users who do not exist.
#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn a_flood_of_wrong_passwords_starves_nobody() -> Result<()> {
    let users = json!([
        { "username": "bob", "password": argon2id("right")?, "perms": ["execute", "query"] },
        { "username": "late", "password": argon2id("right")?, "perms": ["execute"] },
        { "username": "*", "perms": ["ready", "status"] },
    ]);
    let (mut node, _) = with_users(Node::new("1")?, &users)?;
    node.start_and_ready()?;
    let bob = Some(("bob", "right"));
    ask(
        &mut node.client(),
        "POST",
        "/db/execute",
        bob,
        r#"["CREATE TABLE t(x)"]"#,
    )?;
    let stop = AtomicBool::new(false);
    let (slowest, late, peak, refused) = std::thread::scope(|scope| -> Result<_> {
        let attackers: Vec<_> = (0..100)
            .map(|number| {
                let (stop, node) = (&stop, &node);
                scope.spawn(move || -> Result<u64> {
                    let mut refused = 0;
                    let mut client = node.client().timeout(Duration::from_secs(60));
                    for attempt in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let name = if number % 2 == 0 { "bob" } else { "nobody" };
                        let wrong = format!("{number}-{attempt}");
                        let reply = ask(
                            &mut client,
                            "POST",
                            "/db/execute",
                            Some((name, &wrong)),
                            INSERT,
                        )?;
                        match reply.status {
                            401 => {}
                            429 | 503 => refused += 1,
                            other => anyhow::bail!("{other} {}", reply.text()),
                        }
                    }
                    Ok(refused)
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(1));
        let (mut slowest, mut peak) = (Duration::ZERO, 0);
        let started = Instant::now();
        let late = scope.spawn(|| -> Result<Duration> {
            let started = Instant::now();
            let mut client = node.client().timeout(Duration::from_secs(60));
            let reply = ask(
                &mut client,
                "POST",
                "/db/execute",
                Some(("late", "right")),
                INSERT,
            )?;
            ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
            Ok(started.elapsed())
        });
        while started.elapsed() < Duration::from_secs(6) {
            for (path, user) in [("/db/query?q=SELECT%201", bob), ("/readyz", None)] {
                let asked = Instant::now();
                let status = status_of(&node, path, user)?;
                ensure!(status == 200, "{path}: {status}");
                slowest = slowest.max(asked.elapsed());
            }
            peak = peak.max(resident_mib(&node)?);
            std::thread::sleep(Duration::from_millis(20));
        }
        let late = late.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        stop.store(true, Ordering::Relaxed);
        let mut refused = 0;
        for attacker in attackers {
            refused += attacker.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        }
        Ok((slowest, late, peak, refused))
    })?;
    println!(
        "slowest right request {slowest:?}, first login of another user {late:?}, peak {peak} MiB, {refused} refused"
    );
    ensure!(slowest < Duration::from_secs(2), "{slowest:?}");
    ensure!(late < Duration::from_secs(10), "{late:?}");
    ensure!(peak < 200, "{peak} MiB");
    let vars: Value = node.client().get_json("/debug/vars?key=auth")?;
    ensure!(
        vars["auth"]["hash_checks_wrong"].as_u64() > Some(3),
        "{vars}"
    );
    Ok(())
}
