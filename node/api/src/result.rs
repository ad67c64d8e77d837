//! Replies: what one statement gave, and the envelope around all of them.
use serde::{Deserialize, Serialize};

use crate::value::Cell;

mod stream;
mod write;

pub use stream::ReplyWriter;
pub use write::{Shape, write_reply};

/// The outcome of one statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StatementResult {
    /// A statement that returned no rows.
    Write(WriteResult),
    /// A statement that returned rows (possibly none).
    Rows(Rows),
    /// A statement that failed; SQLite's message without a code.
    Error(String),
}

/// Counters of a write. Zero fields are omitted from JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WriteResult {
    /// `sqlite3_last_insert_rowid()` after the statement.
    pub last_insert_id: i64,
    /// `sqlite3_changes()` after the statement.
    pub rows_affected: i64,
    /// Seconds the statement took; shown only with `timings`.
    pub time_secs: f64,
}

/// Rows of a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Column names.
    pub columns: Vec<String>,
    /// Declared types in lower case; where a column has none, the storage class of the first row's value, or "".
    pub types: Vec<String>,
    /// Row by row.
    pub values: Vec<Vec<Cell>>,
    /// Seconds the statement took; shown only with `timings`.
    pub time_secs: f64,
}

/// The envelope of `/db/execute`, `/db/query` and `/db/request`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// One slot per statement that ran.
    pub results: Vec<StatementResult>,
    /// Why the request as a whole failed.
    pub error: Option<String>,
    /// Seconds the whole request took; `Some` only with `timings`.
    pub time_secs: Option<f64>,
    /// Sequence number of a queued write.
    pub sequence_number: Option<i64>,
    /// Raft log index of the request; `Some` only with `raft_index`.
    pub raft_index: Option<u64>,
}
