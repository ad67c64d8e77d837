//! Nodes that return with another id, Raft address or HTTP address: the old record is removed and the new one
//! works, for every combination.
use std::time::Duration;

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

/// Waits until the leader's `/nodes` shows this record of a member.
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

/// All nodes restart at once with other Raft addresses, like pods without stable names. Real rqlite needs
/// `peers.json` for this; here members with a common discovery source exchange their new addresses.
#[test]
fn all_nodes_move_at_once() -> Result<()> {
    let nodes = ["a", "b", "c"]
        .iter()
        .map(|name| Node::new(name))
        .collect::<Result<Vec<_>>>()?;
    let mut cluster = Cluster::of(nodes);
    with_discovery(&mut cluster);
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
        with_discovery(&mut cluster);
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

/// A member moves, and nobody listens at any of its `-join` addresses any more: it asks the members that it
/// has recorded.
#[test]
fn a_member_moves_and_its_join_addresses_are_of_the_past() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
    cluster[2].stop()?;
    cluster[2].raft = free()?;
    let join = format!("-join={},{}", free()?, free()?);
    cluster[2].args.retain(|arg| !arg.starts_with("-join"));
    cluster[2].args.push(join);
    cluster[2].start_and_ready()?;
    let (name, raft, http) = {
        let node = &cluster[2];
        (node.name.clone(), node.raft.clone(), node.http.clone())
    };
    await_record(&mut cluster, &name, &raft, &http)?;
    await_write(&mut cluster.client(2), "INSERT INTO t VALUES(1)")?;
    await_rows(&cluster[2], COUNT, 1)?;
    cluster.check_no_panic()
}

/// Two of three nodes must keep working, also when one of the two has moved. Its new address is recorded
/// without removing and re-adding it as a voter, which would need the dead node's vote. First a follower
/// moves, then the leader.
#[test]
fn a_member_moves_while_another_is_dead() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
    let leader = cluster.leader()?;
    let (mut moving, dead) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut staying = leader;
    cluster[dead].kill()?;
    for round in 1..=2 {
        cluster[moving].stop()?;
        cluster[moving].raft = free()?;
        let join = format!("-join={}", cluster[staying].raft);
        cluster[moving].args.retain(|arg| !arg.starts_with("-join"));
        cluster[moving]
            .args
            .extend([join, "-join-interval=500ms".to_owned()]);
        cluster[moving].start_and_ready()?;
        for index in [moving, staying] {
            await_write(&mut cluster.client(index), "INSERT INTO t VALUES(1)")?;
        }
        let (name, raft, http) = {
            let node = &cluster[moving];
            (node.name.clone(), node.raft.clone(), node.http.clone())
        };
        await_record(&mut cluster, &name, &raft, &http)?;
        for index in [moving, staying] {
            await_rows(&cluster[index], COUNT, 2 * round)?;
        }
        // It has stayed a voter throughout.
        let members = ["1", "2", "3"].map(|name| (name, true));
        await_members(&mut cluster.client(staying), &members)?;
        // Next the current leader moves, whichever node it is.
        if cluster.leader()? == staying {
            std::mem::swap(&mut moving, &mut staying);
        }
    }
    // The dead node knows neither of the new addresses; the others find it.
    cluster[dead].start_and_ready()?;
    await_rows(&cluster[dead], COUNT, 4)?;
    cluster.agreed_dump()?;
    cluster.check_no_panic()
}

/// A second node with the name of a voter that is briefly unresponsive does not replace it.
#[test]
fn a_namesake_does_not_drive_out_a_voter_that_is_held_up() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
    let held_up = cluster.follower()?;
    let leader = cluster.leader()?;
    let name = cluster[held_up].name.clone();
    let mut namesake = Node::new(&name)?.with(&[
        &format!("-join={}", cluster[leader].raft),
        "-join-attempts=1",
    ]);
    cluster[held_up].pause()?;
    // Far longer than the two heartbeats after which the leader no longer considers the voter live.
    wait::sleep(Duration::from_millis(600));
    namesake.start()?;
    let status = namesake.wait_exit(SETTLE_LIMIT)?;
    let log = namesake.log();
    ensure!(
        status.code() == Some(1) && log.contains("does not respond, but has not been unreachable"),
        "{status}: {log}"
    );
    cluster[held_up].resume()?;
    let members = ["1", "2", "3"].map(|name| (name, true));
    await_members(&mut cluster.client(leader), &members)?;
    await_write(&mut cluster.client(held_up), "INSERT INTO t VALUES(1)")?;
    // The voter runs again and answers for itself.
    namesake.start()?;
    let status = namesake.wait_exit(SETTLE_LIMIT)?;
    ensure!(
        status.code() == Some(1) && namesake.log().contains("is in use by a live node"),
        "{status}: {}",
        namesake.log()
    );
    await_members(&mut cluster.client(leader), &members)?;
    // Once the voter is down for good, the second node replaces it.
    cluster[held_up].kill()?;
    namesake
        .args
        .retain(|arg| !arg.starts_with("-join-attempts"));
    namesake
        .args
        .extend(["-join-attempts=60", "-join-interval=500ms"].map(str::to_owned));
    namesake.start()?;
    namesake.wait_ready(SETTLE_LIMIT)?;
    await_rows(&namesake, COUNT, 1)?;
    await_members(&mut cluster.client(leader), &members)?;
    cluster.check_no_panic()
}

fn with_discovery(cluster: &mut Cluster) {
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
