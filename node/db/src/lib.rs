//! SQLite as a deterministic, crash-safe state machine. This crate knows nothing of Raft, HTTP or the
//! network.
//!
//! One writer thread applies runs of log entries, one transaction per run. Reads use their own threads and
//! connections. The main database file changes only in a checkpoint, an install or a load. Each of them also
//! writes the small `state` sidecar, which records the log position that the main file equals. The main file
//! is therefore both the restart point and the snapshot.
//!
//! The reasons for these choices are in DESIGN.md.
mod content_hash;
mod database;
#[cfg(test)]
mod disk_faults;
mod dump;
mod entry;
mod files;
mod readers;
mod recovery;
mod sql;
mod sqlite;
mod types;
mod writer;

pub use content_hash::{ContentHash, Hashing, hash_file};
pub use database::{
    Database,
    check::{CheckEnd, CheckProgress},
};
pub use entry::{
    Bounds, Entry, Kind, LoadChunk, LoadContent, LoadFinish, Outcome, Position, ReplyTo, Request,
    Rules, Stamp, Work,
};
pub use files::{
    durable,
    main_file::{PinGuard, Pinned},
};
pub use readers::{
    parts::{Part, Parts, ReadOutput},
    pending::{CancelGuard, Cancellation, PendingOutcome, PendingRead},
};
pub use recovery::offline;
pub use sql::{pragma::disallowed_pragma, syntax::syntax_error};
pub use types::{
    BackupFormat, Checkpoint, Fatal, Maintenance, OpenError, Options, Origin, Read, Recovered,
    RunningStatement, Urgency,
};

/// Version of the bundled SQLite.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// Source id of the bundled SQLite: which sources exactly it was built from.
pub fn sqlite_source_id() -> &'static str {
    rusqlite::ffi::SQLITE_SOURCE_ID.to_str().unwrap_or_default()
}
