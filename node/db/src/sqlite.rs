//! How SQLite is used: connections, the authorizer, deterministic functions, the VFS, resource metering, and
//! the execution of one prepared statement.
pub(crate) mod authorizer;
pub(crate) mod connection;
pub(crate) mod determinism;
pub(crate) mod error;
pub(crate) mod linear;
pub(crate) mod meter;
pub(crate) mod node_local;
pub(crate) mod page_reads;
pub(crate) mod statement;
pub(crate) mod vfs;
