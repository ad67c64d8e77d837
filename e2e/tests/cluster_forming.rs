//! Cluster formation under faults: any start order and delay, a restart, links cut and healed. Exactly one
//! cluster must form.
//!
//! `FORM_ROUNDS` (default 6) sets the rounds, `FORM_DELAY_SECONDS` (default 3) the longest delay of a start;
//! `FORM_SEED` repeats an attack.
use std::{
    env,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::{
    cluster::{Cluster, SETTLE_LIMIT},
    link::{Link, Mode},
    membership::{await_log, await_members, await_write, one_cluster},
    process::Node,
    seed::Seed,
    wait,
};

/// Rounds run in parallel; each runs three to five debug processes.
const AT_ONCE: u64 = 3;

fn number(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn exactly_one_cluster_forms_whatever_happens_meanwhile() -> Result<()> {
    let rounds = number("FORM_ROUNDS", 6);
    let seed = number("FORM_SEED", Seed::arbitrary());
    println!("repeat with: FORM_SEED={seed} FORM_ROUNDS={rounds}");
    let rounds: Vec<u64> = (0..rounds).collect();
    for some in rounds.chunks(usize::try_from(AT_ONCE)?) {
        thread::scope(|scope| {
            let running: Vec<_> = some
                .iter()
                .map(|number| {
                    (
                        number,
                        scope.spawn(move || round(seed.wrapping_add(*number))),
                    )
                })
                .collect();
            running.into_iter().try_for_each(|(number, thread)| {
                thread
                    .join()
                    .map_err(|_| anyhow!("panicked"))?
                    .with_context(|| format!("round {number}"))
            })
        })?;
    }
    Ok(())
}

/// A fault or a start of a node.
#[derive(Clone, Copy, Debug)]
enum Event {
    Start(usize),
    Restart(usize),
    Cut(usize),
    Heal(usize),
}

/// Starts within the longest delay, one crash with restart, and some cut links; everything is healed at the
/// end.
fn schedule(seed: &mut Seed, nodes: usize, span: Duration) -> Vec<(Duration, Event)> {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut at = |limit: u64| Duration::from_millis(seed.below(limit));
    let mut events: Vec<(Duration, Event)> = (0..nodes)
        .map(|node| (at(millis), Event::Start(node)))
        .collect();
    for node in 0..nodes {
        let cut = at(millis * 2);
        events.push((cut, Event::Cut(node)));
        events.push((cut + at(1500), Event::Heal(node)));
    }
    let last = events.iter().map(|(at, _)| *at).max().unwrap_or_default();
    let unlucky = seed.index(nodes);
    events.push((
        span / 2 + Duration::from_millis(seed.below(millis)),
        Event::Restart(unlucky),
    ));
    events.extend((0..nodes).map(|node| (last, Event::Heal(node))));
    events.sort_by_key(|(at, _)| *at);
    events
}

fn round(seed: u64) -> Result<()> {
    let mut seed = Seed::new(seed);
    let size = [3, 3, 5][seed.index(3)];
    let span = Duration::from_secs(number("FORM_DELAY_SECONDS", 3));
    let mut nodes = (0..size)
        .map(|index| Node::new(["a", "b", "c", "d", "e"][index]))
        .collect::<Result<Vec<_>>>()?;
    let links = nodes
        .iter()
        .map(|node| Link::to(&node.raft))
        .collect::<Result<Vec<_>>>()?;
    let join = links
        .iter()
        .map(|link| link.addr.clone())
        .collect::<Vec<_>>()
        .join(",");
    for (node, link) in nodes.iter_mut().zip(&links) {
        node.raft_adv = Some(link.addr.clone());
        node.args.push(format!("-bootstrap-expect={size}"));
        node.args.push(format!("-join={join}"));
    }
    let mut cluster = Cluster::of(nodes);
    let events = schedule(&mut seed, size, span);
    let start = Instant::now();
    for (at, event) in &events {
        wait::sleep(at.saturating_sub(start.elapsed()));
        match *event {
            Event::Start(node) if !cluster[node].is_running() => cluster[node].start()?,
            Event::Start(_) => {}
            Event::Restart(node) => {
                cluster[node].kill()?;
                cluster[node].start()?;
            }
            Event::Cut(node) => links[node].set(Mode::Cut),
            Event::Heal(node) => links[node].set(Mode::Open),
        }
    }
    one_cluster(&mut cluster).with_context(|| format!("{size} nodes, {events:?}"))
}

/// Nodes that all have these flags; not started.
fn nodes(names: &[&str], args: &[&str]) -> Result<Cluster> {
    let nodes = names.iter().map(|name| Ok(Node::new(name)?.with(args)));
    Ok(Cluster::of(nodes.collect::<Result<_>>()?))
}

fn all_join(cluster: &mut Cluster, listed: usize) {
    let some = cluster.iter().take(listed).map(|node| node.raft.clone());
    let join = format!("-join={}", some.collect::<Vec<_>>().join(","));
    cluster
        .iter_mut()
        .for_each(|node| node.args.push(join.clone()));
}

#[test]
fn nodes_that_name_only_one_of_them_form_a_cluster() -> Result<()> {
    for names in [["1", "2", "3"], ["3", "2", "1"]] {
        let mut cluster = nodes(&names, &["-bootstrap-expect=3"])?;
        all_join(&mut cluster, 1);
        cluster.iter_mut().try_for_each(Node::start)?;
        one_cluster(&mut cluster)?;
        let mut client = cluster.client(0);
        await_members(&mut client, &[("1", true), ("2", true), ("3", true)])?;
    }
    Ok(())
}

#[test]
fn two_nodes_of_one_name_form_nothing_and_are_named() -> Result<()> {
    let flags = ["-bootstrap-expect=4", "-bootstrap-expect-timeout=8s"];
    let mut cluster = nodes(&["a", "b", "x", "x"], &flags)?;
    all_join(&mut cluster, 4);
    cluster.iter_mut().try_for_each(Node::start)?;
    for node in cluster.iter_mut() {
        let status = node.wait_exit(SETTLE_LIMIT)?;
        ensure!(status.code() == Some(1), "{status}");
    }
    for node in cluster.iter() {
        let log = node.log();
        let named = [&cluster[2].raft, &cluster[3].raft];
        // Who ends later sees fewer nodes at last.
        let said = log.lines().any(|line| {
            line.contains("node ID x is in use by two nodes")
                && named.iter().all(|at| line.contains(*at))
        });
        ensure!(said && log.contains("boot timeout"), "{log}");
    }
    Ok(())
}

#[test]
fn a_join_that_hangs_does_not_delay_the_end() -> Result<()> {
    // It accepts connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let join = format!("-join={}", silent.local_addr()?);
    let limit = Duration::from_secs(5);
    for (flags, text) in [
        (vec![join.as_str()], "join operation canceled"),
        (vec![join.as_str(), "-bootstrap-expect=3"], "boot canceled"),
    ] {
        let mut new = Node::new("n")?.with(&flags);
        new.start()?;
        await_log(&new, "checking that supplied join addresses")?;
        new.send_sigterm()?;
        let status = new.wait_exit(limit)?;
        ensure!(status.code() == Some(1), "{status}");
        ensure!(new.log().contains(text), "{}", new.log());
    }
    let mut cluster = Cluster::start_with(3, &["-raft-cluster-remove-shutdown"])?;
    let leaving = &mut cluster[2];
    leaving.kill()?;
    leaving.args.push(join);
    leaving.start_and_ready()?;
    leaving.send_sigterm()?;
    let status = leaving.wait_exit(limit)?;
    ensure!(status.success(), "{status}: {}", leaving.log());
    let left: Vec<String> = cluster
        .iter()
        .take(2)
        .map(|node| node.name.clone())
        .collect();
    let left: Vec<(&str, bool)> = left.iter().map(|name| (name.as_str(), true)).collect();
    let mut client = cluster.client(0);
    await_members(&mut client, &left)
}

fn joined(node: &Node) -> usize {
    node.log()
        .matches("succeeded directly joining cluster")
        .count()
}

#[test]
fn who_has_joined_or_is_ready_bears_the_loss_of_another() -> Result<()> {
    for until_ready in [false, true, false] {
        let mut cluster = nodes(&["1", "2", "3"], &["-bootstrap-expect=3"])?;
        all_join(&mut cluster, 3);
        cluster.iter_mut().try_for_each(Node::start)?;
        one_cluster(&mut cluster)?;
        let leader = cluster.leader()?;
        let (joins, lost) = ((leader + 1) % 3, (leader + 2) % 3);
        await_write(
            &mut cluster.client(leader),
            "CREATE TABLE IF NOT EXISTS t(x)",
        )?;
        cluster[joins].kill()?;
        cluster[joins].wipe()?;
        let before = joined(&cluster[joins]);
        cluster[joins].start()?;
        if until_ready {
            cluster[joins].wait_ready(SETTLE_LIMIT)?;
        } else {
            let node = &cluster[joins];
            wait::until("another join in the log", SETTLE_LIMIT, || {
                (joined(node) > before).then_some(()).ok_or(node.log_tail())
            })?;
        }
        cluster[lost].kill()?;
        await_write(&mut cluster.client(leader), "INSERT INTO t VALUES(1)")?;
    }
    Ok(())
}
