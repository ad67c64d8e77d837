//! The clients of a fault test: numbered writers, and clients of compare-and-set registers.
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{
    client::{Client, Outcome},
    cluster::SETTLE_LIMIT,
    history::NumberedWrite,
    linearize::{Action, Operation},
    seed::Seed,
    wait,
};

/// A client gives up on a request after this and calls its outcome unknown.
const CLIENT_LIMIT: Duration = Duration::from_secs(3);
/// Writes through one node before the writer goes to another.
const STAY: u64 = 20;
/// Between two requests of a client: leaves the nodes some of the two cores.
const PACE: Duration = Duration::from_millis(3);
/// Registers in use at a time.
const REGISTERS: u64 = 3;
/// How long a set of registers is in use: keeps each history short enough to search.
const REGISTER_LIFE: Duration = Duration::from_millis(700);

/// What all clients of a run share.
#[derive(Debug)]
pub struct Shared {
    addrs: Vec<String>,
    start: Instant,
    stopping: AtomicBool,
    /// Every value written to a register is new, so that a read tells which write it saw.
    next_value: AtomicU64,
}

impl Shared {
    /// For clients of the nodes at `addrs`.
    #[must_use]
    pub fn new(addrs: Vec<String>) -> Self {
        Self {
            addrs,
            start: Instant::now(),
            stopping: AtomicBool::new(false),
            next_value: AtomicU64::new(1),
        }
    }

    /// Lets every client end after its present request.
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

/// What [`write_numbered`] writes to.
pub const NUMBERED_TABLE: &str =
    "CREATE TABLE numbered(writer INTEGER, number INTEGER, payload TEXT)";

/// Writes rows `(writer, 0)`, `(writer, 1)`, … through changing nodes until told to stop.
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
        let failed = !matches!(outcome, Outcome::Acknowledged(_));
        writes.push(NumberedWrite {
            writer,
            number,
            outcome,
        });
        number += 1;
        if failed || number.is_multiple_of(STAY) {
            client = shared.any_client(&mut seed);
        }
        wait::pace(PACE);
    }
    writes
}

/// One operation on a register.
#[derive(Clone, Debug)]
pub struct RegisterRecord {
    /// Which register.
    pub name: String,
    /// Which node was asked.
    pub addr: String,
    /// What and when.
    pub operation: Operation,
}

/// Reads, writes and compares-and-sets registers until told to stop.
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
        let told = match seed.below(3) {
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
        let returned = told.answered.then(|| shared.now());
        if let Some(action) = told.action {
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
        if !told.answered || count.is_multiple_of(STAY) {
            client = shared.any_client(&mut seed);
        }
        wait::pace(PACE);
    }
    records
}

/// Reads every register once more from the healed cluster, so that each history has an end to agree with.
///
/// # Errors
/// When a register cannot be read.
pub fn read_finally(
    shared: &Shared,
    registers: &mut BTreeMap<String, Vec<RegisterRecord>>,
) -> Result<()> {
    let addr = shared.addrs.first().context("no nodes")?;
    let mut client = Client::new(addr).timeout(CLIENT_LIMIT);
    for (name, records) in registers {
        let operation = wait::until("a last read of a register", SETTLE_LIMIT, || {
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

/// What a client may put into its history.
struct Told {
    /// `None` if the operation certainly had no effect and told nothing.
    action: Option<Action>,
    /// Whether its outcome is known.
    answered: bool,
}

fn read(client: &mut Client, name: &str) -> Told {
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
    Told {
        action: value.map(Action::Read),
        answered: value.is_some(),
    }
}

fn write(client: &mut Client, name: &str, value: u64) -> Told {
    let sql =
        "INSERT INTO register VALUES(?,?) ON CONFLICT(name) DO UPDATE SET value=excluded.value";
    match client.write(sql, &[json!(name), json!(value)]) {
        Outcome::Acknowledged(_) => Told {
            action: Some(Action::Write(value)),
            answered: true,
        },
        Outcome::Unknown(_) => Told {
            action: Some(Action::Write(value)),
            answered: false,
        },
        Outcome::Refused(_) => Told {
            action: None,
            answered: false,
        },
    }
}

fn swap(client: &mut Client, name: &str, from: u64, to: u64) -> Told {
    let action = |done| Some(Action::CompareAndSet { from, to, done });
    let parameters = [json!(to), json!(name), json!(from)];
    match client.write(
        "UPDATE register SET value=? WHERE name=? AND value=?",
        &parameters,
    ) {
        // A register without a row has no value that an UPDATE could match, not even 0.
        Outcome::Acknowledged(0) if from == 0 => Told {
            action: None,
            answered: true,
        },
        Outcome::Acknowledged(rows) => Told {
            action: action(Some(rows == 1)),
            answered: true,
        },
        Outcome::Unknown(_) if from == 0 => Told {
            action: None,
            answered: false,
        },
        Outcome::Unknown(_) => Told {
            action: action(None),
            answered: false,
        },
        Outcome::Refused(_) => Told {
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
        for told in [
            read(&mut client, "a"),
            write(&mut client, "a", 1),
            swap(&mut client, "a", 1, 2),
        ] {
            assert!(told.action.is_none() && !told.answered);
        }
    }
}
