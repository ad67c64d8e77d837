//! rqlite's general clustering guidelines, example by example, as far as no other file covers them: identical
//! launch commands, bind and advertise addresses, generated ids, reaping of unreachable members, even sizes.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::WriteOutcome,
    cluster::{Cluster, SETTLE_LIMIT},
    membership::{
        await_log, await_members, await_rows, await_write, cluster_id, members, one_cluster,
    },
    ports,
    process::{Node, PROCESS_LIMIT},
    wait,
};
use serde_json::{Value, json};

/// Reap timeouts: well above an election, short enough to wait for.
const REAP_VOTERS: Duration = Duration::from_secs(3);
const REAP: [&str; 2] = [
    "-raft-reap-node-timeout=3s",
    "-raft-reap-read-only-node-timeout=1s",
];
/// The timeout runs from a member's last contact, up to one heartbeat before it was killed. Four heartbeats,
/// for a busy machine.
const CONTACT_TOLERANCE: Duration = Duration::from_secs(1);
/// A leader with a quorum answers well within this time.
const ASK_LIMIT: Duration = Duration::from_millis(1500);

/// The documented `-bootstrap-expect 3 -join a,b,c`, identical on each of these nodes.
fn identical(nodes: Vec<Node>, join: &str) -> Cluster {
    let mut cluster = Cluster::of(nodes);
    for node in cluster.iter_mut() {
        node.args
            .extend(["-bootstrap-expect", "3", "-join", join].map(str::to_owned));
    }
    cluster
}

#[test]
fn identical_commands_bootstrap_and_later_nodes_join() -> Result<()> {
    let nodes = ["1", "2", "3", "4"].map(Node::new);
    let nodes = nodes.into_iter().collect::<Result<Vec<_>>>()?;
    let join: Vec<String> = nodes.iter().take(3).map(|node| node.raft.clone()).collect();
    let mut cluster = identical(nodes, &join.join(","));
    let late = cluster.pop();
    cluster.iter_mut().try_for_each(Node::start)?;
    one_cluster(&mut cluster)?;
    await_log(&cluster[0], "opening store with node ID 1, listening on ")?;
    cluster.extend(late);
    cluster[3].start()?;
    one_cluster(&mut cluster)?;
    // Members ignore the flags, whether all members restart at once or most are missing.
    let before = cluster_id(&cluster[0])?;
    cluster.crash_all()?;
    one_cluster(&mut cluster)?;
    ensure!(cluster_id(&cluster[0])? == before, "another cluster");
    cluster[3].kill()?;
    cluster[2].kill()?;
    cluster[2].start_and_ready()?;
    ensure!(cluster_id(&cluster[2])? == before, "another cluster");
    Ok(())
}

#[test]
fn a_single_node_system_ignores_the_flags_too() -> Result<()> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    await_write(&mut node.client(), "CREATE TABLE t(x)")?;
    let before = cluster_id(&node)?;
    node.stop()?;
    let nowhere = format!("127.0.0.1:{}", ports::reserve()?);
    let join = format!("{},{nowhere}", node.raft);
    let mut cluster = identical(vec![node], &join);
    cluster[0].start_and_ready()?;
    await_rows(&cluster[0], "SELECT count(*) FROM t", 0)?;
    await_write(&mut cluster.client(0), "INSERT INTO t VALUES(1)")?;
    ensure!(cluster_id(&cluster[0])? == before, "another cluster");
    // With `-join` to itself only, it reports that it is already a cluster of one.
    let node = &mut cluster[0];
    node.stop()?;
    node.args
        .retain(|arg| !["-bootstrap-expect", "3"].contains(&arg.as_str()));
    node.start()?;
    let status = node.wait_exit(PROCESS_LIMIT)?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(
        node.log()
            .contains("node cannot join with itself unless bootstrapping"),
        "{}",
        node.log_tail()
    );
    Ok(())
}

