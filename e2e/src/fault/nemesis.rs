//! What is done to the nodes: chosen by a seed from what is possible in the present state.
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::users::{self, DEEDS, Deed};
use crate::{
    cluster::{Cluster, SETTLE_LIMIT},
    link::{Link, Mode},
    netns::Network,
    ports,
    seed::Seed,
    small_disk::SmallDisk,
    wait,
};

/// Shortest and longest time between two steps in milliseconds.
const STEP_MILLIS: (u64, u64) = (150, 1_500);

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Up,
    /// It has been killed or stopped.
    Down,
    /// It is frozen.
    Paused,
}

/// One act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// kill -9.
    Kill(usize),
    /// SIGTERM.
    Stop(usize),
    /// Start again.
    Start(usize),
    /// SIGSTOP.
    Pause(usize),
    /// SIGCONT.
    Resume(usize),
    /// Change what the link in front of a node lets through.
    Link(usize, Mode),
    /// Let a node's link pass everything late.
    Slow(usize),
    /// Cut the way from one node to another (needs a [`Network`]).
    CutPair(usize, usize),
    /// All links open.
    HealLinks,
    /// A user does something careless at a node.
    User(usize, Deed),
    /// Fill a node's disk, so that almost nothing fits any more (needs disks).
    Fill(usize),
    /// Make room on a node's disk again.
    MakeRoom(usize),
    /// Kill a node and start it at another Raft address (needs [`Wires::None`]).
    Move(usize),
}

/// What can be cut.
#[derive(Clone, Copy, Debug)]
pub enum Wires<'a> {
    /// Proxies, one in front of each node.
    Links(&'a [Link]),
    /// Namespaces, one around each node.
    Network(&'a Network),
    /// Nothing.
    None,
}

/// Left free on a disk that is filled: less than a node wants to keep for itself.
const LEFT_FREE_BYTES: u64 = 64 << 10;

/// The present state, as the choice of a step sees it.
#[derive(Clone, Debug)]
pub struct State {
    /// Each node's condition.
    pub nodes: Vec<Condition>,
    /// Whether any link is cut, held or slow.
    pub links_faulty: bool,
    /// Whether pairs can be cut.
    pub pairs: bool,
    /// Whether there is anything between the nodes that can be cut.
    pub wired: bool,
    /// Whether users do careless things, too.
    pub users: bool,
    /// For each node whether its disk is full; empty without disks of their own.
    pub full: Vec<bool>,
}

impl State {
    /// The next step: mostly such that a majority keeps running, now and then not.
    #[must_use]
    pub fn choose(&self, seed: &mut Seed) -> Step {
        let count = self.nodes.len();
        if self.users && seed.below(3) == 0 {
            return self.choose_of_users(seed);
        }
        let broken: Vec<usize> = (0..count)
            .filter(|&index| self.nodes[index] != Condition::Up)
            .collect();
        let minority = count.saturating_sub(1) / 2;
        let may_break = broken.len() < minority || (broken.len() < count && seed.below(6) == 0);
        let repair = !may_break || (!broken.is_empty() && seed.below(2) == 0);
        if repair && let Some(&index) = broken.get(seed.index(broken.len())) {
            return if self.nodes[index] == Condition::Paused {
                Step::Resume(index)
            } else {
                Step::Start(index)
            };
        }
        if self.links_faulty && seed.below(2) == 0 {
            return Step::HealLinks;
        }
        let up: Vec<usize> = (0..count)
            .filter(|&index| self.nodes[index] == Condition::Up)
            .collect();
        let Some(&victim) = up.get(seed.index(up.len())) else {
            return Step::HealLinks;
        };
        match seed.below(8) {
            0 | 1 => Step::Kill(victim),
            2 => Step::Stop(victim),
            3 => Step::Pause(victim),
            4 | 5 if !self.wired => Step::Move(victim),
            _ if !self.wired => Step::Kill(victim),
            _ if self.pairs => Step::CutPair(victim, (victim + 1 + seed.index(count - 1)) % count),
            4 => Step::Link(victim, Mode::Cut),
            5 => Step::Link(victim, Mode::Blackhole),
            6 => Step::Link(
                victim,
                [Mode::HoldRequests, Mode::HoldAnswers][seed.index(2)],
            ),
            _ => Step::Slow(victim),
        }
    }

    /// Deeds of users and of what fills disks.
    fn choose_of_users(&self, seed: &mut Seed) -> Step {
        let victim = seed.index(self.nodes.len());
        let kinds = if self.full.is_empty() { 5 } else { 7 };
        match DEEDS.get(seed.index(kinds)) {
            Some(deed) => Step::User(victim, *deed),
            None if self.full[victim] => Step::MakeRoom(victim),
            None => Step::Fill(victim),
        }
    }
}

/// Carries out steps and remembers them.
#[derive(Debug)]
pub struct Nemesis<'a> {
    /// What was done, in words.
    pub steps: Vec<String>,
    wires: Wires<'a>,
    disks: &'a [SmallDisk],
    state: State,
}

impl<'a> Nemesis<'a> {
    /// Against `nodes` running nodes.
    #[must_use]
    pub fn new(nodes: usize, wires: Wires<'a>) -> Self {
        let pairs = matches!(wires, Wires::Network(_));
        Self {
            steps: Vec::new(),
            wires,
            disks: &[],
            state: State {
                nodes: vec![Condition::Up; nodes],
                links_faulty: false,
                pairs,
                wired: !matches!(wires, Wires::None),
                users: false,
                full: Vec::new(),
            },
        }
    }

    /// Careless users come along; `disks` (one for each node, or none) get full.
    #[must_use]
    pub fn with_users(mut self, disks: &'a [SmallDisk]) -> Self {
        self.disks = disks;
        self.state.users = true;
        self.state.full = vec![false; disks.len()];
        self
    }

