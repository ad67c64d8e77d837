//! SQLite as a deterministic, crash-safe state machine. Knows nothing of Raft, HTTP or the network.
//!
//! One writer thread applies runs of log entries, one transaction a run; readers run on their own threads and
//! connections. The main database file changes only in a checkpoint, which also writes the small `state` sidecar that says
//! which log position the file equals; so the file is at once the restart point and the snapshot.
//!
//! DESIGN.md beside this file argues the choices.
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
pub use database::Database;
pub use entry::{
    Bounds, Entry, Kind, LoadChunk, LoadContent, LoadFinish, Outcome, Position, ReplyTo, Request,
    Rules, Stamp, Work,
};
pub use files::{
    durable,
    main_file::{PinGuard, Pinned},
};
pub use readers::{
    asked::{CancelGuard, Cancellation, PendingOutcome, PendingRead},
    parts::{Part, Parts, ReadOutput},
};
pub use recovery::offline;
pub use sql::pragma::disallowed_pragma;
pub use types::{
    BackupFormat, Checkpoint, Fatal, Maintenance, OpenError, Options, Origin, Read, Recovered,
    RunningRead, Urgency,
};

/// Version of the bundled SQLite.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}
