//! The clients' work between two power cuts, their record of it, and the verification afterwards.
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use parking_lot::{Mutex, MutexGuard, RwLock};
use serde_json::{Value, json};

use crate::{
    client::{Client, WriteOutcome, classify},
    fault::workload::NUMBERED_TABLE,
    history::{self, NumberedWrite},
    seed::Seed,
    wait,
};

/// Clients that write single rows.
const WRITERS: usize = 2;
/// Request timeout of a client.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two requests of a writer, which leaves the nodes some processor time.
const PAUSE: Duration = Duration::from_millis(1);
/// Pause between two of the larger operations.
const CHORE_PAUSE: Duration = Duration::from_millis(25);

/// The outcomes of all writes of one cluster since its first start.
#[derive(Debug, Default)]
pub struct Ledger {
    writes: Mutex<Vec<NumberedWrite>>,
    /// Number of writers so far: every client in every period between cuts has its own number.
    writers: AtomicU64,
    /// Held for writing while the database is replaced by a copy of itself.
    gate: RwLock<()>,
}

/// What is done besides writing rows.
#[derive(Clone, Copy, Debug)]
pub struct Chores {
    /// Whether to load database files, through `/boot` too: only a single node accepts that.
    pub alone: bool,
}

impl Ledger {
    fn writes(&self) -> MutexGuard<'_, Vec<NumberedWrite>> {
        self.writes.lock()
    }

    fn new_writer(&self) -> u64 {
        self.writers.fetch_add(1, Ordering::Relaxed)
    }

    /// Number of acknowledged rows.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        history::tally(&self.writes()).acknowledged
    }

    /// Writes through the nodes at `addrs`, with chores, for as long as `during` runs.
    pub fn work(&self, addrs: &[String], chores: Chores, seed: &mut Seed, during: impl FnOnce()) {
        let stopping = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..WRITERS {
                let seed = seed.fork();
                scope.spawn(|| self.write(addrs, seed, &stopping));
            }
            let seed = seed.fork();
            scope.spawn(|| self.do_chores(addrs, chores, seed, &stopping));
            during();
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
            wait::sleep(PAUSE);
        }
    }

    fn note(&self, writer: u64, numbers: std::ops::Range<u64>, outcome: &WriteOutcome) {
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
            wait::sleep(CHORE_PAUSE);
        }
    }

    /// Loads a script of rows in one transaction: all of them or none.
    fn load_rows(&self, client: &mut Client, seed: &mut Seed) {
        let writer = self.new_writer();
        let rows = 1 + seed.below(40);
        // The largest script needs several log entries.
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

    /// Replaces the database by a copy of itself, while all other writes are held off.
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

    /// Verifies that every acknowledged row is present exactly once and that no row exists that was not sent.
    ///
    /// # Errors
    /// Describes what does not hold, or that the node does not answer.
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
        // The state of writes with unknown outcome is known now, and must not change again.
        for write in self.writes().iter_mut() {
            if matches!(write.outcome, WriteOutcome::Unknown(_)) {
                write.outcome = if found.contains_key(&(write.writer, write.number)) {
                    WriteOutcome::Acknowledged(1)
                } else {
                    WriteOutcome::Refused("it was not there after the cut".to_owned())
                };
            }
        }
        Ok(())
    }
}

fn create_table() -> String {
    NUMBERED_TABLE.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")
}
