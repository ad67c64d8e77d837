//! Large requests: every node can replicate what is acknowledged; what is too large is rejected with a
//! message.
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{
    cluster::Cluster,
    membership::{await_members, await_rows, await_write},
    process::Node,
};
use serde_json::json;

/// A debug build on two busy cores takes some seconds to parse and apply 16 MiB.
const LARGE_LIMIT: Duration = Duration::from_secs(120);

/// 32 MB of short floats are below the body limit but would make a log entry of 80 MB. The leader could write
/// it, but no other node could receive it.
#[test]
fn an_entry_that_no_other_node_could_take_is_refused() -> Result<()> {
    let mut cluster = Cluster::start(1)?;
    let mut client = cluster.client(0).timeout(LARGE_LIMIT);
    client.execute("CREATE TABLE t(x)", &[])?;
    let floats = "1.5,".repeat(8_000_000);
    let body = format!(r#"[["SELECT 1",{}]]"#, floats.trim_end_matches(','));
    ensure!(body.len() < 32 << 20, "the body itself is allowed");
    let reply = client.post("/db/execute", &body)?;
    ensure!(
        reply.status == 413
            && reply.text().contains("bytes in the log")
            && reply.text().contains("/db/load"),
        "{reply:?}"
    );
    // Also through the write queue, and as a read through the log.
    let reply = client.post("/db/query?level=strong", &body)?;
    ensure!(reply.status == 413, "{reply:?}");
    drop(body);
    await_write(&mut client, "INSERT INTO t VALUES(1)")?;
    cluster.join(Node::new("2")?, 0)?;
    await_members(&mut client, &[("1", true), ("2", true)])?;
    await_rows(&cluster[1], "SELECT count(*) FROM t", 1)?;
    let status = client.get_json("/status")?;
    ensure!(
        status["store"]["raft"]["unsendable"] == json!({}),
        "{status}"
    );
    cluster.check_no_panic()
}

/// Many concurrent writes of some megabytes through a follower: together they exceed one frame between nodes.
#[test]
fn a_follower_packs_large_writes_by_their_bytes() -> Result<()> {
    const WRITERS: usize = 18;
    // Long timeouts, so that the load on a debug build does not cause an election.
    let calm = ["-raft-heartbeat-timeout=5s", "-raft-election-timeout=5s"];
    let mut cluster = Cluster::start_with(2, &calm)?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
    let follower = cluster.follower()?;
    let body = json!([["INSERT INTO t VALUES(?)", "y".repeat(4 << 20)]]).to_string();
    let path = "/db/execute?timeout=120s";
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let mut client = cluster.client(follower).timeout(LARGE_LIMIT);
                let body = &body;
                scope.spawn(move || client.post(path, body))
            })
            .collect();
        writers.into_iter().try_for_each(|writer| {
            let reply = writer.join().expect("no panic")?;
            ensure!(
                reply.status == 200 && !reply.text().contains("error"),
                "{reply:?}"
            );
            Ok(())
        })
    })?;
    for node in cluster.iter() {
        await_rows(node, "SELECT count(*) FROM t", WRITERS as i64)?;
    }
    cluster.check_no_panic()
}
