//! SQLite as a deterministic, crash-safe state machine. Knows nothing of Raft, HTTP or the network.
//!
//! One writer thread applies runs of log entries, one transaction a run; readers run on their own threads and
//! connections. The main database file changes only in a checkpoint, which also writes the small `state` sidecar that says
//! which log position the file equals; so the file is at once the restart point and the snapshot.
//!
//! DESIGN.md beside this file argues the choices.
mod content_hash;
mod database;
mod dump;
mod files;
mod readers;
mod recovery;
mod sql;
mod sqlite;
mod writer;

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use node_values::{Statement, StatementResult};
use serde::{Deserialize, Serialize};

pub use content_hash::{ContentHash, Hashing, hash_file};
pub use database::Database;
pub use files::{durable, main_file::PinGuard};
pub use readers::{
    Asked, Reading, Waiter, Watched,
    parts::{Answer, Part, Parts},
};
pub use recovery::offline;
pub use sql::classify::disallowed_pragma;

/// Stack of a thread that runs SQL: SQLite's parser recurses, up to its limit of expression depth.
const STACK_BYTES: usize = 4 << 20;

/// Version of the bundled SQLite.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

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
pub struct Running {
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
pub struct Upkeep {
    /// `VACUUM`.
    pub vacuumed_unix_micros: u64,
    /// `PRAGMA optimize`.
    pub optimized_unix_micros: u64,
}

/// A place in the caller's log. Ordered by term, then index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Term under which the entry was proposed.
    pub term: u64,
    /// Index of the entry.
    pub index: u64,
}

/// What makes non-deterministic SQL deterministic: carried in the log with each request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// What `now`, CURRENT_TIMESTAMP and the like see: microseconds since the Unix epoch.
    pub unix_micros: i64,
    /// Seed of `random()` and `randomblob()` for this request.
    pub seed: u64,
}

/// Which of rqlite's three sets of rules a request follows. Append only: part of the log's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Execute: rows only where a statement has a RETURNING clause, otherwise counters.
    Execute,
    /// Query through the log: writes are refused with `attempt to change database via query operation`.
    Query,
    /// Unified: read-only statements and EXPLAIN return rows, others as for execute.
    Unified,
    /// Execute, of a client that turned off rqlite's parsing of SQL: counters only, even with a RETURNING clause.
    ExecutePlain,
    /// Unified, of such a client: rows only from statements that read; RETURNING and EXPLAIN of a write return counters.
    UnifiedPlain,
}

/// What a statement may do and answer, by the kind of log entry that carries it. Entries of an older kind keep the rules of the
/// nodes that wrote them: a log is replayed, and nodes of two versions work side by side while a cluster is rolled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rules {
    /// Of the first format; no bounds.
    #[default]
    V1,
    /// Of the second format.
    V2(Bounds),
}

impl Rules {
    /// At least the second format's.
    pub fn is_v2(self) -> bool {
        matches!(self, Self::V2(_))
    }

    /// How far a request may go.
    #[must_use]
    pub fn bounds(self) -> Bounds {
        match self {
            Self::V1 => Bounds::NONE,
            Self::V2(bounds) => bounds,
        }
    }
}

/// How far a request may go. Carried in the log, so that all nodes give up a statement alike: whether a bound is passed must
/// depend on nothing but the log. See DESIGN.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Instructions of SQLite's virtual machine for all statements of the request.
    pub vm_steps: u64,
    /// The same for statements that cannot take longer than the database is large: CREATE INDEX, VACUUM and the like.
    pub upkeep_vm_steps: u64,
    /// Bytes of disk for one transaction: temporary files, and twice the WAL.
    pub disk_bytes: u64,
    /// Pages that the database may have afterwards; 0 is without bound.
    pub max_pages: u32,
    /// Bytes of a text, a blob or a row; 0 is SQLite's own limit of 10^9.
    pub value_bytes: u32,
}

