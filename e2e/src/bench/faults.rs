//! Times that a user waits: for a new leader after a crash, and for a large database to be ready after a
//! restart.
use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{
    bench::{
        memory, node,
        options::Options,
        report::{Cell, Report},
    },
    client::WriteOutcome,
    cluster::Cluster,
    process::{Node, PROCESS_LIMIT},
    wait,
};

/// Database size of the restart measurement.
const BIG_BYTES: u64 = 1 << 30;
/// Bytes of one row of it.
const BIG_ROW: u64 = 1 << 16;
/// How long the survivors may take to accept a write.
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);

/// Milliseconds from kill -9 of the leader to the next accepted write: median and maximum over the rounds.
///
/// # Errors
/// If the survivors accept no write or a killed node does not come back.
pub fn failover(options: &Options, cluster: &mut Cluster) -> Result<Cell> {
    let mut millis = Vec::new();
    for _ in 0..options.failover_rounds.max(1) {
        let leader = cluster.leader()?;
        await_all_applied(cluster)?;
        let killed_at = Instant::now();
        cluster[leader].kill()?;
        await_write(cluster, leader)?;
        millis.push(killed_at.elapsed().as_secs_f64() * 1e3);
        cluster[leader].start_and_ready()?;
    }
    millis.sort_by(f64::total_cmp);
    let worst = millis.last().copied().unwrap_or_default();
    Ok(Cell::rate("three/failover", "ms", worst).note(&format!(
        "kill -9 of the leader to the next accepted write, worst of {}; all: {}",
        millis.len(),
        millis
            .iter()
            .map(|each| format!("{each:.0}"))
            .collect::<Vec<_>>()
            .join(" ")
    )))
}

/// Waits until all nodes have caught up, so that a round measures the election and not the backlog of an
/// earlier load.
fn await_all_applied(cluster: &mut Cluster) -> Result<()> {
    cluster
        .agreed_rows("SELECT count(*), max(id) FROM t")
        .map(|_| ())
}

fn await_write(cluster: &Cluster, dead: usize) -> Result<()> {
    let mut survivors: Vec<_> = (0..cluster.len())
        .filter(|&index| index != dead)
        .map(|index| cluster.client(index).timeout(Duration::from_secs(1)))
        .collect();
    wait::until("a write accepted by a survivor", FAILOVER_LIMIT, || {
        let mut seen = String::new();
        for client in &mut survivors {
            match client.write("INSERT INTO t(v) VALUES('after')", &[]) {
                WriteOutcome::Acknowledged(_) => return Ok(()),
                other => seen = format!("{other:?}"),
            }
        }
        Err(seen)
    })
}

/// Fills a database to 1 GB, kills the node with SIGKILL and measures how long it takes to become ready
/// again.
///
/// # Errors
/// If the node fails.
pub fn measure_big_restart(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    if !options.wants("one/big-restart") {
        return Ok(());
    }
    let mut node = node::bench_node("big", work)?;
    node.start_and_ready()?;
    fill(&node)?;
    node.kill()?;
    let start = Instant::now();
    node.start()?;
    node.wait_ready(PROCESS_LIMIT)?;
    let rows = node.client().number("none", "SELECT count(*) FROM big")?;
    let took = start.elapsed().as_secs_f64();
    if u64::try_from(rows).unwrap_or_default() != BIG_BYTES / BIG_ROW {
        bail!("{rows} rows after the restart");
    }
    report.add(Cell::rate("one/big-restart", "s", took).note("1 GB database, kill -9 to ready"));
    let peak = memory::of(node.pid().context("the node does not run")?)?.peak;
    report.add(Cell::rate("one/big-restart-memory", "MiB", peak));
    node.stop().map(|_| ())
}

/// Fills a new table to 1 GB of random bytes.
///
/// # Errors
/// If a write fails.
pub fn fill(node: &Node) -> Result<()> {
    let mut client = node.client().timeout(Duration::from_secs(120));
    client.execute("CREATE TABLE big(id INTEGER PRIMARY KEY, v BLOB)", &[])?;
    // A few MiB per statement, like a bulk load. The node generates the data itself, so that HTTP is not the
    // bottleneck.
    const ROWS_AT_ONCE: u64 = 64;
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<?) \
               INSERT INTO big(v) SELECT randomblob(?) FROM n";
    for _ in 0..BIG_BYTES / BIG_ROW / ROWS_AT_ONCE {
        client.execute(sql, &[json!(ROWS_AT_ONCE), json!(BIG_ROW)])?;
    }
    Ok(())
}
