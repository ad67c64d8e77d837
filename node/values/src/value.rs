//! SQL values: as parameters carry them ([`Value`]) and as result rows show them ([`Cell`]).
use serde::{Deserialize, Serialize};

/// A value bound to a statement's parameter. The variants' order is part of the log's encoding: append only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A 64-bit signed integer; JSON `true` and `false` arrive as 1 and 0.
    Integer(i64),
    /// An IEEE 754 double.
    Real(f64),
    /// UTF-8 text.
    Text(String),
    /// Raw bytes.
    Blob(Vec<u8>),
}

/// A value in a result row, after the declared type of its column was applied (booleans, dates).
/// The variants' order is part of the node protocol's encoding: append only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Cell {
    /// SQL NULL.
    Null,
    /// A 64-bit signed integer.
    Integer(i64),
    /// An IEEE 754 double.
    Real(f64),
    /// Text, shown as it is.
    Text(String),
    /// Raw bytes.
    Blob(Vec<u8>),
    /// An INTEGER in a column declared `boolean`.
    Boolean(bool),
}