impl Bounds {
    /// Those of entries that carry none.
    pub const NONE: Self = Self {
        vm_steps: u64::MAX,
        upkeep_vm_steps: u64::MAX,
        disk_bytes: u64::MAX,
        max_pages: 0,
        value_bytes: 0,
    };
}

impl Default for Bounds {
    fn default() -> Self {
        Self::NONE
    }
}

/// One client request as the log carries it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Which rules apply.
    pub kind: Kind,
    /// All statements in one SAVEPOINT; the first failure rolls back and ends it (for [`Kind::Query`]: does not end it).
    pub transaction: bool,
    /// Column names become `<table>.<column>` where the column comes from a table.
    pub qualify_columns: bool,
    /// In order.
    pub statements: Vec<Statement>,
    /// Time and randomness.
    pub stamp: Stamp,
    /// Said by the kind of entry, not by the request's own bytes.
    #[serde(skip)]
    pub rules: Rules,
}

/// What a [`Request`] gave. `error` is set when the request as a whole was refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// One slot per statement that ran.
    pub results: Vec<StatementResult>,
    /// For example `disallowed pragma`.
    pub error: Option<String>,
}

/// A piece of a file that replaces the database (or of an SQL script that runs against it), carried in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadChunk {
    /// Names this load; random.
    pub load_id: u64,
    /// Byte offset of `data`; chunks come in order, offset 0 begins (and discards any earlier load).
    pub offset: u64,
    /// At most 1 MiB.
    pub data: Bytes,
    /// Set on the last chunk: what to do with the whole file.
    pub finish: Option<LoadFinish>,
}

/// What the last chunk of a load asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadFinish {
    /// What the bytes are.
    pub content: LoadContent,
    /// Length of the whole file.
    pub total_bytes: u64,
    /// CRC-32 (IEEE) of the whole file.
    pub crc32: u32,
    /// Time and randomness for a script.
    pub stamp: Stamp,
}

/// What a load carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadContent {
    /// An SQLite file that replaces the database.
    File,
    /// SQL text, run as one multi-statement script in autocommit; on error an open transaction is rolled back.
    Script,
    /// The same, each of its statements (and, for the disk, each of its transactions) bounded. From the second format on.
    BoundedScript(Bounds),
}

/// What one log entry asks of the database.
#[derive(Clone, Debug)]
pub enum Work {
    /// Only moves the position (a blank entry).
    Nothing,
    /// Replaces the caller's opaque metadata (a membership), saved with the next checkpoint.
    Meta(Bytes),
    /// Client requests, in order.
    Requests(Arc<Vec<Request>>),
    /// A piece of a load.
    Load(LoadChunk),
    /// Drops an unfinished load.
    LoadAbort(u64),
    /// Hashes the content as it is at this entry; see [`Database::hashing`].
    HashContent,
}

/// One log entry to apply.
#[derive(Debug)]
pub struct Entry {
    /// Its place in the log; strictly rising. A term above that of an unfinished load drops the load.
    pub position: Position,
    /// What to do.
    pub work: Work,
    /// Who waits for the outcome.
    pub wanted: Wanted,
}

/// Who waits for an entry's outcomes.
pub enum Wanted {
    /// Nobody: pure reads ([`Kind::Query`]) are skipped and no rows are collected.
    Nobody,
    /// The caller of [`Database::apply`].
    Caller,
    /// Whoever this takes them to, on the writer's thread right after COMMIT; must not block. The caller gets none.
    Deliver(Box<dyn FnOnce(Vec<Outcome>) + Send>),
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Caller => "Caller",
            Self::Deliver(_) => "Deliver",
        })
    }
}

impl Wanted {
    fn is_somebody(&self) -> bool {
        !matches!(self, Self::Nobody)
    }
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

/// The main file as it is at a position: what is read from this value stays the same, whatever happens meanwhile.
#[derive(Debug)]
pub struct Pinned {
    /// Its length in bytes.
    pub len_bytes: u64,
    /// The position it equals.
    pub position: Position,
    /// The caller's metadata at that position.
    pub meta: Bytes,
    /// Releases the pin when dropped.
    pub guard: PinGuard,
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
