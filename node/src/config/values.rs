//! The values of the command line.
use std::{path::PathBuf, time::Duration};

use node_contract::parked::ParkedPolicy;

/// Certificates for one kind of connection, and how the other side's certificate is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authority that signs the other side's certificates; `None`: the system's authorities.
    pub ca_cert: Option<PathBuf>,
    /// PEM file of this node's certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of this node's private key.
    pub key: Option<PathBuf>,
    /// The port also accepts connections without TLS. Only for HTTP. Defaults to false.
    pub optional: bool,
    /// Accept any certificate of the other side. Not for HTTP. Defaults to false.
    pub no_verify: bool,
    /// Require and verify certificates of clients. Not for OTLP. Defaults to false.
    pub verify_client: bool,
    /// Host name expected in the other node's certificate; empty: the dialed one. Only between nodes.
    pub verify_server_name: String,
    /// Common name that a client's certificate must have; empty: any. Not for OTLP.
    pub verify_common_name: String,
}

impl Tls {
    /// A certificate and its key are configured.
    pub fn is_enabled(&self) -> bool {
        self.cert.is_some() && self.key.is_some()
    }
}

/// How far this node is on the way from plain connections between nodes to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeTlsStage {
    /// Takes TLS and plain connections, and dials plain.
    Accept,
    /// Takes both, and dials TLS.
    Use,
    /// TLS only.
    Require,
}

impl NodeTlsStage {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 3] = [
        ("accept", Self::Accept),
        ("use", Self::Use),
        ("require", Self::Require),
    ];

    /// The value of the flag.
    pub fn name(self) -> &'static str {
        let known = Self::ALL.into_iter().find(|(_, stage)| *stage == self);
        known.map_or("", |(name, _)| name)
    }

    fn parse(name: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|(known, _)| *known == name);
        known.map(|(_, stage)| stage)
    }
}

/// How nodes discover each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoMode {
    /// A key in Consul.
    ConsulKv,
    /// A key in etcd.
    EtcdKv,
    /// A and AAAA records.
    Dns,
    /// SRV records.
    DnsSrv,
}

impl DiscoMode {
    const ALL: [(&'static str, Self); 4] = [
        ("consul-kv", Self::ConsulKv),
        ("etcd-kv", Self::EtcdKv),
        ("dns", Self::Dns),
        ("dns-srv", Self::DnsSrv),
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, mode)| mode)
    }
}

