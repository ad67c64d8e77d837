//! Baselines without Raft or HTTP: synced appends per second, and rows inserted into SQLite per second.
use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rusqlite::{Connection, params};

/// Bytes of one append: about one small log entry.
const APPEND: usize = 256;
/// Rows in one transaction: a typical group of concurrent requests.
const BATCH: u64 = 64;

/// Appends of 256 bytes per second, each followed by `fdatasync`.
///
/// # Errors
/// If the file cannot be written.
pub fn synced_appends(dir: &Path, span: Duration) -> Result<f64> {
    let path = dir.join("appends");
    let mut file = File::create(&path).context("create the append file")?;
    let block = [b'x'; APPEND];
    let rate = repeat(span, || {
        file.write_all(&block)?;
        file.sync_data()?;
        Ok(1)
    });
    std::fs::remove_file(&path).context("remove the append file")?;
    rate
}

/// Rows per second inserted one per statement, 64 per transaction, in WAL mode with `synchronous=OFF`.
///
/// # Errors
/// If SQLite fails.
pub fn sqlite_inserts(dir: &Path, span: Duration) -> Result<f64> {
    let path = dir.join("raw.sqlite");
    let database = Connection::open(&path).context("open")?;
    database.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)",
    )?;
    let mut insert = database.prepare("INSERT INTO t(v) VALUES(?)")?;
    repeat(span, || {
        database.execute_batch("BEGIN")?;
        for number in 0..BATCH {
            insert.execute(params![format!("{number:026}")])?;
        }
        database.execute_batch("COMMIT")?;
        Ok(BATCH)
    })
}

/// Calls `step` for `span`; returns the sum of its results per second.
#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn repeat(span: Duration, mut step: impl FnMut() -> Result<u64>) -> Result<f64> {
    let start = Instant::now();
    let mut done = 0;
    while start.elapsed() < span {
        done += step()?;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_give_a_rate() {
        let dir = tempfile::tempdir().unwrap();
        assert!(synced_appends(dir.path(), Duration::from_millis(30)).unwrap() > 1.0);
        assert!(sqlite_inserts(dir.path(), Duration::from_millis(30)).unwrap() > 64.0);
    }
}
