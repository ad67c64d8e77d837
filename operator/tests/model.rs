//! The real planner drives a small Kubernetes and a small Raft, under random faults, edits and crashes of the operator at every effect.
//!
//! `MODEL_RUNS=100000 cargo test -p rqlite-operator --release --test model` runs longer; a failing seed prints its own command.
//! `MODEL_DISKS=1` also loses disks and lets people ask for recoveries: not in the ordinary test, as some of those walks do not end well yet.
#![expect(
    clippy::unwrap_used,
    reason = "a model that contradicts itself has failed"
)]
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
    operator::tick(world, rng, storm)
}

#[test]
fn nothing_is_lost_and_everything_ends_well() {
    let first = number("MODEL_SEED");
    let runs = first.map_or(number("MODEL_RUNS").unwrap_or(RUNS), |_| 1);
    let first = first.unwrap_or(1);
    let (mut operations, mut transfers) = (0, 0);
    let (mut disks, mut replaced, mut recovered, mut left, mut dead) = (0, 0, 0, 0, 0);
    for seed in first..first + runs {
        match run(seed) {
            Ok(world) => {
                operations += world.begun.len();
                transfers += world.transfers;
                disks += world.lost_disks;
                replaced += world.replaced;
                recovered += world.recovered;
                left += u64::from(world.left_behind > 0);
                dead += u64::from(world.is_dead());
            }
            Err(error) => panic!(
                "seed {seed}: {error}\nagain: MODEL_SEED={seed} MODEL_TRACE=1 cargo test -p rqlite-operator --test model -- --nocapture"
            ),
        }
    }
    println!(
        "{runs} runs: {operations} operations, {transfers} leader transfers, {disks} disks lost, {replaced} lost claims replaced, \
         {recovered} recoveries, {left} runs in which a recovery left announced entries behind, {dead} clusters without any disk left"
    );
    // A model in which nothing happens proves nothing.
    assert!(first > 1 || runs < 50 || operations as u64 > runs * 3);
    assert!(first > 1 || runs < 200 || disks == 0 || (recovered > 5 && replaced > 5));
}
