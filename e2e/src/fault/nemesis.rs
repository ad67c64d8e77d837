//! Injects faults, chosen by a seed from those possible in the current state. "Nemesis" is Jepsen's term.
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::users::{self, ALL_MISUSES, Misuse};
use crate::{
    cluster::{Cluster, SETTLE_LIMIT},
    link::{Link, Mode},
    netns::Network,
    ports,
    seed::Seed,
    small_disk::SmallDisk,
    wait,
};

/// Shortest and longest time between two steps, in milliseconds.
const STEP_MILLIS: (u64, u64) = (150, 1_500);

/// State of a node's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Running.
    Up,
    /// Killed or stopped.
    Down,
    /// Frozen by SIGSTOP.
    Paused,
}

/// One fault or repair. The index is the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// SIGKILL.
    Kill(usize),
    /// SIGTERM.
    Stop(usize),
    /// Start again.
    Start(usize),
    /// SIGSTOP.
    Pause(usize),
    /// SIGCONT.
    Resume(usize),
    /// Change the mode of the link in front of a node.
    Link(usize, Mode),
    /// Delay everything on a node's link.
    Slow(usize),
    /// Drop traffic from one node to another (needs a [`Network`]).
    CutPair(usize, usize),
    /// Open all links.
    HealLinks,
    /// A user misuses a node.
    User(usize, Misuse),
    /// Fill a node's disk, so that almost nothing fits any more (needs disks).
    Fill(usize),
    /// Free the space on a node's disk again.
    MakeRoom(usize),
    /// Kill a node and restart it at another Raft address (needs [`NetworkControl::None`]).
    Move(usize),
}

/// Where traffic between nodes can be interrupted.
#[derive(Clone, Copy, Debug)]
pub enum NetworkControl<'a> {
    /// Proxies, one in front of each node.
    Links(&'a [Link]),
    /// Network namespaces, one for each node.
    Network(&'a Network),
    /// Nowhere.
    None,
}

/// Bytes left free on a filled disk: less than a node's reserve.
const LEFT_FREE_BYTES: u64 = 64 << 10;

/// The current state, from which the next step is chosen.
#[derive(Clone, Debug)]
pub struct State {
    /// Each node's state.
    pub nodes: Vec<NodeState>,
    /// Whether any link is cut, held or slow.
    pub links_faulty: bool,
    /// Whether traffic between chosen pairs can be cut.
    pub can_cut_pairs: bool,
    /// Whether traffic between nodes can be interrupted at all.
    pub can_interrupt: bool,
    /// Whether users misuse nodes, too.
    pub users: bool,
    /// For each node whether its disk is full; empty if the nodes have no disks of their own.
    pub full: Vec<bool>,
}

impl State {
    /// Chooses the next step. Most choices keep a majority running; about one in six may break it.
    #[must_use]
    pub fn choose(&self, seed: &mut Seed) -> Step {
        let count = self.nodes.len();
        if self.users && seed.below(3) == 0 {
            return self.choose_misuse(seed);
        }
        let broken: Vec<usize> = (0..count)
            .filter(|&index| self.nodes[index] != NodeState::Up)
            .collect();
        let minority = count.saturating_sub(1) / 2;
        let may_break = broken.len() < minority || (broken.len() < count && seed.below(6) == 0);
        let repair = !may_break || (!broken.is_empty() && seed.below(2) == 0);
        if repair && let Some(&index) = broken.get(seed.index(broken.len())) {
            return if self.nodes[index] == NodeState::Paused {
                Step::Resume(index)
            } else {
                Step::Start(index)
            };
        }
        if self.links_faulty && seed.below(2) == 0 {
            return Step::HealLinks;
        }
        let up: Vec<usize> = (0..count)
            .filter(|&index| self.nodes[index] == NodeState::Up)
            .collect();
        let Some(&victim) = up.get(seed.index(up.len())) else {
            return Step::HealLinks;
        };
        match seed.below(8) {
            0 | 1 => Step::Kill(victim),
            2 => Step::Stop(victim),
            3 => Step::Pause(victim),
            4 | 5 if !self.can_interrupt => Step::Move(victim),
            _ if !self.can_interrupt => Step::Kill(victim),
            _ if self.can_cut_pairs => {
                Step::CutPair(victim, (victim + 1 + seed.index(count - 1)) % count)
            }
            4 => Step::Link(victim, Mode::Cut),
            5 => Step::Link(victim, Mode::Blackhole),
            6 => Step::Link(
                victim,
                [Mode::HoldRequests, Mode::HoldResponses][seed.index(2)],
            ),
            _ => Step::Slow(victim),
        }
    }

    /// Chooses a user's misuse, or filling or emptying a disk.
    fn choose_misuse(&self, seed: &mut Seed) -> Step {
        let victim = seed.index(self.nodes.len());
        let kinds = if self.full.is_empty() { 5 } else { 7 };
        match ALL_MISUSES.get(seed.index(kinds)) {
            Some(misuse) => Step::User(victim, *misuse),
            None if self.full[victim] => Step::MakeRoom(victim),
            None => Step::Fill(victim),
        }
    }
}

/// Carries out steps and records them.
#[derive(Debug)]
pub struct Nemesis<'a> {
    /// The steps so far, as text.
    pub steps: Vec<String>,
    network: NetworkControl<'a>,
    disks: &'a [SmallDisk],
    state: State,
}

