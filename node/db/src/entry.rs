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
    pub maintenance_vm_steps: u64,
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

impl Outcome {
    /// The request as a whole was refused, with a text for the client.
    pub(crate) fn refused(text: &str) -> Self {
        Self {
            results: Vec::new(),
            error: Some(text.to_owned()),
        }
    }
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
    pub reply_to: ReplyTo,
}

/// Who waits for an entry's outcomes.
pub enum ReplyTo {
    /// Nobody: pure reads ([`Kind::Query`]) are skipped and no rows are collected.
    Nobody,
    /// The caller of [`Database::apply`].
    Caller,
    /// Whoever this takes them to, on the writer's thread right after COMMIT; must not block. The caller gets none.
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
