//! The cluster's state file: how the operator tells `rqlited prepare` what a data directory may become. Lives in the ConfigMap
//! `<name>-state`, so that a change of it never changes the pod template.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::recovery::LogPosition;

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

/// The plan of a recovery, as JSON. The preparation refuses fields that it does not know: what is not understood must not be followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPlan {
    /// Names the plan, and the directory into which other data is put aside.
    pub plan_id: String,
    /// The cluster to recover.
    pub cluster_id: String,
    /// What the seed's data is of.
    pub from_lineage: StateLineage,
    /// What it becomes.
    pub to_lineage: StateLineage,
    /// The node whose data is kept.
    pub seed: String,
    /// What must hold for its data.
    pub expect: PlanExpect,
    /// Members from now on.
    pub peers: Vec<PlanPeer>,
    /// What becomes of the others.
    pub others: PlanOthers,
}

/// What must hold for the seed's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanExpect {
    /// The incarnation that was inspected.
    pub incarnation: String,
    /// Its log reached at least here.
    pub min_last_log: LogPosition,
}

/// A member, as in `peers.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPeer {
    /// Its name.
    pub id: String,
    /// Its Raft address.
    pub address: String,
    /// It does not vote.
    pub non_voter: bool,
}

/// What happens to the nodes that are not the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanOthers {
    /// Their data is put aside and they join anew.
    Park,
    /// Those listed follow the plan with their own data.
    Recover,
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
