//! The reference: a plain SQLite that executes what the writers noted, in the order of the log.
//!
//! A write whose answer was lost gets its place from the live rows: `id` counts insertions in the order of
//! the log. Near such a write, and near a load, the notes do not say on which side a point lies. Only there
//! the restored database is asked, and only which of the two.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use e2e::client::Client;
use rusqlite::Connection;
use serde_json::Value;

use super::notes::{CHANCE, Note, Outcome};

/// What a change does.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// Statements.
    Script(String),
    /// A database file takes the place of everything.
    Database(PathBuf),
}

/// A change at an index, or between two of which the notes do not know more.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    first: u64,
    last: u64,
    effect: Effect,
    /// Counts something that is there if the change is.
    probe: Option<String>,
    /// The row that it inserts.
    row: Option<(u64, u64)>,
}

impl Change {
    pub(crate) fn at(index: u64, effect: Effect) -> Self {
        Self {
            first: index,
            last: index,
            effect,
            probe: None,
            row: None,
        }
    }

    pub(crate) fn between(first: u64, last: u64, effect: Effect, probe: String) -> Self {
        Self {
            first,
            last,
            effect,
            probe: Some(probe),
            row: None,
        }
    }

    fn is_within(&self, index: u64, restored: &Connection) -> Result<bool> {
        match &self.probe {
            _ if index >= self.last => Ok(true),
            Some(probe) if index >= self.first => {
                Ok(restored.query_row(probe, [], |row| row.get::<_, i64>(0))? > 0)
            }
            _ => Ok(false),
        }
    }
}

/// Everything that happened, in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct History {
    changes: Vec<Change>,
    next_number: u64,
    acknowledged: usize,
    lost_answers: usize,
    refused: BTreeSet<(u64, u64)>,
}

impl History {
    pub(crate) fn note(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Numbers below it are taken.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number
    }

    pub(crate) fn summary(&self) -> String {
        format!(
            "{} changes: {} acknowledged writes, {} whose answer was lost and which are there, {} refused ones",
            self.changes.len(),
            self.acknowledged,
            self.lost_answers,
            self.refused.len()
        )
    }

    /// Indexes at which a load of a whole database certainly is in force.
    pub(crate) fn loads(&self) -> impl Iterator<Item = u64> {
        let loads = self.changes.iter();
        loads.filter_map(|change| {
            matches!(change.effect, Effect::Database(_)).then_some(change.last)
        })
    }

    /// Gives the writers' notes their places. `client` is asked for the live rows, once nobody writes.
    pub(crate) fn take(&mut self, notes: &[Note], client: &mut Client) -> Result<()> {
        let known: BTreeMap<(u64, u64), &Note> = notes
            .iter()
            .map(|note| ((note.writer, note.number), note))
            .collect();
        let first = self.next_number;
        let max = notes.iter().map(|note| note.number).max();
        self.next_number = max.map_or(first, |max| max + 1);
        for note in notes.iter().filter(|note| note.outcome == Outcome::Never) {
            self.refused.insert((note.writer, note.number));
        }
        for table in ["numbered", "chance"] {
            let sql = format!("SELECT * FROM {table} WHERE number >= {first} ORDER BY id");
            let rows = client.rows("strong", &sql, &[])?;
            let changes = in_order(table, &rows, &known)?;
            let acknowledged = notes.iter().filter(|note| {
                (note.writer == CHANCE) == (table == "chance")
                    && matches!(note.outcome, Outcome::At(_))
            });
            let acknowledged = acknowledged.count();
            let lost = changes
                .iter()
                .filter(|change| change.probe.is_some())
                .count();
            ensure!(
                changes.len() == acknowledged + lost,
                "{acknowledged} acknowledged writes to {table}, {lost} without an answer are there, but {} rows",
                changes.len()
            );
            self.acknowledged += acknowledged;
            self.lost_answers += lost;
            self.changes.extend(changes);
        }
        // Stable: rows of one entry stay in their order.
        self.changes.sort_by_key(|change| change.first);
        Ok(())
    }

