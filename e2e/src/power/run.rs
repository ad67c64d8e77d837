//! One cluster on disks that lose power, from its first start on: it starts, loses power, recovers, is
//! verified, and continues.
use std::{
    fs::{self, File},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::{
    disk::{Disk, PowerSupply},
    work::{Chores, Ledger},
};
use crate::{cluster::check_no_panic, process::Node, seed::Seed, wait};

/// Power cuts of one run; the next run begins with empty disks.
pub const CUTS: usize = 12;
/// How long a cluster may take to recover from a cut: many times what it takes on a busy machine.
const BACK_LIMIT: Duration = Duration::from_secs(90);
/// Longest time from a start to a cut, in milliseconds, where the cut is to hit the start itself.
const START_SPAN: u64 = 450;
/// Longest time from the start of the clients to a cut, in milliseconds.
const WORK_SPAN: u64 = 350;
/// Lines of each node's log that a failure shows.
const LOG_LINES: usize = 12;

/// How the cluster gets its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formation {
    /// One node only.
    One,
    /// One node, which others join between cuts.
    Joined,
    /// Three nodes that form a cluster by `-bootstrap-expect`.
    Formed,
}

impl Formation {
    fn draw(seed: &mut Seed) -> Self {
        match seed.below(8) {
            0..=4 => Self::One,
            5 | 6 => Self::Joined,
            _ => Self::Formed,
        }
    }
}

#[derive(Debug)]
struct Member {
    // Declared first, so that it is killed before its disk is unmounted.
    node: Node,
    disk: Disk,
    /// Whether it has been observed to be a voter.
    settled: bool,
}

/// A cluster between its first start and its end.
#[derive(Debug)]
pub struct PowerRun {
    formation: Formation,
    seed: Seed,
    power: PowerSupply,
    members: Vec<Member>,
    ledger: Ledger,
    snap: u64,
    /// Whether the nodes have been given a `peers.json` that not all of them have processed yet.
    recovering: bool,
    /// What was done, as text.
    steps: Vec<String>,
    cuts: usize,
}

impl PowerRun {
    /// Prepares nodes with empty disks; starts nothing.
    ///
    /// # Errors
    /// If a disk cannot be mounted.
    pub fn new(seed: u64) -> Result<Self> {
        let mut seed = Seed::new(seed);
        let formation = Formation::draw(&mut seed);
        let mut run = Self {
            formation,
            snap: [4, 20, 100, 8192][seed.index(4)],
            seed,
            power: PowerSupply::default(),
            members: Vec::new(),
            ledger: Ledger::default(),
            recovering: false,
            steps: Vec::new(),
            cuts: 0,
        };
        for _ in 0..if formation == Formation::Formed { 3 } else { 1 } {
            run.add()?;
        }
        if formation == Formation::Formed {
            let all: Vec<String> = run.members.iter().map(|m| m.node.raft.clone()).collect();
            let join = format!("-join={}", all.join(","));
            for member in &mut run.members {
                member.node.args.push("-bootstrap-expect=3".to_owned());
                member.node.args.push(join.clone());
            }
        }
        Ok(run)
    }

