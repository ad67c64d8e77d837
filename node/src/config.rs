//! The command line as one checked value: what a node is told when it starts.
//!
//! Nothing here prints, exits or opens a file except to see whether an extension is there; `main` acts on what
//! [`parse`] returns. Reading order: this file (what there is to know) → `flags` (how words become values) →
//! `table` (every flag) → `validate` (what must hold) → `unsupported` (what the program cannot do yet).
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod address;
mod flags;
mod table;
mod unsupported;
mod validate;

pub use address::split_host_port;

/// What the command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// Start a node.
    Run(Box<Config>),
    /// Print this usage text to stderr and exit 0.
    Help(String),
    /// Print the version line to stderr and exit 0.
    Version,
}

/// A command line that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ConfigError {
    /// 2 for words that are not understood, 1 for values that contradict each other.
    pub exit_code: u8,
    /// All mistakes, one a line, in rqlite's order; with exit code 2 the usage follows. No newline at the end.
    pub text: String,
}

/// Certificates of one kind of connection, and how to check the other side's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authority that signs the other side's certificates; None: the system's.
    pub ca_cert: Option<PathBuf>,
    /// PEM file of the own certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of the own private key.
    pub key: Option<PathBuf>,
    /// Accept whatever certificate a peer serves. Not for HTTP. Default false.
    pub no_verify: bool,
    /// Require and verify certificates of clients. Not for OTLP. Default false.
    pub verify_client: bool,
    /// Host name expected in a peer's certificate; empty: the one dialled. Between nodes only.
    pub verify_server_name: String,
    /// Common name that a client's certificate must carry; empty: any. Not for OTLP.
    pub verify_common_name: String,
}

impl Tls {
    /// Is there a certificate with its key to serve?
    pub fn is_enabled(&self) -> bool {
        self.cert.is_some() && self.key.is_some()
    }
}

/// How nodes find each other without being told addresses.
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

