//! One cluster on disks that lose their power, from its first start on: it lives, is cut, comes back, is judged, lives on.
use std::{
    fs::{self, File},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::{
    disk::{Disk, Mains},
    work::{Chores, Ledger},
};
use crate::{cluster::check_no_panic, process::Node, seed::Seed, wait};

/// Cuts that one cluster goes through; then another one begins with empty disks.
pub const CUTS: usize = 12;
/// How long a cluster may take to come back after a cut: many times what it takes on a busy machine.
const BACK_LIMIT: Duration = Duration::from_secs(90);
/// A cut comes at most so long after a start when it is to hit the start itself.
const START_SPAN: u64 = 450;
/// A cut comes at most so long after clients began to work.
const WORK_SPAN: u64 = 350;
/// Lines of a node's log that a failure shows.
const LOG_LINES: usize = 12;

/// How a cluster comes to its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One node.
    One,
    /// One node, which others join between cuts.
    Joined,
    /// Three nodes that find each other.
    Formed,
}

impl Kind {
    fn drawn(seed: &mut Seed) -> Self {
        match seed.below(8) {
            0..=4 => Self::One,
            5 | 6 => Self::Joined,
            _ => Self::Formed,
        }
    }
}

#[derive(Debug)]
struct Member {
    // Killed before its disk is unmounted.
    node: Node,
    disk: Disk,
    /// The leader has admitted it as a voter, and it was asked.
    settled: bool,
}

/// A cluster between its first start and its end.
#[derive(Debug)]
pub struct Lane {
    kind: Kind,
    seed: Seed,
    mains: Mains,
    members: Vec<Member>,
    ledger: Ledger,
    snap: u64,
    /// `peers.json` has been given to the nodes and not been followed by all of them yet.
    recovering: bool,
    /// What was done, in words.
    steps: Vec<String>,
    cuts: usize,
}

impl Lane {
    /// Empty disks; nothing runs.
    ///
    /// # Errors
    /// When a disk cannot be mounted.
    pub fn new(seed: u64) -> Result<Self> {
        let mut seed = Seed::new(seed);
        let kind = Kind::drawn(&mut seed);
        let mut lane = Self {
            kind,
            snap: [4, 20, 100, 8192][seed.index(4)],
            seed,
            mains: Mains::default(),
            members: Vec::new(),
            ledger: Ledger::default(),
            recovering: false,
            steps: Vec::new(),
            cuts: 0,
        };
        for _ in 0..if kind == Kind::Formed { 3 } else { 1 } {
            lane.add()?;
        }
        if kind == Kind::Formed {
            let all: Vec<String> = lane.members.iter().map(|m| m.node.raft.clone()).collect();
            let join = format!("-join={}", all.join(","));
            for member in &mut lane.members {
                member.node.args.push("-bootstrap-expect=3".to_owned());
                member.node.args.push(join.clone());
            }
        }
        Ok(lane)
    }

    /// How often its power was cut.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.cuts
    }

    /// Rows that were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.ledger.acknowledged()
    }

    /// All its cuts.
    ///
    /// # Errors
    /// What must not be, with what was done and lost before.
    pub fn run(&mut self) -> Result<()> {
        while self.cuts < CUTS {
            self.life().with_context(|| self.told())?;
        }
        // The last cut is judged too.
        self.come_back().with_context(|| self.told())
    }

    fn add(&mut self) -> Result<()> {
        let disk = Disk::mount(&self.mains, self.seed.fork())?;
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
            settled: self.kind != Kind::Joined || self.members.is_empty(),
        });
        Ok(())
    }

    /// From one cut to the next.
    fn life(&mut self) -> Result<()> {
        let joins = self.kind == Kind::Joined && self.members.len() < 3 && !self.recovering;
        if joins && self.seed.below(3) == 0 {
            self.add()?;
            let through = format!("-join={}", self.members[0].node.raft);
            if let Some(newest) = self.members.last_mut() {
                newest.node.args.push(through);
            }
            self.steps
                .push(format!("node {} comes to join", self.members.len()));
        } else if self.cuts > 2 && self.seed.below(12) == 0 {
            self.ask_to_recover()?;
        }
        if self.seed.below(4) == 0 {
            // In the middle of the start, whatever that is just doing.
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
        let (mut seed, mains) = (self.seed.fork(), self.mains.clone());
        let mut died = Ok(());
        let members = &mut self.members;
        self.ledger.work(&addrs, chores, &mut seed, || {
            died = watch(members, span);
            if !killed {
                mains.cut();
            }
            for member in members {
                let _ = member.node.kill();
            }
        });
        died?;
        if killed {
            // What the next start finds is there, but not durable.
            self.steps
                .push(format!("killed {} ms into the work", span.as_millis()));
            return Ok(());
        }
        self.cut(&format!("{} ms into the work", span.as_millis()))
    }

    fn start(&mut self) -> Result<()> {
        if self.recovering {
            self.place_peers()?;
        }
        for member in &mut self.members {
            member.node.start()?;
        }
        Ok(())
    }

    /// Nobody may end by itself.
    fn watch(&mut self, span: Duration) -> Result<()> {
        watch(&mut self.members, span)
    }

    fn cut(&mut self, when: &str) -> Result<()> {
        self.mains.cut();
        for member in &mut self.members {
            member.node.kill()?;
        }
        let mut lost = Vec::new();
        for member in &mut self.members {
            let words = member.disk.fall_back(&mut self.seed)?;
            lost.push(format!("[{}] {}", member.node.name, words.join("; ")));
        }
        self.mains.restore();
        self.cuts += 1;
        self.steps
            .push(format!("cut {when}: {}", lost.join("\n      ")));
        Ok(())
    }

    /// All start, all are ready, all that was acknowledged is there, all are equal.
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
            judged => Ok(judged),
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

    /// Who came to join votes, and needs the flag no more.
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

    /// Rows in the order of their places, so that equal sums mean equal tables.
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

    /// From the next start on the nodes are to follow a `peers.json` that names them all.
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

    /// As a person does who sees after a cut that the file is not there any more. Not synced: that is the node's to do.
    fn place_peers(&mut self) -> Result<()> {
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

    /// For a person: how it came to this.
    fn told(&self) -> String {
        let logs: Vec<String> = self
            .members
            .iter()
            .map(|m| format!("log of node {}:\n{}", m.node.name, last_lines(&m.node)))
            .collect();
        format!(
            "{:?}, -raft-snap={}, {} rows acknowledged, {} cuts:\n  {}\n{}",
            self.kind,
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
        wait::pace(left.min(Duration::from_millis(20)));
    }
}

/// Lanes for `seeds`, until `enough` says so with the cuts so far.
///
/// # Errors
/// Never before all have ended: every failure, each with the seed that repeats its lane.
pub fn run_all(
    mut next_seed: impl FnMut() -> u64,
    mut enough: impl FnMut(usize) -> bool,
) -> Result<(usize, usize)> {
    let (mut cuts, mut rows, mut failures) = (0, 0, Vec::new());
    while !enough(cuts) {
        let seed = next_seed();
        let mut lane = Lane::new(seed)?;
        let result = lane.run();
        cuts += lane.cuts();
        rows += lane.acknowledged();
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
