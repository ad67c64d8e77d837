//! Recovery from a lost quorum with `raft/peers.json`: the survivors' data is kept, nodes left out stay out,
//! and crashes during recovery do no harm.
//!
//! `RECOVERY_ROUNDS` (default 3) sets the rounds of killing during recovery, `RECOVERY_SEED` repeats an
//! attack.
use std::{env, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::WriteOutcome,
    cluster::{Cluster, SETTLE_LIMIT},
    membership::{await_log, await_members, await_rows, await_write},
    ports,
    process::{Node, PROCESS_LIMIT},
    seed::Seed,
    wait,
};
use serde_json::json;

/// Rows acknowledged before the loss.
const ROWS: i64 = 12;
/// How long no node may become leader: several election timeouts.
const WATCH: Duration = Duration::from_secs(3);
const ASK_LIMIT: Duration = Duration::from_millis(800);
/// Number of 200 kB rows that make a log which takes a while to rewrite.
const BULK: i64 = 50;
const COUNT: &str = "SELECT count(*) FROM kept";

/// `count` nodes with [`ROWS`] acknowledged rows on all of them.
fn filled(count: usize) -> Result<Cluster> {
    let mut cluster = Cluster::start(count)?;
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    await_write(&mut client, "CREATE TABLE kept(number INTEGER PRIMARY KEY)")?;
    write_rows(&mut client, 0, ROWS)?;
    for node in cluster.iter() {
        await_rows(node, COUNT, ROWS)?;
    }
    Ok(cluster)
}

fn write_rows(client: &mut e2e::client::Client, from: i64, to: i64) -> Result<()> {
    (from..to).try_for_each(|number| {
        await_write(
            client,
            &format!("INSERT OR IGNORE INTO kept VALUES({number})"),
        )
    })
}

/// Content of `peers.json` for these nodes at their current addresses; true: voter.
fn peers(members: &[(&Node, bool)]) -> String {
    let list: Vec<_> = members
        .iter()
        .map(|(node, voter)| json!({"id": node.name, "address": node.raft, "non_voter": !voter}))
        .collect();
    json!(list).to_string()
}

fn write_peers(node: &Node, content: &str) -> Result<()> {
    fs::write(node.data.join("raft/peers.json"), content).context("write peers.json")
}

fn kill_all(cluster: &mut Cluster) -> Result<()> {
    cluster.iter_mut().try_for_each(Node::kill)
}

/// Keeps these nodes (by index); the others are lost.
fn survivors(cluster: Cluster, kept: &[usize]) -> Cluster {
    let mut cluster = cluster;
    let nodes = std::mem::take(&mut *cluster);
    let nodes = nodes
        .into_iter()
        .enumerate()
        .filter(|(index, _)| kept.contains(index))
        .map(|(_, node)| node);
    Cluster::of(nodes.collect())
}

/// Places the file on every node, starts all, and waits until all are ready.
fn recover(cluster: &mut Cluster, content: &str) -> Result<()> {
    for node in cluster.iter_mut() {
        write_peers(node, content)?;
        node.start()?;
    }
    for node in cluster.iter_mut() {
        node.wait_ready(SETTLE_LIMIT)?;
        ensure!(
            !node.data.join("raft/peers.json").exists(),
            "peers.json is still there"
        );
        ensure!(
            fs::read_to_string(node.data.join("raft/peers.info"))? == content,
            "peers.info differs"
        );
        for text in [
            "attempting node recovery using ",
            "node recovered successfully using ",
        ] {
            let said = node
                .log()
                .lines()
                .any(|line| line.starts_with("[recovery]") && line.contains(text));
            ensure!(
                said,
                "node {} did not log {text:?}:\n{}",
                node.name,
                node.log_tail()
            );
        }
    }
    Ok(())
}

/// Checks that all nodes have all rows, accept another write, are equal, and have not panicked.
fn alive_with(cluster: &mut Cluster, rows: i64) -> Result<()> {
    for node in cluster.iter() {
        await_rows(node, COUNT, rows)?;
    }
    let leader = cluster.leader()?;
    write_rows(&mut cluster.client(leader), rows, rows + 1)?;
    for node in cluster.iter() {
        await_rows(node, COUNT, rows + 1)?;
    }
    cluster.agreed_dump()?;
    cluster.check_integrity()?;
    cluster.check_no_panic()
}

#[test]
fn five_nodes_lose_three() -> Result<()> {
    let mut cluster = filled(5)?;
    kill_all(&mut cluster)?;
    let mut cluster = survivors(cluster, &[1, 3]);
    let content = peers(&[(&cluster[0], true), (&cluster[1], true)]);
    recover(&mut cluster, &content)?;
    await_members(&mut cluster.client(0), &[("2", true), ("4", true)])?;
    alive_with(&mut cluster, ROWS)?;
    cluster.crash_all()?;
    alive_with(&mut cluster, ROWS + 1)
}

