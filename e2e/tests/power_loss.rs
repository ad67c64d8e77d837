//! Hundreds of power cuts, on all nodes at the same instant, on disks that lose whatever was not synced. Cuts
//! also hit starts, joins, loads, checkpoints, recoveries and what follows them. Every node must come back
//! with every acknowledged row.
//!
//! `POWER_CUTS` sets the number of cuts (default: as many as fit into 70 s), `POWER_SEED` the first seed; a
//! failure names its own seed.
use std::{
    env,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    power::{
        disk,
        run::{self, CUTS},
    },
    seed::Seed,
};

/// Without `POWER_CUTS`, no new cluster starts after this time.
const SPAN: Duration = Duration::from_secs(70);
/// Number of clusters under test at the same time.
const PARALLEL_RUNS: usize = 2;

fn number(name: &str) -> Result<Option<u64>> {
    env::var(name)
        .ok()
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().with_context(|| format!("{name}={text}")))
        .transpose()
}

#[test]
fn every_cut_leaves_what_was_acknowledged() -> Result<()> {
    if let Some(reason) = disk::unavailable()? {
        println!("skipped: {reason}");
        return Ok(());
    }
    let wanted = number("POWER_CUTS")?;
    let first = number("POWER_SEED")?.unwrap_or_else(Seed::arbitrary);
    println!(
        "repeat with: POWER_SEED={first} POWER_CUTS={} cargo test -p e2e --test power_loss",
        wanted.unwrap_or(300)
    );
    let (next, cuts, rows) = (
        AtomicU64::new(first),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let start = Instant::now();
    let enough = |own: usize, seen: &mut usize| {
        let all = cuts.fetch_add(own - *seen, Ordering::Relaxed) + own - *seen;
        *seen = own;
        match wanted {
            Some(wanted) => all as u64 >= wanted,
            None => start.elapsed() > SPAN,
        }
    };
    // A single cluster makes a seed repeatable.
    let parallel = match wanted {
        Some(wanted) if wanted <= CUTS as u64 => 1,
        _ => PARALLEL_RUNS,
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..parallel)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = 0;
                    let seed = || next.fetch_add(1, Ordering::Relaxed);
                    let result = run::run_all(seed, |own| enough(own, &mut seen));
                    result.map(|(_, acknowledged)| rows.fetch_add(acknowledged, Ordering::Relaxed))
                })
            })
            .collect();
        let ended = threads.into_iter().map(|thread| match thread.join() {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some("a run panicked".to_owned()),
        });
        ended.flatten().collect()
    });
    println!(
        "{} cuts, {} rows acknowledged, {:.0} s",
        cuts.load(Ordering::Relaxed),
        rows.load(Ordering::Relaxed),
        start.elapsed().as_secs_f64()
    );
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    ensure!(cuts.load(Ordering::Relaxed) >= CUTS, "too few cuts");
    Ok(())
}
