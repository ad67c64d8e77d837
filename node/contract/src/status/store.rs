//! The part `store` of `/status`.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CheckStatus, Lineage, RaftStatus};
use crate::parked::{DiskStatus, ParkedStatus};

/// `store`. While the data is being opened, only `open` is present.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// `{}` once the data is open, `false` before.
    #[serde(default)]
    pub open: Value,
    /// The node's name (`-node-id`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// The leader that this node knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<LeaderStatus>,
    /// Identity of the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Raft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft: Option<RaftStatus>,
    /// The check of the database that runs, or the last one since the start; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckStatus>,
    /// Parked copies of data; absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<ParkedStatus>,
    /// The file system of the data directory; absent if it does not respond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskStatus>,
    /// Size of the data directory for people, such as `39 kB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir_size_friendly: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub details: Option<Box<StoreDetails>>,
}

impl StoreStatus {
    /// The data is being opened.
    pub fn opening() -> Self {
        Self {
            open: Value::Bool(false),
            ..Self::default()
        }
    }
}

/// The leader; both fields are empty if none is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderStatus {
    /// Its name.
    pub node_id: String,
    /// Its Raft address.
    #[serde(default)]
    pub addr: String,
}

/// Identity of a data directory; an operator compares it before it trusts the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `<name>#<incarnation>`.
    pub raft_id: String,
    /// Drawn when the data directory was created: 16 hexadecimal digits.
    #[serde(default)]
    pub incarnation: String,
    /// Cluster that the data belongs to; null before the node joined one.
    pub cluster_id: Option<String>,
    /// Lineage of the data; null before the node joined a cluster.
    pub lineage: Option<Lineage>,
}

/// The fields of `store` that only people read. Durations are Go's, times RFC 3339, sizes bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreDetails {
    /// Advertised Raft address.
    pub addr: String,
    /// A leader is known.
    pub ready: bool,
    /// Comparison of this copy with the others.
    pub content: ContentStatus,
    /// Members of the newest configuration.
    pub nodes: Vec<ServerStatus>,
    /// Index of the newest applied entry.
    pub fsm_index: u64,
    /// Its term.
    pub fsm_term: u64,
    /// When it was applied.
    pub fsm_update_time: String,
    /// Index of the newest applied entry that changed the database.
    pub db_applied_index: u64,
    /// Always 0.
    pub strong_read_term: u64,
    /// When the leader proposed the newest applied entry, by its clock.
    pub leader_appended_at_time: String,
    /// Always 0.
    pub observer: ObserverStatus,
    /// Change data capture; not supported.
    pub cdc: CdcStatus,
    /// `-raft-apply-timeout`.
    pub apply_timeout: String,
    /// `-raft-heartbeat-timeout`.
    pub heartbeat_timeout: String,
    /// `-raft-election-timeout`.
    pub election_timeout: String,
    /// `-raft-commit-timeout`.
    pub commit_timeout: String,
    /// `-raft-snap`.
    pub snapshot_threshold: u64,
    /// `-raft-snap-int`.
    pub snapshot_interval: String,
    /// `-raft-reap-node-timeout`.
    pub reap_timeout: String,
    /// `-raft-reap-read-only-node-timeout`.
    pub reap_read_only_timeout: String,
    /// Always false.
    pub no_freelist_sync: bool,
    /// Log entries kept behind a snapshot.
    pub trailing_logs: u64,
    /// Compression of log entries; always off.
    pub request_marshaler: RequestMarshaler,
    /// The data directory.
    pub dir: PathBuf,
    /// Its size.
    pub dir_size: u64,
    /// Settings of the database.
    pub db_conf: DatabaseConfig,
    /// Snapshots.
    pub snapshot_store: SnapshotStore,
    /// SQLite: settings, sizes, compile options; or `error` if the disk does not respond.
    pub sqlite3: Value,
    /// Reads and backups that run.
    pub running: Value,
    /// Why applying waits, such as for room on the disk; absent while it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply_waiting: Option<String>,
    /// Automatic VACUUM; absent unless switched on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_vacuum: Option<Value>,
    /// Automatic `PRAGMA optimize`; absent if switched off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_optimize: Option<Value>,
}

/// Result of comparing the copies of the members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContentStatus {
    /// This node's copy differs from those of the others.
    pub differs: bool,
    /// Log index at which that was found.
    pub differs_at_index: Option<u64>,
    /// The newest comparison since the start.
    pub last_comparison: Option<Comparison>,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Log index at which the copies were compared.
    pub index: u64,
    /// When.
    pub time: String,
    /// The result.
    pub verdict: String,
}

/// A member of the newest configuration, as HashiCorp's Raft shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub id: String,
    /// Its Raft address.
    pub addr: String,
    /// `voter` or `nonvoter`.
    pub suffrage: String,
}

/// `store.observer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObserverStatus {
    /// Events observed.
    pub observed: u64,
    /// Events dropped.
    pub dropped: u64,
}

/// `store.cdc`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CdcStatus {
    /// Switched on.
    pub enabled: bool,
    /// Registered with SQLite.
    pub registered: bool,
}

/// `store.request_marshaler`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestMarshaler {
    /// Statements from which on an entry is compressed.
    pub compression_batch: u64,
    /// Bytes from which on an entry is compressed.
    pub compression_size: u64,
    /// Every entry is compressed.
    pub force_compression: bool,
}

/// `store.db_conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseConfig {
    /// `-fk`: foreign keys are enforced.
    pub fk_constraints: bool,
}

/// `store.snapshot_store`: the database's main file is the only snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotStore {
    /// The data directory.
    pub dir: PathBuf,
    /// Size of the snapshot in bytes.
    pub dir_size: u64,
    /// `<term>-<index>` of the snapshot; empty before the first.
    pub snapshots: Vec<String>,
}
