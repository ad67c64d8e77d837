//! Nodes that come back under another id or address: the old record goes, the new one works, whichever of the three changed.
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Cluster, SETTLE_LIMIT},
    membership::{await_members, await_rows, await_write},
    ports,
    process::Node,
    wait,
};

const COUNT: &str = "SELECT count(*) FROM t";

fn free() -> Result<String> {
    Ok(format!("127.0.0.1:{}", ports::reserve()?))
}

/// What the leader's `/nodes` says of a member.
fn await_record(cluster: &mut Cluster, name: &str, raft: &str, http: &str) -> Result<()> {
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    let api = format!("http://{http}");
    wait::until(&format!("{name} at {raft} and {api}"), SETTLE_LIMIT, || {
        let nodes = client
            .get_json("/nodes?nonvoters")
            .map_err(|e| format!("{e:#}"))?;
        let node = &nodes[name];
        let fits = node["addr"] == raft
            && node["api_addr"] == api.as_str()
            && node["voter"] == true
            && node["reachable"] == true;
        if fits { Ok(()) } else { Err(nodes.to_string()) }
    })
}

#[test]
fn a_node_rejoins_with_any_combination_of_changes() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
    let join = format!("-join={},{}", cluster[0].raft, cluster[1].raft);
    cluster[2].args.push(join);
    for (round, combination) in (0..8_u8).enumerate() {
        let [id, raft, http] = [1, 2, 4].map(|bit| combination & bit != 0);
        cluster[2].stop()?;
        if id {
            cluster[2].name = format!("3-{round}");
        }
        if raft {
            cluster[2].raft = free()?;
        }
        if http {
            cluster[2].http = free()?;
        }
        let what = format!("id changed: {id}, Raft address: {raft}, HTTP address: {http}");
        let (name, raft, http) = {
            let node = &cluster[2];
            (node.name.clone(), node.raft.clone(), node.http.clone())
        };
        (|| {
            cluster[2].start_and_ready()?;
            await_record(&mut cluster, &name, &raft, &http)?;
            await_members(
                &mut cluster.client(0),
                &[("1", true), ("2", true), (&name, true)],
            )?;
            await_write(&mut cluster.client(2), "INSERT INTO t VALUES(1)")?;
            await_rows(&cluster[2], COUNT, i64::try_from(round)? + 1)
        })()
        .context(what)?;
    }
    cluster.check_no_panic()
}

/// Restarted all at once under other Raft addresses, as pods without stable names are. Real rqlite needs `peers.json` for this; here members
/// that know where to ask tell each other where they are.
#[test]
fn all_nodes_move_at_once() -> Result<()> {
    let nodes = ["a", "b", "c"]
        .iter()
        .map(|name| Node::new(name))
        .collect::<Result<Vec<_>>>()?;
    let mut cluster = Cluster::of(nodes);
    find_each_other(&mut cluster);
    cluster.iter_mut().try_for_each(Node::start)?;
    cluster
        .iter_mut()
        .try_for_each(|node| node.wait_ready(SETTLE_LIMIT))?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
    for round in 1..=2 {
        await_write(&mut cluster.client(0), "INSERT INTO t VALUES(1)")?;
        cluster.iter_mut().try_for_each(Node::kill)?;
        for node in cluster.iter_mut() {
            node.raft = free()?;
            node.http = free()?;
        }
        find_each_other(&mut cluster);
        cluster.iter_mut().try_for_each(Node::start)?;
        for node in cluster.iter_mut() {
            node.wait_ready(SETTLE_LIMIT)?;
        }
        let records: Vec<_> = cluster
            .iter()
            .map(|n| (n.name.clone(), n.raft.clone(), n.http.clone()))
            .collect();
        for (name, raft, http) in records {
            await_record(&mut cluster, &name, &raft, &http)?;
        }
        for node in cluster.iter() {
            await_rows(node, COUNT, round)?;
        }
    }
    let rows = cluster.agreed_rows(COUNT)?;
    ensure!(rows.contains('2'), "{rows}");
    cluster.check_no_panic()
}

fn find_each_other(cluster: &mut Cluster) {
    let join = cluster
        .iter()
        .map(|node| node.raft.clone())
        .collect::<Vec<_>>()
        .join(",");
    for node in cluster.iter_mut() {
        node.args.retain(|arg| !arg.starts_with("-join="));
        node.args.push(format!("-join={join}"));
        if !node.args.iter().any(|arg| arg == "-bootstrap-expect=3") {
            node.args.push("-bootstrap-expect=3".to_owned());
        }
    }
}
