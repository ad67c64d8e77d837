//! `RqliteBackup`: one backup of a cluster, made once, and the record of what came of it.
use k8s_openapi::{
    api::core::v1::{PodSpec, ResourceRequirements},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{
    cluster::Deletion,
    lineage::Lineage,
    open::open_enum,
    scalar::{ByteSize, Span},
    status::AnyObject,
    store::{ObjectName, StoreTarget},
};

/// One backup.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rqlite.dev",
    version = "v1alpha1",
    kind = "RqliteBackup",
    plural = "rqlitebackups",
    shortname = "rqbk",
    category = "databases",
    namespaced,
    doc = "One backup of a cluster: its whole database as one file, checked and put into a store. It cannot be changed, except for deletionPolicy to Retain: to make another backup, create another object.",
    status = "RqliteBackupStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterRef.name"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.bytes"),
    printcolumn(name = "Index", type_ = "integer", json_path = ".status.raftIndex"),
    printcolumn(name = "Integrity", type_ = "string", json_path = ".status.integrity"),
    printcolumn(name = "Completed", type_ = "date", json_path = ".status.completedAt"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "URI",
        type_ = "string",
        json_path = ".status.uri",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.size() <= 52").message("the name may have at most 52 characters, because the names of Jobs and pods are derived from it: choose a shorter name")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.clusterRef == oldSelf.clusterRef && self.compress == oldSelf.compress && self.vacuum == oldSelf.vacuum && has(self.target) == has(oldSelf.target) && (!has(self.target) || self.target == oldSelf.target) && has(self.timeout) == has(oldSelf.timeout) && (!has(self.timeout) || self.timeout == oldSelf.timeout) && has(self.retries) == has(oldSelf.retries) && (!has(self.retries) || self.retries == oldSelf.retries) && has(self.scratchLimit) == has(oldSelf.scratchLimit) && (!has(self.scratchLimit) || self.scratchLimit == oldSelf.scratchLimit) && has(self.serviceAccountName) == has(oldSelf.serviceAccountName) && (!has(self.serviceAccountName) || self.serviceAccountName == oldSelf.serviceAccountName) && has(self.resources) == has(oldSelf.resources) && (!has(self.resources) || self.resources == oldSelf.resources) && (!has(self.deletionPolicy) || self.deletionPolicy == 'Retain' || (has(oldSelf.deletionPolicy) && self.deletionPolicy == oldSelf.deletionPolicy))").message("a backup cannot be changed, except for deletionPolicy to Retain: create another RqliteBackup")
)]
pub struct RqliteBackupSpec {
    /// The cluster, in the same namespace.
    pub cluster_ref: ObjectName,
    /// Where, how, and for how long.
    #[serde(flatten)]
    pub how: BackupOptions,
}

/// What a backup and a schedule of backups have in common.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupOptions {
    /// Where the file is put. Defaults to the target of the cluster's spec.archive, below backups/.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<StoreTarget>,
    /// Whether the file is compressed. Defaults to true.
    #[serde(default = "yes")]
    pub compress: bool,
    /// Whether the copy is vacuumed before it is put into the store: smaller, but the node needs the space of
    /// a second copy meanwhile. Defaults to false.
    #[serde(default)]
    pub vacuum: bool,
    /// What happens to the file in the store when this object is deleted: Retain or Delete. Defaults to
    /// Retain; for a backup of a schedule to Delete. It can be changed to Retain, also if the
    /// store is gone for good, but not back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<Deletion>,
    /// How long the backup may take, with all its attempts. Defaults to 6h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// How often a failed attempt is repeated, with growing pauses. Defaults to 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: Option<i32>,
    /// Limit of the pod's temporary space, which holds the database while it is checked. Defaults to none:
    /// the machine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch_limit: Option<ByteSize>,
    /// CPU and memory of the backup's pod, and of the one that deletes the file. Defaults to requests of 100m
    /// and 128Mi and no limits. Where a quota asks for limits, set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// ServiceAccount of the backup's pod, for workload identity. Defaults to that of the cluster's pods. The
    /// one that the operator makes for a cluster goes with it: name another one where files are deleted from
    /// the store after their cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
}

fn yes() -> bool {
    true
}

impl BackupOptions {
    /// All defaults.
    pub fn new() -> Self {
        Self {
            compress: true,
            ..Self::default()
        }
    }
}

impl RqliteBackupSpec {
    /// A backup of this cluster with the default of everything else.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self {
            cluster_ref: ObjectName {
                name: cluster.into(),
            },
            how: BackupOptions::new(),
        }
    }
}

open_enum! {
    /// Progress of a backup.
    #[derive(Default)]
    pub enum BackupPhase {
        /// Not begun: the message says what it waits for.
        #[default]
        Pending = "Pending",
        /// A pod makes it.
        Running = "Running",
        /// It is in the store.
        Succeeded = "Succeeded",
        /// It is not in the store; the message says why.
        Failed = "Failed",
        /// The file is being deleted from the store.
        Deleting = "Deleting",
    }
}

impl BackupPhase {
    /// Whether the backup is over.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// The state of a backup.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RqliteBackupStatus {
    /// Pending, Running, Succeeded, Failed or Deleting. Others are possible after a newer operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// Uid of the RqliteCluster that was backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// Id of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Its lineage at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// Class of the operators that look after the backup once the cluster is gone; absent for the class
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_class: Option<String>,
    /// The Job that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Where the file goes: recorded before it is begun, so that a later change of the cluster changes
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<StoreTarget>,
    /// What this backup's pods have of the cluster's, as in a pod: image, pull secrets, scheduling,
    /// variables, volumes. The file may have to be deleted when the cluster is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<AnyObject>")]
    pub pod: Option<Box<PodSpec>>,
    /// Name of the file below the target's prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Where the file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// When the first attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// Attempts that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_attempts: Option<i32>,
    /// Size of the file in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Size of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_bytes: Option<i64>,
    /// SHA-256 of the database, unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Raft index of the last entry that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_index: Option<i64>,
    /// Result of SQLite's integrity check of the copy: ok, or what is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<String>,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it waits for, or how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Complete: true once the backup is in the store; false once it has failed, with the reason
    /// ResultUnknown if its Job was deleted before its end was seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