#[test]
fn a_single_survivor_takes_new_nodes_in() -> Result<()> {
    let mut cluster = filled(3)?;
    kill_all(&mut cluster)?;
    let mut cluster = survivors(cluster, &[2]);
    let content = peers(&[(&cluster[0], true)]);
    recover(&mut cluster, &content)?;
    await_rows(&cluster[0], COUNT, ROWS)?;
    // One node takes the name of a lost node, one has a new name.
    cluster.join(Node::new("1")?, 0)?;
    cluster.join(Node::new("new")?, 0)?;
    await_members(
        &mut cluster.client(0),
        &[("1", true), ("3", true), ("new", true)],
    )?;
    alive_with(&mut cluster, ROWS)
}

#[test]
fn the_longest_tail_of_the_survivors_counts() -> Result<()> {
    let mut cluster = filled(3)?;
    // A follower lags behind, so that the two others acknowledge without it.
    let behind = cluster.follower()?;
    cluster[behind].kill()?;
    let leader = cluster.leader()?;
    write_rows(&mut cluster.client(leader), ROWS, 2 * ROWS)?;
    kill_all(&mut cluster)?;
    let mut cluster = survivors(cluster, &[behind, leader]);
    let content = peers(&[(&cluster[0], true), (&cluster[1], true)]);
    recover(&mut cluster, &content)?;
    alive_with(&mut cluster, 2 * ROWS)
}

#[test]
fn all_nodes_come_back_under_new_addresses() -> Result<()> {
    let mut cluster = filled(3)?;
    for node in cluster.iter_mut() {
        node.stop()?;
    }
    for node in cluster.iter_mut() {
        // Host names are accepted like IP addresses.
        node.raft = format!("localhost:{}", ports::reserve()?);
        node.http = format!("127.0.0.1:{}", ports::reserve()?);
    }
    let content = peers(&[
        (&cluster[0], true),
        (&cluster[1], true),
        (&cluster[2], true),
    ]);
    recover(&mut cluster, &content)?;
    await_members(
        &mut cluster.client(0),
        &[("1", true), ("2", true), ("3", true)],
    )?;
    alive_with(&mut cluster, ROWS)
}

#[test]
fn a_listed_non_voter_only_follows() -> Result<()> {
    let mut cluster = filled(3)?;
    kill_all(&mut cluster)?;
    let mut cluster = survivors(cluster, &[0, 1]);
    let content = peers(&[(&cluster[0], true), (&cluster[1], false)]);
    recover(&mut cluster, &content)?;
    await_members(&mut cluster.client(0), &[("1", true), ("2", false)])?;
    alive_with(&mut cluster, ROWS)?;
    // As a non-voter it is not needed for a quorum, and it cannot replace the voter.
    cluster[1].kill()?;
    write_rows(&mut cluster.client(0), ROWS + 1, ROWS + 2)?;
    cluster[1].start_and_ready()?;
    await_rows(&cluster[1], COUNT, ROWS + 2)
}

/// Checks that none of these nodes leads or acknowledges a write.
fn ensure_no_leader(nodes: &mut Cluster) -> Result<()> {
    wait::throughout("no node leads", WATCH, || {
        for node in nodes.iter_mut() {
            let mut client = node.client().timeout(ASK_LIMIT);
            if let Some(leader) = client.leader() {
                return Err(format!("node {} sees {leader} lead", node.name));
            }
            if let WriteOutcome::Acknowledged(_) = client.write("INSERT INTO kept VALUES(-1)", &[])
            {
                return Err(format!("node {} acknowledged a write", node.name));
            }
        }
        Ok(())
    })
}

#[test]
fn files_that_disagree_make_no_cluster() -> Result<()> {
    let mut cluster = filled(3)?;
    kill_all(&mut cluster)?;
    let lost = Node::new("3")?;
    let mut cluster = survivors(cluster, &[0, 1]);
    write_peers(
        &cluster[0],
        &peers(&[(&cluster[0], true), (&cluster[1], true)]),
    )?;
    write_peers(
        &cluster[1],
        &peers(&[(&cluster[0], true), (&cluster[1], true), (&lost, true)]),
    )?;
    for node in cluster.iter_mut() {
        node.start_and_answer()?;
    }
    ensure_no_leader(&mut cluster)?;
    for node in cluster.iter() {
        await_log(node, "recovered with a different peers.json")?;
        await_log(node, "empty data directory")?;
    }
    // The remedy that the message names: one node continues alone, the other starts with an empty disk.
    kill_all(&mut cluster)?;
    let mut other = cluster.pop().context("no node")?;
    let alone = peers(&[(&cluster[0], true)]);
    recover(&mut cluster, &alone)?;
    other.wipe()?;
    cluster.join(other, 0)?;
    alive_with(&mut cluster, ROWS)
}

