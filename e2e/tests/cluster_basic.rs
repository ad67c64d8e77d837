//! Membership: joining, returning, moving, renaming and removing nodes.
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{
    client::WriteOutcome,
    cluster::{Cluster, SETTLE_LIMIT},
    membership::{await_log, await_members, await_rows, await_write, remove},
    ports,
    process::Node,
    wait,
};

#[test]
fn a_node_joins_through_any_member_and_again_without_effect() -> Result<()> {
    let mut cluster = Cluster::start(2)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    cluster.client(0).execute("INSERT INTO t VALUES(1)", &[])?;
    // Through a follower, with an address that refuses connections before it in the list.
    let follower = cluster.follower()?;
    let mut third = Node::new("3")?;
    third.args.push(format!(
        "-join=127.0.0.1:{},{}",
        ports::reserve()?,
        cluster[follower].raft
    ));
    third.start_and_ready()?;
    await_members(
        &mut third.client(),
        &[("1", true), ("2", true), ("3", true)],
    )?;
    await_rows(&third, "SELECT count(*) FROM t", 1)?;
    // A restart with the same flags: the node is already a member.
    third.stop()?;
    third.start_and_ready()?;
    await_members(
        &mut third.client(),
        &[("1", true), ("2", true), ("3", true)],
    )?;
    third.client().execute("INSERT INTO t VALUES(2)", &[])?;
    cluster.push(third);
    cluster.agreed_dump()?;
    cluster.check_no_panic()
}

#[test]
fn a_changed_raft_address_replaces_the_old_record() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let through = cluster[0].raft.clone();
    let moved = &mut cluster[2];
    moved.stop()?;
    moved.raft = format!("127.0.0.1:{}", ports::reserve()?);
    moved.args.push(format!("-join={through}"));
    moved.start_and_ready()?;
    let expected = moved.raft.clone();
    let mut client = cluster.client(0);
    wait::until("the new address", SETTLE_LIMIT, || {
        let nodes = client
            .get_json("/nodes")
            .map_err(|error| format!("{error:#}"))?;
        let count = nodes.as_object().map_or(0, serde_json::Map::len);
        if nodes["3"]["addr"] == expected && nodes["3"]["reachable"] == true && count == 3 {
            Ok(())
        } else {
            Err(nodes.to_string())
        }
    })?;
    await_write(&mut cluster.client(2), "INSERT INTO t VALUES(1)")?;
    await_rows(&cluster[2], "SELECT count(*) FROM t", 1)
}

#[test]
fn a_new_id_on_an_old_address_replaces_the_old_record() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let through = cluster[0].raft.clone();
    let renamed = &mut cluster[2];
    renamed.kill()?;
    renamed.wipe()?;
    renamed.name = "new".to_owned();
    renamed.args.push(format!("-join={through}"));
    renamed.start_and_ready()?;
    await_members(
        &mut cluster.client(0),
        &[("1", true), ("2", true), ("new", true)],
    )?;
    await_write(&mut cluster.client(2), "INSERT INTO t VALUES(1)")?;
    await_rows(&cluster[2], "SELECT count(*) FROM t", 1)
}

#[test]
fn a_read_only_node_follows_without_a_vote() -> Result<()> {
    let mut cluster = Cluster::start(1)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    cluster.join(Node::new("2")?.with(&["-raft-non-voter=true"]), 0)?;
    await_members(&mut cluster.client(1), &[("1", true), ("2", false)])?;
    let voters = cluster.client(0).get_json("/nodes")?;
    ensure!(
        voters.as_object().is_some_and(|nodes| nodes.len() == 1),
        "voters only: {voters}"
    );
    cluster.client(1).execute("INSERT INTO t VALUES(1)", &[])?;
    await_rows(&cluster[1], "SELECT count(*) FROM t", 1)?;
    // Without the only voter there is no leader, and the read-only node does not become one.
    cluster[0].kill()?;
    ensure!(
        cluster.client(1).rows("auto", "SELECT x FROM t", &[])? == [[1]],
        "auto reads locally on a read-only node"
    );
    let mut client = cluster.client(1);
    wait::until("the loss of the leader", SETTLE_LIMIT, || {
        match client.get("/readyz") {
            Ok(reply) if reply.status == 503 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    ensure!(
        !matches!(
            client.write("INSERT INTO t VALUES(2)", &[]),
            WriteOutcome::Acknowledged(_)
        ),
        "a write without voters"
    );
    // It restarts from stored state, in the same role.
    cluster[1].stop()?;
    cluster[0].start()?;
    cluster[1].start_and_ready()?;
    await_members(&mut cluster.client(0), &[("1", true), ("2", false)])
}

#[test]
fn a_member_is_removed_through_a_follower_and_can_return() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let leader = cluster.leader()?;
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let removed = cluster[other].name.clone();
    remove(&mut cluster.client(one), &removed)?;
    let rest = |cluster: &Cluster| {
        let mut rest: Vec<(String, bool)> = [leader, one]
            .map(|index| (cluster[index].name.clone(), true))
            .to_vec();
        rest.sort();
        rest
    };
    let expected = rest(&cluster);
    let expected: Vec<(&str, bool)> = expected
        .iter()
        .map(|(id, voter)| (id.as_str(), *voter))
        .collect();
    await_members(&mut cluster.client(leader), &expected)?;
    remove(&mut cluster.client(leader), "nobody")?;
    cluster.client(one).execute("CREATE TABLE t(x)", &[])?;
    // It joins with its old disk.
    let through = cluster[leader].raft.clone();
    cluster[other].stop()?;
    cluster[other].args.push(format!("-join={through}"));
    cluster[other].start_and_ready()?;
    await_members(
        &mut cluster.client(leader),
        &[("1", true), ("2", true), ("3", true)],
    )?;
    await_rows(&cluster[other], "SELECT count(*) FROM t", 0)?;
    cluster.check_no_panic()
}

#[test]
fn a_node_removes_itself_when_told_to() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["-raft-cluster-remove-shutdown=true"])?;
    let leader = cluster.leader()?;
    // First a follower, then the leader itself.
    let follower = (leader + 1) % 3;
    ensure!(
        cluster[follower].stop()?.success(),
        "follower: {}",
        cluster[follower].log_tail()
    );
    let last = (leader + 2) % 3;
    let mut pair = [
        (cluster[leader].name.clone(), true),
        (cluster[last].name.clone(), true),
    ];
    pair.sort();
    await_members(
        &mut cluster.client(last),
        &pair.each_ref().map(|(id, voter)| (id.as_str(), *voter)),
    )?;
    ensure!(
        cluster[leader].stop()?.success(),
        "leader: {}",
        cluster[leader].log_tail()
    );
    let name = cluster[last].name.clone();
    await_members(&mut cluster.client(last), &[(&name, true)])?;
    await_write(&mut cluster.client(last), "CREATE TABLE alone(x)")?;
    // A node without peers has no one to notify: a clean stop.
    ensure!(
        cluster[last].stop()?.success(),
        "last: {}",
        cluster[last].log_tail()
    );
    cluster.check_no_panic()
}

