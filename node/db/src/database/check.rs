//! Checks the open database for damage, beside everything else that the node does.
//!
//! The check reads in place. Checkpoints are postponed meanwhile, and one that must be made ends the check: a
//! check can be repeated, a full log stops writes.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode};

use crate::{
    database::inner::Inner,
    readers::{control::StopReason, gate::ReadPermit, pending::Cancellation},
    sqlite::{connection::open_plain, error::message, page_reads::PageReads},
};

/// How long the check computes before it rests.
const TURN: Duration = Duration::from_millis(20);
/// How long it rests, so that on one slow processor heartbeats and reads are not kept waiting.
const REST: Duration = Duration::from_millis(5);
/// Problems that are reported; the first ones are the most useful.
const MAX_PROBLEMS: usize = 5;

/// How far a check is.
#[derive(Debug, Default)]
pub struct CheckProgress {
    pages: AtomicU64,
    page_bytes: AtomicU64,
    pages_read: AtomicU64,
}

impl CheckProgress {
    /// Pages of the database; 0 until the check has begun.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages.load(Relaxed)
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_bytes(&self) -> u64 {
        self.page_bytes.load(Relaxed)
    }

    /// Pages that it has read. Each page of the database is read once or, if it belongs to a table, twice.
    #[must_use]
    pub fn pages_read(&self) -> u64 {
        self.pages_read.load(Relaxed)
    }
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckEnd {
    /// No problem was found.
    Sound,
    /// The problems that were found.
    Damaged(String),
    /// It was not finished within its time.
    TimedOut,
    /// Its caller ended it.
    Cancelled,
    /// It was ended for this reason. Nothing is known; it can be repeated.
    Interrupted(String),
}

/// See [`crate::Database::check`].
pub(crate) fn run(
    inner: &Inner,
    limit: Duration,
    watched: &Cancellation,
    progress: &Arc<CheckProgress>,
) -> CheckEnd {
    let permit = match inner.readers.acquire_yielding("(database check)", watched) {
        Ok(permit) => permit,
        Err(why) => return CheckEnd::Interrupted(why),
    };
    permit.limit(limit);
    let found = open_plain(&inner.files.main).and_then(|mut conn| {
        let number = |pragma| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let (pages, page_bytes) = (number("page_count")?, number("page_size")?);
        progress.pages.store(pages.unsigned_abs(), Relaxed);
        progress
            .page_bytes
            .store(page_bytes.unsigned_abs(), Relaxed);
        watch(&permit, &mut conn, progress)?;
        quick_check(&conn)
    });
    match found {
        Ok(rows) if rows == ["ok"] => CheckEnd::Sound,
        Ok(rows) => CheckEnd::Damaged(rows.join("; ")),
        Err(error) => of_error(&permit, &error),
    }
}

fn quick_check(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    conn.prepare(&format!("PRAGMA quick_check({MAX_PROBLEMS})"))?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Makes the check note its progress, rest, and end when it has to.
fn watch(
    permit: &ReadPermit,
    conn: &mut Connection,
    progress: &Arc<CheckProgress>,
) -> rusqlite::Result<()> {
    let reads = PageReads::of(conn);
    let progress = Arc::clone(progress);
    let mut began = Instant::now();
    permit.watch_and(conn, move || {
        progress.pages_read.store(reads.count(), Relaxed);
        if began.elapsed() >= TURN {
            std::thread::sleep(REST);
            began = Instant::now();
        }
    })
}

fn of_error(permit: &ReadPermit, error: &rusqlite::Error) -> CheckEnd {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => match permit.reason() {
            StopReason::Timeout => CheckEnd::TimedOut,
            StopReason::ClientGone => CheckEnd::Cancelled,
            StopReason::Writer => CheckEnd::Interrupted(
                "a checkpoint had to be made: too much was written".to_owned(),
            ),
            reason => CheckEnd::Interrupted(reason.text().replace("query", "check")),
        },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            CheckEnd::Damaged(message(error))
        }
        // Reading, memory, opening: this machine's fault, which says nothing of the content.
        _ => CheckEnd::Interrupted(message(error)),
    }
}