/// Everything the command line says, defaults filled in. Durations given as negative count as zero. Of texts and
/// lists, empty means not given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Where the node keeps its data; absolute. No default.
    pub data_dir: PathBuf,
    /// The flags that were given, whatever their values.
    given: Vec<&'static str>,
    /// Print the version instead of starting.
    version: bool,
    /// See [`Config::node_id`].
    node_id: String,

    /// HTTP bind address, `host:port`. Default `localhost:4001`.
    pub http_addr: String,
    /// See [`Config::http_adv`].
    http_adv_addr: String,
    /// Value of `Access-Control-Allow-Origin`. Default: no such header.
    pub http_allow_origin: String,
    /// Certificates of the HTTP API.
    pub http_tls: Tls,
    /// Certificates between nodes.
    pub node_tls: Tls,
    /// Credentials file. Default: no authentication.
    pub auth: Option<PathBuf>,
    /// Configuration file of automatic backups. Default: none are made.
    pub auto_backup: Option<PathBuf>,
    /// Configuration file of the automatic restore. Default: none is done.
    pub auto_restore: Option<PathBuf>,

    /// Bind address of the inter-node port, `host:port`. Default `localhost:4002`.
    pub raft_addr: String,
    /// See [`Config::raft_adv`].
    raft_adv_addr: String,
    /// See [`Config::join`].
    join: String,
    /// Rounds over the whole join list. Default 5.
    pub join_attempts: u32,
    /// Pause between rounds. Default 3 s.
    pub join_interval: Duration,
    /// User of the credentials file as whom to join. Default: none.
    pub join_as: String,
    /// Nodes that must have been heard of before a cluster is founded. Default 0: no such founding.
    pub bootstrap_expect: u32,
    /// Limit of that wait. Default 120 s.
    pub bootstrap_expect_timeout: Duration,
    /// See [`Config::disco_mode`].
    disco_mode: String,
    /// Prefix of the key in Consul or etcd. Default `rqlite`.
    pub disco_key: String,
    /// JSON text, or path of a file that holds it. Default: none.
    pub disco_config: String,

    /// Enforce foreign keys on every connection. Default false.
    pub fk: bool,
    /// Most read-only connections; 0 = no cap. Default 256.
    pub db_max_ro_conns: u32,
    /// Statements that take at least so long are logged; 0 = off, the default.
    pub db_slow_statement: Duration,
    /// Period of automatic VACUUM; 0 = off, the default.
    pub auto_vacuum_int: Duration,
    /// Period of automatic PRAGMA optimize; 0 = off. Default 24 h.
    pub auto_optimize_int: Duration,
    /// `-auto-compare-int`.
    pub auto_compare_int: Duration,
    /// SQLite extensions: files, directories, `.zip`, `.tar.gz`; comma list without empty entries.
    pub extensions_path: Vec<String>,
    /// Change data capture: URL, `stdout`, or path of a JSON file. Default: none.
    pub cdc_config: String,

    /// OTLP/gRPC collector, `host:port`. Default: none.
    pub otlp_endpoint: String,
    /// Export period. Default 30 s.
    pub otlp_interval: Duration,
    /// Talk to the collector in plain text. Default false.
    pub otlp_insecure: bool,
    /// Certificates towards the collector.
    pub otlp_tls: Tls,

    /// ERROR, WARN, INFO or DEBUG; not validated. Default `WARN`.
    pub raft_log_level: String,
    /// Read-only node. Default false.
    pub raft_non_voter: bool,
    /// Log entries since the last snapshot that trigger one. Default (also for 0) 8192.
    pub raft_snap: u64,
    /// Bytes of SQLite's WAL that trigger a snapshot; 0 = off. Default 4 MiB.
    pub raft_snap_wal_size: u64,
    /// Period of both checks. Default 10 s.
    pub raft_snap_int: Duration,
    /// See [`Config::leader_lease_timeout`].
    raft_leader_lease_timeout: Duration,
    /// Silence of the leader after which a follower stands for election. Default 1 s.
    pub raft_heartbeat_timeout: Duration,
    /// How long a candidate waits for votes. Default 1 s.
    pub raft_election_timeout: Duration,
    /// Longest time between two messages that tell followers what is committed. Default 50 ms.
    pub raft_commit_timeout: Duration,
    /// Limit for handing an entry to the log, not for its commit. Default 10 s.
    pub raft_apply_timeout: Duration,
    /// Stop Raft when this node finds itself removed. Default false.
    pub raft_remove_shutdown: bool,
    /// Leave the cluster on a graceful stop. Default false.
    pub raft_cluster_remove_shutdown: bool,
    /// Hand over leadership on a graceful stop. Default true.
    pub raft_shutdown_stepdown: bool,
    /// Remove voters unreachable for so long. Default: never.
    pub raft_reap_node_timeout: Option<Duration>,
    /// Remove read-only nodes unreachable for so long. Default: never.
    pub raft_reap_read_only_node_timeout: Option<Duration>,
    /// Limit for connecting to another node. Default 30 s.
    pub cluster_connect_timeout: Duration,
    /// Compress snapshots on their way; the same on all nodes. Default false.
    pub compress_snap_transport: bool,

    /// Length of the write queue in requests. Default 1024.
    pub write_queue_capacity: u32,
    /// Requests per batch. Default 128.
    pub write_queue_batch_size: u32,
    /// How long a batch waits to fill. Default 50 ms.
    pub write_queue_timeout: Duration,
    /// Run each batch in a transaction. Default false.
    pub write_queue_tx: bool,

    /// Output of a CPU profile. Default: none.
    pub cpu_profile: Option<PathBuf>,
    /// Output of a memory profile. Default: none.
    pub mem_profile: Option<PathBuf>,
    /// Output of an execution trace. Default: none.
    pub trace_profile: Option<PathBuf>,
}

/// Lease when none is asked for; never longer than the heartbeat timeout.
const DEFAULT_LEASE: Duration = Duration::from_millis(500);

impl Config {
    /// Unique, permanent ID of this node; unless given, its advertised Raft address.
    pub fn node_id(&self) -> &str {
        if self.node_id.is_empty() {
            self.raft_adv()
        } else {
            &self.node_id
        }
    }