/// Binds all interfaces; other nodes and clients use its own address.
fn on_all_interfaces(name: &str) -> Result<Node> {
    let mut node = Node::new(name)?;
    let port = |addr: &str| addr.rsplit(':').next().unwrap_or_default().to_owned();
    node.args
        .push(format!("-http-addr=0.0.0.0:{}", port(&node.http)));
    node.args.push(format!("-http-adv-addr={}", node.http));
    node.args
        .push(format!("-raft-addr=0.0.0.0:{}", port(&node.raft)));
    node.raft_adv = Some(node.raft.clone());
    Ok(node)
}

#[test]
fn nodes_bind_all_interfaces_and_advertise_one() -> Result<()> {
    let nodes = ["1", "2"].map(on_all_interfaces);
    let mut cluster = Cluster::of(nodes.into_iter().collect::<Result<_>>()?);
    cluster.form()?;
    let nodes = cluster.client(1).get_json("/nodes")?;
    for node in cluster.iter() {
        let seen = &nodes[&node.name];
        ensure!(
            seen["addr"] == node.raft.as_str()
                && seen["api_addr"] == format!("http://{}", node.http).as_str()
                && seen["reachable"] == true,
            "{nodes}"
        );
    }
    let mut unroutable = on_all_interfaces("3")?;
    unroutable.raft_adv = None;
    unroutable
        .args
        .retain(|arg| !arg.starts_with("-http-adv-addr"));
    unroutable.start()?;
    let status = unroutable.wait_exit(PROCESS_LIMIT)?;
    for kind in ["HTTP", "Raft"] {
        let text = format!("advertised {kind} address is not routable (0.0.0.0), specify it via");
        ensure!(
            status.code() == Some(1) && unroutable.log().contains(&text),
            "{status}: {}",
            unroutable.log()
        );
    }
    Ok(())
}

#[test]
fn an_id_is_made_up_and_can_be_found_in_the_log() -> Result<()> {
    let mut node = Node::new("")?;
    node.start_and_ready()?;
    let raft = node.raft.clone();
    await_log(
        &node,
        &format!("opening store with node ID {raft}, listening on {raft}"),
    )?;
    ensure!(
        members(&mut node.client())? == [(raft, true)],
        "{:?}",
        members(&mut node.client())?
    );
    Ok(())
}

#[test]
fn an_http_address_changes_without_joining_again() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let moved = cluster.follower()?;
    cluster[moved].stop()?;
    cluster[moved].http = format!("127.0.0.1:{}", ports::reserve()?);
    cluster[moved].start_and_ready()?;
    let (name, api) = (
        cluster[moved].name.clone(),
        format!("http://{}", cluster[moved].http),
    );
    let asked = (moved + 1) % 3;
    let mut client = cluster.client(asked);
    wait::until("the new HTTP address", SETTLE_LIMIT, || {
        let nodes = client.get_json("/nodes").map_err(|e| format!("{e:#}"))?;
        if nodes[&name]["api_addr"] == api.as_str() && nodes[&name]["reachable"] == true {
            Ok(())
        } else {
            Err(nodes.to_string())
        }
    })?;
    await_write(&mut cluster.client(moved), "CREATE TABLE t(x)")
}

fn names(cluster: &Cluster, indices: &[usize]) -> Vec<(String, bool)> {
    let mut names: Vec<_> = indices
        .iter()
        .map(|&index| (cluster[index].name.clone(), true))
        .collect();
    names.sort();
    names
}

fn await_exactly(cluster: &Cluster, at: usize, expected: &[(String, bool)]) -> Result<()> {
    let expected: Vec<(&str, bool)> = expected.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    await_members(&mut cluster.client(at), &expected)
}