    /// Steps for `span`.
    ///
    /// # Errors
    /// When a step cannot be carried out.
    pub fn attack(&mut self, cluster: &mut Cluster, span: Duration, seed: &mut Seed) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < span {
            let step = self.state.choose(seed);
            self.steps
                .push(format!("{:>7.3}s {step:?}", start.elapsed().as_secs_f64()));
            self.act(cluster, step)
                .with_context(|| format!("nemesis {step:?}"))?;
            let (shortest, longest) = STEP_MILLIS;
            wait::pace(Duration::from_millis(
                shortest + seed.below(longest - shortest),
            ));
        }
        Ok(())
    }

    /// Opens every link, resumes and starts every node, and waits until all are ready.
    ///
    /// # Errors
    /// When a node does not become ready.
    pub fn heal(&mut self, cluster: &mut Cluster) -> Result<()> {
        self.act(cluster, Step::HealLinks)?;
        for index in 0..self.disks.len() {
            if self.state.full[index] {
                self.act(cluster, Step::MakeRoom(index))?;
            }
        }
        for index in 0..cluster.len() {
            match self.state.nodes[index] {
                Condition::Up => {}
                Condition::Down => self.act(cluster, Step::Start(index))?,
                Condition::Paused => self.act(cluster, Step::Resume(index))?,
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
                self.state.nodes[index] = Condition::Down;
            }
            Step::Stop(index) => {
                cluster[index].stop()?;
                self.state.nodes[index] = Condition::Down;
            }
            Step::Start(index) => {
                cluster[index].start()?;
                self.state.nodes[index] = Condition::Up;
            }
            Step::Pause(index) => {
                cluster[index].pause()?;
                self.state.nodes[index] = Condition::Paused;
            }
            Step::Resume(index) => {
                cluster[index].resume()?;
                self.state.nodes[index] = Condition::Up;
            }
            Step::HealLinks => {
                self.state.links_faulty = false;
                self.heal_wires();
            }
            Step::Link(..) | Step::Slow(_) | Step::CutPair(..) => {
                self.state.links_faulty = true;
                self.act_on_wires(step)?;
            }
            Step::User(index, deed) => users::act(deed, &cluster[index].http, &cluster[index].raft),
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

    fn act_on_wires(&self, step: Step) -> Result<()> {
        match (step, self.wires) {
            (Step::Link(index, mode), Wires::Links(links)) => links[index].set(mode),
            (Step::Slow(index), Wires::Links(links)) => {
                links[index].slow(Duration::from_millis(40))
            }
            (Step::CutPair(from, to), Wires::Network(network)) => network.cut(from, to)?,
            (other, _) => anyhow::bail!("{other:?} does not fit these wires"),
        }
        Ok(())
    }

    fn heal_wires(&self) {
        match self.wires {
            Wires::Links(links) => links.iter().for_each(|link| {
                link.set(Mode::Open);
                link.slow(Duration::ZERO);
            }),
            Wires::Network(network) => network.heal(),
            Wires::None => {}
        }
    }
}

/// Kills a node and starts it at another Raft address, from which it asks the others to be joined again.
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

    /// Applies a step to the state as [`Nemesis::act`] would.
    fn apply(state: &mut State, step: Step) {
        match step {
            Step::Kill(index) | Step::Stop(index) => state.nodes[index] = Condition::Down,
            Step::Pause(index) => state.nodes[index] = Condition::Paused,
            Step::Start(index) | Step::Resume(index) => state.nodes[index] = Condition::Up,
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
                nodes: vec![Condition::Up; 3],
                links_faulty: false,
                pairs,
                wired: true,
                users: false,
                full: Vec::new(),
            };
            let mut seed = Seed::new(3);
            let (mut kinds, mut majority_up) = (BTreeSet::new(), 0);
            for _ in 0..2000 {
                let step = state.choose(&mut seed);
                match step {
                    Step::Kill(index) | Step::Stop(index) | Step::Pause(index) => {
                        assert_eq!(state.nodes[index], Condition::Up, "{step:?}");
                    }
                    Step::Start(index) => assert_eq!(state.nodes[index], Condition::Down),
                    Step::Resume(index) => assert_eq!(state.nodes[index], Condition::Paused),
                    Step::CutPair(from, to) => assert!(pairs && from != to),
                    Step::Link(..) | Step::Slow(_) => assert!(!pairs),
                    Step::HealLinks => {}
                    other => panic!("{other:?} needs users or other wires"),
                }
                kinds.insert(format!("{step:?}").split('(').next().unwrap().to_owned());
                apply(&mut state, step);
                let up = state
                    .nodes
                    .iter()
                    .filter(|&&node| node == Condition::Up)
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
            nodes: vec![Condition::Up; 3],
            links_faulty: false,
            pairs: false,
            wired: false,
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
                Step::Move(index) => assert_eq!(state.nodes[index], Condition::Up),
                Step::Link(..) | Step::Slow(_) | Step::CutPair(..) => panic!("{step:?}"),
                _ => {}
            }
            let name = match step {
                Step::User(_, deed) => format!("{deed:?}"),
                other => format!("{other:?}").split('(').next().unwrap().to_owned(),
            };
            kinds.insert(name);
            apply(&mut state, step);
        }
        assert_eq!(kinds.len(), 5 + DEEDS.len() + 3, "{kinds:?}");
    }

    #[test]
    fn equal_seeds_attack_equally() {
        let run = || {
            let mut state = State {
                nodes: vec![Condition::Up; 3],
                links_faulty: false,
                pairs: false,
                wired: false,
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
