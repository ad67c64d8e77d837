//! What a pass knows: one plain value that a reader fills, that a file can hold and that a bug report can carry.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator_api::{
    RqliteCluster, RqliteRecovery,
    recovery::LogPosition,
    state::{ClusterState, RecoveryPlan, StateLineage},
    status::Pool,
};
use serde::{Deserialize, Serialize};

/// Everything that one pass looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// The time of the pass. Deciders have no other clock.
    pub now: Time,
    /// A random id that this pass may give to a new cluster, lineage or operation.
    pub fresh_id: String,
    /// The operator itself.
    pub operator: OperatorFacts,
    /// The object, with its status as last written.
    pub cluster: RqliteCluster,
    /// The StatefulSet of the voters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voters: Option<ObservedSet>,
    /// The StatefulSet of the read replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readers: Option<ObservedSet>,
    /// Pods of both pools.
    #[serde(default)]
    pub pods: Vec<ObservedPod>,
    /// Claims of both pools, of all names that either ever had.
    #[serde(default)]
    pub claims: Vec<ObservedClaim>,
    /// The state file, if its ConfigMap exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ClusterState>,
    /// The plan of the last recovery, if its ConfigMap exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<RecoveryPlan>,
    /// The RqliteRecovery objects that name this cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recoveries: Vec<RqliteRecovery>,
    /// What each pod's node answered.
    #[serde(default)]
    pub nodes: BTreeMap<String, ProbeResult>,
    /// What came of checking a node's database, by pod. Kept in memory between passes: a check that is forgotten is made again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: BTreeMap<String, DatabaseCheck>,
    /// Machines that take no new pods. Empty if the operator may not read machines.
    #[serde(default)]
    pub cordoned: Vec<String>,
    /// StorageClasses by name: may volumes grow? Empty if the operator may not read them.
    #[serde(default)]
    pub expandable: BTreeMap<String, bool>,
    /// What the API server refused to the last pass, and why: somebody has to change something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What Kubernetes says stands in the way of pods and volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<Blocker>,
    /// What others did lately to objects that belong to the operator. Kept in memory between passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<Edit>,
}

/// The operator itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorFacts {
    /// Its version.
    pub version: String,
    /// The image that nodes run unless the cluster says otherwise.
    pub node_image: String,
    /// The namespace in which it runs; its pods may use the nodes' HTTP API.
    pub namespace: String,
}

/// A StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedSet {
    /// Its uid.
    pub uid: String,
    /// `spec.replicas`.
    pub replicas: i32,
    /// The template-hash annotation of its pod template.
    pub template_hash: String,
    /// Size in its claim template.
    pub claim_size: String,
    /// Is it being deleted?
    #[serde(default)]
    pub deleting: bool,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedPod {
    /// Its name, which is the node's id.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its pool, from its label.
    pub pool: Pool,
    /// Its template-hash annotation.
    #[serde(default)]
    pub template_hash: String,
    /// Does it count as ready?
    #[serde(default)]
    pub ready: bool,
    /// Since when it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<Time>,
    /// Has its deletion begun?
    #[serde(default)]
    pub deleting: bool,
    /// Its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Why it does not run: the scheduler's words, a container's waiting or exit reason. None while it starts normally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
    /// What the preparation of its data directory last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<PrepareReport>,
    /// Does it carry the annotation that allows its replacement by hand?
    #[serde(default)]
    pub update_now: bool,
    /// Its labels, as far as the operator sets them after creation.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The report of `rqlited prepare`, from the init container's termination message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareReport {
    /// `Ready`, `Held`, `Foreign`, `StaleLineage`, `UnknownLineage`, `Damaged` or `Refused`.
    pub state: String,
    /// The cluster that the data belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The history that the data belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<StateLineage>,
    /// Raft id of the data, `<name>#<incarnation>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_id: Option<String>,
    /// Newest log entry in the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_log: Option<LogPosition>,
    /// Why the node was not let start.
    #[serde(default)]
    pub reason: String,
}

impl PrepareReport {
    /// The data cannot be used as it is.
    pub fn is_damaged(&self) -> bool {
        self.state == "Damaged"
    }
}