    /// Number of power cuts so far.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.cuts
    }

    /// Number of acknowledged rows.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.ledger.acknowledged()
    }

    /// Runs the cluster through all its cuts.
    ///
    /// # Errors
    /// Describes the failure, with the steps and losses before it.
    pub fn run(&mut self) -> Result<()> {
        while self.cuts < CUTS {
            self.run_until_cut().with_context(|| self.report())?;
        }
        // The state after the last cut is verified, too.
        self.come_back().with_context(|| self.report())
    }

    fn add(&mut self) -> Result<()> {
        let disk = Disk::mount(&self.power, self.seed.fork())?;
        let mut node = Node::new(&(self.members.len() + 1).to_string())?;
        node.quiet = true;
        node.data = disk.path().join("data");
        node.args = [
            "-raft-heartbeat-timeout=300ms",
            "-raft-election-timeout=300ms",
            "-raft-snap-int=50ms",
            "-join-attempts=1000",
            "-join-interval=300ms",
        ]
        .map(str::to_owned)
        .to_vec();
        node.args.push(format!("-raft-snap={}", self.snap));
        self.members.push(Member {
            node,
            disk,
            settled: self.formation != Formation::Joined || self.members.is_empty(),
        });
        Ok(())
    }

    /// From one cut (or kill) to the next.
    fn run_until_cut(&mut self) -> Result<()> {
        let joins =
            self.formation == Formation::Joined && self.members.len() < 3 && !self.recovering;
        if joins && self.seed.below(3) == 0 {
            self.add()?;
            let through = format!("-join={}", self.members[0].node.raft);
            if let Some(newest) = self.members.last_mut() {
                newest.node.args.push(through);
            }
            self.steps
                .push(format!("node {} will join", self.members.len()));
        } else if self.cuts > 2 && self.seed.below(12) == 0 {
            self.ask_to_recover()?;
        }
        if self.seed.below(4) == 0 {
            // The cut hits the start at an arbitrary point.
            self.start()?;
            let span = Duration::from_millis(self.seed.below(START_SPAN));
            self.watch(span)?;
            return self.cut(&format!("{} ms after a start", span.as_millis()));
        }
        self.come_back()?;
        let addrs: Vec<String> = self.members.iter().map(|m| m.node.http.clone()).collect();
        let span = Duration::from_millis(self.seed.below(WORK_SPAN));
        let chores = Chores {
            alone: self.members.len() == 1,
        };
        let killed = self.seed.below(6) == 0;
        let (mut seed, power) = (self.seed.fork(), self.power.clone());
        let mut died = Ok(());
        let members = &mut self.members;
        self.ledger.work(&addrs, chores, &mut seed, || {
            died = watch(members, span);
            if !killed {
                power.cut();
            }
            for member in members {
                let _ = member.node.kill();
            }
        });
        died?;
        if killed {
            // The next start finds files that are present but not durable.
            self.steps
                .push(format!("killed {} ms into the work", span.as_millis()));
            return Ok(());
        }
        self.cut(&format!("{} ms into the work", span.as_millis()))
    }

    fn start(&mut self) -> Result<()> {
        if self.recovering {
            self.write_peers()?;
        }
        for member in &mut self.members {
            member.node.start()?;
        }
        Ok(())
    }

    /// Fails if a node ends by itself.
    fn watch(&mut self, span: Duration) -> Result<()> {
        watch(&mut self.members, span)
    }

    fn cut(&mut self, when: &str) -> Result<()> {
        self.power.cut();
        for member in &mut self.members {
            member.node.kill()?;
        }
        let mut lost = Vec::new();
        for member in &mut self.members {
            let losses = member.disk.remount_after_cut(&mut self.seed)?;
            lost.push(format!("[{}] {}", member.node.name, losses.join("; ")));
        }
        self.power.restore();
        self.cuts += 1;
        self.steps
            .push(format!("cut {when}: {}", lost.join("\n      ")));
        Ok(())
    }

    /// Starts all nodes and verifies that they become ready, hold every acknowledged row and are equal.
    fn come_back(&mut self) -> Result<()> {
        self.start()?;
        let deadline = Instant::now() + BACK_LIMIT;
        for at in 0..self.members.len() {
            self.await_ready(at, deadline)?;
        }
        if self.recovering {
            self.recovering = false;
            self.steps.push("recovered by peers.json".to_owned());
        }
        self.settle(deadline)?;
        let at = self.seed.index(self.members.len());
        let mut client = self.members[at].node.client();
        let left = deadline.saturating_duration_since(Instant::now());
        wait::until("the rows", left, || match self.ledger.check(&mut client) {
            Err(error) if !format!("{error:#}").contains("WRONG ROWS") => Err(format!("{error:#}")),
            verified => Ok(verified),
        })??;
        self.compare(deadline)?;
        for member in &self.members {
            check_no_panic(&member.node)?;
        }
        Ok(())
    }

    fn await_ready(&mut self, at: usize, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let members = &mut self.members;
        let mut client = members[at].node.client().timeout(Duration::from_secs(2));
        let what = format!("node {} to be ready", members[at].node.name);
        wait::until(&what, left, || {
            for member in members.iter_mut() {
                if !member.node.is_running() {
                    return Ok(Err(ended(member)));
                }
            }
            match client.get("/readyz") {
                Ok(reply) if reply.status == 200 => Ok(Ok(())),
                Ok(reply) => Err(format!("{} {}", reply.status, reply.text())),
                Err(error) => Err(error.to_string()),
            }
        })?
    }

    /// Waits until nodes that have joined are voters, then removes their `-join` flag.
    fn settle(&mut self, deadline: Instant) -> Result<()> {
        for at in 0..self.members.len() {
            if self.members[at].settled {
                continue;
            }
            let name = self.members[at].node.name.clone();
            let mut client = self.members[0].node.client();
            let left = deadline.saturating_duration_since(Instant::now());
            wait::until(&format!("node {name} to vote"), left, || {
                let nodes = client
                    .get_json("/nodes?nonvoters")
                    .map_err(|error| format!("{error:#}"))?;
                if nodes[&name]["voter"] == true {
                    Ok(())
                } else {
                    Err(nodes.to_string())
                }
            })?;
            self.members[at].node.args.pop();
            self.members[at].settled = true;
            self.steps.push(format!("node {name} votes"));
        }
        Ok(())
    }

    /// Compares the tables in row order, row ids included.
    fn compare(&mut self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut clients: Vec<_> = self.members.iter().map(|m| m.node.client()).collect();
        let sql = "SELECT group_concat(rowid || ':' || writer || ':' || number || ':' || length(payload)) FROM numbered";
        wait::until("equal copies", left, || {
            let mut views = Vec::new();
            for client in &mut clients {
                views.push(match client.rows("none", sql, &[]) {
                    Ok(rows) => format!("{rows:?}"),
                    Err(error) if format!("{error:#}").contains("no such table") => String::new(),
                    Err(error) => return Err(format!("{error:#}")),
                });
            }
            if views.windows(2).all(|pair| pair[0] == pair[1]) {
                return Ok(());
            }
            let lengths: Vec<usize> = views.iter().map(String::len).collect();
            Err(format!("copies of {lengths:?} characters differ"))
        })
    }

    /// From the next start on, the nodes are to recover by a `peers.json` that names them all.
    fn ask_to_recover(&mut self) -> Result<()> {
        let formed = |m: &Member| m.settled && m.node.data.join("raft/identity.json").exists();
        if self.recovering || self.acknowledged() == 0 || !self.members.iter().all(formed) {
            return Ok(());
        }
        for member in &self.members {
            let raft = member.node.data.join("raft");
            let _ = fs::remove_file(raft.join("peers.info"));
            File::open(&raft)?.sync_all()?;
        }
        self.recovering = true;
        self.steps.push("peers.json".to_owned());
        Ok(())
    }

    /// Writes `peers.json` again where a cut has removed it, as an administrator would. Does not sync it:
    /// that is the node's job.
    fn write_peers(&mut self) -> Result<()> {
        let list: Vec<_> = self
            .members
            .iter()
            .map(|m| json!({"id": m.node.name, "address": m.node.raft, "non_voter": false}))
            .collect();
        let content = json!(list).to_string();
        for member in &self.members {
            let raft = member.node.data.join("raft");
            let path = raft.join("peers.json");
            let there = fs::read_to_string(&path).is_ok_and(|text| text == content);
            if !there && !raft.join("peers.info").exists() {
                fs::write(&path, &content).context("write peers.json")?;
            }
        }
        Ok(())
    }

    /// Description of the run for a failure's message.
    fn report(&self) -> String {
        let logs: Vec<String> = self
            .members
            .iter()
            .map(|m| format!("log of node {}:\n{}", m.node.name, last_lines(&m.node)))
            .collect();
        format!(
            "{:?}, -raft-snap={}, {} rows acknowledged, {} cuts:\n  {}\n{}",
            self.formation,
            self.snap,
            self.acknowledged(),
            self.cuts,
            self.steps.join("\n  "),
            logs.join("\n")
        )
    }
}

