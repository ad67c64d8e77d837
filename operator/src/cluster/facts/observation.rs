//! Everything that a reconcile knows, as one plain value: it can be stored in a file and attached to a bug
//! report.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use node_contract::{
    Lineage as NodeLineage, PlanFile, RestoreState, StateFile,
    parked::{DiskStatus, ParkedStatus},
    status::{ArchiveStatus, AutoRestoreStatus, CheckStatus, SecurityStatus},
};
use operator_api::{
    RqliteBackup, RqliteCluster, RqliteRecovery, RqliteRestore, names,
    recovery::LogPosition,
    status::{DefaultClients, Pool},
};
use serde::{Deserialize, Serialize};

use crate::cluster::facts::{secrets::ObservedSecret, stages::PodTls};

/// Everything that one reconcile looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// Time of the reconcile. Deciders have no other clock.
    pub now: Time,
    /// A random id that this reconcile may give to a new cluster, lineage or operation.
    pub fresh_id: String,
    /// The operator itself.
    pub operator: OperatorFacts,
    /// The RqliteCluster, with its status as last written.
    pub cluster: RqliteCluster,
    /// The StatefulSet of the voters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voters: Option<ObservedSet>,
    /// The StatefulSet of the read replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readers: Option<ObservedSet>,
    /// Pods of both pools: only those that the cluster's own StatefulSets made.
    #[serde(default)]
    pub pods: Vec<ObservedPod>,
    /// Names of pods with the cluster's label that are not its own; see [`crate::cluster::facts::own_pods`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<String>,
    /// Claims with the cluster's label, also those that no pod of it ever used.
    #[serde(default)]
    pub claims: Vec<ObservedClaim>,
    /// The state file, if its ConfigMap exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateFile>,
    /// Who may use the HTTP API where the spec does not say, according to the cluster's NetworkPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_clients: Option<DefaultClients>,
    /// The plan of the last recovery, if its ConfigMap exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanFile>,
    /// The RqliteRecovery objects that name this cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recoveries: Vec<RqliteRecovery>,
    /// The RqliteRestore objects that name this cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restores: Vec<RqliteRestore>,
    /// The object that `spec.bootstrap.restore` refers to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_source: Option<RestoreSource>,
    /// What the leader reported about restores in place, by the id of the request. Kept in memory between
    /// reconciles, and requested again while one is open.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub restore_states: BTreeMap<String, RestoreState>,
    /// What querying each pod's node returned, by pod name.
    #[serde(default)]
    pub nodes: BTreeMap<String, ProbeResult>,
    /// Results of database checks by nodes of earlier versions, by pod name. Kept in memory between
    /// reconciles; a result that was lost is checked again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: BTreeMap<String, DatabaseCheck>,
    /// Machines (Kubernetes Nodes) that take no new pods. Empty if the operator may not read Nodes.
    #[serde(default)]
    pub cordoned: Vec<String>,
    /// What is known about moving pods to other machines.
    #[serde(default)]
    pub drain: DrainFacts,
    /// StorageClasses by name: do they allow volumes to grow? Empty if the operator may not read them.
    #[serde(default)]
    pub expandable: BTreeMap<String, bool>,
    /// Has the API server refused to create an object because the namespace is being deleted?
    #[serde(default)]
    pub namespace_ends: bool,
    /// What the API server refused in the last reconcile, and why: a person has to change something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Objects that have the name of one of this cluster's objects and do not belong to it. Kept in memory
    /// between reconciles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<TakenName>,
    /// What Kubernetes reports as keeping pods and volumes from starting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<Blocker>,
    /// Recent changes by others to the operator's objects. Kept in memory between reconciles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<Edit>,
    /// The leader as last confirmed. Kept in memory between reconciles, because the status of a cluster
    /// without changes is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_seen: Option<LeaderSeen>,
    /// The Secrets that the cluster has and those that its spec names, by name, if they exist. A stored
    /// observation omits their contents.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, ObservedSecret>,
    /// What cert-manager reports about each certificate that it has not issued, by the name of the Secret
    /// that the certificate is for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub issued: BTreeMap<String, String>,
}

/// The object that `spec.bootstrap.restore` names; None: it does not exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum RestoreSource {
    /// A backup.
    Backup {
        /// The object.
        found: Option<Box<RqliteBackup>>,
    },
    /// Another cluster with an archive.
    Cluster {
        /// The object.
        found: Option<Box<RqliteCluster>>,
    },
    /// It could not be read.
    Unread {
        /// The API server's answer.
        why: String,
    },
}

