//! Raft maintenance: the background tasks of every node (checkpoints, log length, the disk watchdog) and of
//! the leader (its members).
pub mod disk_watchdog;
pub mod last_contact;
pub mod members;
pub mod storage;
