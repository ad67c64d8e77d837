//! How SQLite is configured: connections, the authorizer, deterministic functions, the VFS and resource metering.
pub(crate) mod authorizer;
pub(crate) mod connection;
pub(crate) mod determinism;
pub(crate) mod error;
pub(crate) mod linear;
pub(crate) mod meter;
pub(crate) mod node_local;