/// What is known of a confirmed leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaderSeen {
    /// When it was confirmed.
    pub at: Time,
    /// Its commit index then.
    pub commit_index: u64,
    /// Id of its lineage: an index has no meaning in another one.
    pub lineage: String,
    /// How far its archive reached then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<Archived>,
}

/// How far an archive reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Archived {
    /// Newest archived index.
    pub index: u64,
    /// Time of that entry, RFC 3339.
    pub time: String,
    /// Where the archive is, as the spec says: another place has another archive.
    pub uri: String,
}

/// What is known about moving pods away from machines that are being drained. Empty without permission to
/// read Nodes and PersistentVolumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainFacts {
    /// Machines that take new pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub free: Vec<String>,
    /// Claims whose volumes can follow a pod to another machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub movable: Vec<String>,
}

/// Facts about the operator itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorFacts {
    /// Class of the clusters that it manages.
    #[serde(default)]
    pub class: String,
    /// Namespace and name of its Lease, which all processes of one installation share.
    #[serde(default)]
    pub installation: String,
    /// Its version.
    pub version: String,
    /// Default image of the nodes.
    pub node_image: String,
    /// The namespace in which it runs; its pods may use the nodes' HTTP API.
    pub namespace: String,
    /// The Kubernetes cluster in which it runs.
    #[serde(default)]
    pub platform: Platform,
}

/// What the operator found out about the Kubernetes cluster when it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// Its DNS domain.
    pub cluster_domain: String,
    /// Does it assign users and groups to pods, as OpenShift does?
    #[serde(default)]
    pub assigns_users: bool,
}

impl Default for Platform {
    fn default() -> Self {
        Self {
            cluster_domain: names::USUAL_DOMAIN.to_owned(),
            assigns_users: false,
        }
    }
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
    /// Storage request of its claim template, a quantity.
    pub claim_size: String,
    /// Image of the nodes in its pod template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Value of the owner label in its pod template; None for a template from before that label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_label: Option<String>,
    /// The number of replicas that the operator set last; None from before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas_set: Option<i32>,
    /// The ServiceAccount of its pod template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Has its deletion begun?
    #[serde(default)]
    pub deleting: bool,
    /// TLS of its pod template.
    #[serde(default)]
    pub tls: PodTls,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedPod {
    /// Its name, which is also the node's id.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its pool, from its label.
    pub pool: Pool,
    /// Its template-hash annotation.
    #[serde(default)]
    pub template_hash: String,
    /// Is its Ready condition true?
    #[serde(default)]
    pub ready: bool,
    /// Since when it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<Time>,
    /// Has its deletion begun?
    #[serde(default)]
    pub deleting: bool,
    /// Name of its machine (Kubernetes Node).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    /// Since when the scheduler has no machine for it; None if it has not said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unscheduled_since: Option<Time>,
    /// Why it does not run: the scheduler's message, or a container's waiting or exit reason. None while it
    /// starts normally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
    /// What `rqlited prepare` last reported about its data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<PrepareReport>,
    /// Does it carry the annotation that permits its replacement under the Manual update strategy?
    #[serde(default)]
    pub update_now: bool,
    /// Those of its labels that the operator sets after creation.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Name of the claim that its data volume refers to; None: the one that its StatefulSet names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Has it no controller at present, because its StatefulSet was deleted around it?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub orphaned: bool,
    /// Its TLS.
    #[serde(default)]
    pub tls: PodTls,
    /// Configuration of its node's archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
}

/// Report of `rqlited prepare`, from the init container's termination message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareReport {
    /// `Ready`, `Held`, `Foreign`, `StaleLineage`, `UnknownLineage`, `NewerFormat`, `Damaged` or `Refused`.
    pub state: String,
    /// Id of the cluster that the data belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The lineage that the data belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<NodeLineage>,
    /// Raft id of the data, `<name>#<incarnation>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_id: Option<String>,
    /// Newest log entry in the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_log: Option<LogPosition>,
    /// Why the node was not allowed to start.
    #[serde(default)]
    pub reason: String,
}

impl PrepareReport {
    /// Is the data unusable as it is?
    pub fn is_damaged(&self) -> bool {
        self.state == "Damaged"
    }
}

/// Result of checking the database of a node that cannot do so in the background, with SQLite's integrity
/// check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseCheck {
    /// Raft id of the node that was checked.
    pub raft_id: String,
    /// Id of the check.
    #[serde(default)]
    pub id: String,
    /// What is wrong; None if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedClaim {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Size that it requests, a quantity.
    pub requested: String,
    /// Size of its volume, a quantity; None until it is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<String>,
    /// Its StorageClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Has the volume grown, while its file system grows only when the pod restarts?
    #[serde(default)]
    pub resize_pending: bool,
    /// Why its volume can never be used again, by positive evidence; see [`crate::cluster::facts::volume`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// Has its deletion begun?
    #[serde(default)]
    pub deleting: bool,
}

