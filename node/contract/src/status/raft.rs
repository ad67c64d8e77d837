//! The part `store.raft` of `/status`.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `store.raft`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftStatus {
    /// `Leader`, `Follower`, `Candidate` or `Shutdown`, as HashiCorp's Raft names them; others may follow.
    pub state: String,
    /// Current term.
    pub term: u64,
    /// Index of the last log entry, committed or not.
    pub last_log_index: u64,
    /// Its term.
    pub last_log_term: u64,
    /// Index of the last entry known to be committed.
    pub commit_index: u64,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// The newest configuration that is committed: unlike the newest one, it cannot be undone.
    pub committed_configuration: CommittedConfiguration,
    /// Raft id to seconds since the member last responded, by the leader's clock; empty on other nodes.
    /// Earlier nodes call it `silent_seconds`.
    #[serde(default, alias = "silent_seconds")]
    pub unreachable_seconds: BTreeMap<String, u64>,
    /// Everything else.
    #[serde(flatten)]
    pub details: Option<Box<RaftDetails>>,
}

/// A committed configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedConfiguration {
    /// Index of the entry that holds it.
    pub index: u64,
    /// Its members.
    pub members: Vec<CommittedMember>,
}

/// A member of a committed configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedMember {
    /// Its name.
    pub id: String,
    /// `<name>#<incarnation>`.
    pub raft_id: String,
    /// Its Raft address.
    #[serde(default)]
    pub addr: String,
    /// It votes.
    pub voter: bool,
}

/// The fields of `store.raft` that only people read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RaftDetails {
    /// Always 0.
    pub fsm_pending: u64,
    /// Time since the last contact with the leader, a Go duration; `0` on the leader, `never` before the
    /// first.
    pub last_contact: String,
    /// Index of the newest snapshot.
    pub last_snapshot_index: u64,
    /// Its term.
    pub last_snapshot_term: u64,
    /// The newest configuration, as HashiCorp's Raft prints it.
    pub latest_configuration: String,
    /// Index of the entry that holds it.
    pub latest_configuration_index: u64,
    /// The index of `committed_configuration`.
    pub committed_configuration_index: u64,
    /// Members of the newest configuration besides this node.
    pub num_peers: usize,
    /// On the leader: name to the last index that the member is known to hold.
    pub matched_index: BTreeMap<String, u64>,
    /// On the leader: Raft id to the reason why nothing more can be sent to the member.
    pub unsendable: BTreeMap<String, String>,
    /// Format version that the cluster uses.
    pub format_version: u16,
    /// Newest format version that this node supports.
    pub format_version_max: u16,
    /// Raft id to the newest format version that the member supports; null until the member has reported it.
    pub format_version_of_members: BTreeMap<String, Option<u16>>,
    /// Always 1, as are the other versions of the protocol and the snapshot.
    pub protocol_version: u64,
    /// See `protocol_version`.
    pub protocol_version_min: u64,
    /// See `protocol_version`.
    pub protocol_version_max: u64,
    /// See `protocol_version`.
    pub snapshot_version_min: u64,
    /// See `protocol_version`.
    pub snapshot_version_max: u64,
    /// Bytes of the log on disk.
    pub log_size: u64,
    /// The same for people, such as `286 B`.
    pub log_size_friendly: String,
    /// This node votes in the newest configuration.
    pub voter: bool,
    /// Indices that the leader has reported.
    pub transport: TransportStatus,
    /// Settings of Raft.
    pub config: RaftConfig,
}

/// `store.raft.transport`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransportStatus {
    /// Commit index that the leader reported last.
    pub command_commit_index: u64,
    /// The same.
    pub leader_commit_index: u64,
    /// Always false.
    pub compress_snap: bool,
}

/// `store.raft.config`: settings under the names of HashiCorp's Raft; times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RaftConfig {
    /// The node's name.
    #[serde(rename = "LocalID")]
    pub local_id: String,
    /// `-raft-heartbeat-timeout`.
    pub heartbeat_timeout: u64,
    /// `-raft-election-timeout`.
    pub election_timeout: u64,
    /// `-raft-leader-lease-timeout`.
    pub leader_lease_timeout: u64,
    /// `-raft-commit-timeout`.
    pub commit_timeout: u64,
    /// `-raft-snap-int`.
    pub snapshot_interval: u64,
    /// `-raft-snap`.
    pub snapshot_threshold: u64,
    /// Most entries in one message.
    pub max_append_entries: u64,
    /// Always false.
    pub shutdown_on_remove: bool,
    /// `-raft-log-level`.
    pub log_level: String,
    /// Always true.
    pub no_snapshot_restore_on_start: bool,
}
