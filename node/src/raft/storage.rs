//! What Raft keeps on disk: the log, and the state machine over the database.
pub mod describe;
pub mod log;
pub mod logged;
pub(super) mod pending_writes;
pub mod rewrite;
pub mod state_machine;
