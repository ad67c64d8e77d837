//! The clients of a fault test: writers of numbered rows, and clients of compare-and-set registers.
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{
    client::{Client, WriteOutcome},
    cluster::SETTLE_LIMIT,
    history::NumberedWrite,
    linearize::{Action, Operation},
    seed::Seed,
    wait,
};

/// Request timeout of a client; the outcome of a request that exceeds it is unknown.
const CLIENT_LIMIT: Duration = Duration::from_secs(3);
/// Writes through one node before the writer changes to another.
const STAY: u64 = 20;
/// Pause between two requests of a client, which leaves the nodes some processor time.
const PAUSE: Duration = Duration::from_millis(3);
/// Registers in use at the same time.
const REGISTERS: u64 = 3;
/// How long one set of registers is used. Short, so that each register's history can be searched.
const REGISTER_LIFE: Duration = Duration::from_millis(700);

/// State shared by all clients of a run.
#[derive(Debug)]
pub struct Shared {
    addrs: Vec<String>,
    start: Instant,
    stopping: AtomicBool,
    /// Every value written to a register is unique, so that a read identifies the write that it saw.
    next_value: AtomicU64,
}

impl Shared {
    /// State for clients of the nodes at `addrs`.
    #[must_use]
    pub fn new(addrs: Vec<String>) -> Self {
        Self {
            addrs,
            start: Instant::now(),
            stopping: AtomicBool::new(false),
            next_value: AtomicU64::new(1),
        }
    }

    /// Makes every client end after its current request.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn any_client(&self, seed: &mut Seed) -> Client {
        Client::new(&self.addrs[seed.index(self.addrs.len())]).timeout(CLIENT_LIMIT)
    }
}

/// The table of [`write_numbered`].
pub const NUMBERED_TABLE: &str =
    "CREATE TABLE numbered(writer INTEGER, number INTEGER, payload TEXT)";

/// Writes rows `(writer, 0)`, `(writer, 1)`, … through changing nodes until [`Shared::stop`].
#[must_use]
pub fn write_numbered(shared: &Shared, writer: u64, mut seed: Seed) -> Vec<NumberedWrite> {
    let mut writes = Vec::new();
    let mut client = shared.any_client(&mut seed);
    let mut number = 0;
    while !shared.is_stopping() {
        let parameters = [
            json!(writer),
            json!(number),
            json!(format!("row {number} of writer {writer}")),
        ];
        let outcome = client.write("INSERT INTO numbered VALUES(?,?,?)", &parameters);
        let failed = !matches!(outcome, WriteOutcome::Acknowledged(_));
        writes.push(NumberedWrite {
            writer,
            number,
            outcome,
        });
        number += 1;
        if failed || number.is_multiple_of(STAY) {
            client = shared.any_client(&mut seed);
        }
        wait::sleep(PAUSE);
    }
    writes
}

/// One recorded operation on a register.
#[derive(Clone, Debug)]
pub struct RegisterRecord {
    /// Which register.
    pub name: String,
    /// Which node was asked.
    pub addr: String,
    /// The operation with its times.
    pub operation: Operation,
}

/// Reads, writes and compares-and-sets registers until [`Shared::stop`].
#[must_use]
pub fn use_registers(shared: &Shared, mut seed: Seed) -> Vec<RegisterRecord> {
    let mut records = Vec::new();
    let mut client = shared.any_client(&mut seed);
    let mut last_seen = 0;
    let mut count: u64 = 0;
    while !shared.is_stopping() {
        let age = shared.start.elapsed().as_millis() / REGISTER_LIFE.as_millis();
        let name = format!("{age}-{}", seed.below(REGISTERS));
        let called = shared.now();
        let observed = match seed.below(3) {
            0 => read(&mut client, &name),
            1 => write(
                &mut client,
                &name,
                shared.next_value.fetch_add(1, Ordering::Relaxed),
            ),
            _ => swap(
                &mut client,
                &name,
                last_seen,
                shared.next_value.fetch_add(1, Ordering::Relaxed),
            ),
        };
        let returned = observed.answered.then(|| shared.now());
        if let Some(action) = observed.action {
            if let Action::Read(value) | Action::Write(value) = action {
                last_seen = value;
            }
            let operation = Operation {
                called,
                returned,
                action,
            };
            records.push(RegisterRecord {
                name,
                addr: client.addr().to_owned(),
                operation,
            });
        }
        count += 1;
        if !observed.answered || count.is_multiple_of(STAY) {
            client = shared.any_client(&mut seed);
        }
        wait::sleep(PAUSE);
    }
    records
}

