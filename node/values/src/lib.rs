//! SQL statements, their parameters and their results, as plain values: what clients send, the log carries
//! and the database returns.
//!
//! Below both `node-db` (which runs statements) and `node-api` (which reads and writes their JSON); knows
//! neither HTTP nor SQLite. Several types are part of the log's or the node protocol's binary encoding; their
//! docs say so.

mod result;
mod statement;
mod value;

pub use result::{Rows, StatementResult, WriteResult};
pub use statement::{Parameter, Statement};
pub use value::{Cell, Value};
