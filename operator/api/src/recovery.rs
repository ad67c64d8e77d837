//! `RqliteRecovery`: a person's consent to bring a cluster back from a lost quorum. One-shot, immutable, a record of what was done.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::status::Lineage;

/// What may be done to bring a cluster back.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rqlite.dev",
    version = "v1alpha1",
    kind = "RqliteRecovery",
    plural = "rqliterecoveries",
    shortname = "rqrec",
    category = "databases",
    namespaced,
    doc = "A one-time recovery of a cluster that lost its quorum for good. It cannot be changed: to try something else, create another one.",
    status = "RqliteRecoveryStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterRef.name"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Survivor", type_ = "string", json_path = ".status.survivor"),
    printcolumn(
        name = "Possibly lost",
        type_ = "integer",
        json_path = ".status.possiblyLostEntries"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("a recovery cannot be changed: create another RqliteRecovery"),
    validation = Rule::new("self.mode != 'RewriteAddresses' || !has(self.survivor)").message("mode RewriteAddresses needs all voters and chooses no survivor: remove survivor, or use mode SingleSurvivor"),
    validation = Rule::new("self.mode != 'RewriteAddresses' || !has(self.ignoreMembers)").message("mode RewriteAddresses needs all voters: remove ignoreMembers, or use mode SingleSurvivor"),
    validation = Rule::new("!has(self.survivor) || !has(self.ignoreMembers) || !self.ignoreMembers.exists(m, m == self.survivor)").message("the survivor is also in ignoreMembers: remove it from one of them")
)]
pub struct RqliteRecoverySpec {
    /// The cluster, in the same namespace.
    pub cluster_ref: ClusterRef,
    /// SingleSurvivor: one member becomes the cluster, the others join it anew. RewriteAddresses: all voters are there, but under new
    /// names; nothing is lost. SingleSurvivor unless given.
    #[serde(default)]
    pub mode: RecoveryMode,
    /// Pod of the member to recover from. Unless given, the operator takes the one with the newest log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub survivor: Option<String>,
    /// Consent to lose what the survivor does not have. Without it a recovery that may lose something stops at AwaitingApproval and says how
    /// much that is.
    #[serde(default)]
    pub accept_data_loss: bool,
    /// Members that need not be looked at first, because you know that they are gone; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub ignore_members: Vec<String>,
    /// Pods that you assert are not running any more although Kubernetes cannot tell; at most 64. If one runs after all, clients may
    /// read its old data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub assume_stopped: Vec<String>,
    /// Only look and report what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Why, for those who read this later.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
}

/// A cluster by name.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRef {
    /// Its name.
    #[schemars(length(min = 1, max = 45))]
    pub name: String,
}

/// What kind of recovery.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum RecoveryMode {
    /// One member becomes the cluster.
    #[default]
    SingleSurvivor,
    /// All voters are there, under new names.
    RewriteAddresses,
}

/// How far a recovery is.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoveryPhase {
    /// Not looked at yet.
    Pending,
    /// Asking each member for its newest log entry.
    Inspecting,
    /// Something may be lost, and nobody has agreed to that. Another RqliteRecovery with acceptDataLoss: true takes over from this one.
    AwaitingApproval,
    /// Stopping every node.
    Fencing,
    /// The survivor's membership is being rewritten.
    Applying,
    /// The survivor runs and is being checked.
    Verifying,
    /// The others join as new members.
    Rejoining,
    /// Done.
    Succeeded,
    /// Failed; status.message says where the data is and what to do.
    Failed,
    /// Refused: nothing was touched.
    Rejected,
}

/// A place in the log.
#[derive(
    KubeSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct LogPosition {
    /// Term of the entry.
    pub term: i64,
    /// Index of the entry.
    pub index: i64,
}

/// A member from which the cluster could be recovered.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Its pod.
    pub member: String,
    /// Its newest log entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_log: Option<LogPosition>,
    /// Incarnation of its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// Why it cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A phase that was entered.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryStep {
    /// Which.
    pub phase: RecoveryPhase,
    /// When.
    pub at: Time,
}

/// A recovery past its admission, as the cluster's status remembers it: everything that its steps need, so that it can be finished although its
/// object is gone.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryRecord {
    /// The RqliteRecovery.
    pub name: String,
    /// Its uid, which is the plan's id.
    pub uid: String,
    /// What kind.
    #[serde(default)]
    pub mode: RecoveryMode,
    /// How far it is.
    pub phase: RecoveryPhase,
    /// The member that the cluster is recovered from.
    pub survivor: String,
    /// Incarnation of its data when it was looked at.
    pub incarnation: String,
    /// Its newest log entry when it was looked at.
    pub last_log: LogPosition,
    /// The history that ends.
    pub from: Lineage,
    /// The history that begins.
    pub to: Lineage,
    /// Members of the new configuration besides the survivor: with mode RewriteAddresses all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub peers: Vec<RecoveryPeer>,
    /// Pods that a person asserts are not running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub assume_stopped: Vec<String>,
    /// Read replicas that an autoscaler had asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_replicas: Option<i32>,
    /// Log entries that may be lost.
    #[serde(default)]
    pub possibly_lost_entries: i64,
    /// What it waits for, or how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When each phase was entered.
    #[schemars(length(max = 32))]
    pub steps: Vec<RecoveryStep>,
}

/// A member of the configuration that a recovery makes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPeer {
    /// Its name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Does it vote?
    pub voter: bool,
}

impl RecoveryPhase {
    /// Is nothing more going to happen?
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Rejected)
    }
}

/// What came of it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RqliteRecoveryStatus {
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RecoveryPhase>,
    /// Id of the plan: the uid of this object. A plan is carried out at most once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_id: Option<String>,
    /// What each member has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["member".into()]))]
    pub candidates: Vec<Candidate>,
    /// The member that the cluster is recovered from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survivor: Option<String>,
    /// Highest commit index ever seen minus the survivor's newest index: what may be lost, in log entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possibly_lost_entries: Option<i64>,
    /// What it waits for, or why it failed or was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When each phase was entered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub steps: Vec<RecoveryStep>,
    /// Complete: true once it succeeded, failed or was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
