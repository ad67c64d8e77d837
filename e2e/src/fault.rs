//! Fault-injection tests: clients write while nodes are killed, stopped, paused and partitioned; then the
//! results are verified.
//!
//! A seed determines all choices. The outcome also depends on the machine's timing, so a seed repeats the
//! attack but not the exact run.
use std::{
    collections::BTreeMap,
    env, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cluster::{Cluster, SETTLE_LIMIT},
    history::{self, NumberedWrite},
    linearize::{self, Action, Operation, Verdict},
    seed::Seed,
    wait,
};

pub mod nemesis;
pub mod users;
pub mod workload;

use nemesis::Nemesis;
use workload::{RegisterRecord, Shared};

/// Maximum steps of the linearizability search for one register; beyond it the register counts as undecided.
const SEARCH_LIMIT: u64 = 500_000;
/// Number of clients that use registers.
const REGISTER_CLIENTS: u64 = 4;

/// Duration and seed of an attack.
#[derive(Clone, Copy, Debug)]
pub struct AttackPlan {
    /// How long faults are injected.
    pub span: Duration,
    /// Determines the faults and the clients' requests.
    pub seed: u64,
}

impl AttackPlan {
    /// Reads `FAULT_SECONDS` (default 20) and `FAULT_SEED` (default: random) and prints the command that
    /// repeats the run.
    ///
    /// # Errors
    /// If a variable is not a number.
    pub fn from_env(test: &str) -> Result<Self> {
        let number = |name: &str| {
            env::var(name)
                .ok()
                .map(|text| {
                    text.parse::<u64>()
                        .with_context(|| format!("{name}={text}"))
                })
                .transpose()
        };
        let seconds = number("FAULT_SECONDS")?.unwrap_or(20);
        let seed = number("FAULT_SEED")?.unwrap_or_else(Seed::arbitrary);
        println!(
            "repeat with: FAULT_SECONDS={seconds} FAULT_SEED={seed} cargo test -p e2e --test cluster_fault {test}"
        );
        Ok(Self {
            span: Duration::from_secs(seconds),
            seed,
        })
    }
}

/// Everything that happened during an attack.
#[derive(Debug)]
pub struct AttackRecord {
    /// Every numbered write.
    pub writes: Vec<NumberedWrite>,
    /// Every operation on registers, by register name.
    pub registers: BTreeMap<String, Vec<RegisterRecord>>,
    /// The faults that were injected, as text.
    pub steps: Vec<String>,
}

/// Attacks the cluster while writers (one for each node) and register clients work, then heals all faults and
/// restarts stopped nodes.
///
/// # Errors
/// If a fault cannot be injected or the cluster does not recover.
pub fn attack(
    cluster: &mut Cluster,
    nemesis: &mut Nemesis<'_>,
    plan: &AttackPlan,
) -> Result<AttackRecord> {
    let mut seed = Seed::new(plan.seed);
    let leader = cluster.leader()?;
    let mut setup = cluster.client(leader);
    setup.execute(workload::NUMBERED_TABLE, &[])?;
    setup.execute(users::TABLE, &[])?;
    setup.execute(
        "CREATE TABLE register(name TEXT PRIMARY KEY, value INTEGER)",
        &[],
    )?;
    let addrs: Vec<String> = cluster.iter().map(|node| node.http.clone()).collect();
    let shared = &Shared::new(addrs);
    let start = Instant::now();
    let (mut writes, mut records) = (Vec::new(), Vec::new());
    let attacked = thread::scope(|scope| {
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| (writer, seed.fork()))
            .map(|(writer, seed)| {
                scope.spawn(move || workload::write_numbered(shared, writer, seed))
            })
            .collect();
        let clients: Vec<_> = (0..REGISTER_CLIENTS)
            .map(|_| seed.fork())
            .map(|seed| scope.spawn(move || workload::use_registers(shared, seed)))
            .collect();
        let attacked = nemesis.attack(cluster, plan.span, &mut seed);
        // The clients go on for a moment on the healed cluster.
        let back = nemesis.heal(cluster).and_then(|()| await_write(cluster));
        shared.stop();
        for writer in writers {
            writes.extend(
                writer
                    .join()
                    .map_err(|_| anyhow::anyhow!("a writer panicked"))?,
            );
        }
        for client in clients {
            records.extend(
                client
                    .join()
                    .map_err(|_| anyhow::anyhow!("a register client panicked"))?,
            );
        }
        attacked.and(back)
    });
    let steps = nemesis.steps.clone();
    print_summary(&steps, start.elapsed(), &writes);
    attacked?;
    let mut registers: BTreeMap<String, Vec<RegisterRecord>> = BTreeMap::new();
    for record in records {
        registers
            .entry(record.name.clone())
            .or_default()
            .push(record);
    }
    workload::read_finally(shared, &mut registers)?;
    Ok(AttackRecord {
        writes,
        registers,
        steps,
    })
}

