//! Figures that users ask for first.
use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use e2e_kubernetes::namespace::LIMIT;
use serde_json::json;

use crate::{
    ROOM,
    cluster::spec,
    fixture::{Fixture, text},
    report::Measurements,
    within,
};

/// Limit from `kubectl apply` of the smallest sample to Ready, with images present.
const READY_GOAL: Duration = Duration::from_secs(30);
const READY_ROUNDS: usize = 3;
/// Limit of the 95th percentile of the time without writes when the leader's pod is deleted.
const GAP_GOAL: Duration = Duration::from_secs(2);
const GAP_ROUNDS: usize = 20;

pub(crate) fn smallest_sample(fixture: &Fixture) -> Result<Measurements> {
    let sample = e2e_operator::root().join("manifests/samples/smallest.yaml");
    let sample = fs::read_to_string(sample)?;
    let mut times = Vec::new();
    for _ in 0..READY_ROUNDS {
        fixture.bare("smallest", |cluster| {
            let start = Instant::now();
            cluster.namespace.apply(&sample)?;
            cluster.ready(LIMIT)?;
            times.push(start.elapsed());
            Ok(Measurements::default())
        })?;
    }
    let seconds: Vec<_> = times
        .iter()
        .map(|t| format!("{:.1}", t.as_secs_f64()))
        .collect();
    let slowest = times.into_iter().max().unwrap_or_default();
    within("the smallest sample", slowest, READY_GOAL)?;
    let note = format!(
        "Ready after {} s (goal: {} s)",
        seconds.join(", "),
        READY_GOAL.as_secs()
    );
    Ok(Measurements::default().with_note(note))
}

pub(crate) fn leader_deletions(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("rounds", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let mut gaps = Vec::new();
        for _ in 0..GAP_ROUNDS {
            let leader = cluster.leader()?;
            let uid = text(&cluster.core("pods", &leader)?["metadata"]["uid"]).to_owned();
            let seen = writer.during(|| cluster.delete_pods(&[&leader]))?;
            gaps.push(seen.longest_gap_ms);
            cluster.await_recreated(&leader, &uid, LIMIT)?;
            cluster.ready(LIMIT)?;
        }
        gaps.sort_unstable();
        let at = |percent: usize| gaps[(gaps.len() * percent).div_ceil(100) - 1];
        let (p50, p95) = (at(50), at(95));
        ensure!(
            u128::from(p95) < (GAP_GOAL * ROOM).as_millis(),
            "p95 is {p95} ms, the goal is {GAP_GOAL:?}: {gaps:?}"
        );
        let note = format!(
            "{GAP_ROUNDS} rounds: p50 {p50} ms, p95 {p95} ms (goal: {} ms), longest {} ms",
            GAP_GOAL.as_millis(),
            at(100)
        );
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}