/// Result of querying a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
#[expect(
    clippy::large_enum_variant,
    reason = "an observation has one for each node, nearly always the large one"
)]
pub enum ProbeResult {
    /// The node responded.
    Ok(NodeStatus),
    /// The query failed.
    Failed(Failure),
}

/// Why a query failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure.
    pub failure: FailureKind,
    /// The details.
    pub message: String,
}

/// Kinds of failure that lead to different conclusions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// The connection was refused: nothing listens.
    Refused,
    /// No response in time, or the name does not resolve.
    Timeout,
    /// The node rejected the credentials.
    Unauthorized,
    /// TLS failed: the certificate is not the cluster's, has expired, or is of another name; or the peer does
    /// not speak TLS.
    Tls,
    /// The connection was reset or closed, or something else than a node responded, such as a service mesh's
    /// proxy: nothing is known of the node.
    Interrupted,
    /// A node responded, but not with a usable status: it opens its data, or it is another node.
    Malformed,
}

/// A node's state as it reports it at `/status` and `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its Raft id, `<name>#<incarnation>`.
    pub raft_id: String,
    /// Id of the cluster that it belongs to; None until admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The lineage that its data belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<NodeLineage>,
    /// Name of the leader that it sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Does it lead, by its own report?
    #[serde(default)]
    pub is_leader: bool,
    /// Its Raft term.
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
    /// On a leader, for each member that it cannot reach: seconds since the last contact, by the leader's own
    /// clock, by Raft id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unreachable_seconds: BTreeMap<String, u64>,
    /// Highest index that its database has applied.
    #[serde(default)]
    pub applied_index: u64,
    /// Does it report that it is ready?
    #[serde(default)]
    pub ready: bool,
    /// The newest committed configuration that it knows.
    #[serde(default)]
    pub config: Vec<ConfigMember>,
    /// Log index of that configuration.
    #[serde(default)]
    pub config_index: u64,
    /// Version of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Format version that the cluster uses, as far as the node knows; see the node's FORMATS.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format_version: Option<u16>,
    /// Newest format version that its program supports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format_version_max: Option<u16>,
    /// Addresses that its members advertise to other nodes, by Raft id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<String, String>,
    /// Size of its database's main file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_bytes: Option<u64>,
    /// File system of its data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskStatus>,
    /// Copies of data that are parked on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<ParkedStatus>,
    /// The check of its database that runs, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckStatus>,
    /// Its archive; None: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveStatus>,
    /// The restore that it began with; None: it was started without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_restore: Option<AutoRestoreStatus>,
    /// The certificates and credentials that it uses; None: its program is from before TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<SecurityStatus>,
}

impl NodeStatus {
    /// On a leader: is its newest log entry one of its own term, and committed? Then it knows everything that
    /// its predecessors committed.
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
    /// Its name, which is its pod's name.
    pub name: String,
    /// Does it vote?
    pub voter: bool,
}

/// Something that keeps a pod or a volume from starting, as Kubernetes reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// What it is.
    pub kind: BlockerKind,
    /// The object that is blocked: a StatefulSet, a claim or a pod.
    pub object: String,
    /// Kubernetes' message; for some kinds the name that is missing.
    pub message: String,
}

/// Kinds with different remedies, in order of importance: what keeps a pod from being created comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BlockerKind {
    /// The API server refused a pod or a claim of a StatefulSet: a quota, an account, a policy.
    Refused,
    /// A claim asks for a StorageClass that does not exist; the message is its name, empty if there is no
    /// default class.
    NoClass,
    /// A claim is not bound to a volume.
    NoVolume,
    /// No Secret of this name has credentials for the registry; the message is the names.
    NoPullSecret,
    /// An image cannot be pulled.
    Image,
    /// A container cannot be created, for example because a Secret is missing.
    Container,
    /// The scheduler finds no machine for the pod.
    NoMachine,
    /// The node starts and exits repeatedly.
    Crash,
}

/// An object that has the name of one of the cluster's and does not belong to it: it is never touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenName {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Kind and name of the object that controls it; None if none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Is its owner a former RqliteCluster of the same name? Then the garbage collector removes it.
    #[serde(default)]
    pub former: bool,
}

/// A change by others to one of the operator's objects, which is reverted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edit {
    /// Kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Path of the field.
    pub field: String,
    /// The value that it was changed to, if it is short enough to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Field manager that changed it, as recorded by the API server; unknown for deleted fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How often it was changed recently.
    #[serde(default)]
    pub times: u32,
}
