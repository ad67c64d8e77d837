//! Nodes of two format versions in one cluster: upgraded and downgraded while clients write, and rejected
//! with a clear message.
use std::{path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Cluster, SETTLE_LIMIT},
    fault::{
        self,
        workload::{self, Shared},
    },
    history::{self, NumberedWrite},
    process::{Node, PROCESS_LIMIT},
    seed::Seed,
    servers::{Tool, present},
    wait,
};
use serde_json::Value;

/// Settings for checkpoints and snapshots to happen during the upgrade.
const ARGS: [&str; 2] = ["-raft-snap=100", "-raft-snap-int=1s"];

/// A cluster of three nodes of the old version.
fn old_cluster(old: &std::path::Path) -> Result<Cluster> {
    let nodes = ["1", "2", "3"]
        .into_iter()
        .map(|name| {
            let mut node = Node::new(name)?.with(&ARGS);
            node.program = Some(old.to_owned());
            Ok(node)
        })
        .collect::<Result<_>>()?;
    let mut cluster = Cluster::of(nodes);
    cluster.form()?;
    Ok(cluster)
}

/// Stops the node normally and starts it with another program; returns once it is ready.
fn exchange(node: &mut Node, program: Option<PathBuf>) -> Result<()> {
    node.stop()?;
    node.program = program;
    node.start_and_ready()
}

/// The format version in effect according to `/status` of a new node.
fn in_effect(node: &Node) -> Result<Value> {
    let status = node.client().get_json("/status")?;
    Ok(status["store"]["raft"]["format_version"].clone())
}

fn await_version(cluster: &Cluster, want: u64) -> Result<()> {
    for node in cluster.iter() {
        let what = format!("format version {want} at node {}", node.name);
        wait::until(&what, SETTLE_LIMIT, || match in_effect(node) {
            Ok(version) if version == want => Ok(()),
            Ok(version) => Err(version.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })?;
    }
    Ok(())
}

/// From the old version on all nodes to the new one, one node back, and again to the new one: the format
/// version rises only when the last node is new.
fn roll(cluster: &mut Cluster, old: &std::path::Path) -> Result<()> {
    exchange(&mut cluster[0], None)?;
    exchange(&mut cluster[1], None)?;
    for index in [0, 1] {
        ensure!(
            in_effect(&cluster[index])? == 1,
            "raised while node 3 is old"
        );
    }
    exchange(&mut cluster[1], Some(old.to_owned()))?;
    ensure!(in_effect(&cluster[0])? == 1, "raised beside two old nodes");
    exchange(&mut cluster[1], None)?;
    exchange(&mut cluster[2], None)?;
    await_version(cluster, 2)
}

#[test]
fn a_cluster_is_rolled_to_the_next_version_and_back_under_writers() -> Result<()> {
    if !present(&[Tool::NodeV1])? {
        return Ok(());
    }
    let old = Tool::NodeV1.program()?;
    let mut cluster = old_cluster(&old)?;
    let leader = cluster.leader()?;
    cluster
        .client(leader)
        .execute(workload::NUMBERED_TABLE, &[])?;
    let shared = &Shared::new(cluster.iter().map(|node| node.http.clone()).collect());
    let mut seed = Seed::new(23);
    let mut writes: Vec<NumberedWrite> = Vec::new();
    let rolled = thread::scope(|scope| -> Result<()> {
        let writers: Vec<_> = (0..3)
            .map(|writer| (writer, seed.fork()))
            .map(|(writer, seed)| {
                scope.spawn(move || workload::write_numbered(shared, writer, seed))
            })
            .collect();
        let rolled = roll(&mut cluster, &old);
        shared.stop();
        for writer in writers {
            let written = writer.join();
            writes.extend(written.map_err(|_| anyhow::anyhow!("a writer panicked"))?);
        }
        rolled
    });
    println!("{:?}", history::tally(&writes));
    for (count, reason) in history::reasons(&writes).into_iter().take(8) {
        println!("{count:>6} {reason}");
    }
    rolled?;
    fault::verify_writes(&mut cluster, &writes)?;
    cluster.crash_all()?;
    await_version(&cluster, 2)
}

#[test]
fn an_old_node_is_refused_in_words_once_the_version_is_raised() -> Result<()> {
    if !present(&[Tool::NodeV1])? {
        return Ok(());
    }
    let old = Tool::NodeV1.program()?;
    let mut cluster = Cluster::start_with(3, &ARGS)?;
    await_version(&cluster, 2)?;

    let mut newcomer = Node::new("4")?.with(&["-join-attempts=1", "-join-interval=100ms"]);
    newcomer.program = Some(old.clone());
    newcomer.args.push(format!("-join={}", cluster[0].raft));
    newcomer.start()?;
    newcomer.wait_exit(PROCESS_LIMIT)?;
    let log = newcomer.log();
    ensure!(
        log.contains("run a newer rqlited"),
        "the joiner's log:\n{log}"
    );

    // A member restarted with the old program exits at the first entry that it cannot decode; the others
    // continue unharmed.
    let leader = cluster.leader()?;
    let member = (leader + 1) % 3;
    cluster[member].stop()?;
    cluster[member].program = Some(old);
    cluster[member].start()?;
    let mut client = cluster.client(leader);
    client.execute("CREATE TABLE t(x)", &[])?;
    cluster[member].wait_exit(PROCESS_LIMIT)?;
    let log = cluster[member].log();
    ensure!(
        log.contains("log entry cannot be decoded"),
        "the old member's log:\n{log}"
    );
    cluster[member].program = None;
    cluster[member].start_and_ready()?;
    cluster.agreed_dump()?;
    client
        .timeout(Duration::from_secs(5))
        .execute("INSERT INTO t VALUES(1)", &[])
        .context("a write at the end")?;
    Ok(())
}
