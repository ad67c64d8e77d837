//! The cluster's state file: how the operator tells `rqlited prepare` what a data directory may become. Lives in the ConfigMap
//! `<name>-state`, so that a change of it never changes the pod template.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Key of the file in its ConfigMap, and its name in the pod.
pub const STATE_KEY: &str = "state.json";
/// Key of the recovery plan in its ConfigMap, and its name in the pod.
pub const PLAN_KEY: &str = "plan.json";

/// Has the cluster formed?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FormingPhase {
    /// Listed members with empty data directories may form the cluster.
    Forming,
    /// Empty data directories can only join.
    Formed,
    /// A quorum was lost and a plan is being followed: nobody else runs.
    Recovering,
}

/// One unbroken history, as nodes name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateLineage {
    /// Its id; never empty.
    pub id: String,
    /// Recoveries before it.
    pub epoch: i64,
}

/// The state file, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Id of the cluster. A data directory with another id is not touched and its node does not start.
    pub cluster_id: String,
    /// The history that members share.
    pub lineage: StateLineage,
    /// Has it formed?
    pub phase: FormingPhase,
    /// Names of the nodes that the operator expects. Only they may form the cluster.
    pub members: Vec<String>,
    /// Nodes with which the cluster forms.
    pub expect: i32,
    /// Node to a token: its data belongs to a member that was removed, and is put aside before the node starts. The preparation keeps
    /// the token in the data directory and does it once for each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub park: BTreeMap<String, String>,
}