    /// A database that has executed everything up to `index`.
    pub(crate) fn replay(
        &self,
        index: u64,
        restored: &Connection,
        scratch: &Path,
    ) -> Result<Connection> {
        let mut database = Connection::open_in_memory()?;
        database.execute_batch("BEGIN")?;
        for change in &self.changes {
            if !change.is_within(index, restored)? {
                continue;
            }
            match &change.effect {
                Effect::Script(sql) if sql == "VACUUM" => {}
                Effect::Script(sql) => {
                    let sql = sql.replace("BEGIN TRANSACTION;", "").replace("COMMIT;", "");
                    database.execute_batch(&sql).with_context(|| sql.clone())?;
                }
                Effect::Database(file) => {
                    let copy = scratch.join("reference.sqlite");
                    fs::copy(file, &copy)?;
                    database = Connection::open(&copy)?;
                    database.execute_batch("PRAGMA synchronous=OFF; BEGIN")?;
                }
            }
        }
        database.execute_batch("COMMIT")?;
        Ok(database)
    }

    /// Each acknowledged row is there if and only if its index is not after the point; no refused one is.
    pub(crate) fn check_notes(&self, index: u64, restored: &Connection) -> Result<()> {
        let mut since = 0;
        let mut kept: BTreeSet<(u64, u64)> = BTreeSet::new();
        for change in &self.changes {
            if let Effect::Database(file) = &change.effect
                && change.is_within(index, restored)?
            {
                since = change.last;
                kept = rows(&Connection::open(file)?)?;
            }
        }
        let found = rows(restored)?;
        for change in &self.changes {
            let (Some(row), None) = (change.row, &change.probe) else {
                continue;
            };
            let expected = if change.first <= since {
                kept.contains(&row)
            } else {
                change.first <= index
            };
            ensure!(
                found.contains(&row) == expected,
                "point {index}: the row {row:?} of entry {} is {}there",
                change.first,
                if expected { "not " } else { "" }
            );
        }
        let refused: Vec<_> = found.intersection(&self.refused).collect();
        ensure!(refused.is_empty(), "refused rows are there: {refused:?}");
        Ok(())
    }
}

fn rows(database: &Connection) -> Result<BTreeSet<(u64, u64)>> {
    let sql = "SELECT writer, number FROM numbered UNION ALL SELECT writer, number FROM chance";
    let Ok(mut statement) = database.prepare(sql) else {
        // A point before the tables.
        return Ok(BTreeSet::new());
    };
    let rows = statement.query_map([], |row| {
        Ok((
            u64::from(row.get::<_, u32>(0)?),
            u64::from(row.get::<_, u32>(1)?),
        ))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The changes that made these rows. Where a note has no index, it lies between its neighbours'.
fn in_order(
    table: &str,
    rows: &[Vec<Value>],
    known: &BTreeMap<(u64, u64), &Note>,
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut before = 0;
    for row in rows {
        let key = (
            row[1].as_u64().context("writer")?,
            row[2].as_u64().context("number")?,
        );
        let note = known
            .get(&key)
            .with_context(|| format!("{key:?} was never sent"))?;
        ensure!(note.outcome != Outcome::Never, "was refused: {note:?}");
        let effect = Effect::Script(if table == "chance" {
            format!(
                "INSERT INTO chance VALUES({}, {}, {}, {}, '{}')",
                row[0],
                row[1],
                row[2],
                row[3],
                row[4].as_str().context("t")?
            )
        } else {
            note.sql.join(";")
        });
        let mut change = Change::at(before, effect);
        change.row = Some(key);
        if let Outcome::At(index) = note.outcome {
            ensure!(index >= before, "inserted after entry {before}: {note:?}");
            before = index;
            (change.first, change.last) = (index, index);
        } else {
            let (writer, number) = key;
            change.last = u64::MAX;
            change.probe = Some(format!(
                "SELECT count(*) FROM {table} WHERE writer = {writer} AND number = {number}"
            ));
        }
        changes.push(change);
    }
    let mut after = u64::MAX;
    for change in changes.iter_mut().rev() {
        if change.probe.is_some() {
            change.last = after;
        } else {
            after = change.first;
        }
    }
    Ok(changes)
}