impl<'a> Nemesis<'a> {
    /// A nemesis for `nodes` running nodes.
    #[must_use]
    pub fn new(nodes: usize, network: NetworkControl<'a>) -> Self {
        let pairs = matches!(network, NetworkControl::Network(_));
        Self {
            steps: Vec::new(),
            network,
            disks: &[],
            state: State {
                nodes: vec![NodeState::Up; nodes],
                links_faulty: false,
                can_cut_pairs: pairs,
                can_interrupt: !matches!(network, NetworkControl::None),
                users: false,
                full: Vec::new(),
            },
        }
    }

    /// Adds misuse by users, and filling of `disks` (one for each node, or none).
    #[must_use]
    pub fn with_users(mut self, disks: &'a [SmallDisk]) -> Self {
        self.disks = disks;
        self.state.users = true;
        self.state.full = vec![false; disks.len()];
        self
    }

    /// Carries out steps for `span`.
    ///
    /// # Errors
    /// If a step cannot be carried out.
    pub fn attack(&mut self, cluster: &mut Cluster, span: Duration, seed: &mut Seed) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < span {
            let step = self.state.choose(seed);
            self.steps
                .push(format!("{:>7.3}s {step:?}", start.elapsed().as_secs_f64()));
            self.act(cluster, step)
                .with_context(|| format!("nemesis {step:?}"))?;
            let (shortest, longest) = STEP_MILLIS;
            wait::sleep(Duration::from_millis(
                shortest + seed.below(longest - shortest),
            ));
        }
        Ok(())
    }

    /// Opens every link, resumes and starts every node, and waits until all are ready.
    ///
    /// # Errors
    /// If a node does not become ready.
    pub fn heal(&mut self, cluster: &mut Cluster) -> Result<()> {
        self.act(cluster, Step::HealLinks)?;
        for index in 0..self.disks.len() {
            if self.state.full[index] {
                self.act(cluster, Step::MakeRoom(index))?;
            }
        }
        for index in 0..cluster.len() {
            match self.state.nodes[index] {
                NodeState::Up => {}
                NodeState::Down => self.act(cluster, Step::Start(index))?,
                NodeState::Paused => self.act(cluster, Step::Resume(index))?,
            }
        }
        cluster
            .iter_mut()
            .try_for_each(|node| node.wait_ready(SETTLE_LIMIT))
            .context("after healing")
    }

    fn act(&mut self, cluster: &mut Cluster, step: Step) -> Result<()> {
        match step {
            Step::Kill(index) => {
                cluster[index].kill()?;
                self.state.nodes[index] = NodeState::Down;
            }
            Step::Stop(index) => {
                cluster[index].stop()?;
                self.state.nodes[index] = NodeState::Down;
            }
            Step::Start(index) => {
                cluster[index].start()?;
                self.state.nodes[index] = NodeState::Up;
            }
            Step::Pause(index) => {
                cluster[index].pause()?;
                self.state.nodes[index] = NodeState::Paused;
            }
            Step::Resume(index) => {
                cluster[index].resume()?;
                self.state.nodes[index] = NodeState::Up;
            }
            Step::HealLinks => {
                self.state.links_faulty = false;
                self.heal_network();
            }
            Step::Link(..) | Step::Slow(_) | Step::CutPair(..) => {
                self.state.links_faulty = true;
                self.control_network(step)?;
            }
            Step::User(index, misuse) => {
                users::act(misuse, &cluster[index].http, &cluster[index].raft)
            }
            Step::Fill(index) => {
                self.disks[index].fill(LEFT_FREE_BYTES)?;
                self.state.full[index] = true;
            }
            Step::MakeRoom(index) => {
                self.disks[index].make_room()?;
                self.state.full[index] = false;
            }
            Step::Move(index) => relocate(cluster, index)?,
        }
        Ok(())
    }

    fn control_network(&self, step: Step) -> Result<()> {
        match (step, self.network) {
            (Step::Link(index, mode), NetworkControl::Links(links)) => links[index].set(mode),
            (Step::Slow(index), NetworkControl::Links(links)) => {
                links[index].slow(Duration::from_millis(40))
            }
            (Step::CutPair(from, to), NetworkControl::Network(network)) => network.cut(from, to)?,
            (other, _) => anyhow::bail!("{other:?} needs another kind of network"),
        }
        Ok(())
    }

    fn heal_network(&self) {
        match self.network {
            NetworkControl::Links(links) => links.iter().for_each(|link| {
                link.set(Mode::Open);
                link.slow(Duration::ZERO);
            }),
            NetworkControl::Network(network) => network.heal(),
            NetworkControl::None => {}
        }
    }
}