fn print_summary(steps: &[String], took: Duration, writes: &[NumberedWrite]) {
    println!(
        "{}\nattack took {:.1}s, {:?}",
        steps.join("\n"),
        took.as_secs_f64(),
        history::tally(writes)
    );
    for (count, reason) in history::reasons(writes).into_iter().take(12) {
        println!("{count:>6} {reason}");
    }
}

/// Waits until every node accepts a write, as leader or by forwarding.
fn await_write(cluster: &mut Cluster) -> Result<()> {
    for node in cluster.iter() {
        let mut client = node.client().timeout(Duration::from_secs(2));
        wait::until(
            &format!("a write through node {} after healing", node.name),
            SETTLE_LIMIT,
            || {
                client
                    .execute("UPDATE numbered SET payload=payload WHERE 0", &[])
                    .map_err(|error| format!("{error:#}"))
            },
        )
        .with_context(|| format!("log of node {}:\n{}", node.name, node.log_tail()))?;
    }
    Ok(())
}

/// Verifies the recorded writes and register operations against the cluster.
///
/// # Errors
/// Describes what does not hold.
pub fn verify(cluster: &mut Cluster, record: &AttackRecord) -> Result<()> {
    verify_writes(cluster, &record.writes)?;
    verify_registers(&record.registers)
}

/// Verifies that all running nodes are equal and sound and that every acknowledged numbered write is present
/// exactly once.
///
/// # Errors
/// Describes what does not hold.
pub fn verify_writes(cluster: &mut Cluster, writes: &[NumberedWrite]) -> Result<()> {
    let text = cluster.agreed_dump()?;
    ensure!(text.contains("CREATE TABLE"), "an empty database: {text}");
    cluster.check_integrity()?;
    let leader = cluster.leader()?;
    let rows = cluster.client(leader).rows(
        "linearizable",
        "SELECT writer, number, count(*) FROM numbered GROUP BY 1, 2",
        &[],
    )?;
    let found = rows
        .iter()
        .map(|row| {
            let field = |index: usize| {
                row.get(index)
                    .and_then(serde_json::Value::as_u64)
                    .context("no number")
            };
            Ok(((field(0)?, field(1)?), field(2)?))
        })
        .collect::<Result<BTreeMap<_, _>>>()?;
    let wrong = history::contradictions(writes, &found);
    ensure!(
        wrong.is_empty(),
        "{} contradictions, first: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(10)]
    );
    cluster.check_no_panic()
}

fn verify_registers(registers: &BTreeMap<String, Vec<RegisterRecord>>) -> Result<()> {
    let start = Instant::now();
    let mut undecided = 0;
    let mut operations = 0;
    for (name, records) in registers {
        let history: Vec<Operation> = records.iter().map(|record| record.operation).collect();
        operations += history.len();
        match linearize::check(&history, SEARCH_LIMIT) {
            Verdict::Linearizable => {}
            Verdict::Impossible => {
                anyhow::bail!("register {name} is not linearizable:\n{}", show(records))
            }
            Verdict::Undecided => undecided += 1,
        }
    }
    println!(
        "{operations} operations on {} registers; {undecided} undecided; searched {:.1}s",
        registers.len(),
        start.elapsed().as_secs_f64()
    );
    ensure!(
        undecided * 20 <= registers.len(),
        "{undecided} of {} registers undecided",
        registers.len()
    );
    Ok(())
}

fn show(records: &[RegisterRecord]) -> String {
    let mut records: Vec<&RegisterRecord> = records.iter().collect();
    records.sort_by_key(|record| record.operation.called);
    let lines = records.iter().map(|record| {
        let Operation {
            called,
            returned,
            action,
        } = record.operation;
        let action = match action {
            Action::CompareAndSet { from, to, done } => format!("{from} -> {to}: {done:?}"),
            other => format!("{other:?}"),
        };
        let millis = |nanos: u64| format!("{}.{:06}", nanos / 1_000_000, nanos % 1_000_000);
        let end = returned.map_or_else(|| "…".to_owned(), millis);
        format!(
            "{:>12} to {end:>12} at {} {action}",
            millis(called),
            record.addr
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}