#[test]
fn silent_members_are_reaped_by_kind() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &REAP)?;
    let reader = Node::new("reader")?
        .with(&REAP)
        .with(&["-raft-non-voter=true"]);
    cluster.join(reader, 0)?;
    let leader = cluster.leader()?;
    let unreachable = (leader + 1) % 3;
    let start = Instant::now();
    cluster[3].kill()?;
    cluster[unreachable].kill()?;
    let mut rest = names(&cluster, &[0, 1, 2]);
    await_exactly(&cluster, leader, &rest)?;
    rest.retain(|(name, _)| *name != cluster[unreachable].name);
    await_exactly(&cluster, leader, &rest)?;
    ensure!(
        start.elapsed() >= REAP_VOTERS - CONTACT_TOLERANCE,
        "the voter was reaped after {:?}",
        start.elapsed()
    );
    let voter = format!(
        "successfully reaped voting node {}",
        cluster[unreachable].name
    );
    for text in ["successfully reaped non-voting node reader", &voter] {
        await_log(&cluster[leader], text)?;
    }
    let vars = cluster.client(leader).get_json("/debug/vars?key=store")?;
    let counters = &vars["store"];
    ensure!(
        counters["nodes_reaped_ok"] == 2 && counters["nodes_reaped_failed"] == 0,
        "{counters}"
    );
    await_write(&mut cluster.client(leader), "CREATE TABLE t(x)")
}

/// Each leader measures with its own clock.
#[test]
fn a_new_leader_starts_the_clock_anew() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &REAP)?;
    let leader = cluster.leader()?;
    let (unreachable, next) = ((leader + 1) % 3, (leader + 2) % 3);
    let died = Instant::now();
    cluster[unreachable].kill()?;
    wait::sleep(REAP_VOTERS * 2 / 3);
    let body = json!({ "id": cluster[next].name }).to_string();
    let reply = cluster.client(leader).post("/leader?wait", &body)?;
    ensure!(reply.status == 200, "{reply:?}");
    let elected = Instant::now();
    let all = names(&cluster, &[0, 1, 2]);
    let mut client = cluster.client(next);
    // Past the timeout since the member's death, but not since the election.
    let spare = Duration::from_millis(700);
    let until = (REAP_VOTERS - spare).saturating_sub(elected.elapsed());
    wait::throughout("no member is reaped early", until, || {
        match members(&mut client) {
            Ok(seen) if seen == all => Ok(()),
            other => Err(format!("{:?} after its death: {other:?}", died.elapsed())),
        }
    })?;
    ensure!(died.elapsed() > REAP_VOTERS, "the test was too quick");
    await_exactly(&cluster, next, &names(&cluster, &[leader, next]))
}

/// A leader that hears from no member removes none, however long it lasts: it is the one that is cut off.
#[test]
fn a_leader_without_a_quorum_reaps_nobody() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &REAP)?;
    let leader = cluster.leader()?;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for other in others {
        cluster[other].pause()?;
    }
    wait::sleep(REAP_VOTERS * 2);
    for other in others {
        cluster[other].resume()?;
    }
    let all = names(&cluster, &[0, 1, 2]);
    await_write(&mut cluster.client(leader), "CREATE TABLE t(x)")?;
    let mut client = cluster.client(leader);
    wait::throughout(
        "all stay members",
        Duration::from_secs(2),
        || match members(&mut client) {
            Ok(seen) if seen == all => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )?;
    cluster.check_no_panic()
}

/// The object `store.raft` of `/status`.
fn raft_status(cluster: &Cluster, at: usize) -> Result<Value, String> {
    let status = cluster.client(at).get_json("/status");
    let mut status = status.map_err(|error| format!("{error:#}"))?;
    Ok(status["store"]["raft"].take())
}