/// A node's database was checked: a linearizable read where it leads, and SQLite's own check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseCheck {
    /// Raft id of the node that was checked.
    pub raft_id: String,
    /// Did it lead, so that the read proved a working quorum?
    #[serde(default)]
    pub as_leader: bool,
    /// What is wrong; None if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedClaim {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Size asked for.
    pub requested: String,
    /// Size there is; None until bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<String>,
    /// Its StorageClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Has the volume grown while its file system waits for the pod to restart?
    #[serde(default)]
    pub resize_pending: bool,
    /// Why its volume can never be used again, on positive evidence; see [`crate::cluster::facts::volume`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// Has its deletion begun?
    #[serde(default)]
    pub deleting: bool,
}

/// What came of asking a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum ProbeResult {
    /// It answered.
    Ok(NodeStatus),
    /// It did not.
    Failed(Failure),
}

/// Why a node gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub failure: FailureKind,
    /// The details.
    pub message: String,
}

/// Kinds of failure that mean different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// Nothing listens.
    Refused,
    /// No answer in time, or no such name.
    Timeout,
    /// It listens, but the credentials were not accepted.
    Unauthorized,
    /// It answered something else than a node does.
    Malformed,
}

/// A node's own words, from `/status` and `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its Raft id, `<name>#<incarnation>`.
    pub raft_id: String,
    /// The cluster that it belongs to; None until admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The history that its data belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<StateLineage>,
    /// Name of the leader that it sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Does it lead?
    #[serde(default)]
    pub is_leader: bool,
    /// Its term.
    #[serde(default)]
    pub term: u64,
    /// Term of its newest log entry.
    #[serde(default)]
    pub last_log_term: u64,
    /// Index of its newest log entry.
    #[serde(default)]
    pub last_log_index: u64,
    /// Highest index that it knows to be committed.
    #[serde(default)]
    pub commit_index: u64,
    /// By the leader's own clock: seconds since it heard each member that is silent, by Raft id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unreachable_seconds: BTreeMap<String, u64>,
    /// Highest index that its database holds.
    #[serde(default)]
    pub applied_index: u64,
    /// Does it say that it is ready?
    #[serde(default)]
    pub ready: bool,
    /// The newest committed configuration that it knows.
    #[serde(default)]
    pub config: Vec<ConfigMember>,
    /// Log index of that configuration.
    #[serde(default)]
    pub config_index: u64,
}

impl NodeStatus {
    /// As a leader: has it committed an entry of its own term, its newest one? Then it knows all that its predecessors have committed.
    pub fn has_committed_in_term(&self) -> bool {
        self.last_log_term == self.term && self.commit_index == self.last_log_index
    }
}

/// A member of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMember {
    /// Its Raft id.
    pub raft_id: String,
    /// Its name, which is its pod's.
    pub name: String,
    /// Does it vote?
    pub voter: bool,
}

/// Something that Kubernetes says stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// What it is.
    pub kind: BlockerKind,
    /// The object that is held up: a StatefulSet, a claim or a pod.
    pub object: String,
    /// Kubernetes' words.
    pub message: String,
}

/// Kinds that ask for different remedies, in the order in which they are told: what keeps a pod from existing comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BlockerKind {
    /// The API server refused a pod or a claim of a StatefulSet: a quota, an account, a policy.
    Refused,
    /// A claim asks for a StorageClass that does not exist; the words are its name, empty if there is no default.
    NoClass,
    /// A claim gets no volume.
    NoVolume,
    /// No Secret of this name has credentials for the registry; the words are the names.
    NoPullSecret,
    /// An image cannot be had.
    Image,
    /// A container cannot be made, such as for a Secret that is missing.
    Container,
    /// No machine takes the pod.
    NoMachine,
    /// The node starts and ends again.
    Crash,
}

/// A change that was set back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edit {
    /// Kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The field, as a path.
    pub field: String,
    /// What it was set to, where that is worth saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Who did it, by the name that the API server keeps with each field; unknown for deleted fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How often lately.
    #[serde(default)]
    pub times: u32,
}
