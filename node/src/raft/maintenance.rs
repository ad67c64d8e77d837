//! Raft maintenance: what runs in the background on every node (checkpoints, log length, the disk watchdog) and on the leader (its members).
pub mod disk_watchdog;
pub mod last_contact;
pub mod members;
pub mod storage;