/// Kills a node and restarts it at another Raft address, from which it joins again through the others.
fn relocate(cluster: &mut Cluster, index: usize) -> Result<()> {
    let others: Vec<String> = cluster
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != index)
        .map(|(_, node)| node.advertised().to_owned())
        .collect();
    let node = &mut cluster[index];
    node.kill()?;
    node.raft = format!("127.0.0.1:{}", ports::reserve()?);
    node.args.retain(|arg| !arg.starts_with("-join="));
    node.args.push(format!("-join={}", others.join(",")));
    node.start()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Applies a step to the state as [`Nemesis::act`] does.
    fn apply(state: &mut State, step: Step) {
        match step {
            Step::Kill(index) | Step::Stop(index) => state.nodes[index] = NodeState::Down,
            Step::Pause(index) => state.nodes[index] = NodeState::Paused,
            Step::Start(index) | Step::Resume(index) => state.nodes[index] = NodeState::Up,
            Step::Link(..) | Step::Slow(_) | Step::CutPair(..) => state.links_faulty = true,
            Step::HealLinks => state.links_faulty = false,
            Step::Fill(index) => state.full[index] = true,
            Step::MakeRoom(index) => state.full[index] = false,
            Step::User(..) | Step::Move(_) => {}
        }
    }

    #[test]
    fn steps_are_possible_and_of_every_kind() {
        for pairs in [false, true] {
            let mut state = State {
                nodes: vec![NodeState::Up; 3],
                links_faulty: false,
                can_cut_pairs: pairs,
                can_interrupt: true,
                users: false,
                full: Vec::new(),
            };
            let mut seed = Seed::new(3);
            let (mut kinds, mut majority_up) = (BTreeSet::new(), 0);
            for _ in 0..2000 {
                let step = state.choose(&mut seed);
                match step {
                    Step::Kill(index) | Step::Stop(index) | Step::Pause(index) => {
                        assert_eq!(state.nodes[index], NodeState::Up, "{step:?}");
                    }
                    Step::Start(index) => assert_eq!(state.nodes[index], NodeState::Down),
                    Step::Resume(index) => assert_eq!(state.nodes[index], NodeState::Paused),
                    Step::CutPair(from, to) => assert!(pairs && from != to),
                    Step::Link(..) | Step::Slow(_) => assert!(!pairs),
                    Step::HealLinks => {}
                    other => panic!("{other:?} needs users or another kind of network"),
                }
                kinds.insert(format!("{step:?}").split('(').next().unwrap().to_owned());
                apply(&mut state, step);
                let up = state
                    .nodes
                    .iter()
                    .filter(|&&node| node == NodeState::Up)
                    .count();
                majority_up += usize::from(up >= 2);
            }
            assert_eq!(kinds.len(), if pairs { 7 } else { 8 }, "{kinds:?}");
            assert!((1200..2000).contains(&majority_up), "{majority_up}");
        }
    }

    #[test]
    fn users_do_everything_and_disks_are_filled_and_emptied() {
        let mut state = State {
            nodes: vec![NodeState::Up; 3],
            links_faulty: false,
            can_cut_pairs: false,
            can_interrupt: false,
            users: true,
            full: vec![false; 3],
        };
        let mut seed = Seed::new(5);
        let mut kinds = BTreeSet::new();
        for _ in 0..2000 {
            let step = state.choose(&mut seed);
            match step {
                Step::Fill(index) => assert!(!state.full[index]),
                Step::MakeRoom(index) => assert!(state.full[index]),
                Step::Move(index) => assert_eq!(state.nodes[index], NodeState::Up),
                Step::Link(..) | Step::Slow(_) | Step::CutPair(..) => panic!("{step:?}"),
                _ => {}
            }
            let name = match step {
                Step::User(_, misuse) => format!("{misuse:?}"),
                other => format!("{other:?}").split('(').next().unwrap().to_owned(),
            };
            kinds.insert(name);
            apply(&mut state, step);
        }
        assert_eq!(kinds.len(), 5 + ALL_MISUSES.len() + 3, "{kinds:?}");
    }

    #[test]
    fn equal_seeds_attack_equally() {
        let run = || {
            let mut state = State {
                nodes: vec![NodeState::Up; 3],
                links_faulty: false,
                can_cut_pairs: false,
                can_interrupt: false,
                users: true,
                full: vec![false; 3],
            };
            let mut seed = Seed::new(9);
            (0..50)
                .map(|_| {
                    let step = state.choose(&mut seed);
                    apply(&mut state, step);
                    step
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }
}
