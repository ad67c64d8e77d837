//! What is known of a cluster's archive and its drills, and of the restore that a new cluster begins with.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::update::AnyObject;
use crate::{open::open_enum, scalar::Moment};

/// The archive, as of the last change of the status: a calm cluster causes no writes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveStatus {
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Id of the lineage that is archived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    /// Newest archived index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_index: Option<i64>,
    /// Time of that entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_time: Option<Moment>,
    /// The drill that ran last, and the last one that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillStatus>,
}

/// Drills of an archive.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrillStatus {
    /// The newest time of the schedule that was dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// The newest request (annotation rqlite.dev/drill-now) that was dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// The Job of the drill that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// When that Job began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// What the cluster had committed before that, if a leader was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_index: Option<i64>,
    /// What the running drill waits for, or why an attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// When a drill last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Time>,
    /// The index that it restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_index: Option<i64>,
    /// Time of that entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_time: Option<Moment>,
    /// How many entries the archive was behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_entries: Option<i64>,
    /// Content hashes of the cluster that the restored database was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashes_compared: Option<i64>,
    /// Size of the restored database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// How long it took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// When a drill last failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Time>,
    /// How the last drill ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

open_enum! {
    /// State of the restore that a new cluster begins with.
    #[derive(Default)]
    pub enum BootstrapRestoreState {
        /// Its source is not known yet; no pod is created.
        #[default]
        Waiting = "Waiting",
        /// The first node restores.
        Restoring = "Restoring",
        /// The cluster has formed with the data.
        Succeeded = "Succeeded",
        /// The first node cannot restore. The cluster stays unformed.
        Failed = "Failed",
    }
}

/// The restore that a cluster began with.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapRestoreStatus {
    /// Waiting, Restoring, Succeeded or Failed. Others are possible after a newer operator.
    #[serde(default)]
    pub state: BootstrapRestoreState,
    /// What is restored: a file, or an archive and a point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Hash of what the spec asked for when the source was resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The source, resolved once: a place, a point, and the names of Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<AnyObject>")]
    pub resolved: Option<Value>,
    /// Uid of the RqliteRecovery that asked for it, where all volumes were lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<String>,
    /// Lineage of the archive's point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    /// Index of the archive that was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i64>,
    /// Time of that entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Moment>,
    /// Size of the database that was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// When the cluster had formed with the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// What it waits for, why it fails, or what is to be known of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
