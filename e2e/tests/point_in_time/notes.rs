//! Writers that keep notes of their own: what they sent, when, and the index that the node answered.
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use e2e::{
    client::{Client, WriteOutcome, classify},
    seed::Seed,
    wait,
};
use serde_json::json;

/// What the writers write to. `chance` has values that the cluster chooses.
pub(crate) const TABLES: [&str; 4] = [
    "CREATE TABLE numbered(id INTEGER PRIMARY KEY AUTOINCREMENT, writer INTEGER, number INTEGER, payload TEXT)",
    "CREATE TABLE worked(id INTEGER PRIMARY KEY, writer INTEGER, v INTEGER)",
    "CREATE TABLE chance(id INTEGER PRIMARY KEY AUTOINCREMENT, writer INTEGER, number INTEGER, r INTEGER, t TEXT)",
    "INSERT INTO worked(id, writer, v) VALUES(0, 0, 1), (1, 1, 1), (2, 2, 1), (3, 0, 1), (4, 1, 1)",
];
/// The writer of `chance`.
pub(crate) const CHANCE: u64 = 3;
const CLIENT_LIMIT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(12);

/// What a writer knows about one write.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) writer: u64,
    pub(crate) number: u64,
    /// The statements of one transaction.
    pub(crate) sql: Vec<String>,
    pub(crate) outcome: Outcome,
    /// Microseconds since 1970, before it was sent and after its answer.
    pub(crate) sent: i64,
    pub(crate) answered: i64,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is the entry of this index.
    At(u64),
    /// It was refused.
    Never,
    /// No answer, or one that says too little.
    Unknown,
}

/// Microseconds since 1970.
pub(crate) fn micros_now() -> i64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH);
    passed.map_or(0, |passed| {
        i64::try_from(passed.as_micros()).unwrap_or(i64::MAX)
    })
}

/// Writes rows with numbers from `first` on, through changing nodes, until stopped.
pub(crate) fn note_writes(
    addrs: &[String],
    writer: u64,
    first: u64,
    mut seed: Seed,
    stop: &AtomicBool,
) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut client: Option<Client> = None;
    let mut number = first;
    while !stop.load(Ordering::Acquire) {
        let asked = client.get_or_insert_with(|| {
            Client::new(&addrs[seed.index(addrs.len())]).timeout(CLIENT_LIMIT)
        });
        let sql = statements(writer, number, &mut seed);
        let sent = micros_now();
        let reply = asked.post(
            "/db/execute?transaction&raft_index",
            &json!(sql).to_string(),
        );
        let answered = micros_now();
        let index = reply
            .as_ref()
            .ok()
            .and_then(|reply| reply.json()["raft_index"].as_u64());
        let outcome = match (classify(&reply), index) {
            (WriteOutcome::Acknowledged(_), Some(index)) => Outcome::At(index),
            (WriteOutcome::Refused(_), _) => Outcome::Never,
            _ => Outcome::Unknown,
        };
        if !matches!(outcome, Outcome::At(_)) || number.is_multiple_of(20) {
            client = None;
        }
        notes.push(Note {
            writer,
            number,
            sql,
            outcome,
            sent,
            answered,
        });
        number += 1;
        wait::sleep(PAUSE);
    }
    notes
}

/// The result depends on the order of all writers' transactions.
fn statements(writer: u64, number: u64, seed: &mut Seed) -> Vec<String> {
    if writer == CHANCE {
        return vec![format!(
            "INSERT INTO chance(writer, number, r, t) VALUES({writer}, {number}, random(), datetime('now', 'subsec'))"
        )];
    }
    let payload = "p".repeat(seed.index(120));
    let mut sql = vec![format!(
        "INSERT INTO numbered(writer, number, payload) VALUES({writer}, {number}, '{payload}')"
    )];
    let row = seed.below(8);
    match seed.below(4) {
        0 => sql.push(format!(
            "UPDATE worked SET v = (v * 31 + {number}) % 1000003 WHERE id <= {row}"
        )),
        1 => sql.push(format!(
            "INSERT INTO worked(id, writer, v) SELECT {row}, {writer}, sum(v) % 1000003 FROM worked WHERE true \
             ON CONFLICT(id) DO UPDATE SET v = excluded.v + 1, writer = {writer}"
        )),
        2 => sql.push(format!("DELETE FROM worked WHERE id = {row}")),
        _ => {}
    }
    sql
}
