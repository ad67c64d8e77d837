//! `RqliteRestore`: a one-time, immutable request to take a running cluster back to a point of its own past,
//! and the record of what was done.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{
    open::open_enum,
    recovery::ClusterRef,
    scalar::{Moment, Span},
};

/// A restore in place.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rqlite.dev",
    version = "v1alpha1",
    kind = "RqliteRestore",
    plural = "rqliterestores",
    shortname = "rqrs",
    category = "databases",
    namespaced,
    doc = "Takes a running cluster back to a moment or an index of its own archive. What it held before is archived first. It cannot be changed: to try something else, create another one.",
    status = "RqliteRestoreStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterRef.name"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Dry run", type_ = "boolean", json_path = ".spec.dryRun"),
    printcolumn(name = "Index", type_ = "integer", json_path = ".status.index"),
    printcolumn(
        name = "Undone",
        type_ = "integer",
        json_path = ".status.undoneEntries"
    ),
    printcolumn(name = "Completed", type_ = "date", json_path = ".status.completedAt"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("a restore cannot be changed: create another RqliteRestore"),
    validation = Rule::new("has(self.toTime) != has(self.toIndex)").message("a restore goes to one point: give exactly one of toTime and toIndex"),
    validation = Rule::new("self.dryRun || (has(self.confirm) && self.confirm == self.clusterRef.name)").message("a restore replaces the whole database: repeat the cluster's name in confirm, or set dryRun to true to see what would be undone")
)]
pub struct RqliteRestoreSpec {
    /// The cluster, in the same namespace.
    pub cluster_ref: ClusterRef,
    /// The last state at this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_time: Option<Moment>,
    /// The state after this Raft index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub to_index: Option<i64>,
    /// Id of the lineage that the point is in; needed only if the archive has several. Defaults to the
    /// present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub lineage: Option<String>,
    /// The cluster's name once more: all writes after the point are undone, for all clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 45))]
    pub confirm: Option<String>,
    /// Only find the point, and report what would be undone. Defaults to false.
    #[serde(default)]
    pub dry_run: bool,
    /// How long it may take. Defaults to 6h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub reason: Option<String>,
    /// Seconds after its end at which this object is deleted. Defaults to 30 days (a dry run: one day), and
    /// to at once for all but the newest 10 ended ones of a cluster; objects that Argo CD, Flux or Helm
    /// manages are then kept, because such a tool would create them again, and a new object is a new consent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub ttl_seconds_after_finished: Option<i32>,
}

open_enum! {
    /// Progress of a restore in place.
    #[derive(Default)]
    pub enum RestorePhase {
        /// Not begun: the message says what it waits for.
        #[default]
        Pending = "Pending",
        /// The point is being looked for.
        Planning = "Planning",
        /// The leader replaces the database.
        Restoring = "Restoring",
        /// Done; a dry run: the point was found.
        Succeeded = "Succeeded",
        /// It failed; the message says what the database has.
        Failed = "Failed",
        /// Refused; nothing was changed.
        Rejected = "Rejected",
    }
}

impl RestorePhase {
    /// Whether the restore is over.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Rejected)
    }
}

/// A phase and when it was entered.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreStep {
    /// The phase.
    pub phase: RestorePhase,
    /// When it was entered.
    pub at: Time,
}

/// The state of a restore in place.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RqliteRestoreStatus {
    /// Pending, Planning, Restoring, Succeeded, Failed or Rejected. Others are possible after a newer
    /// operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// Uid of the RqliteCluster that this restore is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// Lineage of the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    /// The index whose state is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i64>,
    /// Time of that entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Moment>,
    /// Number of entries after the point, which are undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone_entries: Option<i64>,
    /// Seconds between the point and the newest entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone_seconds: Option<i64>,
    /// Index of the state before, which the archive has: a restore to it undoes this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_index: Option<i64>,
    /// Index at which the restored state is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_at_index: Option<i64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// What it waits for, or how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When each phase was entered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub steps: Vec<RestoreStep>,
    /// Complete: true once the restore has succeeded, failed or been refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
