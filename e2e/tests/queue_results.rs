//! A client that waits for a queued write receives the write's result.
use anyhow::{Result, ensure};
use e2e::{
    cluster::{Cluster, SETTLE_LIMIT},
    membership::{await_rows, await_write},
    process::Node,
};
use serde_json::Value;

const QUEUED: &str = "/db/execute?queue&wait";

#[test]
fn a_refused_or_failed_write_is_told() -> Result<()> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = node.client();
    client.execute("CREATE TABLE t(x UNIQUE)", &[])?;
    for (body, want) in [
        (r#"["INSERT INTO t VALUES(1)"]"#, None),
        (
            r#"["INSERT INTO t VALUES(1)"]"#,
            Some("UNIQUE constraint failed: t.x"),
        ),
        (
            r#"["INSERT INTO nowhere VALUES(1)"]"#,
            Some("no such table: nowhere"),
        ),
        (
            r#"["PRAGMA journal_mode=DELETE"]"#,
            Some("disallowed pragma"),
        ),
        ("[]", None),
    ] {
        let reply = client.post(QUEUED, body)?;
        let json = reply.json();
        ensure!(
            // The status is that of the same statements without the queue.
            reply.status == 200
                && json["error"].as_str() == want
                && json["sequence_number"].is_i64(),
            "{body}: {reply:?}"
        );
    }
    await_rows(&node, "SELECT count(*) FROM t", 1)
}

/// The follower allows everybody to write; the leader does not.
#[test]
fn a_write_that_the_leader_denies_is_told() -> Result<()> {
    let mut cluster = Cluster::start(1)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    cluster.join(Node::new("2")?, 0)?;
    let auth = cluster[0].scratch().join("auth.json");
    std::fs::write(
        &auth,
        r#"[{"username":"*","perms":["query","status","ready","join"]}]"#,
    )?;
    cluster[0].args.push(format!("-auth={}", auth.display()));
    // Only the first node may lead, because it has the access rules.
    cluster[0].stop()?;
    cluster[0].start_and_ready()?;
    let mut second = cluster.client(1).timeout(SETTLE_LIMIT);
    e2e::wait::until("the first to lead", SETTLE_LIMIT, || {
        let status = second.get_json("/status").map_err(|e| e.to_string())?;
        if status["store"]["leader"]["node_id"] == "1" {
            return Ok(());
        }
        let _ = second.post("/leader?wait", "");
        Err(status["store"]["leader"].to_string())
    })?;
    let reply = second.post(QUEUED, r#"["INSERT INTO t VALUES(1)"]"#)?;
    ensure!(
        reply.status == 401 && reply.text().contains("remote Execute not authorized"),
        "{reply:?}"
    );
    let status: Value = second.get_json("/status")?;
    let queue = &status["http"]["queue"]["_default"];
    ensure!(queue["dropped_requests"] == 1, "{queue}");
    await_rows(&cluster[1], "SELECT count(*) FROM t", 0)
}

/// With `-write-queue-tx` a batch is a transaction. If one of its writes fails, the others are still
/// executed.
#[test]
fn in_a_transaction_the_neighbours_of_a_failed_write_are_written() -> Result<()> {
    let mut node = Node::new("1")?.with(&["-write-queue-tx", "-write-queue-timeout=500ms"]);
    node.start_and_ready()?;
    await_write(&mut node.client(), "CREATE TABLE t(x)")?;
    let replies: Vec<_> = std::thread::scope(|scope| {
        let writers = ["t", "nowhere", "t"].map(|table| {
            let mut client = node.client().timeout(SETTLE_LIMIT);
            let body = format!(r#"["INSERT INTO {table} VALUES(1)"]"#);
            scope.spawn(move || client.post(QUEUED, &body))
        });
        writers
            .map(|writer| writer.join().expect("no panic"))
            .into()
    });
    let errors: Vec<_> = replies
        .into_iter()
        .map(|reply| Ok(reply?.json()["error"].as_str().map(str::to_owned)))
        .collect::<Result<_>>()?;
    ensure!(
        errors == [None, Some("no such table: nowhere".to_owned()), None],
        "{errors:?}"
    );
    await_rows(&node, "SELECT count(*) FROM t", 2)
}