/// All values of the command line, including defaults. Negative durations count as zero. Empty texts and
/// lists mean that the flag was not given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Data directory; an absolute path. Required.
    pub data_dir: PathBuf,
    /// Names of the flags that were given.
    pub(super) given: Vec<&'static str>,
    /// Print the version instead of starting.
    pub(super) version: bool,
    /// See [`Config::node_id`].
    pub(super) node_id: String,

    /// HTTP bind address, `host:port`. Defaults to `localhost:4001`.
    pub http_addr: String,
    /// See [`Config::http_adv`].
    pub(super) http_adv_addr: String,
    /// Value of `Access-Control-Allow-Origin`. Defaults to no such header.
    pub http_allow_origin: String,
    /// Certificates of the HTTP API.
    pub http_tls: Tls,
    /// Bind address of the health listener, `host:port`. Defaults to none.
    pub health_addr: String,
    /// Certificates of connections between nodes.
    pub node_tls: Tls,
    /// See [`Config::node_tls_stage`].
    pub(super) node_tls_stage: String,
    /// Credentials file. Defaults to no authentication.
    pub auth: Option<PathBuf>,
    /// `stderr` or the file of the audit log. Defaults to no such log.
    pub audit_log: Option<PathBuf>,
    /// Configuration file of automatic backups. Defaults to none: no backups are made.
    pub auto_backup: Option<PathBuf>,
    /// Configuration file of the automatic restore. Defaults to none: nothing is restored.
    pub auto_restore: Option<PathBuf>,
    /// Configuration file of the continuous archive. Defaults to none: no archive is written.
    pub archive: Option<PathBuf>,
    /// Keys with which the archive is encrypted. Defaults to none: it is not encrypted.
    pub archive_key_file: Option<PathBuf>,

    /// Bind address of the inter-node port, `host:port`. Defaults to `localhost:4002`.
    pub raft_addr: String,
    /// See [`Config::raft_adv`].
    pub(super) raft_adv_addr: String,
    /// See [`Config::join`].
    pub(super) join: String,
    /// Rounds over all join addresses. Defaults to 5.
    pub join_attempts: u32,
    /// Pause between rounds. Defaults to 3 s.
    pub join_interval: Duration,
    /// User of the credentials file as which to join. Defaults to none.
    pub join_as: String,
    /// Number of nodes that form the first cluster together. Defaults to 0: this node does not form one with
    /// others.
    pub bootstrap_expect: u32,
    /// Time limit of forming. Defaults to 120 s.
    pub bootstrap_expect_timeout: Duration,
    /// See [`Config::disco_mode`].
    pub(super) disco_mode: String,
    /// Prefix of the key in Consul or etcd. Defaults to `rqlite`.
    pub disco_key: String,
    /// JSON text, or the path of a file with it. Defaults to none.
    pub disco_config: String,

    /// Enforce foreign keys on every connection. Defaults to false.
    pub fk: bool,
    /// Most read-only database connections; 0 = no limit. Defaults to 256.
    pub db_max_ro_conns: u32,
    /// Statements that take at least this long are logged. Defaults to 0 = off.
    pub db_slow_statement: Duration,
    /// Interval of automatic VACUUM. Defaults to 0 = off.
    pub auto_vacuum_int: Duration,
    /// Interval of automatic PRAGMA optimize; 0 = off. Defaults to 24 h.
    pub auto_optimize_int: Duration,
    /// Parked copies of data that are kept. Defaults to 2.
    pub parked_keep: u32,
    /// Age from which parked copies are deleted; 0 = never. Defaults to 14 days.
    pub parked_max_age: Duration,
    /// Interval at which the leader compares the copies of all members. Defaults to 0 = off.
    pub auto_compare_int: Duration,
    /// SQLite extensions: files, directories, `.zip`, `.tar.gz`; comma list without empty entries.
    pub extensions_path: Vec<String>,
    /// Change data capture: URL, `stdout`, or path of a JSON file. Defaults to none.
    pub cdc_config: String,

    /// OTLP/gRPC collector, `host:port`. Defaults to none.
    pub otlp_endpoint: String,
    /// Export interval. Defaults to 30 s.
    pub otlp_interval: Duration,
    /// Connect to the collector without TLS. Defaults to false.
    pub otlp_insecure: bool,
    /// Certificates for the connection to the collector.
    pub otlp_tls: Tls,

    /// ERROR, WARN, INFO or DEBUG; not validated. Defaults to `WARN`.
    pub raft_log_level: String,
    /// Read-only node. Defaults to false.
    pub raft_non_voter: bool,
    /// Log entries since the last snapshot that trigger one. Defaults to (also for 0) 8192.
    pub raft_snap: u64,
    /// Bytes of SQLite's WAL that trigger a snapshot; 0 = off. Defaults to 4 MiB.
    pub raft_snap_wal_size: u64,
    /// Interval of both checks. Defaults to 10 s.
    pub raft_snap_int: Duration,
    /// See [`Config::leader_lease_timeout`].
    pub(super) raft_leader_lease_timeout: Duration,
    /// Time without contact to the leader after which a follower starts an election. Defaults to 1 s.
    pub raft_heartbeat_timeout: Duration,
    /// How long a candidate waits for votes. Defaults to 1 s.
    pub raft_election_timeout: Duration,
    /// Longest time between two messages that report the commit index to followers. Defaults to 50 ms.
    pub raft_commit_timeout: Duration,
    /// Timeout for appending an entry to the log, not for its commit. Defaults to 10 s.
    pub raft_apply_timeout: Duration,
    /// Stop Raft when this node has been removed. Defaults to false.
    pub raft_remove_shutdown: bool,
    /// Leave the cluster on a graceful stop. Defaults to false.
    pub raft_cluster_remove_shutdown: bool,
    /// Transfer leadership on a graceful stop. Defaults to true.
    pub raft_shutdown_stepdown: bool,
    /// Remove voters that are unreachable for this long. Defaults to never.
    pub raft_reap_node_timeout: Option<Duration>,
    /// Remove read-only nodes that are unreachable for this long. Defaults to never.
    pub raft_reap_read_only_node_timeout: Option<Duration>,
    /// Timeout for connecting to another node. Defaults to 30 s.
    pub cluster_connect_timeout: Duration,
    /// Compress snapshots that are sent; must be the same on all nodes. Defaults to false.
    pub compress_snap_transport: bool,

    /// Capacity of the write queue in requests. Defaults to 1024.
    pub write_queue_capacity: u32,
    /// Requests per batch. Defaults to 128.
    pub write_queue_batch_size: u32,
    /// How long a batch waits to fill. Defaults to 50 ms.
    pub write_queue_timeout: Duration,
    /// Run each batch in a transaction. Defaults to false.
    pub write_queue_tx: bool,

    /// Output of a CPU profile. Defaults to none.
    pub cpu_profile: Option<PathBuf>,
    /// Output of a memory profile. Defaults to none.
    pub mem_profile: Option<PathBuf>,
    /// Output of an execution trace. Defaults to none.
    pub trace_profile: Option<PathBuf>,
}

