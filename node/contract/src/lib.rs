//! The JSON documents that the node shares with the programs around it, each typed once: the operator's state
//! file and plan file, which `rqlited prepare` reads, its report, and the reply of `/status`.
//!
//! Serde types and their rules only: no runtime, no database, no HTTP, no Kubernetes. Used by the node, the
//! operator, the kubectl plugin, the shell and the tests with real processes.
//!
//! Versions of the writer and the reader differ during an upgrade. Readers therefore ignore unknown fields.
//! The exceptions are documents that must not be followed unless they are understood completely: the plan
//! file refuses unknown fields, and the state file refuses unknown phases.

mod archive_restore;
pub mod duration;
mod lineage;
pub mod parked;
mod plan_file;
mod prepare_report;
mod state_file;
pub mod status;

pub use archive_restore::{RestoreRequest, RestoreState};
pub use lineage::{Lineage, LogPosition};
pub use plan_file::{Others, PLAN_FILE, Peer, PlanFile, SeedExpectation};
pub use prepare_report::PrepareReport;
pub use state_file::{FormingPhase, STATE_FILE, StateFile};

/// Longest plan id and parking token, in bytes; both become names of directories.
const MAX_DIRECTORY_NAME: usize = 64;

/// May this be the name of a directory below `parked` in a data directory?
fn is_directory_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_DIRECTORY_NAME).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('.')
}

/// What a directory's name must be made of, for an error message.
fn directory_name_rule() -> String {
    format!("1 to {MAX_DIRECTORY_NAME} letters, digits, '-', '_' or '.'")
}
