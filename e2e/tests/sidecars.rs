//! Nodes behind proxies that accept every connection and then close it, as the sidecars of service meshes do
//! while they start or restart: an accepted connection is no sign that a node is there.
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{
    cluster::{Cluster, SETTLE_LIMIT},
    link::{Link, Mode},
    membership::{await_members, await_rows, await_write},
    process::Node,
    wait,
};

const COUNT: &str = "SELECT count(*) FROM t";
/// Longer than a node's own attempts to form, which must neither give up nor form two clusters.
const SIDECAR_STARTS: Duration = Duration::from_secs(4);

/// Three nodes that form by `-bootstrap-expect`, each behind a proxy.
fn nodes() -> Result<(Cluster, Vec<Link>)> {
    let (mut nodes, mut links) = (Vec::new(), Vec::new());
    for name in ["a", "b", "c"] {
        let mut node = Node::new(name)?;
        let link = Link::to(&node.raft)?;
        node.raft_adv = Some(link.addr.clone());
        nodes.push(node);
        links.push(link);
    }
    let all: Vec<String> = links.iter().map(|link| link.addr.clone()).collect();
    for node in &mut nodes {
        node.args.push("-bootstrap-expect=3".to_owned());
        node.args.push(format!("-join={}", all.join(",")));
    }
    Ok((Cluster::of(nodes), links))
}

#[test]
fn one_cluster_forms_once_the_sidecars_work() -> Result<()> {
    let (mut cluster, links) = nodes()?;
    links.iter().for_each(|link| link.set(Mode::Cut));
    cluster.iter_mut().try_for_each(Node::start)?;
    wait::sleep(SIDECAR_STARTS);
    for node in cluster.iter_mut() {
        ensure!(
            node.is_running(),
            "{} gave up: {}",
            node.name,
            node.log_tail()
        );
    }
    // One sidecar after the other begins to work.
    for link in &links {
        link.set(Mode::Open);
        wait::sleep(Duration::from_millis(500));
    }
    for node in cluster.iter_mut() {
        node.wait_ready(SETTLE_LIMIT)?;
    }
    let members = [("a", true), ("b", true), ("c", true)];
    await_members(&mut cluster.client(0), &members)?;
    await_write(&mut cluster.client(1), "CREATE TABLE t(x)")?;
    cluster.check_no_panic()
}

#[test]
fn sidecars_that_restart_one_after_the_other_lose_no_write() -> Result<()> {
    let (mut cluster, links) = nodes()?;
    cluster.iter_mut().try_for_each(Node::start)?;
    for node in cluster.iter_mut() {
        node.wait_ready(SETTLE_LIMIT)?;
    }
    await_write(&mut cluster.client(0), "CREATE TABLE t(x PRIMARY KEY)")?;
    let mut written = 0;
    for (index, link) in links.iter().enumerate() {
        // While a node accepts nothing, it leads on if it led, because its own connections are whole: writes
        // through the others then wait for it, and those through itself do not.
        let leads = cluster.leader()? == index;
        let through = if leads { index } else { (index + 1) % 3 };
        link.set(Mode::Cut);
        wait::sleep(Duration::from_secs(1));
        // Repeated while its outcome is unknown.
        let write = format!("INSERT OR IGNORE INTO t VALUES({written})");
        await_write(&mut cluster.client(through), &write)?;
        written += 1;
        link.set(Mode::Open);
        for any in 0..3 {
            let write = format!("INSERT OR IGNORE INTO t VALUES({written})");
            await_write(&mut cluster.client(any), &write)?;
            written += 1;
        }
    }
    for node in cluster.iter() {
        await_rows(node, COUNT, written)?;
    }
    cluster.check_no_panic()
}
