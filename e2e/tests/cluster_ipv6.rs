//! Nodes on machines with IPv6: only IPv6, both families, and members of one cluster in different families.
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Cluster, SETTLE_LIMIT},
    membership::{await_members, await_rows, await_write},
    ports,
    process::Node,
};

const COUNT: &str = "SELECT count(*) FROM t";

fn at(host: &str) -> Result<String> {
    Ok(format!("{host}:{}", ports::reserve()?))
}

fn node(name: &str, host: &str) -> Result<Node> {
    let mut node = Node::new(name)?;
    node.http = at(host)?;
    node.raft = at(host)?;
    Ok(node)
}

/// Is there an IPv6 loopback address? Machines without one cannot run these tests.
fn without_ipv6() -> bool {
    let missing = std::net::TcpListener::bind("[::1]:0").is_err();
    if missing {
        eprintln!("skipped: this machine has no IPv6");
    }
    missing
}

/// Forms by `-bootstrap-expect`, elects, forwards writes, and survives a leader's end and a restart of all.
#[test]
fn a_cluster_on_ipv6_only() -> Result<()> {
    if without_ipv6() {
        return Ok(());
    }
    let mut nodes = ["a", "b", "c"]
        .iter()
        .map(|name| node(name, "[::1]"))
        .collect::<Result<Vec<_>>>()?;
    let all: Vec<String> = nodes.iter().map(|node| node.raft.clone()).collect();
    for node in &mut nodes {
        node.args.push("-bootstrap-expect=3".to_owned());
        node.args.push(format!("-join={}", all.join(",")));
    }
    let mut cluster = Cluster::of(nodes);
    cluster.iter_mut().try_for_each(Node::start)?;
    for node in cluster.iter_mut() {
        node.wait_ready(SETTLE_LIMIT)?;
    }
    let members = [("a", true), ("b", true), ("c", true)];
    await_members(&mut cluster.client(0), &members)?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x PRIMARY KEY)")?;
    for index in 0..3 {
        let write = format!("INSERT OR IGNORE INTO t VALUES({index})");
        await_write(&mut cluster.client(index), &write)?;
    }
    let leader = cluster.leader()?;
    let api = cluster.client(leader).get_json("/nodes")?;
    let shown = &api[cluster[leader].name.as_str()];
    ensure!(
        shown["api_addr"] == format!("http://{}", cluster[leader].http).as_str(),
        "{shown}"
    );
    cluster[leader].kill()?;
    let other = (leader + 1) % 3;
    await_write(
        &mut cluster.client(other),
        "INSERT OR IGNORE INTO t VALUES(3)",
    )?;
    for node in cluster.iter_mut() {
        if node.is_running() {
            node.kill()?;
        }
    }
    cluster.iter_mut().try_for_each(Node::start)?;
    for node in cluster.iter_mut() {
        node.wait_ready(SETTLE_LIMIT)?;
        await_rows(node, COUNT, 4)?;
    }
    cluster.check_no_panic()
}

/// As in a pod with both families: nodes listen at `[::]` and are reached by either.
#[test]
fn nodes_that_listen_in_both_families() -> Result<()> {
    if without_ipv6() {
        return Ok(());
    }
    let mut nodes = Vec::new();
    for (name, reached_at) in [("a", "127.0.0.1"), ("b", "[::1]"), ("c", "127.0.0.1")] {
        let mut node = Node::new(name)?;
        let (http, raft) = (ports::reserve()?, ports::reserve()?);
        // The last of equal flags takes effect; the fields are the addresses that others use.
        node.http = format!("{reached_at}:{http}");
        node.raft = format!("{reached_at}:{raft}");
        node.args.push(format!("-http-addr=[::]:{http}"));
        node.args.push(format!("-http-adv-addr={}", node.http));
        node.args.push(format!("-raft-addr=[::]:{raft}"));
        node.args.push(format!("-raft-adv-addr={}", node.raft));
        nodes.push(node);
    }
    let mut cluster = Cluster::of(nodes);
    cluster.form()?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
    for index in 0..3 {
        let port = cluster[index].http.rsplit_once(':').context("a port")?.1;
        for host in ["127.0.0.1", "[::1]"] {
            let mut client = e2e::client::Client::new(&format!("{host}:{port}"));
            await_write(&mut client, "INSERT INTO t VALUES(1)")?;
        }
    }
    for node in cluster.iter() {
        await_rows(node, COUNT, 6)?;
    }
    cluster.check_no_panic()
}