#[test]
fn a_fourth_node_joins_by_snapshot() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &["-raft-snap=50", "-raft-snap-int=500ms"])?;
    cluster
        .client(0)
        .execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)", &[])?;
    for _ in 0..200 {
        cluster
            .client(0)
            .execute("INSERT INTO t(v) VALUES(randomblob(1000))", &[])?;
    }
    for index in 0..3 {
        let reply = cluster
            .client(index)
            .post("/snapshot?trailing_logs=1", "")?;
        ensure!(
            matches!(reply.status, 200 | 204),
            "snapshot: {} {}",
            reply.status,
            reply.text()
        );
    }
    cluster.join(Node::new("4")?, 1)?;
    await_rows(&cluster[3], "SELECT count(*) FROM t", 200)?;
    for (index, restores) in [(0, 0), (3, 1)] {
        let vars = cluster.client(index).get_json("/debug/vars")?;
        ensure!(vars["store"]["num_restores"] == restores, "{vars}");
    }
    cluster.agreed_dump()?;
    cluster[3].kill()?;
    cluster[3].start_and_ready()?;
    cluster.agreed_dump()?;
    cluster.check_no_panic()
}

#[test]
fn a_node_whose_leader_dies_while_admitting_it_stays() -> Result<()> {
    let mut cluster = Cluster::start(1)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let mut second = Node::new("2")?.with(&[
        &format!("-join={}", cluster[0].raft),
        "-join-attempts=2",
        "-join-interval=200ms",
    ]);
    second.start()?;
    let mut client = second.client();
    // The node has heard from the leader; the reply to its join request may still be in flight.
    wait::until("a leader", SETTLE_LIMIT, || {
        client.leader().ok_or_else(|| "none".to_owned())
    })?;
    cluster[0].kill()?;
    wait::throughout("the member runs", Duration::from_secs(2), || {
        if second.is_running() {
            Ok(())
        } else {
            Err(second.log_tail())
        }
    })?;
    cluster[0].start_and_ready()?;
    await_rows(&second, "SELECT count(*) FROM t", 0)?;
    await_members(&mut second.client(), &[("1", true), ("2", true)])
}

/// The reason for a refusal can go away, here by a change of the credentials file. Until then the node
/// retries as often as configured, and serves HTTP.
#[test]
fn a_refused_join_is_tried_again() -> Result<()> {
    let mut first = Node::new("1")?;
    let users = |perms: &str| {
        format!(
            r#"[{{"username":"*","perms":["status","ready","query","execute"]}},{{"username":"joiner","password":"secret","perms":[{perms}]}}]"#
        )
    };
    let auth = first.scratch().join("auth.json");
    std::fs::write(&auth, users(r#""query""#))?;
    first.args.push(format!("-auth={}", auth.display()));
    first.start_and_ready()?;
    first.client().execute("CREATE TABLE t(x)", &[])?;
    let mut second = Node::new("2")?.with(&[
        &format!("-auth={}", auth.display()),
        &format!("-join={}", first.raft),
        "-join-as=joiner",
        "-join-attempts=3",
        "-join-interval=500ms",
    ]);
    second.start_and_answer()?;
    let status = second.wait_exit(SETTLE_LIMIT)?;
    let refusals = second.log().matches("unauthorized").count();
    ensure!(
        // Three retries, then it exits.
        status.code() == Some(1) && refusals == 4,
        "{status}: {}",
        second.log()
    );
    second.args.retain(|arg| !arg.starts_with("-join-attempts"));
    second.args.push("-join-attempts=600".to_owned());
    second.start_and_answer()?;
    await_log(&second, "(try 2 of 600)")?;
    let reply = second.client().get("/status")?;
    ensure!(reply.status == 200, "{}", reply.text());
    std::fs::write(&auth, users(r#""query","join""#))?;
    await_rows(&second, "SELECT count(*) FROM t", 0)?;
    await_members(&mut first.client(), &[("1", true), ("2", true)])
}
