//! A disk that hangs without failing: another node takes over the lead, this one rejects requests with a
//! message instead of letting clients wait, and recovers afterwards.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::WriteOutcome,
    cluster::{Cluster, SETTLE_LIMIT, check_no_panic},
    frozen_disk::FrozenDisk,
    membership::{await_log, await_rows, await_write},
    process::Node,
    wait,
};

const COUNT: &str = "SELECT count(*) FROM t";
/// The node detects the hang after three seconds. Its reply must not take longer than with a lost quorum.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

fn disk() -> Option<FrozenDisk> {
    match FrozenDisk::mount() {
        Ok(disk) => Some(disk),
        Err(error) => {
            eprintln!("SKIPPED, NOT TESTED: {error:#}");
            None
        }
    }
}

/// Reads and status requests still work; writes are rejected with a message.
fn says_what_is_wrong(node: &Node) -> Result<()> {
    let mut client = node.client().timeout(ANSWER_LIMIT);
    wait::until("a rejection with a message", SETTLE_LIMIT, || match client
        .write("INSERT INTO t VALUES(-1)", &[])
    {
        WriteOutcome::Refused(text) | WriteOutcome::Unknown(text)
            if text.contains("disk hangs: ") =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    })?;
    ensure!(client.get("/status")?.status == 200, "/status");
    ensure!(client.get("/readyz?noleader")?.status == 200, "/readyz");
    // A local read returns its result from memory, or the error.
    let read = client.post("/db/query?level=none", r#"["SELECT 1"]"#)?;
    ensure!(read.status == 200, "{read:?}");
    ensure!(client.get("/metrics")?.status == 200, "/metrics");
    Ok(())
}

#[test]
fn a_single_node_refuses_and_goes_on() -> Result<()> {
    let Some(disk) = disk() else { return Ok(()) };
    let mut node = Node::new("1")?;
    node.data = disk.path().join("data");
    node.start_and_ready()?;
    await_write(&mut node.client(), "CREATE TABLE t(x)")?;
    await_write(&mut node.client(), "INSERT INTO t VALUES(1)")?;
    disk.freeze()?;
    // The write that encounters the frozen disk is not acknowledged; it may take effect later.
    let started = Instant::now();
    let met = node
        .client()
        .timeout(ANSWER_LIMIT)
        .write("INSERT INTO t VALUES(2)", &[]);
    ensure!(
        matches!(met, WriteOutcome::Unknown(_)) && started.elapsed() < ANSWER_LIMIT,
        "{met:?} after {:?}",
        started.elapsed()
    );
    await_log(&node, "the disk does not respond")?;
    says_what_is_wrong(&node)?;
    disk.thaw()?;
    await_log(&node, "the disk responds again")?;
    await_write(&mut node.client(), "INSERT INTO t VALUES(3)")?;
    await_rows(&node, COUNT, 3)?;
    node.stop()?;
    check_no_panic(&node)
}

#[test]
fn a_leader_is_replaced() -> Result<()> {
    let Some(disk) = disk() else { return Ok(()) };
    let mut nodes = ["1", "2", "3"]
        .map(Node::new)
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    nodes[0].data = disk.path().join("data");
    let mut cluster = Cluster::of(nodes);
    cluster.form()?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
    await_write(&mut cluster.client(0), "INSERT INTO t VALUES(1)")?;
    ensure!(cluster.leader()? == 0, "the first node leads");
    disk.freeze()?;
    let started = Instant::now();
    // Any request that needs the frozen disk makes the node detect the hang.
    let _ = cluster
        .client(0)
        .timeout(Duration::from_secs(1))
        .write("INSERT INTO t VALUES(2)", &[]);
    let mut other = cluster.client(1).timeout(Duration::from_secs(2));
    wait::until("a write through another leader", SETTLE_LIMIT, || {
        let leader = other.leader();
        if leader.as_deref() == Some("1") || leader.is_none() {
            return Err(format!("leader {leader:?}"));
        }
        match other.write("INSERT INTO t VALUES(3)", &[]) {
            WriteOutcome::Acknowledged(_) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    println!("others lead after {:?}", started.elapsed());
    ensure!(cluster.client(0).get("/status")?.status == 200, "/status");
    disk.thaw()?;
    let count = cluster.client(1).number("linearizable", COUNT)?;
    for node in cluster.iter() {
        await_rows(node, COUNT, count).context("after the thaw")?;
    }
    await_write(&mut cluster.client(0), "INSERT INTO t VALUES(4)")?;
    cluster.agreed_dump()?;
    cluster.check_no_panic()
}