/// Reads every register once more from the healed cluster, so that each history ends with an answered read.
///
/// # Errors
/// If a register cannot be read.
pub fn read_finally(
    shared: &Shared,
    registers: &mut BTreeMap<String, Vec<RegisterRecord>>,
) -> Result<()> {
    let addr = shared.addrs.first().context("no nodes")?;
    let mut client = Client::new(addr).timeout(CLIENT_LIMIT);
    for (name, records) in registers {
        let operation = wait::until("the final read of a register", SETTLE_LIMIT, || {
            let called = shared.now();
            let action = read(&mut client, name)
                .action
                .ok_or_else(|| "no answer".to_owned())?;
            Ok(Operation {
                called,
                returned: Some(shared.now()),
                action,
            })
        })?;
        records.push(RegisterRecord {
            name: name.clone(),
            addr: addr.clone(),
            operation,
        });
    }
    Ok(())
}

/// What a reply contributes to the history.
struct Observation {
    /// `None` if the operation certainly had no effect and returned nothing.
    action: Option<Action>,
    /// Whether the outcome is known.
    answered: bool,
}

fn read(client: &mut Client, name: &str) -> Observation {
    let rows = client.rows(
        "linearizable",
        "SELECT value FROM register WHERE name=?",
        &[json!(name)],
    );
    let value = rows.ok().map(|rows| {
        rows.first()
            .and_then(|row| row.first()?.as_u64())
            .unwrap_or(0)
    });
    Observation {
        action: value.map(Action::Read),
        answered: value.is_some(),
    }
}

fn write(client: &mut Client, name: &str, value: u64) -> Observation {
    let sql =
        "INSERT INTO register VALUES(?,?) ON CONFLICT(name) DO UPDATE SET value=excluded.value";
    match client.write(sql, &[json!(name), json!(value)]) {
        WriteOutcome::Acknowledged(_) => Observation {
            action: Some(Action::Write(value)),
            answered: true,
        },
        WriteOutcome::Unknown(_) => Observation {
            action: Some(Action::Write(value)),
            answered: false,
        },
        WriteOutcome::Refused(_) => Observation {
            action: None,
            answered: false,
        },
    }
}

fn swap(client: &mut Client, name: &str, from: u64, to: u64) -> Observation {
    let action = |done| Some(Action::CompareAndSet { from, to, done });
    let parameters = [json!(to), json!(name), json!(from)];
    match client.write(
        "UPDATE register SET value=? WHERE name=? AND value=?",
        &parameters,
    ) {
        // A register without a row has no value that the UPDATE could match, not even 0.
        WriteOutcome::Acknowledged(0) if from == 0 => Observation {
            action: None,
            answered: true,
        },
        WriteOutcome::Acknowledged(rows) => Observation {
            action: action(Some(rows == 1)),
            answered: true,
        },
        WriteOutcome::Unknown(_) if from == 0 => Observation {
            action: None,
            answered: false,
        },
        WriteOutcome::Unknown(_) => Observation {
            action: action(None),
            answered: false,
        },
        WriteOutcome::Refused(_) => Observation {
            action: None,
            answered: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_connections_leave_no_trace_in_the_history() {
        let addr = format!("127.0.0.1:{}", crate::ports::reserve().unwrap());
        let mut client = Client::new(&addr);
        for observed in [
            read(&mut client, "a"),
            write(&mut client, "a", 1),
            swap(&mut client, "a", 1, 2),
        ] {
            assert!(observed.action.is_none() && !observed.answered);
        }
    }
}
