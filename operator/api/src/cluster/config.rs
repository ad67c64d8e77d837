//! Settings that become flags on the nodes' command lines.
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::Period;

/// Settings of the nodes. A setting that is not given keeps the node's own default.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Settings of Raft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft: Option<Raft>,
    /// Settings of SQLite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<Sqlite>,
    /// The queue of queued writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_queue: Option<WriteQueue>,
    /// Additional flags of rqlited, each as one string such as -raft-log-level=INFO; at most 32. Flags that
    /// the operator sets itself (identity, addresses, joining, discovery, users, certificates, removal of
    /// members) are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(
            length(min = 2, max = 512),
            regex(pattern = r"^--?[a-z][a-z0-9-]*(=.*)?$")
        )
    )]
    #[x_kube(validation = Rule::new("!self.exists(a, a.matches('^--?(node-id|http-addr|http-adv-addr|raft-addr|raft-adv-addr|join|join-.*|bootstrap-.*|disco-.*|auth|http-ca-cert|http-cert|http-key|http-verify-.*|http-tls-optional|node-ca-cert|node-cert|node-key|node-no-verify|node-verify-.*|node-tls-stage|raft-non-voter|raft-reap-.*|raft-cluster-remove-shutdown|raft-remove-shutdown|raft-shutdown-stepdown|auto-restore|archive|archive-key-file)(=|$)'))").message("extraArgs holds a flag that the operator sets itself (identity, addresses, join, bootstrap, disco, auth, certificates, reaping, archive): remove it and use the field of the spec for it"))]
    pub extra_args: Vec<String>,
    /// Additional environment variables of the nodes; at most 64. They can be used in extraArgs as $(NAME).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("!self.exists(e, e.name == 'POD_NAME')").message("the operator sets POD_NAME itself: remove it from extraEnv"))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub extra_env: Vec<EnvVar>,
}

/// Settings of Raft.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.electionTimeout) >= duration(self.heartbeatTimeout)").message("electionTimeout must not be shorter than heartbeatTimeout: raise electionTimeout or lower heartbeatTimeout"),
    validation = Rule::new("!has(self.leaderLeaseTimeout) || duration(self.leaderLeaseTimeout) <= duration(self.heartbeatTimeout)").message("leaderLeaseTimeout must not be longer than heartbeatTimeout, or two nodes could lead at once: lower leaderLeaseTimeout"),
    validation = Rule::new("duration(self.heartbeatTimeout) >= duration('100ms')").message("heartbeatTimeout must be at least 100ms: below, a busy machine causes elections")
)]
pub struct Raft {
    /// How long a follower hears nothing from the leader before it starts an election. Defaults to 1s.
    #[serde(default = "one_second")]
    pub heartbeat_timeout: Period,
    /// How long a candidate waits for votes. Defaults to 1s.
    #[serde(default = "one_second")]
    pub election_timeout: Period,
    /// How long a leader that cannot reach a quorum remains leader. Defaults to 500ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_lease_timeout: Option<Period>,
    /// Number of log entries after which a snapshot is taken. Defaults to 8192.
    #[serde(default = "snapshot_threshold")]
    #[schemars(range(min = 64, max = 10_000_000))]
    pub snapshot_threshold: i64,
    /// How often a node checks whether a snapshot is due. Defaults to 10s.
    #[serde(default = "ten_seconds")]
    pub snapshot_interval: Period,
    /// Timeout for appending an entry to the log. Defaults to 10s.
    #[serde(default = "ten_seconds")]
    pub apply_timeout: Period,
}

fn one_second() -> Period {
    Period::from("1s")
}

fn ten_seconds() -> Period {
    Period::from("10s")
}

fn snapshot_threshold() -> i64 {
    8192
}

impl Default for Raft {
    fn default() -> Self {
        Self {
            heartbeat_timeout: one_second(),
            election_timeout: one_second(),
            leader_lease_timeout: None,
            snapshot_threshold: snapshot_threshold(),
            snapshot_interval: ten_seconds(),
            apply_timeout: ten_seconds(),
        }
    }
}

/// Settings of SQLite.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sqlite {
    /// Whether foreign key constraints are enforced. Defaults to false.
    #[serde(default)]
    pub foreign_keys: bool,
    /// How often VACUUM runs. It blocks the database and temporarily needs twice its size on disk. Defaults
    /// to never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_vacuum_interval: Option<Period>,
    /// How often PRAGMA optimize runs; 0s means never. Defaults to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_optimize_interval: Option<Period>,
    /// Maximum number of connections that read at the same time. Defaults to 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_read_connections: Option<i32>,
}

/// The queue of queued writes, which are acknowledged before they are durable.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteQueue {
    /// Maximum number of queued requests. Defaults to 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub capacity: Option<i32>,
    /// Maximum number of requests that are written in one batch. Defaults to 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub batch_size: Option<i32>,
    /// How long a batch waits for more requests. Defaults to 50ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Whether each batch is written in one transaction. Defaults to false.
    #[serde(default)]
    pub transaction: bool,
}

/// An environment variable: a value or the source of one.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.value) && has(self.valueFrom))").message("give value or valueFrom, not both"))]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$")
    )]
    pub name: String,
    /// Value of the variable. Defaults to the empty string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// Source of the value, read when the container starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// A key of a Secret or of a ConfigMap in the cluster's namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretKeyRef) != has(self.configMapKeyRef)").message("give exactly one of secretKeyRef and configMapKeyRef"))]
pub struct EnvSource {
    /// A key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeySelector>,
    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeySelector>,
}

/// A key of a Secret or ConfigMap.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySelector {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}
