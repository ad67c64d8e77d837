//! A node joins whose database will take long to apply the log: entries that are quick to store and slow to
//! apply, while others write.
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{SETTLE_LIMIT, check_no_panic},
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
