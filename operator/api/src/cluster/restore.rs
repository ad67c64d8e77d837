//! What a new cluster begins with: a backup, or an archive at a point.
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::archive::Encryption;
use crate::{
    scalar::Moment,
    store::{ObjectName, StoreTarget},
};

/// Data of a new cluster: of one backup, of one object, or of an archive at a point.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.backup) ? 1 : 0) + (has(self.object) ? 1 : 0) + (has(self.archive) ? 1 : 0) == 1").message("a cluster begins with one thing: give exactly one of backup, object (with target) and archive"),
    validation = Rule::new("has(self.target) == (has(self.object) || (has(self.archive) && !has(self.archive.cluster)))").message("target is where object, or the archive of no named cluster, is kept: give target with them, and only with them"),
    validation = Rule::new("!has(self.encryption) || (has(self.archive) && !has(self.archive.cluster))").message("encryption is the key of an archive in target; that of a named cluster is in the cluster's own spec.archive"),
    validation = Rule::new("!has(self.object) || (!self.object.startsWith('/') && !self.object.matches('(^|/)[.][.](/|$)'))").message("object is a name below the target's prefix: write it without a leading '/' and without '..'")
)]
pub struct BootstrapRestore {
    /// An RqliteBackup in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<ObjectName>,
    /// Where object or archive is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<StoreTarget>,
    /// Name of a database file (SQLite, compressed or not) below the target's prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub object: Option<String>,
    /// An archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchivePoint>,
    /// The key of an archive in target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

/// A point of an archive.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.toTime) && has(self.toIndex))").message("a point is a time or an index: give toTime or toIndex, or neither for the newest state"))]
pub struct ArchivePoint {
    /// An RqliteCluster in the same namespace with an archive: the new cluster is its clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 45))]
    pub cluster: Option<String>,
    /// The lineage, if the archive has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub lineage: Option<String>,
    /// The last state at this time. Defaults to the newest state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_time: Option<Moment>,
    /// The state after this Raft index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub to_index: Option<i64>,
}
