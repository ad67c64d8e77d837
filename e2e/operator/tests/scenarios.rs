//! The operator on a real Kubernetes, scenario by scenario, each while a writer runs; the result is a table.
//!
//! Needs a cluster, the images of `e2e/images` on it, `KUBECONFIG` and `E2E_KUBERNETES=1`; without them it
//! prints that it was skipped. `SCENARIOS=1,4,13` selects scenarios, `SCENARIOS=all` runs all; the default is
//! a few that take a few minutes. `AT_ONCE=3` runs three scenarios in parallel, of those that do not affect
//! others (default 2). `E2E_SCOPED=1` restricts the operator to the scenarios' own namespaces.
//! `WRITE_RESULTS=1` writes the rows to `e2e/RESULTS.md`.
#[path = "scenarios/again.rs"]
mod again;
#[path = "scenarios/backups.rs"]
mod backups;
#[path = "scenarios/clones.rs"]
mod clones;
#[path = "scenarios/cluster.rs"]
mod cluster;
#[path = "scenarios/disruption.rs"]
mod disruption;
#[path = "scenarios/drills.rs"]
mod drills;
#[path = "scenarios/edits.rs"]
mod edits;
#[path = "scenarios/figures.rs"]
mod figures;
#[path = "scenarios/fixture.rs"]
mod fixture;
#[path = "scenarios/in_place.rs"]
mod in_place;
#[path = "scenarios/intruders.rs"]
mod intruders;
#[path = "scenarios/issuer.rs"]
mod issuer;
#[path = "scenarios/large.rs"]
mod large;
#[path = "scenarios/lifecycle.rs"]
mod lifecycle;
#[path = "scenarios/loss.rs"]
mod loss;
#[path = "scenarios/manual_recovery.rs"]
mod manual_recovery;
#[path = "scenarios/moved.rs"]
mod moved;
#[path = "scenarios/operator.rs"]
mod operator;
#[path = "scenarios/own.rs"]
mod own;
#[path = "scenarios/pods.rs"]
mod pods;
#[path = "scenarios/protection.rs"]
mod protection;
#[path = "scenarios/reaping.rs"]
mod reaping;
#[path = "scenarios/recovery.rs"]
mod recovery;
#[path = "scenarios/report.rs"]
mod report;
#[path = "scenarios/scaling.rs"]
mod scaling;
#[path = "scenarios/security.rs"]
mod security;
#[path = "scenarios/storage.rs"]
mod storage;
#[path = "scenarios/store.rs"]
mod store;
#[path = "scenarios/table.rs"]
mod table;
#[path = "scenarios/truthful.rs"]
mod truthful;
#[path = "scenarios/updates.rs"]
mod updates;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e_kubernetes::access::Access;
use fixture::Fixture;
use parking_lot::Mutex;
use report::{Row, ScenarioResult};
use table::{ALL, Execution, Scenario};

/// Default number of clusters at the same time, for two cores.
const AT_ONCE: usize = 2;
/// Additional namespaces: some scenarios need several clusters one after another.
const MORE_NAMESPACES: usize = 8;

fn chosen() -> Result<Vec<&'static Scenario>> {
    let wanted = std::env::var("SCENARIOS").unwrap_or_default();
    match wanted.as_str() {
        "" => Ok(ALL.iter().filter(|s| s.is_quick).collect()),
        "all" => Ok(ALL
            .iter()
            .filter(|s| !matches!(s.execution, Execution::OnDemand(_)))
            .collect()),
        list => list
            .split(',')
            .map(|number| {
                let known = ALL.iter().find(|s| s.number == number);
                known.with_context(|| format!("there is no scenario {number:?}"))
            })
            .collect(),
    }
}

/// Why a scenario failed, in one line. Tables of pods and the like come first in the error and are for the
/// terminal only.
fn reason(error: &anyhow::Error) -> String {
    eprintln!("{error:#}");
    let said = error.chain().map(ToString::to_string);
    let lines: Vec<_> = said.filter(|text| !text.contains('\n')).collect();
    lines.join(": ")
}

