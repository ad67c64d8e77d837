//! Invalid input: every kind is rejected with a clear error, nothing panics, and the node keeps serving.
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    binary,
    client::{Client, WriteOutcome},
    cluster::{Cluster, SETTLE_LIMIT, check_no_panic},
    membership::await_rows,
    ports,
    process::Node,
    wait,
};
use serde_json::json;

/// A node with a table `t(x)`, and its client.
fn node() -> Result<(Node, Client)> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = node.client();
    client.execute("CREATE TABLE t(x)", &[])?;
    Ok((node, client))
}

/// Checks that the node still works and has not panicked.
fn ensure_healthy(node: &mut Node) -> Result<()> {
    ensure!(node.is_running(), "the node exited: {}", node.log_tail());
    let mut client = node.client();
    client.execute("INSERT INTO t VALUES('well')", &[])?;
    client.rows("strong", "SELECT count(*) FROM t", &[])?;
    check_no_panic(node)
}

#[test]
fn malformed_http() -> Result<()> {
    let (mut node, mut client) = node()?;
    let long_header = format!(
        "GET /status HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "y".repeat(1 << 20)
    );
    let long_path = format!(
        "GET /db/query?q={} HTTP/1.1\r\nHost: x\r\n\r\n",
        "%20".repeat(1 << 18)
    );
    let raw: [&[u8]; 8] = [
        b"\r\n\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /db/execute HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /db/execute HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        long_header.as_bytes(),
        long_path.as_bytes(),
    ];
    for request in raw {
        let mut stream = TcpStream::connect(&node.http)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // The node may close the connection before it has read everything.
        let _ = stream
            .write_all(request)
            .and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let start = String::from_utf8_lossy(&request[..request.len().min(40)]).into_owned();
        let answer = String::from_utf8_lossy(&answer);
        ensure!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{start:?} got {answer}"
        );
    }
    // A request whose body ends early must not be executed.
    let mut stream = TcpStream::connect(&node.http)?;
    stream.write_all(b"POST /db/execute HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n[\"INSERT INTO t VALUES('half')\"]")?;
    drop(stream);
    ensure!(
        client.number("strong", "SELECT count(*) FROM t")? == 0,
        "half a body was executed"
    );
    ensure_healthy(&mut node)
}

#[test]
fn malformed_json_and_parameters() -> Result<()> {
    let (mut node, mut client) = node()?;
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let deep_parameter = format!("[[\"SELECT ?\",{deep}]]");
    let bodies: [&[u8]; 12] = [
        b"\xff\xfe",
        b"[\"SELECT 1\"",
        b"[\"SELECT 1\",]",
        b"[nul]",
        b"\"SELECT 1\"",
        b"null",
        b"1",
        b"[[\"SELECT ?\",{\"a\":{\"b\":1}}]]",
        b"[[\"SELECT ?\",[1,\"x\"]]]",
        b"[[\"SELECT ?\",[[1]]]]",
        deep.as_bytes(),
        deep_parameter.as_bytes(),
    ];
    for path in [
        "/db/execute",
        "/db/query",
        "/db/request",
        "/db/execute?queue",
    ] {
        for body in bodies {
            let reply = client.send("POST", path, &[], body)?;
            let start = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            ensure!(
                reply.status == 400 && reply.body.ends_with(b"\n"),
                "{path} {start:?}: {reply:?}"
            );
        }
    }
    // Invalid UTF-8 inside a JSON string: rejected or repaired, never stored as it is.
    let reply = client.send(
        "POST",
        "/db/execute",
        &[],
        b"[[\"INSERT INTO t VALUES(?)\",\"\xff\xfe\"]]",
    )?;
    ensure!(matches!(reply.status, 200 | 400), "{reply:?}");
    let rows = client.rows("strong", "SELECT hex(x) FROM t", &[])?;
    ensure!(rows.iter().all(|row| row[0] == "EFBFBDEFBFBD"), "{rows:?}");
    let zero = client.post("/db/execute", r#"["INSERT INTO t VALUES('a\u0000b')"]"#)?;
    ensure!(matches!(zero.status, 200 | 400), "{zero:?}");
    ensure_healthy(&mut node)
}

#[test]
fn enormous_requests() -> Result<()> {
    let (mut node, mut client) = node()?;
    client = client.timeout(Duration::from_secs(60));
    // 24 MiB in one value: accepted or rejected with a message; if accepted, it must survive a restart.
    let big = "x".repeat(24 << 20);
    let outcome = client.write("INSERT INTO t VALUES(?)", &[json!(big)]);
    println!(
        "24 MiB: {}",
        format!("{outcome:?}").chars().take(200).collect::<String>()
    );
    let rows = i64::from(matches!(outcome, WriteOutcome::Acknowledged(_)));
    ensure!(
        client.number("strong", "SELECT count(*) FROM t")? == rows,
        "rows after {rows} acknowledged"
    );
    // Thousands of statements in one request.
    let many = format!(
        "[{}]",
        vec!["\"INSERT INTO t VALUES(1)\""; 20_000].join(",")
    );
    let reply = client.post("/db/execute?transaction", &many)?;
    ensure!(
        reply.status == 200,
        "{} {:.200}",
        reply.status,
        reply.text()
    );
    ensure!(
        client.number("strong", "SELECT count(*) FROM t")? == rows + 20_000,
        "rows of many statements"
    );
    let parameters = client.rows(
        "none",
        &format!("SELECT {}", vec!["?"; 40_000].join(",")),
        &[],
    );
    ensure!(parameters.is_err(), "40 000 placeholders");
    node.kill()?;
    node.start_and_ready()?;
    ensure!(
        node.client().number("strong", "SELECT count(*) FROM t")? == rows + 20_000,
        "rows after a crash"
    );
    ensure_healthy(&mut node)
}

#[test]
fn nonsense_on_the_raft_port() -> Result<()> {
    let (mut node, _client) = node()?;
    let mut held = Vec::new();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 64],
        &[0xff; 64],
        &[1],
        b"",
    ] {
        let mut stream = TcpStream::connect(&node.raft)?;
        stream.write_all(garbage)?;
        held.push(stream);
    }
    // Many idle connections must not exhaust what members need.
    for _ in 0..200 {
        held.push(TcpStream::connect(&node.raft)?);
    }
    let mut second = Node::new("2")?.with(&[&format!("-join={}", node.raft)]);
    second.start_and_ready()?;
    await_rows(&second, "SELECT count(*) FROM t", 0)?;
    check_no_panic(&second)?;
    ensure_healthy(&mut node)
}

