//! Writing: several threads each take the next number, write it until it is acknowledged, and continue.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use serde_json::Value;

use super::{TABLE, http::Server, record::Record};

/// Number of concurrent threads: one that waits for a dead pod must not hide that others can write.
const WRITERS: usize = 4;
/// Timeout of a write, after which it is repeated.
const WRITE_LIMIT: Duration = Duration::from_secs(2);
/// Pause of a thread between two writes: short enough to measure gaps of milliseconds, long enough to leave
/// the machine idle.
const PAUSE: Duration = Duration::from_millis(5);
/// Pause after a failure, so that a cluster without a leader is not flooded.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);
/// Number of error texts that are counted separately; further ones are counted together.
const MAX_FAILURE_KINDS: usize = 20;

/// Directory of a writer's files.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// An existing directory.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The acknowledged rows.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.0.join("acknowledged")
    }

    /// Exists if the writer is to stop.
    #[must_use]
    pub fn stop(&self) -> PathBuf {
        self.0.join("stop")
    }

    /// Exists once it has stopped: every number is acknowledged or abandoned.
    #[must_use]
    pub fn stopped(&self) -> PathBuf {
        self.0.join("stopped")
    }

    /// Failures by error text, as JSON.
    #[must_use]
    pub fn failures(&self) -> PathBuf {
        self.0.join("failures.json")
    }
}

/// Writes until the stop file exists.
///
/// # Errors
/// If its own files cannot be written; never because of the database.
pub fn write(server: &Server, folder: &Folder) -> Result<()> {
    let writer = Writer {
        server,
        folder,
        record: Record::open(&folder.record())?,
        next: AtomicU64::new(1),
        failures: Mutex::default(),
    };
    writer.make_table()?;
    println!("writing to {server:?}");
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..WRITERS)
            .map(|_| scope.spawn(|| writer.write_rows()))
            .collect();
        lanes.into_iter().try_for_each(|lane| match lane.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    writer.save_failures()?;
    fs::write(folder.stopped(), "").context("note that it has stopped")
}

struct Writer<'a> {
    server: &'a Server,
    folder: &'a Folder,
    record: Record,
    next: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Writer<'_> {
    fn is_stopped(&self) -> bool {
        self.folder.stop().exists()
    }

    fn make_table(&self) -> Result<()> {
        let sql = format!("CREATE TABLE IF NOT EXISTS {TABLE} (n INTEGER PRIMARY KEY) STRICT");
        let body = serde_json::json!([sql]).to_string();
        self.until_acknowledged(&body).map(drop)
    }

    fn write_rows(&self) -> Result<()> {
        while !self.is_stopped() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            // A failed write may have taken effect; writing the same number twice leaves one row.
            let sql = format!("INSERT OR IGNORE INTO {TABLE}(n) VALUES(?)");
            let body = serde_json::json!([[sql, number]]).to_string();
            if self.until_acknowledged(&body)? {
                self.record.add(number)?;
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// False if it was stopped before.
    fn until_acknowledged(&self, body: &str) -> Result<bool> {
        let start = Instant::now();
        let mut is_logged = false;
        loop {
            let Err(failure) = attempt(self.server, body) else {
                if is_logged {
                    println!("acknowledged after {:.1} s", start.elapsed().as_secs_f64());
                }
                return Ok(true);
            };
            let text = format!("{failure:#}");
            if !is_logged && start.elapsed() > WRITE_LIMIT {
                println!("not acknowledged yet: {text}");
                is_logged = true;
            }
            self.count(text)?;
            if self.is_stopped() {
                return Ok(false);
            }
            thread::sleep(PAUSE_AFTER_FAILURE);
        }
    }

    fn count(&self, text: String) -> Result<()> {
        {
            let mut failures = self.failures.lock();
            let is_full = failures.len() >= MAX_FAILURE_KINDS && !failures.contains_key(&text);
            let kind = if is_full { "other".to_owned() } else { text };
            *failures.entry(kind).or_default() += 1;
        }
        self.save_failures()
    }

    fn save_failures(&self) -> Result<()> {
        let failures = self.failures.lock();
        let text = serde_json::to_string(&*failures)?;
        // Renamed into place, so that a report never reads a partial file.
        let draft = self.folder.failures().with_extension("draft");
        fs::write(&draft, text).context("save the failures")?;
        fs::rename(draft, self.folder.failures()).context("save the failures")
    }
}

fn attempt(server: &Server, body: &str) -> Result<()> {
    let path = format!("/db/execute?timeout={}ms", WRITE_LIMIT.as_millis());
    is_acknowledged(&server.request(&path, Some(body), WRITE_LIMIT)?)
}

/// rqlite reports most failures with status 200: a response counts only if neither it nor a result in it has
/// an error.
fn is_acknowledged(response: &[u8]) -> Result<()> {
    let response: Value = serde_json::from_slice(response).context("read the response")?;
    let results = response["results"].as_array();
    let results = results.with_context(|| format!("no results: {response}"))?;
    let has_error = |value: &Value| value.get("error").is_some();
    ensure!(
        results.len() == 1 && !has_error(&response) && !has_error(&results[0]),
        "{response}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let acknowledged = [
            r#"{"results":[{}]}"#,
            r#"{"results":[{"last_insert_id":1,"rows_affected":1}]}"#,
        ];
        for response in acknowledged {
            is_acknowledged(response.as_bytes()).unwrap();
        }
        let failed = [
            r#"{"results":[]}"#,
            r#"{"results":[],"error":"not leader"}"#,
            r#"{"results":[{"error":"no such table: numbered"}]}"#,
            r#"{"results":[{}],"error":"leadership lost while committing log"}"#,
            "leader not found",
        ];
        for response in failed {
            assert!(is_acknowledged(response.as_bytes()).is_err(), "{response}");
        }
    }
}
