//! Requests to a follower while the leader changes: the next leader serves them, and none returns "not
//! leader".
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::Reply,
    cluster::{Cluster, SETTLE_LIMIT},
    membership::{await_rows, await_write},
};

const LEVELS: [&str; 4] = ["weak", "linearizable", "strong", "auto"];
/// Number of rows in the table.
const ROWS: i64 = 3;

fn count_of(reply: &Reply) -> Option<i64> {
    reply.json()["results"][0]["values"][0][0].as_i64()
}

#[test]
fn a_read_at_any_level_is_served_by_the_next_leader() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
    await_write(&mut cluster.client(0), "INSERT INTO t VALUES(1),(2),(3)")?;
    for level in LEVELS {
        let (leader, follower) = (cluster.leader()?, cluster.follower()?);
        let mut client = cluster.client(follower).timeout(SETTLE_LIMIT);
        // This opens the connection between the nodes, as in a cluster in use.
        ensure!(client.number(level, "SELECT count(*) FROM t")? == ROWS);
        cluster[leader].kill()?;
        let reply = client.get(&format!(
            "/db/query?level={level}&q=SELECT%20count(*)%20FROM%20t"
        ))?;
        ensure!(
            reply.status == 200 && count_of(&reply) == Some(ROWS),
            "{level}: {reply:?}"
        );
        // A write that arrives now waits for the next leader, too.
        let body = format!(r#"[["INSERT INTO t(x) SELECT '{level}' WHERE 0"]]"#);
        let reply = client.post("/db/execute", &body)?;
        ensure!(
            reply.status == 200 && reply.json()["error"].is_null(),
            "{level}: {reply:?}"
        );
        cluster[leader].start_and_ready()?;
        await_rows(&cluster[leader], "SELECT count(*) FROM t", ROWS)?;
    }
    cluster.check_no_panic()
}

/// Without a majority there is no next leader. A request long after the last one left fails at once.
#[test]
fn where_nobody_can_lead_that_is_said_at_once() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
    let left = cluster.follower()?;
    for index in (0..3).filter(|index| *index != left) {
        cluster[index].kill()?;
    }
    let mut client = cluster.client(left).timeout(SETTLE_LIMIT);
    let refused = |reply: &Reply| reply.status == 503 && reply.text().contains("leader not found");
    let read = "/db/query?level=weak&q=SELECT%201";
    let reply = client.get(read)?;
    ensure!(refused(&reply), "{reply:?}");
    let asked = Instant::now();
    let reply = client.get(read)?;
    ensure!(refused(&reply), "{reply:?}");
    let reply = client.post("/db/execute", r#"["INSERT INTO t VALUES(1)"]"#)?;
    ensure!(refused(&reply), "{reply:?}");
    // Two replies. Waiting for a leader would take ten election timeouts, 5 s.
    ensure!(
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
    cluster.check_no_panic()
}

/// Leadership is transferred repeatedly while all nodes are written to.
#[test]
fn a_write_during_a_transfer_goes_to_the_next_leader() -> Result<()> {
    let cluster = Cluster::start(3)?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
    let (done, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let unknown = AtomicUsize::new(0);
    std::thread::scope(|scope| -> Result<()> {
        let writers: Vec<_> = (0..3)
            .map(|index| {
                let mut client = cluster.client(index).timeout(SETTLE_LIMIT);
                let (done, written, unknown) = (&done, &written, &unknown);
                scope.spawn(move || -> Result<()> {
                    while !done.load(Ordering::Relaxed) {
                        let reply = client.post("/db/execute", r#"["INSERT INTO t VALUES(1)"]"#)?;
                        let error = reply.json()["error"].as_str().map(str::to_owned);
                        match error.as_deref() {
                            None if reply.status == 200 => written.fetch_add(1, Ordering::Relaxed),
                            // The write was in flight when leadership changed.
                            Some(text) if text.contains("leadership lost") => {
                                unknown.fetch_add(1, Ordering::Relaxed)
                            }
                            _ => anyhow::bail!("node {index}: {reply:?}"),
                        };
                    }
                    Ok(())
                })
            })
            .collect();
        let mut client = cluster.client(0).timeout(SETTLE_LIMIT);
        let handed = (0..12).try_for_each(|_| -> Result<()> {
            client.post("/leader?wait", "").context("transfer")?;
            e2e::wait::sleep(Duration::from_millis(150));
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().expect("no panic")?;
        }
        handed
    })?;
    let (written, unknown) = (written.into_inner(), unknown.into_inner());
    println!("{written} written, {unknown} unknown");
    ensure!(written > 12, "{written} written");
    let rows = cluster
        .client(1)
        .number("strong", "SELECT count(*) FROM t")?;
    let rows = usize::try_from(rows)?;
    ensure!(
        (written..=written + unknown).contains(&rows),
        "{written} written, {unknown} unknown, {rows} rows"
    );
    cluster.check_no_panic()
}