/// Starts a node that must reject the file and exit with code 1; returns its log.
fn refuses(node: &mut Node, content: &str) -> Result<String> {
    let before = node.log().len();
    write_peers(node, content)?;
    node.start()?;
    let status = node.wait_exit(PROCESS_LIMIT)?;
    let log = node.log()[before..].to_owned();
    ensure!(status.code() == Some(1), "{content}: {status}\n{log}");
    ensure!(
        fs::read_to_string(node.data.join("raft/peers.json"))? == content,
        "{content}: the file has changed"
    );
    Ok(log)
}

#[test]
fn wrong_files_are_refused_with_reasons() -> Result<()> {
    let mut cluster = filled(1)?;
    kill_all(&mut cluster)?;
    let node = &mut cluster[0];
    let cases = [
        ("nonsense", "failed to read peers file: invalid character"),
        (
            "[]",
            "failed to read peers file: need at least one voter in configuration: {[]}",
        ),
        (
            r#"[{"id":"1","address":"a:1","non_voter":true}]"#,
            "failed to read peers file: need at least one voter in configuration: ",
        ),
        (
            r#"[{"id":"","address":"a:1"}]"#,
            "failed to read peers file: empty ID in configuration: ",
        ),
        (
            r#"[{"id":"1","address":""}]"#,
            "failed to read peers file: empty address in configuration: ",
        ),
        (
            r#"[{"id":"1","address":"a:1"},{"id":"1","address":"b:1"}]"#,
            "failed to read peers file: found duplicate ID in configuration: 1",
        ),
        (
            r#"[{"id":"1","address":"a:1"},{"id":"2","address":"a:1"}]"#,
            "failed to read peers file: found duplicate address in configuration: a:1",
        ),
        (
            r#"[{"id":"1","address":"http://a:1"}]"#,
            "failed to recover node: protocol specified in address: http://a:1",
        ),
        (
            r#"[{"id":"1","address":"foo"}]"#,
            "failed to recover node: invalid address in configuration: foo",
        ),
        (
            r#"[{"id":"2","address":"b:1"}]"#,
            "failed to recover node: this node's ID 1 is not in ",
        ),
    ];
    for (content, text) in cases {
        let log = refuses(node, content)?;
        ensure!(
            log.contains(&format!("failed to open store: {text}")),
            "{content}:\n{log}"
        );
    }
    fs::remove_file(node.data.join("raft/peers.json"))?;
    node.start_and_ready()?;
    await_rows(node, COUNT, ROWS)?;
    // The file must never make a node with an empty disk a voter.
    let mut empty = Node::new("1")?;
    fs::create_dir_all(empty.data.join("raft"))?;
    let content = peers(&[(&empty, true)]);
    let log = refuses(&mut empty, &content)?;
    ensure!(
        log.contains("an empty node joins the recovered cluster instead"),
        "{log}"
    );
    cluster.check_no_panic()
}

#[test]
fn recovered_twice() -> Result<()> {
    let mut cluster = filled(3)?;
    kill_all(&mut cluster)?;
    let mut cluster = survivors(cluster, &[0, 1]);
    let both = peers(&[(&cluster[0], true), (&cluster[1], true)]);
    recover(&mut cluster, &both)?;
    alive_with(&mut cluster, ROWS)?;
    // First the same file again, then another one.
    kill_all(&mut cluster)?;
    recover(&mut cluster, &both)?;
    alive_with(&mut cluster, ROWS + 1)?;
    kill_all(&mut cluster)?;
    let mut cluster = survivors(cluster, &[1]);
    let alone = peers(&[(&cluster[0], true)]);
    recover(&mut cluster, &alone)?;
    alive_with(&mut cluster, ROWS + 2)
}

/// The node has none of the rows written after the recovery. The last one before it may be in its log only.
fn ensure_left_out(node: &Node) -> Result<()> {
    let mut client = node.client();
    let count = wait::until(&format!("rows at node {}", node.name), SETTLE_LIMIT, || {
        client
            .number("none", COUNT)
            .map_err(|error| format!("{error:#}"))
    })?;
    ensure!(count <= ROWS, "node {} has {count} rows", node.name);
    Ok(())
}

