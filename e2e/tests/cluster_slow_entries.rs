//! Entries that are quick to store and slow to apply: whoever waits for them gets a result, and a node that
//! has many to apply catches up while others write.
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::WriteOutcome,
    cluster::{Cluster, SETTLE_LIMIT, check_no_panic},
    process::Node,
    wait,
};

/// Slow entries, each some tenths of a second in a debug build: together far longer than openraft's clock
/// needs to fill a channel of a thousand places.
const SLOW: usize = 40;
const STATEMENT: &str = "INSERT INTO slow WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 300000) SELECT count(*) FROM n";
/// Writers of small entries meanwhile. Each commit reaches the node that is behind as an advance of its own.
const WRITERS: usize = 6;
/// The slow entries are applied twice, on each node once, beside other tests.
const LIMIT: Duration = Duration::from_secs(150);

/// The limit for the commit of an entry in the second test.
const COMMIT_LIMIT: &str = "-raft-apply-timeout=300ms";
/// That limit and the 5 s that a proposal may wait for its turn, and a reserve: an entry that takes this long
/// exceeds every limit that was once one for applying.
const LONG: Duration = Duration::from_secs(8);

fn count(node: &Node, table: &str) -> Result<String> {
    let path = format!("/db/query?level=none&q=SELECT%20count(*)%20FROM%20{table}");
    let reply = node.client().get_json(&path)?;
    let value = &reply["results"][0]["values"][0][0];
    ensure!(value.is_number(), "{reply}");
    Ok(value.to_string())
}

/// It once hung for ever: openraft's core waited for its state machine, which waited for the core, and
/// whoever spoke to the node kept a connection.
#[test]
fn a_node_that_is_slow_to_apply_catches_up_under_writers() -> Result<()> {
    let timing = [
        "-raft-heartbeat-timeout=150ms",
        "-raft-election-timeout=150ms",
    ];
    let mut leader = Node::new("1")?.with(&timing);
    leader.start_and_ready()?;
    let mut client = leader.client().timeout(Duration::from_secs(20));
    client.execute("CREATE TABLE slow(n)", &[])?;
    client.execute("CREATE TABLE quick(n)", &[])?;
    for _ in 0..SLOW {
        client.execute(STATEMENT, &[])?;
    }
    let join = format!("-join={}", leader.raft);
    let mut late = Node::new("2")?
        .with(&timing)
        .with(&[&join, "-raft-non-voter=true"]);
    let ends = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut client = leader.client();
                while !ends.load(Ordering::Relaxed) {
                    let _ = client.execute("INSERT INTO quick VALUES(1)", &[]);
                }
            });
        }
        let caught_up = late.start().and_then(|()| {
            wait::until("the slow entries on the new node", LIMIT, || {
                let (here, there) = (count(&late, "slow"), count(&leader, "slow"));
                match (here, there) {
                    (Ok(here), Ok(there)) if here == there => Ok(()),
                    seen => Err(format!("{seen:?}")),
                }
            })
        });
        ends.store(true, Ordering::Relaxed);
        caught_up
    });
    outcome.with_context(|| late.log_tail())?;
    wait::until("the quick entries as well", SETTLE_LIMIT, || {
        match (count(&late, "quick"), count(&leader, "quick")) {
            (Ok(here), Ok(there)) if here == there => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })?;
    check_no_panic(&leader)?;
    check_no_panic(&late)
}

/// A request that takes at least [`LONG`] on this machine, given what a short one takes.
fn long_request(cluster: &Cluster, leader: usize) -> Result<String> {
    let mut client = cluster.client(leader).timeout(LIMIT);
    let began = Instant::now();
    client.execute(STATEMENT, &[])?;
    let took = began.elapsed().max(Duration::from_millis(1));
    let times = LONG.as_millis() / took.as_millis().max(1) + 1;
    println!("{times} times {took:?}");
    Ok(serde_json::to_string(&vec![
        STATEMENT;
        usize::try_from(times)?
    ])?)
}

/// It once got an error of unknown result after the limit for commits, and so did all that waited behind it.
#[test]
fn a_slow_write_and_those_behind_it_get_their_results() -> Result<()> {
    for nodes in [1, 3] {
        let mut cluster = Cluster::start_with(nodes, &[COMMIT_LIMIT])?;
        let leader = cluster.leader()?;
        let at = [leader, (leader + 1) % nodes];
        cluster
            .client(leader)
            .execute("CREATE TABLE slow(n)", &[])?;
        cluster
            .client(leader)
            .execute("CREATE TABLE quick(n)", &[])?;
        let body = long_request(&cluster, leader)?;
        let (cluster, ends) = (&cluster, AtomicBool::new(false));
        thread::scope(|scope| {
            let slow = scope.spawn(|| {
                let began = Instant::now();
                let mut client = cluster.client(at[1]).timeout(LIMIT);
                let reply = client.post("/db/execute?db_timeout=1h", &body);
                ends.store(true, Ordering::Relaxed);
                Ok::<_, anyhow::Error>((reply?.text(), began.elapsed()))
            });
            wait::until("the slow write", SETTLE_LIMIT, || {
                let running = cluster.client(leader).get_json("/db/running");
                match running {
                    Ok(list) if list.to_string().contains("INSERT INTO slow") => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })?;
            let behind = at.map(|index| {
                scope.spawn(move || {
                    let mut client = cluster.client(index).timeout(LIMIT);
                    let written = client.write("INSERT INTO quick VALUES(1)", &[]);
                    let read = client.number("strong", "SELECT count(*) FROM quick");
                    (written, read)
                })
            });
            let queued = cluster.client(leader).timeout(LIMIT).post(
                "/db/execute?queue&wait&timeout=100s",
                r#"["INSERT INTO quick VALUES(2)"]"#,
            )?;
            // Its own answer may come by way of a follower, a moment later.
            wait::until("the slow write's answer", SETTLE_LIMIT, || {
                let ended = ends.load(Ordering::Relaxed);
                ended.then_some(()).ok_or_else(|| "none yet".to_owned())
            })?;
            ensure!(queued.status == 200, "queued: {}", queued.text());
            for one in behind {
                let (written, read) = one.join().map_err(|_| anyhow::anyhow!("panicked"))?;
                ensure!(
                    matches!(written, WriteOutcome::Acknowledged(_)),
                    "{written:?}"
                );
                ensure!(read.as_ref().is_ok_and(|rows| *rows >= 1), "{read:?}");
            }
            let (text, took) = slow.join().map_err(|_| anyhow::anyhow!("panicked"))??;
            ensure!(
                !text.contains("error") && took >= LONG / 4,
                "{took:?}: {text}"
            );
            Ok(())
        })
        .with_context(|| format!("{nodes} nodes"))?;
        cluster.check_no_panic()?;
    }
    Ok(())
}