#[test]
fn a_leader_tells_for_how_long_members_are_silent() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let leader = cluster.leader()?;
    let [unreachable, other] = [1, 2].map(|step| (leader + step) % 3);
    let ids = [unreachable, other].map(|at| {
        let status = cluster.client(at).get_json("/status")?;
        let id = status["store"]["identity"]["raft_id"].as_str();
        anyhow::Ok(id.context("no Raft id")?.to_owned())
    });
    let [unreachable_id, other_id] = ids;
    let (unreachable_id, other_id) = (unreachable_id?, other_id?);
    let await_unreachable = |cluster: &Cluster, what: &str, wanted: &dyn Fn(u64) -> bool| {
        wait::until(what, SETTLE_LIMIT, || {
            let raft = raft_status(cluster, leader)?;
            let of = |id: &String| raft["unreachable_seconds"][id].as_u64();
            match (of(&unreachable_id), of(&other_id)) {
                (Some(seconds), Some(0)) if wanted(seconds) => Ok(()),
                _ => Err(raft["unreachable_seconds"].to_string()),
            }
        })
    };
    await_unreachable(&cluster, "no unreachable member", &|seconds| seconds == 0)?;
    let died = Instant::now();
    cluster[unreachable].kill()?;
    await_unreachable(&cluster, "two seconds without contact", &|seconds| {
        seconds >= 2
    })?;
    // The member was last heard a little before it was killed.
    let since_contact = died.elapsed() + CONTACT_TOLERANCE;
    ensure!(since_contact >= Duration::from_secs(2), "too early");
    let follower = raft_status(&cluster, other).map_err(anyhow::Error::msg)?;
    ensure!(follower["unreachable_seconds"] == json!({}), "{follower}");
    ensure!(
        follower["committed_configuration_index"] == follower["committed_configuration"]["index"]
            && follower["committed_configuration_index"].as_u64() > Some(0),
        "{follower}"
    );
    cluster[unreachable].start()?;
    await_unreachable(&cluster, "its return", &|seconds| seconds == 0)?;
    // A leader that is itself cut off reports nothing about the others.
    for at in [unreachable, other] {
        cluster[at].kill()?;
    }
    wait::until("a leader that reports nothing", SETTLE_LIMIT, || {
        let raft = raft_status(&cluster, leader)?;
        if raft["unreachable_seconds"] == json!({}) {
            Ok(())
        } else {
            Err(raft["unreachable_seconds"].to_string())
        }
    })
}

fn takes_writes(cluster: &Cluster, at: usize) -> bool {
    let mut client = cluster.client(at).timeout(ASK_LIMIT);
    matches!(
        client.write("INSERT INTO t VALUES(1)", &[]),
        WriteOutcome::Acknowledged(_)
    )
}

#[test]
fn even_sizes_work_and_tolerate_no_more_than_the_size_below() -> Result<()> {
    for (size, tolerated) in [(2, 0), (4, 1)] {
        let mut cluster = Cluster::start(size)?;
        await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
        for lost in 1..=tolerated {
            cluster[size - lost].kill()?;
            await_write(&mut cluster.client(0), "INSERT INTO t VALUES(1)")?;
        }
        cluster[size - tolerated - 1].kill()?;
        wait::until("the loss of the quorum", SETTLE_LIMIT, || {
            if takes_writes(&cluster, 0) {
                Err("a write was acknowledged".to_owned())
            } else {
                Ok(())
            }
        })?;
        wait::throughout("no writes", Duration::from_secs(1), || {
            if takes_writes(&cluster, 0) {
                Err("a write was acknowledged".to_owned())
            } else {
                Ok(())
            }
        })?;
        // Nor can the failed node be removed: there is no leader to do it.
        let gone = json!({ "id": cluster[size - 1].name }).to_string();
        let reply = cluster
            .client(0)
            .send("DELETE", "/remove?timeout=1s", &[], gone.as_bytes())?;
        ensure!(
            reply.status == 503 && reply.text().contains("leader not found"),
            "{reply:?}"
        );
        cluster[size - tolerated - 1].start()?;
        await_write(&mut cluster.client(0), "INSERT INTO t VALUES(1)")?;
    }
    Ok(())
}