/// Runs `rqlited` until it exits; returns its exit code and standard error.
fn refused(args: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(binary::rqlited()?).args(args).output()?;
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

#[test]
fn contradictory_flags_are_named_all_at_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data").display().to_string();
    let (code, text) = refused(&[
        "-http-addr=127.0.0.1:7000",
        "-raft-addr=127.0.0.1:7000",
        "-http-adv-addr=0.0.0.0:1",
        "-bootstrap-expect=3",
        "-raft-non-voter",
        "-http-cert=x.pem",
        "-join=foo",
        "-disco-mode=smoke",
        "-raft-reap-node-timeout=0s",
        &data,
    ])?;
    ensure!(code == Some(1), "exit {code:?}: {text}");
    for line in [
        "fatal: -raft-reap-node-timeout must be greater than 0",
        "fatal: either both -http-cert and -http-key must be set, or neither",
        "fatal: HTTP and Raft addresses must differ",
        "fatal: advertised HTTP address is not routable (0.0.0.0), specify it via -http-addr or -http-adv-addr",
        "fatal: bootstrapping only applicable to voting nodes",
        "fatal: foo is an invalid join address",
        "fatal: disco mode must be one of consul-kv, etcd-kv, dns, or dns-srv",
    ] {
        ensure!(text.contains(line), "missing {line:?} in:\n{text}");
    }
    ensure!(
        !dir.path().join("data").exists(),
        "a data directory was made"
    );
    for (args, code, expected) in [
        (vec!["-nonsense", data.as_str()], 2, "-nonsense"),
        (vec!["-join-attempts=x", data.as_str()], 2, "join-attempts"),
        (
            vec!["-raft-election-timeout=5", data.as_str()],
            2,
            "raft-election-timeout",
        ),
        (vec![data.as_str(), "-fk"], 1, "are not accepted"),
        (vec![""], 1, "data directory path is required"),
        (vec![], 1, "missing required argument: DataPath"),
        (vec!["-version"], 0, "rqlited"),
        (vec!["-h"], 0, "-raft-addr"),
    ] {
        let (seen, text) = refused(&args)?;
        ensure!(
            seen == Some(code) && text.contains(expected),
            "{args:?}: exit {seen:?}\n{text}"
        );
    }
    Ok(())
}

#[test]
fn directories_that_cannot_be_used() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    fs::write(&file, "not a directory")?;
    for data in [file.clone(), file.join("below"), "/proc/nowhere".into()] {
        let mut node = Node::new("1")?;
        node.data.clone_from(&data);
        node.start()?;
        let status = node.wait_exit(SETTLE_LIMIT)?;
        ensure!(status.code() == Some(1), "{}: {status}", data.display());
        let log = node.log();
        ensure!(
            log.contains("fatal") && log.contains(&*data.to_string_lossy()),
            "{}: {log}",
            data.display()
        );
        check_no_panic(&node)?;
    }
    // Two nodes on one data directory.
    let (mut node, _client) = node()?;
    let mut twin = Node::new("1")?;
    twin.data.clone_from(&node.data);
    twin.start()?;
    let status = twin.wait_exit(SETTLE_LIMIT)?;
    ensure!(
        status.code() == Some(1) && twin.log().contains("fatal"),
        "{status}: {}",
        twin.log()
    );
    ensure_healthy(&mut node)
}

