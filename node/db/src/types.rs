//! Options, errors and results of the database handle.
use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use node_values::Statement;
use serde::{Deserialize, Serialize};

use crate::entry::{Kind, Position};

/// How to open a database.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory that holds `db.sqlite`, its `-wal`, the `state` sidecar and received files. Created if
    /// missing.
    pub dir: PathBuf,
    /// Enforce foreign keys on every connection (default off).
    pub foreign_keys: bool,
    /// Reads that may compute at the same time: this many short ones and this many long ones. Also the number
    /// of threads that are always there. At least 1.
    pub readers: usize,
    /// Upper limit of reader threads, each with its own connection. Long reads take turns on the processor,
    /// but each keeps its thread.
    pub max_readers: usize,
    /// Statements that run at least this long are logged. `None` logs none.
    pub slow_statement: Option<Duration>,
}

/// The origin of a read, shown to administrators and in the slow-statement log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address.
    pub client: Option<SocketAddr>,
    /// The client's user name.
    pub user: Option<String>,
    /// The node that forwarded the read.
    pub via: Option<String>,
}

/// A statement under way.
#[derive(Clone, Debug)]
pub struct RunningStatement {
    /// Names it; never used again. 0 for the write that is being applied, which cannot be ended.
    pub id: u64,
    /// Time since it began to run.
    pub age: Duration,
    /// The running statement, shortened.
    pub text: String,
    /// Who asked for it.
    pub origin: Origin,
    /// It is waiting: for its turn among other long reads, or for its client to take rows.
    pub waiting: bool,
    /// It is a write of the log that this node applies now.
    pub writes: bool,
}

/// When the database was last vacuumed and optimized: the time stamps of the requests that did it, in
/// microseconds since the Unix epoch. 0 means not since the database was opened; entries replayed from the
/// log count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// `VACUUM`.
    pub vacuumed_unix_micros: u64,
    /// `PRAGMA optimize`.
    pub optimized_unix_micros: u64,
}

/// The state of the database when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The position that the main file equals; `None` for a new database.
    pub position: Option<Position>,
    /// The caller's metadata at that position.
    pub meta: Bytes,
}

/// A failure of this machine (disk full, I/O error, corruption, out of memory), never of a statement. The
/// caller must stop serving: other nodes may have applied the same entry successfully.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file is damaged. The text says which file, and what to do.
    #[error("{0}")]
    Corrupt(String),
    /// A file system operation failed.
    #[error("{context}: {source}")]
    Io {
        /// The operation.
        context: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// SQLite reported an error.
    #[error("{0}")]
    Sqlite(String),
}

/// A read that runs on a reader thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Read {
    /// `Query` or `Unified`; `Unified` only if all statements are read-only.
    pub kind: Kind,
    /// Runs all statements in one read transaction.
    pub transaction: bool,
    /// See [`crate::Request::qualify_columns`].
    pub qualify_columns: bool,
    /// The statements, in order.
    pub statements: Vec<Statement>,
    /// Time limit for the whole read. A statement that exceeds it gets the error `query timeout`.
    pub timeout: Option<Duration>,
}

/// How long a checkpoint may delay reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Running reads get 20 ms to end, otherwise the checkpoint is skipped.
    Polite,
    /// The checkpoint has been postponed: running reads get half a second, during which new reads and writes
    /// wait. A snapshot that is being sent is moved to a copy.
    Overdue,
    /// The checkpoint has been postponed for long: running reads get a second and a half.
    Pressing,
    /// The limit of WAL and log is reached: reads that still run after one second are ended.
    Must,
}

/// The result of a checkpoint.
#[derive(Clone, Debug)]
pub enum Checkpoint {
    /// The main file now equals this position.
    Done(Position),
    /// Nothing was committed since the last checkpoint.
    Unchanged(Option<Position>),
    /// A pinned snapshot, a long read or an unfinished load prevents the checkpoint. Try again later.
    Busy(&'static str),
}

/// The format of a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum BackupFormat {
    /// A copy of the database file in WAL mode (header bytes 18 and 19 are 2).
    Binary,
    /// A copy in DELETE journal mode.
    Delete,
    /// The result of `VACUUM INTO`, in DELETE journal mode.
    Vacuumed,
    /// SQL text. If tables are named, only their definitions and rows, with their indexes and triggers, and
    /// all views.
    Sql {
        /// Empty means all tables.
        tables: Vec<String>,
    },
}
