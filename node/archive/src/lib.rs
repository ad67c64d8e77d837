//! The archive's format and decisions: what is kept of a cluster's past, under which names, in which bytes;
//! which objects a restore needs; what may be deleted. See `DESIGN.md`.
//!
//! Knows neither Raft nor SQLite. Decisions are plain functions; what needs a store takes [`store::Store`].

pub mod base;
pub mod decide;
pub mod documents;
pub mod keys;
pub mod moment;
pub mod names;
mod objects;
pub mod plan;
pub mod problem;
pub mod reader;
pub mod record;
pub mod seal;
pub mod segment;
pub mod store;
pub mod verify;

/// Hexadecimal digits of a checksum.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