    /// Address under which clients reach the HTTP API; unless given, the bind address.
    pub fn http_adv(&self) -> &str {
        if self.http_adv_addr.is_empty() {
            &self.http_addr
        } else {
            &self.http_adv_addr
        }
    }

    /// The advertised HTTP address as a URL, `http://` or `https://`.
    pub fn http_url(&self) -> String {
        let scheme = if self.http_tls.is_enabled() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.http_adv())
    }

    /// Address under which other nodes reach this one; unless given, the bind address.
    pub fn raft_adv(&self) -> &str {
        if self.raft_adv_addr.is_empty() {
            &self.raft_addr
        } else {
            &self.raft_adv_addr
        }
    }

    /// Raft addresses of nodes to join, in the order given; none are checked beyond being `host:port`.
    pub fn join(&self) -> Vec<&str> {
        if self.join.is_empty() {
            Vec::new()
        } else {
            self.join.split(',').collect()
        }
    }

    /// How to find other nodes; None unless asked for.
    pub fn disco_mode(&self) -> Option<DiscoMode> {
        DiscoMode::parse(&self.disco_mode)
    }

    /// How long a leader may believe itself leader without hearing from a quorum. Unless given, 500 ms or the heartbeat
    /// timeout, whichever is less.
    pub fn leader_lease_timeout(&self) -> Duration {
        if self.raft_leader_lease_timeout.is_zero() {
            DEFAULT_LEASE.min(self.raft_heartbeat_timeout)
        } else {
            self.raft_leader_lease_timeout
        }
    }

    /// What was asked for and the program does not do yet, a sentence each; empty if it can start as told.
    pub fn unsupported(&self) -> Vec<String> {
        unsupported::asked_for(self)
    }

    /// Was the flag given?
    fn is_given(&self, flag: &str) -> bool {
        self.given.contains(&flag)
    }
}

/// What precedes the mistakes of values.
const FATAL: &str = "fatal: ";

/// Reads the words after the program's name.
///
/// # Errors
/// See [`ConfigError`]: all mistakes at once, as far as later words can be understood after a wrong one.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, ConfigError> {
    let mut config = table::defaults();
    let words = match flags::read(args, &mut config) {
        Ok(flags::Read::Words(words)) => words,
        Ok(flags::Read::Help) => return Ok(Parsed::Help(flags::usage())),
        Err(mistakes) => {
            let text = format!("{}\n{}", mistakes.join("\n"), flags::usage());
            return Err(ConfigError { exit_code: 2, text });
        }
    };
    if config.version {
        return Ok(Parsed::Version);
    }
    let mut mistakes = Vec::new();
    if words.is_empty() {
        mistakes.push(
            "failed to parse command-line flags: missing required argument: DataPath".to_owned(),
        );
    }
    mistakes.extend(
        validate::reaping(&config)
            .iter()
            .map(|mistake| format!("{FATAL}{mistake}")),
    );
    if let [dir, surplus @ ..] = words.as_slice() {
        if !surplus.is_empty() {
            let surplus = surplus.join(" ");
            mistakes.push(format!(
                "arguments after data directory ({dir}) are not accepted ([{surplus}])"
            ));
        }
        match absolute(dir) {
            Ok(dir) => config.data_dir = dir,
            Err(mistake) => mistakes.push(format!("{FATAL}{mistake}")),
        }
    }
    let values = validate::values(&config, &|path| Path::new(path).exists());
    mistakes.extend(values.iter().map(|mistake| format!("{FATAL}{mistake}")));
    if mistakes.is_empty() {
        Ok(Parsed::Run(Box::new(config)))
    } else {
        Err(ConfigError {
            exit_code: 1,
            text: mistakes.join("\n"),
        })
    }
}

fn absolute(dir: &str) -> Result<PathBuf, String> {
    let dir = dir.trim();
    if dir.is_empty() {
        return Err("data directory path is required".to_owned());
    }
    std::path::absolute(dir)
        .map_err(|error| format!("failed to determine absolute data path: {error}"))
}

#[cfg(test)]
mod tests;
