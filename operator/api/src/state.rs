//! The cluster's state file, by which the operator instructs `rqlited prepare` what to do with a data
//! directory, and the plan file of a recovery. Both are in ConfigMaps (`<name>-state`, `<name>-recovery`), so
//! that a change of them never changes the pod template.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::recovery::LogPosition;

/// Key of the file in its ConfigMap, and its name in the pod.
pub const STATE_KEY: &str = "state.json";
/// Key of the recovery plan in its ConfigMap, and its name in the pod.
pub const PLAN_KEY: &str = "plan.json";

/// Whether the cluster has formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FormingPhase {
    /// Listed members with empty data directories may form the cluster.
    Forming,
    /// Empty data directories can only join.
    Formed,
    /// The cluster is being recovered from a lost quorum: only the node that the plan names may start.
    Recovering,
}

/// A lineage as the nodes know it: one unbroken sequence of committed entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateLineage {
    /// Its id; never empty.
    pub id: String,
    /// Number of recoveries before it.
    pub epoch: i64,
}

/// The plan of a recovery, as JSON. `rqlited prepare` refuses unknown fields: a plan that is not fully
/// understood must not be executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPlan {
    /// Id of the plan; also names the directory into which other data is parked.
    pub plan_id: String,
    /// Id of the cluster to recover.
    pub cluster_id: String,
    /// Lineage of the seed's data before the recovery.
    pub from_lineage: StateLineage,
    /// Lineage of the seed's data after the recovery.
    pub to_lineage: StateLineage,
    /// The node whose data is kept.
    pub seed: String,
    /// What the seed's data must satisfy.
    pub expect: PlanExpect,
    /// Members of the new configuration.
    pub peers: Vec<PlanPeer>,
    /// What happens to the data of the other nodes.
    pub others: PlanOthers,
}

/// What the seed's data must satisfy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanExpect {
    /// The incarnation that was inspected.
    pub incarnation: String,
    /// The last log entry must be at this position or later.
    pub min_last_log: LogPosition,
}

/// A member, as in `peers.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPeer {
    /// Node id.
    pub id: String,
    /// Raft address.
    pub address: String,
    /// Whether it is a non-voter.
    pub non_voter: bool,
}

/// What happens to the nodes that are not the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanOthers {
    /// Their data is parked and they join as new members.
    Park,
    /// Those listed as peers apply the plan to their own data.
    Recover,
}

/// The state file, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Id of the cluster. A data directory with another id is left untouched and its node does not start.
    pub cluster_id: String,
    /// The lineage that all members share.
    pub lineage: StateLineage,
    /// Whether the cluster has formed.
    pub phase: FormingPhase,
    /// Names of the expected nodes. Only these may form the cluster.
    pub members: Vec<String>,
    /// Number of nodes with which the cluster forms.
    pub expect: i32,
    /// Nodes whose data belongs to a removed member and is parked before the node starts, each with a token.
    /// `rqlited prepare` stores the token in the data directory and parks once per token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub park: BTreeMap<String, String>,
}
