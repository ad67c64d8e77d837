//! Consensus: the only module that names openraft. Orders commands, keeps the log, runs the state machine, knows who leads.
//!
//! From the bottom up: `types`, `codec` (values and their bytes) ← `storage` (log, state machine) ← `network` (messages between members) ←
//! `leader` (who leads, proposals, reads) ← `consensus` (all of it running) ← `membership`, `transfer`, `format_version`, `maintenance`.
//! DESIGN.md beside these files says what must be on disk before which answer, and what each pitfall of the library means here.
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
