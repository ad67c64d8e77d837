//! Lost disks: no combination of empty disks and old flags may lose an acknowledged row or form a second
//! cluster.
//!
//! Real rqlite fails both experiments: a returning wiped voter lost 20 of 20 acknowledged rows, and two nodes
//! with wiped disks formed an empty cluster beside the survivor. Each experiment runs several times
//! (`LOSS_ROUNDS`, default 2).
use std::{env, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::WriteOutcome,
    cluster::{Cluster, SETTLE_LIMIT},
    membership::await_write,
    process::Node,
    wait,
};
use serde_json::json;

/// Rows acknowledged before the loss.
const ROWS: i64 = 20;
/// How long no wrong node may take over: several election timeouts (0.5 s) and rounds of the bootstrap loop
/// (1 to 2 s).
const WATCH: Duration = Duration::from_secs(4);
/// Timeout of requests that must not succeed.
const ASK_LIMIT: Duration = Duration::from_millis(800);

/// The flags by which the nodes form a cluster.
#[derive(Clone, Copy, Debug)]
enum Flags {
    /// The first starts alone, the others with `-join` to both others.
    Join,
    /// All start with `-bootstrap-expect=3 -join=a,b,c`.
    Expect,
}

#[test]
fn a_wiped_voter_returns_to_a_joined_cluster() -> Result<()> {
    rounds(|| wiped_voter_returns(Flags::Join))
}

#[test]
fn a_wiped_voter_returns_to_a_bootstrapped_cluster() -> Result<()> {
    rounds(|| wiped_voter_returns(Flags::Expect))
}

#[test]
fn two_wiped_disks_and_the_survivor_start_together() -> Result<()> {
    rounds(|| two_wiped_disks(false))
}

#[test]
fn two_wiped_disks_start_before_the_survivor() -> Result<()> {
    rounds(|| two_wiped_disks(true))
}

/// Runs the rounds in parallel, because they mostly wait.
fn rounds(round: impl Fn() -> Result<()> + Sync) -> Result<()> {
    let count = env::var("LOSS_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2);
    thread::scope(|scope| {
        let running: Vec<_> = (0..count)
            .map(|number| (number, scope.spawn(&round)))
            .collect();
        running.into_iter().try_for_each(|(number, thread)| {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("panicked"))?
                .with_context(|| format!("round {number}"))
        })
    })
}

/// Three nodes with the flags for their restart; the rows are not written yet.
fn three_nodes(flags: Flags) -> Result<Cluster> {
    let mut nodes = ["a", "b", "c"]
        .iter()
        .map(|name| Node::new(name))
        .collect::<Result<Vec<_>>>()?;
    let addrs: Vec<String> = nodes.iter().map(|node| node.raft.clone()).collect();
    for (index, node) in nodes.iter_mut().enumerate() {
        match flags {
            Flags::Expect => node.args.extend([
                "-bootstrap-expect=3".to_owned(),
                format!("-join={}", addrs.join(",")),
            ]),
            Flags::Join if index > 0 => {
                let others: Vec<&str> = addrs
                    .iter()
                    .filter(|addr| **addr != addrs[index])
                    .map(String::as_str)
                    .collect();
                node.args.push(format!("-join={}", others.join(",")));
                node.args
                    .extend(["-join-attempts=3", "-join-interval=300ms"].map(str::to_owned));
            }
            Flags::Join => {}
        }
    }
    let mut cluster = Cluster::of(nodes);
    for node in cluster.iter_mut() {
        node.start()?;
        if matches!(flags, Flags::Join) {
            node.wait_ready(SETTLE_LIMIT)?;
        }
    }
    cluster
        .iter_mut()
        .try_for_each(|node| node.wait_ready(SETTLE_LIMIT))?;
    Ok(cluster)
}

/// Repeats each write until it is acknowledged: on a busy machine the leader may be changing.
fn write_rows(cluster: &Cluster, index: usize) -> Result<()> {
    let mut client = cluster.client(index);
    (0..ROWS).try_for_each(|number| {
        await_write(
            &mut client,
            &format!("INSERT OR IGNORE INTO kept VALUES({number})"),
        )
    })
}

fn create_table(cluster: &Cluster) -> Result<()> {
    await_write(
        &mut cluster.client(0),
        "CREATE TABLE IF NOT EXISTS kept(number INTEGER PRIMARY KEY)",
    )
}

fn count_at(node: &Node, level: &str) -> Result<i64> {
    node.client()
        .timeout(ASK_LIMIT)
        .number(level, "SELECT count(*) FROM kept")
}