#[test]
fn ports_that_are_taken() -> Result<()> {
    let (mut node, _client) = node()?;
    for taken in ["http", "raft"] {
        let mut other = Node::new("2")?;
        if taken == "http" {
            other.http.clone_from(&node.http);
        } else {
            other.raft.clone_from(&node.raft);
        }
        other.start()?;
        let status = other.wait_exit(SETTLE_LIMIT)?;
        let log = other.log();
        ensure!(
            status.code() == Some(1) && log.contains("in use"),
            "{taken}: {status}: {log}"
        );
        check_no_panic(&other)?;
    }
    ensure_healthy(&mut node)
}

#[test]
fn a_member_of_another_cluster_is_not_mixed_in() -> Result<()> {
    let mut ours = Cluster::start(3)?;
    ours.client(0).execute("CREATE TABLE ours(x)", &[])?;
    let mut theirs = Cluster::start(3)?;
    theirs.client(0).execute("CREATE TABLE theirs(x)", &[])?;
    theirs.agreed_dump()?;
    // A node of another cluster with the name and the address of our third member.
    ours[2].kill()?;
    let (http, raft) = (ours[2].http.clone(), ours[2].raft.clone());
    let through = ours[0].raft.clone();
    theirs[2].stop()?;
    theirs[2].http = http;
    theirs[2].raft = raft;
    theirs[2].start_and_answer()?;
    ours.client(0).execute("INSERT INTO ours VALUES(1)", &[])?;
    let mut foreign = theirs.client(2);
    wait::until("the foreign node's own table", SETTLE_LIMIT, || {
        foreign
            .number("none", "SELECT count(*) FROM theirs")
            .map_err(|error| format!("{error:#}"))
    })?;
    wait::throughout(
        "the foreign node keeps its own data",
        Duration::from_secs(2),
        || match foreign.number("none", "SELECT count(*) FROM ours") {
            Err(error) if format!("{error:#}").contains("no such table") => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )?;
    // It cannot join our cluster either.
    theirs[2].kill()?;
    theirs[2].args.extend([
        format!("-join={through}"),
        "-join-attempts=2".to_owned(),
        "-join-interval=200ms".to_owned(),
    ]);
    theirs[2].start_and_answer().or_else(|error| {
        if theirs[2].is_running() {
            Err(error)
        } else {
            Ok(())
        }
    })?;
    let mut leader = ours.client(0);
    wait::throughout(
        "the foreign node stays outside",
        Duration::from_secs(2),
        || {
            let seen = foreign.number("none", "SELECT count(*) FROM ours");
            if seen.is_ok() {
                Err(format!("{seen:?}"))
            } else {
                Ok(())
            }
        },
    )?;
    leader
        .execute("INSERT INTO ours VALUES(2)", &[])
        .context("our cluster must not be disturbed")?;
    ensure!(
        leader
            .rows("linearizable", "SELECT * FROM theirs", &[])
            .is_err(),
        "the foreign table reached our cluster"
    );
    ours.check_no_panic()?;
    theirs.check_no_panic()
}

#[test]
fn a_join_address_that_speaks_http_is_named() -> Result<()> {
    let (mut node, _client) = node()?;
    let mut lost = Node::new("2")?.with(&[
        &format!("-join={}", node.http),
        "-join-attempts=1",
        "-join-interval=100ms",
    ]);
    lost.start()?;
    let status = lost.wait_exit(SETTLE_LIMIT)?;
    let expected = format!(
        "join address {} appears to be serving HTTP when it should be Raft",
        node.http
    );
    ensure!(
        status.code() == Some(1) && lost.log().contains(&expected),
        "{status}: {}",
        lost.log()
    );
    let mut nowhere = Node::new("3")?.with(&[
        &format!("-join=127.0.0.1:{}", ports::reserve()?),
        "-join-attempts=2",
        "-join-interval=100ms",
    ]);
    nowhere.start()?;
    let status = nowhere.wait_exit(SETTLE_LIMIT)?;
    ensure!(
        status.code() == Some(1) && nowhere.log().contains("failed to join cluster"),
        "{status}: {}",
        nowhere.log()
    );
    ensure_healthy(&mut node)
}
