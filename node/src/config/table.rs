//! The table of all flags: name, type, field, default and help text.
use std::time::Duration;

use super::{
    flag::{
        Field::{self, Count, Limit, List, Path, Period, Size, Switch, Text},
        Flag,
    },
    values::Config,
};

const fn flag(name: &'static str, field: Field, help: &'static str) -> Flag {
    Flag { name, field, help }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The configuration of an empty command line.
pub(super) fn defaults() -> Config {
    let mut config = Config::default();
    for flag in FLAGS {
        flag.field.reset(&mut config);
    }
    config
}

/// The flags, in the order in which they are documented.
#[rustfmt::skip]
pub(super) const FLAGS: &[Flag] = &[
    flag("version", Switch(|c| &mut c.version, false), "Print the version and exit"),
    flag("node-id", Text(|c| &mut c.node_id, ""), "Unique, permanent ID of this node. If not set, the advertised Raft address"),

    flag("http-addr", Text(|c| &mut c.http_addr, "localhost:4001"), "Bind address of the HTTP API. HTTPS is on when a certificate and a key are set"),
    flag("http-adv-addr", Text(|c| &mut c.http_adv_addr, ""), "Advertised address of the HTTP API. If not set, the bind address"),
    flag("http-allow-origin", Text(|c| &mut c.http_allow_origin, ""), "Value of the header Access-Control-Allow-Origin"),
    flag("http-ca-cert", Path(|c| &mut c.http_tls.ca_cert), "CA certificates against which certificates of HTTP clients are verified. If not set, the system's"),
    flag("http-cert", Path(|c| &mut c.http_tls.cert), "Certificate of the HTTP API, then those that sign it. With a key, the API is served by HTTPS only"),
    flag("http-key", Path(|c| &mut c.http_tls.key), "Private key of the HTTP API"),
    flag("http-verify-client", Switch(|c| &mut c.http_tls.verify_client, false), "Require and verify certificates of HTTP clients"),
    flag("http-verify-common-name", Text(|c| &mut c.http_tls.verify_common_name, ""), "Common name that the certificate of an HTTP client must carry"),
    flag("http-tls-optional", Switch(|c| &mut c.http_tls.optional, false), "With HTTPS, accept plain HTTP on the same port too, and advertise http:// addresses, while clients move"),
    flag("health-addr", Text(|c| &mut c.health_addr, ""), "Bind address of a listener for probes and Prometheus only: /readyz, /livez and /metrics by plain HTTP without a password. If not set, there is none"),

    flag("node-ca-cert", Path(|c| &mut c.node_tls.ca_cert), "CA certificates against which certificates of other nodes are verified. If not set, the system's"),
    flag("node-cert", Path(|c| &mut c.node_tls.cert), "Certificate of the inter-node port, also shown to other nodes. With a key, connections between nodes use TLS"),
    flag("node-key", Path(|c| &mut c.node_tls.key), "Private key of the inter-node port"),
    flag("node-no-verify", Switch(|c| &mut c.node_tls.no_verify, false), "Do not verify the certificate that another node serves"),
    flag("node-verify-client", Switch(|c| &mut c.node_tls.verify_client, false), "Require and verify certificates of connecting nodes"),
    flag("node-verify-server-name", Text(|c| &mut c.node_tls.verify_server_name, ""), "Host name expected in the certificate that another node serves"),
    flag("node-tls-stage", Text(|c| &mut c.node_tls_stage, "require"), "Step of the move to TLS between nodes: accept (take both, dial plain), use (take both, dial TLS) or require (TLS only)"),
    flag("node-verify-common-name", Text(|c| &mut c.node_tls.verify_common_name, ""), "Common name that the certificate of a connecting node must carry"),

    flag("auth", Path(|c| &mut c.auth), "Credentials file. If not set, no credentials are required"),
    flag("audit-log", Path(|c| &mut c.audit_log), "Audit log of requests, as JSON lines: stderr, or the path of a file. If not set, none is written"),
    flag("auto-backup", Path(|c| &mut c.auto_backup), "Configuration file of automatic backups"),
    flag("auto-restore", Path(|c| &mut c.auto_restore), "Configuration file of the automatic restore"),
    flag("archive", Path(|c| &mut c.archive), "Configuration file of the continuous archive, from which any moment of the past can be restored. Give the same to all nodes"),
    flag("archive-key-file", Path(|c| &mut c.archive_key_file), "Keys of the archive, one a line: an id, then the base64 of 32 bytes. The first encrypts, all decrypt. If not set, the archive is not encrypted"),

    flag("raft-addr", Text(|c| &mut c.raft_addr, "localhost:4002"), "Bind address of the inter-node port"),
    flag("raft-adv-addr", Text(|c| &mut c.raft_adv_addr, ""), "Advertised address of the inter-node port. If not set, the bind address"),
    flag("join", Text(|c| &mut c.join, ""), "Comma-separated Raft addresses of nodes through which to join a cluster"),
    flag("join-attempts", Count(|c| &mut c.join_attempts, 5), "Rounds over all join addresses"),
    flag("join-interval", Period(|c| &mut c.join_interval, seconds(3)), "Pause between two rounds"),
    flag("join-as", Text(|c| &mut c.join_as, ""), "User of the credentials file as which to join"),
    flag("bootstrap-expect", Count(|c| &mut c.bootstrap_expect, 0), "Number of nodes that form the first cluster together"),
    flag("bootstrap-expect-timeout", Period(|c| &mut c.bootstrap_expect_timeout, seconds(120)), "Time limit of forming the first cluster"),
    flag("disco-mode", Text(|c| &mut c.disco_mode, ""), "How to discover other nodes: consul-kv, etcd-kv, dns or dns-srv"),
    flag("disco-key", Text(|c| &mut c.disco_key, "rqlite"), "Prefix of the key in Consul or etcd"),
    flag("disco-config", Text(|c| &mut c.disco_config, ""), "Configuration of the discovery: JSON, or the path of a file with it"),

    flag("fk", Switch(|c| &mut c.fk, false), "Enforce foreign keys"),
    flag("db-max-ro-conns", Count(|c| &mut c.db_max_ro_conns, 256), "Most read-only database connections, and with them long reads at a time; 0 is no limit"),
    flag("db-slow-statement", Period(|c| &mut c.db_slow_statement, seconds(0)), "Log statements that take at least this long; 0 is off"),
    flag("auto-vacuum-int", Period(|c| &mut c.auto_vacuum_int, seconds(0)), "Interval of automatic VACUUM; 0 is off"),
    flag("auto-optimize-int", Period(|c| &mut c.auto_optimize_int, seconds(24 * 60 * 60)), "Interval of automatic PRAGMA optimize; 0 is off"),
    flag("parked-keep", Count(|c| &mut c.parked_keep, 2), "Number of parked copies of data that are kept, the newest ones"),
    flag("parked-max-age", Period(|c| &mut c.parked_max_age, seconds(14 * 24 * 3600)), "Age from which parked copies of data are deleted; 0 is never"),
    flag("auto-compare-int", Period(|c| &mut c.auto_compare_int, seconds(0)), "Interval at which the leader compares the copies of all nodes; 0 is off"),
    flag("extensions-path", List(|c| &mut c.extensions_path), "Comma-separated files, directories, zip or tar.gz archives with SQLite extensions"),
    flag("cdc-config", Text(|c| &mut c.cdc_config, ""), "Change data capture: a URL, stdout, or the path of a JSON file"),

    flag("otlp-endpoint", Text(|c| &mut c.otlp_endpoint, ""), "Address of an OTLP/gRPC collector of metrics"),
    flag("otlp-interval", Period(|c| &mut c.otlp_interval, seconds(30)), "Interval of the export of metrics"),
    flag("otlp-insecure", Switch(|c| &mut c.otlp_insecure, false), "Connect to the collector without TLS"),
    flag("otlp-no-verify", Switch(|c| &mut c.otlp_tls.no_verify, false), "Do not verify the collector's certificate"),
    flag("otlp-ca-cert", Path(|c| &mut c.otlp_tls.ca_cert), "CA certificate against which the collector's is verified"),
    flag("otlp-cert", Path(|c| &mut c.otlp_tls.cert), "Client certificate for the collector"),
    flag("otlp-key", Path(|c| &mut c.otlp_tls.key), "Private key of that certificate"),

    flag("raft-log-level", Text(|c| &mut c.raft_log_level, "WARN"), "Lowest level of Raft's log lines: ERROR, WARN, INFO or DEBUG"),
    flag("raft-non-voter", Switch(|c| &mut c.raft_non_voter, false), "Run as a read-only node"),
    flag("raft-snap", Size(|c| &mut c.raft_snap, 8192), "Log entries that trigger a snapshot"),
    flag("raft-snap-wal-size", Size(|c| &mut c.raft_snap_wal_size, 4 * 1024 * 1024), "Bytes of SQLite's WAL that trigger a snapshot; 0 is off"),
    flag("raft-snap-int", Period(|c| &mut c.raft_snap_int, seconds(10)), "Interval of both checks"),
    flag("raft-leader-lease-timeout", Period(|c| &mut c.raft_leader_lease_timeout, seconds(0)), "How long a leader stays leader without a quorum; 0 is 500ms"),
    flag("raft-heartbeat-timeout", Period(|c| &mut c.raft_heartbeat_timeout, seconds(1)), "Time without contact to the leader after which a follower starts an election"),
    flag("raft-election-timeout", Period(|c| &mut c.raft_election_timeout, seconds(1)), "How long a candidate waits for votes"),
    flag("raft-commit-timeout", Period(|c| &mut c.raft_commit_timeout, millis(50)), "Longest time between two messages that report the commit index to followers"),
    flag("raft-apply-timeout", Period(|c| &mut c.raft_apply_timeout, seconds(10)), "Timeout for appending an entry to the log"),
    flag("raft-remove-shutdown", Switch(|c| &mut c.raft_remove_shutdown, false), "Stop Raft when this node is removed"),
    flag("raft-cluster-remove-shutdown", Switch(|c| &mut c.raft_cluster_remove_shutdown, false), "Leave the cluster on a graceful stop"),
    flag("raft-shutdown-stepdown", Switch(|c| &mut c.raft_shutdown_stepdown, true), "Transfer leadership on a graceful stop"),
    flag("raft-reap-node-timeout", Limit(|c| &mut c.raft_reap_node_timeout), "Remove voters that are unreachable for this long. If not set, never"),
    flag("raft-reap-read-only-node-timeout", Limit(|c| &mut c.raft_reap_read_only_node_timeout), "Remove read-only nodes that are unreachable for this long. If not set, never"),
    flag("cluster-connect-timeout", Period(|c| &mut c.cluster_connect_timeout, seconds(30)), "Timeout for connecting to another node"),
    flag("compress-snap-transport", Switch(|c| &mut c.compress_snap_transport, false), "Compress snapshots between nodes; must be the same on all of them"),

    flag("write-queue-capacity", Count(|c| &mut c.write_queue_capacity, 1024), "Capacity of the write queue in requests"),
    flag("write-queue-batch-size", Count(|c| &mut c.write_queue_batch_size, 128), "Most requests of the write queue in a batch"),
    flag("write-queue-timeout", Period(|c| &mut c.write_queue_timeout, millis(50)), "How long a batch waits to fill"),
    flag("write-queue-tx", Switch(|c| &mut c.write_queue_tx, false), "Run each batch in a transaction"),

    flag("cpu-profile", Path(|c| &mut c.cpu_profile), "Output file of a CPU profile"),
    flag("mem-profile", Path(|c| &mut c.mem_profile), "Output file of a memory profile"),
    flag("trace-profile", Path(|c| &mut c.trace_profile), "Output file of an execution trace"),
];
