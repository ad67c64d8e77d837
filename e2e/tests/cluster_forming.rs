//! Cluster formation under faults: any start order and delay, a restart, links cut and healed. Exactly one
//! cluster must form.
//!
//! `FORM_ROUNDS` (default 6) sets the rounds, `FORM_DELAY_SECONDS` (default 3) the longest delay of a start;
//! `FORM_SEED` repeats an attack.
use std::{
    env, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use e2e::{
    cluster::Cluster,
    link::{Link, Mode},
    membership::one_cluster,
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
