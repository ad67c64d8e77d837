//! Membership queries and changes, as an administrator of a cluster would send them.
use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    client::{Client, WriteOutcome},
    cluster::{Cluster, SETTLE_LIMIT},
    process::Node,
    wait,
};

/// Ids of the members with whether each is a voter, as this node sees them.
///
/// # Errors
/// If the node does not answer.
pub fn members(client: &mut Client) -> Result<Vec<(String, bool)>> {
    let nodes = client.get_json("/nodes?nonvoters&ver=2")?;
    let nodes = nodes["nodes"].as_array().context("no nodes")?.clone();
    Ok(nodes
        .iter()
        .map(|node| {
            (
                node["id"].as_str().unwrap_or_default().to_owned(),
                node["voter"] == true,
            )
        })
        .collect())
}

/// Waits until the node reports exactly these members: ids in order, with whether each is a voter.
///
/// # Errors
/// If it does not within [`SETTLE_LIMIT`].
pub fn await_members(client: &mut Client, expected: &[(&str, bool)]) -> Result<()> {
    let expected: Vec<(String, bool)> = expected
        .iter()
        .map(|&(id, voter)| (id.to_owned(), voter))
        .collect();
    wait::until(
        &format!("members {expected:?}"),
        SETTLE_LIMIT,
        || match members(client) {
            Ok(seen) if seen == expected => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
}

/// Repeats a write until it is acknowledged; for clusters that are changing their leader.
///
/// # Errors
/// If none is acknowledged within [`SETTLE_LIMIT`].
pub fn await_write(client: &mut Client, sql: &str) -> Result<()> {
    wait::until(sql, SETTLE_LIMIT, || match client.write(sql, &[]) {
        WriteOutcome::Acknowledged(_) => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

/// Waits until the node itself (level `none`) returns this number for `sql`.
///
/// # Errors
/// If it does not within [`SETTLE_LIMIT`]; shows the end of its log.
pub fn await_rows(node: &Node, sql: &str, expected: i64) -> Result<()> {
    let mut client = node.client();
    wait::until(
        &format!("{expected} from {sql} at node {}", node.name),
        SETTLE_LIMIT,
        || match client.number("none", sql) {
            Ok(seen) if seen == expected => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .with_context(|| format!("log of node {}:\n{}", node.name, node.log_tail()))
}

/// Removes a member through this node.
///
/// # Errors
/// If the reply is not 200.
pub fn remove(client: &mut Client, id: &str) -> Result<()> {
    let reply = client.send(
        "DELETE",
        "/remove",
        &[],
        json!({ "id": id }).to_string().as_bytes(),
    )?;
    ensure!(
        reply.status == 200,
        "remove {id}: {} {}",
        reply.status,
        reply.text()
    );
    Ok(())
}

/// Waits until all nodes are ready voters of one cluster and it accepts writes.
///
/// # Errors
/// If this does not hold within [`SETTLE_LIMIT`], or a node has panicked.
pub fn one_cluster(cluster: &mut Cluster) -> Result<()> {
    for node in cluster.iter_mut() {
        node.wait_ready(SETTLE_LIMIT)?;
    }
    let ids = cluster.iter().map(cluster_id).collect::<Result<Vec<_>>>()?;
    ensure!(
        ids.iter().all(|id| *id == ids[0] && !id.is_empty()),
        "clusters {ids:?}"
    );
    let mut names: Vec<String> = cluster.iter().map(|node| node.name.clone()).collect();
    names.sort();
    let voters: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
    await_members(&mut cluster.client(0), &voters)?;
    await_write(&mut cluster.client(0), "CREATE TABLE IF NOT EXISTS t(x)")?;
    let rows = cluster.agreed_rows("SELECT name FROM sqlite_schema")?;
    ensure!(rows.contains('t'), "{rows}");
    cluster.check_no_panic()
}

/// Id of the node's cluster; empty if it has none.
///
/// # Errors
/// If the node does not answer.
pub fn cluster_id(node: &Node) -> Result<String> {
    let status = node.client().get_json("/status")?;
    let id = &status["store"]["identity"]["cluster_id"];
    Ok(id.as_str().unwrap_or_default().to_owned())
}

/// Waits until the node has logged `text`.
///
/// # Errors
/// If it has not within [`SETTLE_LIMIT`]; shows the end of its log.
pub fn await_log(node: &Node, text: &str) -> Result<()> {
    wait::until(
        &format!("{text:?} in the log of node {}", node.name),
        SETTLE_LIMIT,
        || {
            if node.log().contains(text) {
                Ok(())
            } else {
                Err(node.log_tail())
            }
        },
    )
}
