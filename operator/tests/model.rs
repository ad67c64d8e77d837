//! Runs the real planner against a small model of Kubernetes and of Raft, under random faults, edits and
//! crashes of the operator between any two effects.
//!
//! `MODEL_RUNS=100000 cargo test -p rqlite-operator --release --test model` runs more seeds,
//! `MODEL_FIRST=5001` starts at another seed; a failure prints the command that repeats it.
#![expect(
    clippy::unwrap_used,
    reason = "a model that contradicts itself has failed"
)]
#[path = "model/actions.rs"]
mod actions;
#[path = "model/contradictions.rs"]
mod contradictions;
#[path = "model/deletion.rs"]
mod deletion;
#[path = "model/faults.rs"]
mod faults;
#[path = "model/kubernetes.rs"]
mod kubernetes;
#[path = "model/operator.rs"]
mod operator;
#[path = "model/others.rs"]
mod others;
#[path = "model/raft.rs"]
mod raft;
#[path = "model/recovery.rs"]
mod recovery;
#[path = "model/world.rs"]
mod world;

use rand::{Rng, SeedableRng, rngs::StdRng};
use world::World;

/// Number of runs in an ordinary test.
const RUNS: u64 = 300;
/// The test stops after this many failing runs.
const MOST_FAILURES: u64 = 10;
/// Simulated seconds with faults.
const STORM_SECONDS: u64 = 400;
/// Simulated seconds without faults within which the cluster must match its spec.
const CALM_SECONDS: u64 = 6000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64) -> Result<World, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(&mut rng);
    let stormy = rng.random_range(0..STORM_SECONDS);
    for _ in 0..stormy {
        faults::inject(&mut world, &mut rng);
        second(&mut world, &mut rng, true)?;
        if deletion::is_gone(&world)? {
            return Ok(world);
        }
    }
    faults::calm(&mut world);
    for _ in 0..CALM_SECONDS {
        second(&mut world, &mut rng, false)?;
        if world.now.is_multiple_of(30) {
            recovery::give_consent(&mut world);
            faults::update_again(&mut world);
        }
        let ends = deletion::is_gone(&world)?;
        if ends || world.is_settled() || world.is_dead() {
            return Ok(world);
        }
    }
    Err(format!("has not settled: {}", world.mismatches()))
}

fn second(world: &mut World, rng: &mut StdRng, storm: bool) -> Result<(), String> {
    world.now += 1;
    deletion::collect(world, rng);
    kubernetes::tick(world, rng);
    raft::tick(world, rng)?;
    operator::can_all_speak(world)?;
    operator::arrive(world, rng)?;
    operator::tick(world, rng, storm)
}

/// Totals over all runs.
#[derive(Default)]
struct Totals {
    runs: u64,
    operations: u64,
    transfers: u64,
    late: u64,
    unknown: u64,
    disks: u64,
    with_loss: u64,
    replaced: u64,
    recovered: u64,
    left: u64,
    dead: u64,
    deleted: u64,
}

impl Totals {
    fn add(&mut self, world: &World) {
        self.runs += 1;
        self.operations += world.begun.len() as u64;
        self.transfers += world.transfers;
        self.late += world.late;
        self.unknown += world.unknown;
        self.disks += world.lost_disks;
        self.with_loss += u64::from(world.lost_disks > 0);
        self.replaced += world.replaced;
        self.recovered += world.recovered;
        self.left += u64::from(world.lost_entries > 0);
        self.dead += u64::from(world.is_dead());
        self.deleted += world.deleted;
    }

    fn summary(&self) -> String {
        format!(
            "{} runs, {} of them with {} disks lost: {} operations, {} leader transfers, {} actions whose reply was lost, {} unknown members, {} lost claims \
             replaced, {} recoveries, {} runs in which recoveries lost entries, as announced, {} clusters without any disk left, {} deleted",
            self.runs,
            self.with_loss,
            self.disks,
            self.operations,
            self.transfers,
            self.late,
            self.unknown,
            self.replaced,
            self.recovered,
            self.left,
            self.dead,
            self.deleted
        )
    }
}

#[test]
fn nothing_is_lost_and_everything_ends_well() {
    let one = number("MODEL_SEED");
    let runs = one.map_or(number("MODEL_RUNS").unwrap_or(RUNS), |_| 1);
    let first = one.or(number("MODEL_FIRST")).unwrap_or(1);
    let mut sum = Totals::default();
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
    println!("{}", sum.summary());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    // A model in which nothing happens proves nothing.
    assert!(runs < 50 || sum.operations > runs * 3);
    let (calm, losing) = (sum.runs - sum.with_loss, sum.with_loss);
    assert!(runs < 200 || (calm > runs / 4 && losing > runs / 4 && sum.late > runs / 8));
    assert!(runs < 200 || sum.unknown > runs / 20);
    assert!(runs < 200 || sum.deleted > runs / 30);
    assert!(runs < 200 || (sum.recovered > runs / 20 && sum.replaced > runs / 40));
}
