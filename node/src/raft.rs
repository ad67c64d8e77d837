//! Consensus: the only module that names openraft. It orders commands, keeps the log, runs the state machine
//! and knows who leads.
//!
//! From the bottom up: `types`, `codec` (values and their bytes) ← `storage` (log, state machine) ← `network`
//! (messages between members) ← `leader` (who leads, proposals, reads) ← `consensus` (a running node) ←
//! `membership`, `transfer`, `format_version`, `maintenance`.
//!
//! DESIGN.md in this folder says what must be on disk before which response is sent, and how each pitfall of
//! the library is handled.
pub mod archive_hold;
pub mod codec;
mod consensus;
mod format_version;
pub mod leader;
pub mod maintenance;
pub mod membership;
pub mod network;
mod settings;
pub mod storage;
mod thread;
pub mod transfer;
pub mod types;

pub use self::{
    consensus::Consensus,
    leader::{leadership::Leadership, read_index::ReadIndexError},
    settings::Settings,
};
