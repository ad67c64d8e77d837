//! What one log entry carries: client requests with their rules and bounds, loads, metadata.
use std::{fmt, sync::Arc};

use bytes::Bytes;
use node_values::{Statement, StatementResult};
use serde::{Deserialize, Serialize};

/// A place in the caller's log. Ordered by term, then index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Term under which the entry was proposed.
    pub term: u64,
    /// Index of the entry.
    pub index: u64,
}

/// Makes non-deterministic SQL deterministic. The log carries one with each request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The time that `now`, CURRENT_TIMESTAMP and the like return: microseconds since the Unix epoch.
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
    /// Unified: read-only statements and EXPLAIN return rows, all others return what Execute does.
    Unified,
    /// Execute, of a client that turned off rqlite's parsing of SQL: counters only, even with a RETURNING
    /// clause.
    ExecutePlain,
    /// Unified, of such a client: rows only from statements that read; RETURNING and EXPLAIN of a write
    /// return counters.
    UnifiedPlain,
}

/// Which format's rules a statement follows; the kind of log entry decides. Entries of an older format keep
/// the rules of the nodes that wrote them, because the log is replayed, and because nodes of two versions run
/// side by side during a rolling upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rules {
    /// The first format: no bounds.
    #[default]
    V1,
    /// The second format: bounded, and with the rules described in DESIGN.md.
    V2(Bounds),
}

impl Rules {
    /// Whether the rules are those of the second format.
    pub fn is_v2(self) -> bool {
        matches!(self, Self::V2(_))
    }

    /// The resource limits of a request; [`Bounds::NONE`] in the first format.
    #[must_use]
    pub fn bounds(self) -> Bounds {
        match self {
            Self::V1 => Bounds::NONE,
            Self::V2(bounds) => bounds,
        }
    }
}

/// Resource limits of one request. The log carries them, so all nodes stop a statement at the same point:
/// whether a limit is exceeded must depend on the log alone. See "Bounds" in DESIGN.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Instructions of SQLite's virtual machine, for all statements of the request together.
    pub vm_steps: u64,
    /// The same for maintenance statements (CREATE INDEX, VACUUM and the like), whose run time is bounded by
    /// the size of the database.
    pub maintenance_vm_steps: u64,
    /// Bytes of disk for one transaction: temporary files plus twice the WAL.
    pub disk_bytes: u64,
    /// Pages that the database may have after the request; 0 means no limit.
    pub max_pages: u32,
    /// Bytes of one text, blob or row; 0 means SQLite's own limit of 10^9.
    pub value_bytes: u32,
}

impl Bounds {
    /// No limits: the bounds of entries that carry none.
    pub const NONE: Self = Self {
        vm_steps: u64::MAX,
        maintenance_vm_steps: u64::MAX,
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
    /// Which endpoint's rules apply.
    pub kind: Kind,
    /// Runs all statements in one SAVEPOINT. The first failure rolls back and ends the request; with
    /// [`Kind::Query`] the later statements still run.
    pub transaction: bool,
    /// Column names become `<table>.<column>` where the column comes from a table.
    pub qualify_columns: bool,
    /// The statements, in order.
    pub statements: Vec<Statement>,
    /// Time and randomness.
    pub stamp: Stamp,
    /// Set by the kind of log entry; not part of the request's own bytes.
    #[serde(skip)]
    pub rules: Rules,
}

/// The outcome of a [`Request`]. `error` is set when the request as a whole was refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// One result per statement that ran, in order.
    pub results: Vec<StatementResult>,
    /// Why the request was refused, for example `disallowed pragma`.
    pub error: Option<String>,
}

impl Outcome {
    /// An outcome for a request that was refused as a whole; `text` is for the client.
    pub(crate) fn refused(text: &str) -> Self {
        Self {
            results: Vec::new(),
            error: Some(text.to_owned()),
        }
    }
}

/// A chunk of a loaded file, carried in the log: a database file that replaces the database, or an SQL
/// script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadChunk {
    /// A random number that identifies this load.
    pub load_id: u64,
    /// Byte offset of `data`. Chunks come in order; offset 0 begins a load and discards an earlier unfinished
    /// one.
    pub offset: u64,
    /// At most 1 MiB.
    pub data: Bytes,
    /// Set on the last chunk: what to do with the complete file.
    pub finish: Option<LoadFinish>,
}

/// How the last chunk completes a load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadFinish {
    /// What the bytes are.
    pub content: LoadContent,
    /// Length of the whole file.
    pub total_bytes: u64,
    /// CRC-32 (IEEE) of the whole file.
    pub crc32: u32,
    /// Time and randomness for the script.
    pub stamp: Stamp,
}

/// The content of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadContent {
    /// An SQLite file that replaces the database.
    File,
    /// SQL text, run as one multi-statement script in autocommit; on error an open transaction is rolled
    /// back.
    Script,
    /// An SQL text whose statements each have the step limit and whose transactions each have the disk limit.
    /// Since the second format.
    BoundedScript(Bounds),
}

/// What one log entry does to the database.
#[derive(Clone, Debug)]
pub enum Work {
    /// Only advances the position (a blank entry).
    Nothing,
    /// Replaces the caller's opaque metadata (for example the Raft membership). The next checkpoint saves it.
    Meta(Bytes),
    /// Client requests, in order.
    Requests(Arc<Vec<Request>>),
    /// A chunk of a load.
    Load(LoadChunk),
    /// Discards the unfinished load with this id.
    LoadAbort(u64),
    /// Hashes the content as of this entry; see [`Database::hashing`](crate::Database::hashing).
    HashContent,
}

/// One log entry to apply.
#[derive(Debug)]
pub struct Entry {
    /// The entry's place in the log; strictly increasing. A term above that of an unfinished load discards
    /// the load.
    pub position: Position,
    /// What to do.
    pub work: Work,
    /// Who receives the outcomes.
    pub reply_to: ReplyTo,
}

/// Who receives the outcomes of an entry.
pub enum ReplyTo {
    /// Nobody: pure reads ([`Kind::Query`]) are skipped and no rows are collected.
    Nobody,
    /// The caller of [`Database::apply`](crate::Database::apply).
    Caller,
    /// This function, called on the writer thread right after COMMIT; it must not block. The caller of
    /// `apply` receives no outcomes for the entry.
    Deliver(Box<dyn FnOnce(Vec<Outcome>) + Send>),
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Caller => "Caller",
            Self::Deliver(_) => "Deliver",
        })
    }
}

impl ReplyTo {
    pub(crate) fn is_somebody(&self) -> bool {
        !matches!(self, Self::Nobody)
    }
}
