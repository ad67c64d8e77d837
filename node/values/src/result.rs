//! What one statement returns: counters, rows or an error.
use serde::{Deserialize, Serialize};

use crate::value::Cell;

/// The result of one statement. The variants' order is part of the node protocol's encoding: append only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StatementResult {
    /// A statement that returned no rows.
    Write(WriteResult),
    /// A statement that returned rows (possibly none).
    Rows(Rows),
    /// A statement that failed; SQLite's message without a code.
    Error(String),
}

/// Counters of a write.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WriteResult {
    /// `sqlite3_last_insert_rowid()` after the statement.
    pub last_insert_id: i64,
    /// `sqlite3_changes()` after the statement.
    pub rows_affected: i64,
    /// Seconds that the statement took.
    pub time_secs: f64,
}

/// Rows of a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Column names.
    pub columns: Vec<String>,
    /// Declared types in lower case; where a column has none, the storage class of the first row's value, or
    /// "".
    pub types: Vec<String>,
    /// Row by row.
    pub values: Vec<Vec<Cell>>,
    /// Seconds that the statement took.
    pub time_secs: f64,
}