fn last_lines(node: &Node) -> String {
    let log = node.log();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

fn ended(member: &Member) -> anyhow::Error {
    let log = member.node.log();
    let last = log.lines().last().unwrap_or_default();
    anyhow::anyhow!("NODE {} ENDED: {last}", member.node.name)
}

fn watch(members: &mut [Member], span: Duration) -> Result<()> {
    let end = Instant::now() + span;
    loop {
        for member in members.iter_mut() {
            if !member.node.is_running() {
                bail!(ended(member));
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        wait::sleep(left.min(Duration::from_millis(20)));
    }
}

/// Runs clusters with seeds from `next_seed` until `enough(cuts so far)` is true. Returns the numbers of cuts
/// and of acknowledged rows.
///
/// # Errors
/// After all runs have ended: every failure, each with the seed that repeats its run.
pub fn run_all(
    mut next_seed: impl FnMut() -> u64,
    mut enough: impl FnMut(usize) -> bool,
) -> Result<(usize, usize)> {
    let (mut cuts, mut rows, mut failures) = (0, 0, Vec::new());
    while !enough(cuts) {
        let seed = next_seed();
        let mut run = PowerRun::new(seed)?;
        let result = run.run();
        cuts += run.cuts();
        rows += run.acknowledged();
        if let Err(error) = result {
            let text = format!("POWER_SEED={seed}: {error:?}");
            println!("{text}\n");
            failures.push(text.lines().next().unwrap_or_default().to_owned());
        }
    }
    ensure!(
        failures.is_empty(),
        "{} failures in {cuts} cuts:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok((cuts, rows))
}