fn await_rows(node: &Node, level: &str) -> Result<()> {
    wait::until(
        &format!("all rows at node {} ({level})", node.name),
        SETTLE_LIMIT,
        || match count_at(node, level) {
            Ok(ROWS) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .with_context(|| format!("log of node {}:\n{}", node.name, node.log_tail()))
}

/// Fails as soon as one of the nodes acknowledges a write, returns fewer rows to a consistent read, or claims
/// to lead with a database that lacks rows.
fn ensure_no_stale_service(nodes: &mut [&mut Node]) -> Result<(), String> {
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    for node in nodes.iter_mut() {
        if !node.is_running() {
            // A new node whose join fails may exit.
            continue;
        }
        let mut client = node.client().timeout(ASK_LIMIT);
        if let Some(leader) = client.leader()
            && names.contains(&leader)
        {
            return Err(format!("node {} sees {leader} lead", node.name));
        }
        if let WriteOutcome::Acknowledged(_) =
            client.write("CREATE TABLE IF NOT EXISTS stray(x)", &[])
        {
            return Err(format!("node {} acknowledged a write", node.name));
        }
        for level in ["weak", "linearizable", "strong"] {
            if let Ok(count) = count_at(node, level) {
                return Err(format!(
                    "node {} answered {count} rows at {level}",
                    node.name
                ));
            }
        }
    }
    Ok(())
}

/// Starts a node, again if it has given up joining, until it holds all rows.
fn readmit(node: &mut Node) -> Result<()> {
    wait::until(
        &format!("node {} admitted again", node.name),
        SETTLE_LIMIT,
        || {
            if !node.is_running() {
                node.start().map_err(|error| format!("{error:#}"))?;
            }
            match count_at(node, "none") {
                Ok(ROWS) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .with_context(|| format!("log of node {}:\n{}", node.name, node.log_tail()))
}

fn all_three_are_voters(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    wait::until("three reachable voters", SETTLE_LIMIT, || {
        let nodes = client
            .get_json("/nodes?nonvoters")
            .map_err(|error| format!("{error:#}"))?;
        let voters = |name: &str| nodes[name]["voter"] == true && nodes[name]["reachable"] == true;
        let three = nodes.as_object().is_some_and(|nodes| nodes.len() == 3);
        if three && ["a", "b", "c"].into_iter().all(voters) {
            Ok(())
        } else {
            Err(nodes.to_string())
        }
    })
}

/// C is down; A and B commit; B loses its disk and A crashes; B (empty) and C start with their usual flags.
fn wiped_voter_returns(flags: Flags) -> Result<()> {
    let mut cluster = three_nodes(flags)?;
    create_table(&cluster)?;
    cluster.agreed_rows("SELECT name FROM sqlite_schema")?;
    // A joined node becomes a voter only once it has caught up. Until then, A and B without C would not be a
    // majority.
    all_three_are_voters(&mut cluster)?;
    cluster[2].kill()?;
    // C may have been the leader.
    await_write(&mut cluster.client(0), "DELETE FROM kept")?;
    write_rows(&cluster, 0)?;
    await_rows(&cluster[1], "none")?;
    cluster[1].kill()?;
    cluster[1].wipe()?;
    cluster[0].kill()?;
    cluster[1].start()?;
    cluster[2].start_and_answer()?;
    let [a, b, c] = &mut cluster[..] else {
        anyhow::bail!("not three nodes")
    };
    wait::throughout("an empty and an old disk must not serve", WATCH, || {
        ensure_no_stale_service(&mut [b, c])
    })?;
    a.start()?;
    for node in [&*a, &*c] {
        await_rows(node, "linearizable")?;
    }
    readmit(b)?;
    all_three_are_voters(&mut cluster)?;
    let found =
        cluster.agreed_rows("SELECT count(*), count(DISTINCT number), max(number) FROM kept")?;
    ensure!(
        found == format!("{:?}", [[json!(ROWS), json!(ROWS), json!(ROWS - 1)]]),
        "rows {found}"
    );
    cluster.check_no_panic()
}

/// Three bootstrapped nodes are stopped, two lose their disks, and all start with the same flags.
fn two_wiped_disks(survivor_late: bool) -> Result<()> {
    let mut cluster = three_nodes(Flags::Expect)?;
    create_table(&cluster)?;
    write_rows(&cluster, 0)?;
    cluster
        .iter()
        .try_for_each(|node| await_rows(node, "none"))?;
    let survivor = cluster.follower()?;
    for node in cluster.iter_mut() {
        node.send_sigterm()?;
    }
    for node in cluster.iter_mut() {
        node.wait_exit(SETTLE_LIMIT)?;
    }
    let mut nodes: Vec<&mut Node> = cluster.iter_mut().collect();
    let kept = nodes.remove(survivor);
    for node in &mut nodes {
        node.wipe()?;
        node.start()?;
    }
    if survivor_late {
        // Two empty nodes alone are fewer than three, so they must not form a cluster.
        wait::throughout("two empty disks must not serve", WATCH, || {
            ensure_no_stale_service(&mut nodes)
        })?;
    }
    kept.start()?;
    await_rows(kept, "none")?;
    nodes.push(kept);
    wait::throughout(
        "two empty disks and a survivor must not serve",
        WATCH,
        || ensure_no_stale_service(&mut nodes),
    )?;
    let kept = nodes.last().context("no survivor")?;
    ensure!(count_at(kept, "none")? == ROWS, "the survivor lost rows");
    cluster.check_no_panic()
}

/// It serves local reads alone with everything that it served before, although no leader confirms the commit
/// index.
#[test]
fn a_follower_stopped_in_order_forgets_nothing() -> Result<()> {
    let mut cluster = three_nodes(Flags::Expect)?;
    create_table(&cluster)?;
    write_rows(&cluster, 0)?;
    let follower = cluster.follower()?;
    await_rows(&cluster[follower], "none")?;
    cluster[follower].stop()?;
    cluster.iter_mut().try_for_each(Node::kill)?;
    cluster[follower].start_and_answer()?;
    await_rows(&cluster[follower], "none")?;
    cluster.check_no_panic()
}
