//! What clients do between two power cuts, what they were told, and whether the nodes agree with it afterwards.
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    client::{Client, Outcome, classify},
    fault::workload::NUMBERED_TABLE,
    history::{self, NumberedWrite},
    seed::Seed,
    wait,
};

/// Clients that write single rows.
const WRITERS: usize = 2;
/// A client gives up on a request after this.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);
/// Between two requests of a writer: leaves the nodes some of the processors.
const PACE: Duration = Duration::from_millis(1);
/// Between two of the larger things.
const CHORE_PACE: Duration = Duration::from_millis(25);

/// What all clients of one cluster have been told since its first start.
#[derive(Debug, Default)]
pub struct Ledger {
    writes: Mutex<Vec<NumberedWrite>>,
    /// Each client of each life has a number of its own.
    writers: AtomicU64,
    /// Held for writing while the whole database is replaced by a copy of itself.
    gate: RwLock<()>,
}

/// What is done besides writing rows.
#[derive(Clone, Copy, Debug)]
pub struct Chores {
    /// Load a file in place of the database, through `/boot` too: only one node takes that.
    pub alone: bool,
}

impl Ledger {
    fn writes(&self) -> MutexGuard<'_, Vec<NumberedWrite>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_writer(&self) -> u64 {
        self.writers.fetch_add(1, Ordering::Relaxed)
    }

    /// How many rows were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        history::tally(&self.writes()).acknowledged
    }

    /// Writes through the nodes at `addrs`, and does chores, for as long as `life` takes.
    pub fn work(&self, addrs: &[String], chores: Chores, seed: &mut Seed, life: impl FnOnce()) {
        let stopping = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..WRITERS {
                let seed = seed.fork();
                scope.spawn(|| self.write(addrs, seed, &stopping));
            }
            let seed = seed.fork();
            scope.spawn(|| self.do_chores(addrs, chores, seed, &stopping));
            life();
            stopping.store(true, Ordering::Release);
        });
    }

    fn write(&self, addrs: &[String], mut seed: Seed, stopping: &AtomicBool) {
        let writer = self.new_writer();
        let mut client = Client::new(&addrs[seed.index(addrs.len())]).timeout(CLIENT_LIMIT);
        let _ = client.write(&create_table(), &[]);
        for number in 0.. {
            if stopping.load(Ordering::Acquire) {
                return;
            }
            let size = [10, 10, 10, 200, 5000][seed.index(5)];
            let row = [json!(writer), json!(number), json!("x".repeat(size))];
            let _open = self.gate.read();
            let outcome = client.write("INSERT INTO numbered VALUES(?,?,?)", &row);
            self.note(writer, number..number + 1, &outcome);
            wait::pace(PACE);
        }
    }

    fn note(&self, writer: u64, numbers: std::ops::Range<u64>, outcome: &Outcome) {
        self.writes().extend(numbers.map(|number| NumberedWrite {
            writer,
            number,
            outcome: outcome.clone(),
        }));
    }

    fn do_chores(&self, addrs: &[String], chores: Chores, mut seed: Seed, stopping: &AtomicBool) {
        let mut client = Client::new(&addrs[seed.index(addrs.len())]).timeout(CLIENT_LIMIT);
        while !stopping.load(Ordering::Acquire) {
            match seed.below(10) {
                0..=3 => {
                    let trailing = [0, 1, 10, 1000][seed.index(4)];
                    let path = format!("/snapshot?trailing_logs={trailing}");
                    let _ = client.post(&path, "");
                }
                4 | 5 => self.load_rows(&mut client, &mut seed),
                6 => {
                    let _ = client.write("VACUUM", &[]);
                }
                7 => self.load_copy(&mut client, chores.alone && seed.below(2) == 0),
                _ => {}
            }
            wait::pace(CHORE_PACE);
        }
    }

    /// A script of rows in one transaction: all of them or none.
    fn load_rows(&self, client: &mut Client, seed: &mut Seed) {
        let writer = self.new_writer();
        let rows = 1 + seed.below(40);
        // Some scripts take several entries of the log.
        let size = [20, 20, 20, 60_000][seed.index(4)];
        let values: Vec<String> = (0..rows)
            .map(|number| format!("({writer},{number},'{}')", "y".repeat(size)))
            .collect();
        let script = format!(
            "{};\nBEGIN;\nINSERT INTO numbered VALUES{};\nCOMMIT;\n",
            create_table(),
            values.join(",")
        );
        let _open = self.gate.read();
        let reply = client.send(
            "POST",
            "/db/load",
            &[("Content-Type", "text/plain")],
            script.as_bytes(),
        );
        self.note(writer, 0..rows, &classify(&reply));
    }

    /// The database replaced by a copy of itself, while nobody else writes.
    fn load_copy(&self, client: &mut Client, boot: bool) {
        let _closed = self.gate.write();
        let Ok(copy) = client.get("/db/backup") else {
            return;
        };
        if copy.status == 200 && copy.body.starts_with(b"SQLite format 3\0") {
            let path = if boot { "/boot" } else { "/db/load" };
            let kind = [("Content-Type", "application/octet-stream")];
            let _ = client.send("POST", path, &kind, &copy.body);
        }
    }

    /// Every acknowledged row is there once, and nothing that nobody wrote.
    ///
    /// # Errors
    /// Tells what is not so, or that the node does not answer.
    pub fn check(&self, client: &mut Client) -> Result<()> {
        let acknowledged = self.acknowledged();
        let table = client.number(
            "linearizable",
            "SELECT count(*) FROM sqlite_schema WHERE name='numbered'",
        )?;
        let mut found = BTreeMap::new();
        if table > 0 {
            let sql = "SELECT writer, number, count(*) FROM numbered GROUP BY 1, 2";
            for row in client.rows("linearizable", sql, &[])? {
                let field = |at: usize| row.get(at).and_then(Value::as_u64).context("no number");
                found.insert((field(0)?, field(1)?), field(2)?);
            }
        }
        let wrong = history::contradictions(&self.writes(), &found);
        let shown = &wrong[..wrong.len().min(5)];
        ensure!(
            wrong.is_empty(),
            "WRONG ROWS: {} of {acknowledged} acknowledged, {} found, first: {shown:#?}",
            wrong.len(),
            found.len()
        );
        // What became of the unknown ones is known now, and must stay so.
        for write in self.writes().iter_mut() {
            if matches!(write.outcome, Outcome::Unknown(_)) {
                write.outcome = if found.contains_key(&(write.writer, write.number)) {
                    Outcome::Acknowledged(1)
                } else {
                    Outcome::Refused("it was not there after the cut".to_owned())
                };
            }
        }
        Ok(())
    }
}

fn create_table() -> String {
    NUMBERED_TABLE.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")
}
