//! The real planner drives a small Kubernetes and a small Raft, under random faults, edits and crashes of the operator at every effect.
//!
//! `MODEL_RUNS=100000 cargo test -p rqlite-operator --release --test model` runs longer, `MODEL_FIRST=5001` goes on from there; a failing seed
//! prints its own command.
#![expect(
    clippy::unwrap_used,
    reason = "a model that contradicts itself has failed"
)]
#[path = "model/actions.rs"]
mod actions;
#[path = "model/faults.rs"]
mod faults;
#[path = "model/kubernetes.rs"]
mod kubernetes;
#[path = "model/operator.rs"]
mod operator;
#[path = "model/raft.rs"]
mod raft;
#[path = "model/recovery.rs"]
mod recovery;
#[path = "model/world.rs"]
mod world;

use rand::{Rng, SeedableRng, rngs::StdRng};
use world::World;

/// Runs in an ordinary test.
const RUNS: u64 = 300;
/// After so many failing runs the others are left out.
const MOST_FAILURES: u64 = 10;
/// Simulated seconds with faults.
const STORM_SECONDS: u64 = 400;
/// Simulated seconds without faults after which everything must be as wanted.
const CALM_SECONDS: u64 = 6000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64) -> Result<World, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(&mut rng);
    let stormy = rng.random_range(0..STORM_SECONDS);
    for _ in 0..stormy {
        faults::strike(&mut world, &mut rng);
        second(&mut world, &mut rng, true)?;
    }
    faults::calm(&mut world);
    for _ in 0..CALM_SECONDS {
        second(&mut world, &mut rng, false)?;
        if world.now.is_multiple_of(30) {
            recovery::mend(&mut world);
        }
        if world.is_settled() || world.is_dead() {
            return Ok(world);
        }
    }
    Err(format!("has not settled: {}", world.unsettled()))
}

fn second(world: &mut World, rng: &mut StdRng, storm: bool) -> Result<(), String> {
    world.now += 1;
    kubernetes::tick(world, rng);
    raft::tick(world, rng)?;
    operator::arrive(world, rng)?;
    operator::tick(world, rng, storm)
}

/// What came of many runs.
#[derive(Default)]
struct Sum {
    runs: u64,
    operations: u64,
    transfers: u64,
    late: u64,
    disks: u64,
    with_loss: u64,
    replaced: u64,
    recovered: u64,
    left: u64,
    dead: u64,
}

impl Sum {
    fn add(&mut self, world: &World) {
        self.runs += 1;
        self.operations += world.begun.len() as u64;
        self.transfers += world.transfers;
        self.late += world.late;
        self.disks += world.lost_disks;
        self.with_loss += u64::from(world.lost_disks > 0);
        self.replaced += world.replaced;
        self.recovered += world.recovered;
        self.left += u64::from(world.left_behind > 0);
        self.dead += u64::from(world.is_dead());
    }

    fn told(&self) -> String {
        format!(
            "{} runs, {} of them with {} disks lost: {} operations, {} leader transfers, {} actions of which the reply was lost, {} lost claims \
             replaced, {} recoveries, {} runs in which one left announced entries behind, {} clusters without any disk left",
            self.runs,
            self.with_loss,
            self.disks,
            self.operations,
            self.transfers,
            self.late,
            self.replaced,
            self.recovered,
            self.left,
            self.dead
        )
    }
}

#[test]
fn nothing_is_lost_and_everything_ends_well() {
    let one = number("MODEL_SEED");
    let runs = one.map_or(number("MODEL_RUNS").unwrap_or(RUNS), |_| 1);
    let first = one.or(number("MODEL_FIRST")).unwrap_or(1);
    let mut sum = Sum::default();
    let mut failed = Vec::new();
    for seed in first..first + runs {
        match run(seed) {
            Ok(world) => sum.add(&world),
            Err(error) => failed.push(format!(
                "seed {seed}: {error}\nagain: MODEL_SEED={seed} MODEL_TRACE=1 cargo test -p rqlite-operator --test model -- --nocapture"
            )),
        }
        if failed.len() as u64 == MOST_FAILURES {
            break;
        }
    }
    println!("{}", sum.told());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    // A model in which nothing happens proves nothing.
    assert!(runs < 50 || sum.operations > runs * 3);
    let (calm, losing) = (sum.runs - sum.with_loss, sum.with_loss);
    assert!(runs < 200 || (calm > runs / 4 && losing > runs / 4 && sum.late > runs / 8));
    assert!(runs < 200 || (sum.recovered > runs / 20 && sum.replaced > runs / 40));
}
