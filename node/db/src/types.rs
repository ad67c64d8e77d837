//! Options, errors and results of the database handle.
use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use node_values::Statement;
use serde::{Deserialize, Serialize};

use crate::entry::{Kind, Position};

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory that holds `db.sqlite`, its `-wal`, the `state` sidecar and received files. Created if missing.
    pub dir: PathBuf,
    /// Enforce foreign keys on every connection (default off).
    pub foreign_keys: bool,
    /// Reads that compute at a time, short ones and long ones each; as many threads wait for them. At least 1.
    pub readers: usize,
    /// Most threads for reads, each with its own connection: long reads take turns, and each keeps its thread.
    pub max_readers: usize,
    /// Statements that take at least so long are logged.
    pub slow_statement: Option<Duration>,
}

/// Whom a read is for, to show an administrator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Where the client is connected from.
    pub client: Option<SocketAddr>,
    /// The client's user name.
    pub user: Option<String>,
    /// The node that sent the read on.
    pub via: Option<String>,
}

/// A read under way.
#[derive(Clone, Debug)]
pub struct RunningRead {
    /// Names it; never used again.
    pub id: u64,
    /// Since it began to run.
    pub age: Duration,
    /// The statement that runs, shortened.
    pub text: String,
    /// Whom it is for.
    pub origin: Origin,
    /// It waits: for its turn among other long reads, or for its client to take rows.
    pub waiting: bool,
}

/// When the database was last rewritten and looked over, by the stamps of the requests that did it, in microseconds since the Unix epoch;
/// 0: not since it was opened. What is replayed from the log counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// `VACUUM`.
    pub vacuumed_unix_micros: u64,
    /// `PRAGMA optimize`.
    pub optimized_unix_micros: u64,
}

/// Where the database stood when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The position that the main file equals; `None` for a new database.
    pub position: Option<Position>,
    /// The caller's metadata at that position.
    pub meta: Bytes,
}

/// A fault of this machine (disk full, I/O error, corruption, out of memory), never of a statement. The caller must stop
/// serving: other nodes may have succeeded where this one failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file is damaged; says which and what to do.
    #[error("{0}")]
    Corrupt(String),
    /// The disk refused.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("{0}")]
    Sqlite(String),
}

/// A read that runs on a reader thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Read {
    /// `Query` or `Unified` (the latter only with statements that all are read-only).
    pub kind: Kind,
    /// One read transaction around all statements.
    pub transaction: bool,
    /// See [`Request::qualify_columns`].
    pub qualify_columns: bool,
    /// In order.
    pub statements: Vec<Statement>,
    /// Per-request limit; a statement over it gives `query timeout` in its slot.
    pub timeout: Option<Duration>,
}

/// How much a checkpoint may ask of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Reads get 20 ms to end.
    Polite,
    /// It has been put off: reads get half a second, during which new ones and writes wait; a snapshot that is being sent is copied aside.
    Overdue,
    /// It has been put off for long: a second and a half.
    Pressing,
    /// The bound of WAL and log is reached: reads that have run for a second end.
    Must,
}

/// What a checkpoint did.
#[derive(Clone, Debug)]
pub enum Checkpoint {
    /// The main file now equals this position.
    Done(Position),
    /// Nothing new since the last one.
    Unchanged(Option<Position>),
    /// A pinned snapshot, a long read or an unfinished load is in the way; try again later.
    Busy(&'static str),
}

/// Shape of a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum BackupFormat {
    /// Copy of the database in WAL mode (header bytes 18 and 19 are 2).
    Binary,
    /// Copy in DELETE mode.
    Delete,
    /// `VACUUM INTO`, DELETE mode.
    Vacuumed,
    /// SQL text; with tables named, only those tables' definitions and rows (all indexes, triggers, views still come).
    Sql {
        /// Empty means all.
        tables: Vec<String>,
    },
}
