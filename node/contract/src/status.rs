//! The reply of `/status`.
//!
//! Names and shapes are rqlite's; `identity`, `content`, `committed_configuration`, `unreachable_seconds` and
//! the format versions are additions. Fields that programs decide by are in [`Status`], [`StoreStatus`] and
//! [`RaftStatus`]; the others, which people read, are grouped in a flattened struct each ([`ProcessStatus`],
//! [`StoreDetails`], [`RaftDetails`]). A reader gets `None` for such a group if any of its fields has an
//! unexpected type, and so does not depend on it.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Lineage;

mod archive;
mod auto_restore;
mod check;
mod raft;
mod security;
mod store;

pub use archive::{ArchiveBase, ArchiveGap, ArchiveStatus};
pub use auto_restore::AutoRestoreStatus;
pub use check::{CheckRequest, CheckStatus};
pub use raft::{
    CommittedConfiguration, CommittedMember, RaftConfig, RaftDetails, RaftStatus, TransportStatus,
};
pub use security::{CredentialsStatus, SecurityStatus, TlsStatus};
pub use store::{
    CdcStatus, Comparison, ContentStatus, DatabaseConfig, Identity, LeaderStatus, ObserverStatus,
    RequestMarshaler, ServerStatus, SnapshotStore, StoreDetails, StoreStatus,
};

/// The whole reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Raft, the database and the data directory.
    pub store: StoreStatus,
    /// Everything else.
    #[serde(flatten)]
    pub process: Option<ProcessStatus>,
}

/// The parts of the reply about the process and its listeners.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessStatus {
    /// The continuous archive; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveStatus>,
    /// Automatic backups; absent without `-auto-backup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_backups: Option<AutoBackupsStatus>,
    /// The restore with which the node began; absent without `-auto-restore`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_restore: Option<AutoRestoreStatus>,
    /// Version and build.
    pub build: BuildStatus,
    /// Advertised addresses; absent while the data is being opened, as are `disco`, `extensions`, `mux` and
    /// `network`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterStatus>,
    /// Discovery; its shape depends on the mode. Absent without discovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disco: Option<Value>,
    /// SQLite extensions; none can be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<ExtensionsStatus>,
    /// The HTTP API.
    pub http: HttpStatus,
    /// When the last backup was taken, RFC 3339; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_backup_time: Option<String>,
    /// The inter-node port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mux: Option<MuxStatus>,
    /// Network interfaces of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Value>,
    /// Start and uptime.
    pub node: NodeTimes,
    /// The process as the operating system sees it.
    pub os: Value,
    /// Threads and tasks, under the names of Go's runtime.
    pub runtime: Value,
    /// Certificates and credentials in force; absent in replies of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<SecurityStatus>,
}

/// `auto_backups`: texts, as in rqlite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoBackupsStatus {
    /// `s3://bucket/path`, `gs://bucket/name`, `azure://account/container/name` or `dir:…, file:…`.
    pub upload_destination: String,
    /// A Go duration.
    pub upload_interval: String,
    /// RFC 3339; the year 1 before the first one of this process.
    pub last_upload_time: String,
    /// A Go duration.
    pub last_upload_duration: String,
    /// Index of the last entry that changed the database, of the copy uploaded last by this process.
    pub last_index: String,
    /// Why the last attempt failed; absent after a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// `build`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildStatus {
    /// `unknown` unless the build set it; so for `commit`.
    pub build_time: String,
    /// Commit that the program was built from.
    pub commit: String,
    /// The compiler.
    pub compiler_command: String,
    /// Its language.
    pub compiler_toolchain: String,
    /// Version of the program.
    pub version: String,
}

/// `cluster`: what the node advertises.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterStatus {
    /// Raft address, `host:port`.
    pub addr: String,
    /// Address of the HTTP API, `host:port`.
    pub api_addr: String,
    /// `true` or `false`, as a string.
    pub https: String,
}

/// `extensions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExtensionsStatus {
    /// Directory of the extensions.
    pub dir: String,
    /// Their names.
    pub names: Vec<String>,
}

/// `http`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpStatus {
    /// `Access-Control-Allow-Origin`, if set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_origin: Option<String>,
    /// `enabled` or `disabled`.
    pub auth: String,
    /// Address that the listener is bound to.
    pub bind_addr: String,
    /// Requests to other nodes.
    pub cluster: HttpClusterStatus,
    /// Most client connections at a time.
    pub max_connections: usize,
    /// Write queues by name; there is one, `_default`.
    pub queue: BTreeMap<String, QueueStatus>,
    /// TLS of the HTTP API.
    pub tls: HttpTlsStatus,
}

/// `http.cluster`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpClusterStatus {
    /// Raft address of this node.
    pub local_node_addr: String,
    /// Default timeout of requests to other nodes, a Go duration.
    pub timeout: String,
}

/// `http.tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpTlsStatus {
    /// `true` or `false`, as a string. The other fields are absent without TLS.
    pub enabled: String,
    /// `RequireAndVerifyClientCert` or `NoClientCert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<String>,
    /// File of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// File of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// File of the authorities of clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Protocols that are offered (ALPN).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub next_protos: Vec<String>,
}

/// A queue of writes (`queue` in a write's query string).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueStatus {
    /// Capacity in statements.
    pub max_size: usize,
    /// Statements that are written at once.
    pub batch_size: usize,
    /// Longest wait for a full batch, a Go duration.
    pub timeout: String,
    /// Sequence number of the newest request.
    pub sequence_number: i64,
    /// Requests that wait.
    pub waiting: usize,
    /// Statements that failed, since the start.
    pub failed_statements: u64,
    /// Requests that were not written, since the start.
    pub dropped_requests: u64,
    /// Requests of unknown outcome, since the start.
    pub unknown_requests: u64,
    /// The newest failure; empty if there was none.
    pub last_error: String,
}

/// `mux`: the inter-node port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MuxStatus {
    /// Advertised address, `host:port`.
    pub addr: String,
    /// Number of protocols, as a string.
    pub handlers: String,
    /// Timeout of a connection's first message, a Go duration.
    pub timeout: String,
    /// `enabled` or `disabled`.
    pub tls: String,
}

/// `node`. Times are RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeTimes {
    /// Now, by the node's clock.
    pub current_time: String,
    /// Start of the process.
    pub start_time: String,
    /// Time since the start, a Go duration.
    pub uptime: String,
}

#[cfg(test)]
mod tests;
