//! The databases of all nodes are compared by a content hash. A node whose copy differs reports it and is
//! rebuilt from a snapshot.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Cluster, SETTLE_LIMIT},
    process::Node,
    wait,
};
use rusqlite::Connection;
use serde_json::Value;

fn compare(node: &Node) -> Result<Value> {
    let reply = node
        .client()
        .timeout(Duration::from_secs(60))
        .post("/db/compare", "")?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    Ok(serde_json::from_str(&reply.text())?)
}

fn raft_id(node: &Node) -> Result<String> {
    let status = node.client().get_json("/status")?;
    let id = status["store"]["identity"]["raft_id"].as_str();
    Ok(id.context("no Raft id in /status")?.to_owned())
}

/// Changes a row behind the node's back, in the file from which it starts.
fn falsify(node: &mut Node) -> Result<()> {
    let reply = node.client().post("/snapshot", "")?;
    ensure!(reply.status < 300, "{} {}", reply.status, reply.text());
    node.stop()?;
    let conn = Connection::open(node.data.join("db.sqlite"))?;
    conn.execute("UPDATE t SET x = 'false' WHERE rowid = 2", [])?;
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    conn.close().map_err(|(_, error)| error)?;
    node.start_and_ready()
}

fn filled() -> Result<Cluster> {
    let mut cluster = Cluster::start(3)?;
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    client.execute("CREATE TABLE t(x)", &[])?;
    client.execute("INSERT INTO t VALUES('a'), ('b'), ('c')", &[])?;
    cluster.agreed_dump()?;
    Ok(cluster)
}

#[test]
fn equal_copies_are_told_so_by_every_node() -> Result<()> {
    let cluster = filled()?;
    for node in cluster.iter() {
        let compared = compare(node)?;
        ensure!(compared["verdict"] == "equal", "{compared:#}");
        let members = compared["members"].as_array().context("no members")?;
        ensure!(
            members.len() == 3 && members.iter().all(|m| m["hash"].is_string()),
            "{compared:#}"
        );
    }
    Ok(())
}

/// Falsifies the node at `index`, and checks that it is detected and rebuilt as a new member with an equal
/// database.
fn heals(cluster: &mut Cluster, index: usize) -> Result<()> {
    let former = raft_id(&cluster[index])?;
    falsify(&mut cluster[index])?;
    let leader = cluster.leader()?;
    let compared = compare(&cluster[leader])?;
    ensure!(compared["verdict"] == "differ", "{compared:#}");
    ensure!(compared["differ"][0] == former.as_str(), "{compared:#}");
    let node = &cluster[index];
    wait::until("a new copy", SETTLE_LIMIT, || match raft_id(node) {
        Ok(id) if id != former => Ok(()),
        Ok(id) => Err(id),
        Err(error) => Err(format!("{error:#}")),
    })
    .with_context(|| format!("log of node {}:\n{}", node.name, node.log_tail()))?;
    cluster[index].wait_ready(SETTLE_LIMIT)?;
    let dump = cluster.agreed_dump()?;
    ensure!(!dump.contains("false"), "{dump}");
    let log = cluster[index].log();
    ensure!(log.contains("differs from the majority's"), "{log}");
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    wait::until("three voters", SETTLE_LIMIT, || {
        let nodes = client
            .get_json("/nodes")
            .map_err(|error| format!("{error:#}"))?;
        match nodes.as_object() {
            Some(voters) if voters.len() == 3 => Ok(()),
            _ => Err(nodes.to_string()),
        }
    })?;
    let compared = compare(&cluster[leader])?;
    ensure!(compared["verdict"] == "equal", "{compared:#}");
    Ok(())
}

#[test]
fn a_follower_whose_copy_differs_heals_from_a_snapshot() -> Result<()> {
    let mut cluster = filled()?;
    let follower = cluster.follower()?;
    heals(&mut cluster, follower)
}

#[test]
fn a_leader_whose_copy_differs_hands_over_and_heals() -> Result<()> {
    let mut cluster = filled()?;
    let falsified = cluster.follower()?;
    let former = raft_id(&cluster[falsified])?;
    falsify(&mut cluster[falsified])?;
    let name = cluster[falsified].name.clone();
    let wish = format!(r#"{{"id":"{name}"}}"#);
    for _ in 0..5 {
        // An election may interrupt a leadership transfer.
        cluster.client(falsified).post("/leader?wait", &wish)?;
        if cluster.leader()? == falsified {
            break;
        }
    }
    ensure!(
        cluster.leader()? == falsified,
        "leadership was not transferred"
    );
    let compared = compare(&cluster[falsified])?;
    ensure!(compared["verdict"] == "differ", "{compared:#}");
    let node = &cluster[falsified];
    wait::until("a new copy", SETTLE_LIMIT, || match raft_id(node) {
        Ok(id) if id != former => Ok(()),
        Ok(id) => Err(id),
        Err(error) => Err(format!("{error:#}")),
    })
    .with_context(|| format!("log of node {}:\n{}", node.name, node.log_tail()))?;
    cluster[falsified].wait_ready(SETTLE_LIMIT)?;
    let dump = cluster.agreed_dump()?;
    ensure!(!dump.contains("false"), "{dump}");
    Ok(())
}

#[test]
fn the_leader_compares_at_an_interval() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["-auto-compare-int=1s"])?;
    let leader = cluster.leader()?;
    cluster.client(leader).execute("CREATE TABLE t(x)", &[])?;
    let mut client = cluster.client(leader);
    wait::until("a comparison", SETTLE_LIMIT, || {
        let status = client
            .get_json("/status")
            .map_err(|error| format!("{error:#}"))?;
        let content = &status["store"]["content"];
        if content["last_comparison"]["verdict"] == "Equal" {
            Ok(())
        } else {
            Err(content.to_string())
        }
    })
}