fn run(fixture: &Fixture, scenario: &Scenario) -> Row {
    let start = Instant::now();
    let result = match scenario.execution {
        Execution::Elsewhere(reference) => ScenarioResult::Elsewhere(reference),
        Execution::Parallel(work) | Execution::Exclusive(work) | Execution::OnDemand(work) => {
            // A panic counts as one failed row; the other scenarios still run.
            match catch_unwind(AssertUnwindSafe(|| work(fixture))) {
                Ok(Ok(outcome)) => ScenarioResult::Passed(outcome),
                Ok(Err(error)) => ScenarioResult::Failed(reason(&error)),
                Err(_) => ScenarioResult::Failed("panicked".to_owned()),
            }
        }
    };
    if let ScenarioResult::Failed(why) = &result {
        eprintln!("scenario {} ({}): {why}", scenario.number, scenario.name);
    }
    let row = Row {
        number: scenario.number,
        name: scenario.name,
        took: start.elapsed(),
        result,
    };
    println!("{}", row.line());
    // Written at once, so that an interrupted run keeps its results.
    if std::env::var_os("WRITE_RESULTS").is_some()
        && let Err(error) = report::write(&row, ALL.iter().map(|s| s.number))
    {
        eprintln!("the row is not written: {error:#}");
    }
    row
}

/// Runs scenarios that do not affect others, several in parallel.
fn parallel(fixture: &Fixture, scenarios: &[&Scenario]) -> Result<Vec<Row>> {
    let _turn = Access::shared()?;
    let at_once = std::env::var("AT_ONCE").ok();
    let at_once = at_once
        .map_or(Ok(AT_ONCE), |n| n.parse())
        .context("AT_ONCE")?;
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once.min(scenarios.len()) {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = run(fixture, scenario);
                    let mut rows = rows.lock();
                    rows.push(row);
                }
            });
        }
    });
    Ok(rows.into_inner())
}

/// Runs scenarios that kill operators, cut machines off or cordon them, one at a time.
fn exclusive(fixture: &Fixture, scenarios: &[&Scenario]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for scenario in scenarios {
        let _turn = Access::exclusive()?;
        rows.push(run(fixture, scenario));
        // Also after a failure, the next scenario needs a running operator.
        fixture.await_operator()?;
    }
    Ok(rows)
}

fn all(fixture: &Fixture, scenarios: &[&'static Scenario]) -> Result<Vec<Row>> {
    let of = |wanted: fn(&Execution) -> bool| {
        let some = scenarios.iter().copied().filter(|s| wanted(&s.execution));
        some.collect::<Vec<_>>()
    };
    let mut rows: Vec<Row> = of(|how| matches!(how, Execution::Elsewhere(_)))
        .into_iter()
        .map(|scenario| run(fixture, scenario))
        .collect();
    rows.extend(parallel(
        fixture,
        &of(|how| matches!(how, Execution::Parallel(_))),
    )?);
    rows.extend(exclusive(
        fixture,
        &of(|how| matches!(how, Execution::Exclusive(_) | Execution::OnDemand(_))),
    )?);
    rows.sort_by_key(|row| ALL.iter().position(|s| s.number == row.number));
    Ok(rows)
}

#[test]
fn scenarios() -> Result<()> {
    let chosen = chosen()?;
    let Some(fixture) = Fixture::new()? else {
        return Ok(());
    };
    let start = Instant::now();
    fixture.install(chosen.len() + MORE_NAMESPACES)?;
    fixture.await_operator()?;
    println!(
        "operator installed in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    let rows = all(&fixture, &chosen);
    fixture.clear()?;
    if std::env::var_os("E2E_KEEP").is_none() {
        fixture.uninstall()?;
    }
    let rows = rows?;
    println!("{}", report::table(&rows));
    println!("in {:.0} s", start.elapsed().as_secs_f64());
    let failed: Vec<_> = rows.iter().filter(|row| row.has_failed()).collect();
    if !failed.is_empty() {
        let numbers: Vec<_> = failed.iter().map(|row| row.number).collect();
        bail!(
            "{} of {} scenarios failed: {numbers:?}",
            failed.len(),
            rows.len()
        );
    }
    Ok(())
}

#[test]
fn numbers_are_unique_and_elsewhere_exists() -> Result<()> {
    for (reference, scenario) in ALL.iter().enumerate() {
        let again = ALL
            .iter()
            .skip(reference + 1)
            .any(|s| s.number == scenario.number);
        ensure!(!again, "two scenarios have the number {}", scenario.number);
        if let Execution::Elsewhere(reference) = scenario.execution {
            table::exists(reference)?;
        }
    }
    Ok(())
}

/// Factor by which a measured time may exceed its goal on a busy machine.
const ROOM: u32 = 2;

fn within(what: &str, took: Duration, goal: Duration) -> Result<()> {
    ensure!(
        took < goal * ROOM,
        "{what} took {took:?}, the goal is {goal:?}"
    );
    Ok(())
}