#[test]
fn a_node_left_out_returns_and_stays_out() -> Result<()> {
    let mut cluster = filled(3)?;
    kill_all(&mut cluster)?;
    let mut old = cluster.pop().context("no node")?;
    let mut cluster = survivors(cluster, &[0]);
    let content = peers(&[(&cluster[0], true)]);
    recover(&mut cluster, &content)?;
    alive_with(&mut cluster, ROWS)?;
    let mut old_alone = Cluster::of(vec![]);
    old.start_and_answer()?;
    old_alone.push(old);
    ensure_no_leader(&mut old_alone)?;
    await_log(&old_alone[0], "was left out of a recovery of the cluster")?;
    await_members(&mut cluster.client(0), &[("1", true)])?;
    write_rows(&mut cluster.client(0), ROWS + 1, ROWS + 2)?;
    ensure_left_out(&old_alone[0])?;
    // A join with the old data is refused, too. With an empty disk the node is a new member.
    let old = &mut old_alone[0];
    old.kill()?;
    let join = format!("-join={}", cluster[0].raft);
    old.args.push(join);
    old.start_and_answer()?;
    await_members(&mut cluster.client(0), &[("1", true)])?;
    ensure_left_out(old)?;
    old.kill()?;
    old.wipe()?;
    old.start_and_ready()?;
    await_rows(old, COUNT, ROWS + 2)?;
    await_members(&mut cluster.client(0), &[("1", true), ("3", true)])?;
    cluster.check_no_panic()
}

#[test]
fn a_listed_node_that_lost_its_disk_joins_anew() -> Result<()> {
    let mut cluster = filled(3)?;
    kill_all(&mut cluster)?;
    let content = peers(&[
        (&cluster[0], true),
        (&cluster[1], true),
        (&cluster[2], true),
    ]);
    cluster[2].wipe()?;
    fs::create_dir_all(cluster[2].data.join("raft"))?;
    let log = refuses(&mut cluster[2], &content)?;
    ensure!(
        log.contains("an empty node joins the recovered cluster instead"),
        "{log}"
    );
    let mut wiped = cluster.pop().context("no node")?;
    recover(&mut cluster, &content)?;
    wiped.wipe()?;
    cluster.join(wiped, 0)?;
    await_members(
        &mut cluster.client(0),
        &[("1", true), ("2", true), ("3", true)],
    )?;
    alive_with(&mut cluster, ROWS)
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Starts a node and kills it soon after its recovery has begun. True if the recovery was in progress then.
fn killed_inside(node: &mut Node, seed: &mut Seed) -> Result<bool> {
    let (journal, file) = (
        node.data.join("raft/recovery.json"),
        node.data.join("raft/peers.json"),
    );
    let known = fs::read(&journal).ok();
    node.start()?;
    wait::until("a recovery to begin", PROCESS_LIMIT, || {
        if journal.exists() || !file.exists() {
            Ok(())
        } else {
            Err("not begun".to_owned())
        }
    })?;
    // When an earlier attempt is continued, its journal exists already, so this time also includes the start
    // of the process.
    let longest = if known.is_some() { 250 } else { 120 };
    wait::sleep(Duration::from_millis(seed.below(longest)));
    node.kill()?;
    Ok(journal.exists())
}

#[test]
fn killed_during_recovery() -> Result<()> {
    let seed = number("RECOVERY_SEED", Seed::arbitrary());
    println!("repeat with: RECOVERY_SEED={seed}");
    let mut seed = Seed::new(seed);
    let mut cluster = filled(3)?;
    // A log that takes a while to rewrite.
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    await_write(
        &mut client,
        "CREATE TABLE bulk(number INTEGER PRIMARY KEY, data BLOB)",
    )?;
    for row in 0..BULK {
        let text = "x".repeat(200_000);
        await_write(
            &mut client,
            &format!("INSERT OR IGNORE INTO bulk VALUES({row}, '{text}')"),
        )?;
    }
    for node in cluster.iter() {
        await_rows(node, "SELECT count(*) FROM bulk", BULK)?;
    }
    kill_all(&mut cluster)?;
    let mut cluster = survivors(cluster, &[0, 1]);
    let content = peers(&[(&cluster[0], true), (&cluster[1], true)]);
    let (mut rows, mut inside, mut kills) = (ROWS, 0, 0);
    let rounds = number("RECOVERY_ROUNDS", 3);
    // A fast machine may recover between two kills: run a few more rounds until a kill hits a recovery.
    for round in 0..rounds + 20 {
        if round >= rounds && inside > 0 {
            break;
        }
        for node in cluster.iter_mut() {
            write_peers(node, &content)?;
            while node.data.join("raft/peers.json").exists() {
                kills += 1;
                inside += i32::from(killed_inside(node, &mut seed)?);
            }
        }
        for node in cluster.iter_mut() {
            node.start()?;
        }
        for node in cluster.iter_mut() {
            node.wait_ready(SETTLE_LIMIT)?;
            await_rows(node, "SELECT count(*) FROM bulk", BULK)?;
        }
        alive_with(&mut cluster, rows)?;
        rows += 1;
        kill_all(&mut cluster)?;
    }
    println!("{kills} kills, {inside} of them inside a recovery");
    ensure!(
        inside > 0,
        "no kill hit a recovery: the log is too short for this machine"
    );
    Ok(())
}
