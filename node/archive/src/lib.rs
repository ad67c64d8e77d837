//! The format of the continuous archive (names and bytes of its objects), and decisions about it: which
//! objects a restore needs, and which may be deleted. See `DESIGN.md`.
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

/// Bytes as lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
