//! The lineage of a cluster as a status records it.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A lineage: one unbroken sequence of committed entries.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Id of the lineage.
    #[serde(default)]
    pub id: String,
    /// Number of recoveries before it; 0 for a new cluster.
    #[serde(default)]
    pub epoch: i64,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}