/// Default of the leader lease, unless the heartbeat timeout is shorter.
const DEFAULT_LEASE: Duration = Duration::from_millis(500);

impl Config {
    /// Which parked copies are kept, unless the operator's state file says so.
    pub fn parked_policy(&self) -> ParkedPolicy {
        ParkedPolicy {
            keep: self.parked_keep,
            max_age_seconds: self.parked_max_age.as_secs(),
        }
    }

    /// Unique, permanent id of this node. Defaults to the advertised Raft address.
    pub fn node_id(&self) -> &str {
        if self.node_id.is_empty() {
            self.raft_adv()
        } else {
            &self.node_id
        }
    }

    /// Address at which clients reach the HTTP API. Defaults to the bind address.
    pub fn http_adv(&self) -> &str {
        if self.http_adv_addr.is_empty() {
            &self.http_addr
        } else {
            &self.http_adv_addr
        }
    }

    /// The advertised HTTP address as a URL, `http://` or `https://`. While both are served, it is the one
    /// that every client speaks.
    pub fn http_url(&self) -> String {
        let scheme = if self.http_tls.is_enabled() && !self.http_tls.optional {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.http_adv())
    }

    /// Address at which other nodes reach this one. Defaults to the bind address.
    pub fn raft_adv(&self) -> &str {
        if self.raft_adv_addr.is_empty() {
            &self.raft_addr
        } else {
            &self.raft_adv_addr
        }
    }

    /// Raft addresses through which to join, in the given order. They are only checked to be `host:port`.
    pub fn join(&self) -> Vec<&str> {
        if self.join.is_empty() {
            Vec::new()
        } else {
            self.join.split(',').collect()
        }
    }

    /// How to discover other nodes. Defaults to none.
    pub fn disco_mode(&self) -> Option<DiscoMode> {
        DiscoMode::parse(&self.disco_mode)
    }

    /// The step of the move to TLS between nodes. Defaults to the last one; `None` if the flag has no such
    /// value.
    pub fn node_tls_stage(&self) -> Option<NodeTlsStage> {
        NodeTlsStage::parse(&self.node_tls_stage)
    }

    /// How long a leader stays leader without contact to a quorum. Defaults to 500 ms or the heartbeat
    /// timeout, whichever is less.
    pub fn leader_lease_timeout(&self) -> Duration {
        if self.raft_leader_lease_timeout.is_zero() {
            DEFAULT_LEASE.min(self.raft_heartbeat_timeout)
        } else {
            self.raft_leader_lease_timeout
        }
    }

    /// The flag was given.
    pub(super) fn is_given(&self, flag: &str) -> bool {
        self.given.contains(&flag)
    }
}
