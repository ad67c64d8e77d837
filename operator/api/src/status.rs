//! The status of a cluster: its current state, and the operation that the operator is carrying out. Every
//! operation is recorded here before its first side effect.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{lineage::Lineage, open::open_enum, recovery::RecoveryRecord};

mod archive;
mod authentication;
mod member;
mod network;
mod tls;
mod update;

pub use archive::{ArchiveStatus, BootstrapRestoreState, BootstrapRestoreStatus, DrillStatus};
pub use authentication::{
    AuthenticationGoal, AuthenticationStage, AuthenticationStatus, Binding, UserStatus,
};
pub use member::{DiskSummary, Member, MemberState, ParkedSummary, Pool, Role};
pub use network::{DefaultClients, NetworkDefaults};
pub use tls::{CertificateSummary, TlsMode, TlsSide, TlsStage, TlsStatus};
pub(crate) use update::AnyObject;
pub use update::{ProposedPlan, ResolvedImage, RolledBack, Target, TemplateInputs};

/// Condition: a quorum follows the leader, as many voters as the spec asks for take part, as many read
/// replicas are ready, and nothing that the spec asks for is still to be done. A pod that waits for a person
/// (update strategy Manual, a deferred change of the operator's template) does not count.
pub const READY: &str = "Ready";
/// Condition: there is a leader and a quorum follows it.
pub const AVAILABLE: &str = "Available";
/// Condition: an operation is in progress. False with a reason that ends in `Stalled` if it makes no
/// progress.
pub const PROGRESSING: &str = "Progressing";
/// Condition: something needs attention.
pub const DEGRADED: &str = "Degraded";
/// Condition: so many voters are permanently lost that a quorum cannot return without a recovery.
pub const QUORUM_LOST: &str = "QuorumLost";
/// Condition: the user has paused the operator for this cluster.
pub const PAUSED: &str = "Paused";
/// Condition: all nodes are stopped because spec.hibernated is true.
pub const HIBERNATED: &str = "Hibernated";
/// Condition: the volumes match the spec.
pub const STORAGE_READY: &str = "StorageReady";
/// Condition: pods are older than the template; the message says why they are not replaced yet.
pub const UPDATE_PENDING: &str = "UpdatePending";
/// Condition: the configuration has a member that belongs to no pod of the cluster.
pub const UNKNOWN_MEMBER: &str = "UnknownMember";
/// Condition: the operator's default image is another one than the cluster's.
pub const UPDATE_AVAILABLE: &str = "UpdateAvailable";
/// Condition: an image was refused because its release does not read the data.
pub const DOWNGRADE_REFUSED: &str = "DowngradeRefused";
/// Condition: the pods were taken back to an earlier template than the spec's.
pub const UPDATE_ROLLED_BACK: &str = "UpdateRolledBack";
/// Condition: a plan waits for a person's approval, because spec.management is Manual.
pub const APPROVAL_PENDING: &str = "ApprovalPending";
/// Condition: an operator looks after the cluster. Written when one is uninstalled, and by the next one.
pub const MANAGED: &str = "Managed";
/// Condition: a deletion was requested and is not carried out.
pub const DELETION_BLOCKED: &str = "DeletionBlocked";
/// Condition: the certificates are valid, are renewed in time, and have the names that are needed. False if
/// somebody has to do something; Unknown while it is not known.
pub const CERTIFICATES_VALID: &str = "CertificatesValid";
/// Condition: who reaches a port gets in, without a certificate and without a password.
pub const OPEN_TO_ANYONE: &str = "OpenToAnyone";
/// Condition: the archive is as new as spec.archive.every asks for. Absent without spec.archive.
pub const ARCHIVING: &str = "Archiving";
/// Condition: the newest drill restored the archive, and is not older than its schedule allows.
pub const BACKUPS_PROVEN: &str = "BackupsProven";
/// Condition: the new cluster waits for, carries out or has failed the restore that it begins with.
pub const RESTORING: &str = "Restoring";
/// Condition: a hint about the spec.
pub const ADVISORY: &str = "Advisory";

/// The observed state of a cluster.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RqliteClusterStatus {
    /// Generation of the spec that this status refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Summary of the conditions: Forming, Running, Changing, Degraded, Unavailable, QuorumLost, Recovering,
    /// Paused, Hibernated, Deleting or Invalid. Others are possible after a newer operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Version of the operator that wrote this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_version: Option<String>,
    /// The installation of the operator that manages this cluster. Others leave it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<ManagedBy>,
    /// Id of the cluster, generated when it was created. Nodes with data of another cluster are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The lineage that all members share: one unbroken sequence of committed entries. Every recovery from a
    /// lost quorum starts a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// Name of the cluster's ServiceAccount and NetworkPolicy, and prefix of the names of its budgets. Absent
    /// for clusters that were created when this was always the cluster's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_prefix: Option<String>,
    /// When the cluster was first complete. From then on, empty nodes can only join and never form a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrapped_at: Option<Time>,
    /// What the operator is currently working towards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The image that the spec asks for, resolved once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ResolvedImage>,
    /// The target before the present one whose pods all worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good_target: Option<Target>,
    /// The update that was rolled back. What the spec asks for is not carried out again before it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
    /// Value of the annotation rqlite.dev/rollback that has been acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_request: Option<String>,
    /// What the operator would do next; it waits for approval. Only with management Manual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposed_plan: Option<ProposedPlan>,
    /// The plan that was approved and is being carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_plan: Option<ProposedPlan>,
    /// Highest format version that the nodes' data is known to be in; see the node's FORMATS.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format_version: Option<i32>,
    /// The operation in progress; there is at most one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Pod of the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// When the operator first observed this leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_since: Option<Time>,
    /// When a leader was last observed, as of the last change of this status: a calm cluster causes no
    /// writes. Without a leader, when the last one was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_leader_seen: Option<Time>,
    /// Highest commit index ever observed, from which a recovery computes what is known to be lost. Updated
    /// with every other change of this status, when the leader is lost, and every ten minutes under writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_index: Option<i64>,
    /// Log index of the newest Raft configuration known to be committed; `members` reflects it or a newer
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_index: Option<i64>,
    /// Number of voter pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Number of voters that are ready: members of the configuration that follow the leader and are caught
    /// up.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Number of voters in the last confirmed configuration.
    #[serde(default)]
    pub voters: i32,
    /// Label selector of the voter pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// State of the read replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_replicas: Option<PoolStatus>,
    /// All members of the last confirmed configuration, and all pods; one entry per name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub members: Vec<Member>,
    /// PersistentVolumeClaims of removed members. Their data never votes again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub retired_claims: Vec<RetiredClaim>,
    /// All PersistentVolumeClaims that pods of this cluster have used and that still exist, by uid. No other
    /// claim is ever deleted, whatever its name and its labels are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uid".into()]))]
    pub claims: Vec<UsedClaim>,
    /// The recovery from a lost quorum that is in progress, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryRecord>,
    /// When the operator started automatic recoveries within the last 24 hours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    pub automatic_recoveries: Vec<Time>,
    /// The voter that was last removed because it no longer had a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reaped: Option<Reaped>,
    /// The last leadership transfer away from a Kubernetes node that was being drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_transfer: Option<DrainTransfer>,
    /// Members of the configuration that belong to no pod of this cluster; at most 16 are listed. They are
    /// removed, see spec.reaping.keepUnknownReaders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["raftId".into()]))]
    pub unknown_members: Vec<UnknownMember>,
    /// The unknown member that was removed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_removals: Option<UnknownRemovals>,
    /// Users: whether they are asked for, and their connection Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<AuthenticationStatus>,
    /// The Secret by which applications find the database: that of the user app, or of the first user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// What was decided once about network access, for what the spec leaves open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkDefaults>,
    /// The archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveStatus>,
    /// The restore that the cluster began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap_restore: Option<BootstrapRestoreStatus>,
    /// DNS domain of the Kubernetes cluster, as part of the nodes' addresses; found or given when the cluster
    /// was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_domain: Option<String>,
    /// TLS: what was decided, how far a move is, and the certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsStatus>,
    /// Addresses for clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// Ready: a quorum follows the leader, as many voters as the spec asks for take part, as many read
    /// replicas are ready, and nothing that the spec asks for is still to be done, except what waits for a
    /// person; false while a template is rolled back or refused, and while a plan waits for approval.
    /// Available: a quorum follows the leader. Others: Progressing, Degraded, QuorumLost, Paused, Hibernated,
    /// StorageReady, UpdatePending, UpdateAvailable, DowngradeRefused, UpdateRolledBack, ApprovalPending,
    /// UnknownMember, DeletionBlocked, CertificatesValid, Archiving, BackupsProven, Restoring, Advisory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Fields that a newer operator wrote: kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub newer: BTreeMap<String, Value>,
}

/// An installation of the operator.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedBy {
    /// Namespace and Lease of the installation, as `<namespace>/<name>`.
    pub installation: String,
    /// Its class.
    pub operator_class: String,
    /// Since when it manages the cluster.
    pub since: Time,
}

open_enum! {
    /// Summary of the conditions.
    pub enum Phase {
        /// The cluster is forming for the first time.
        Forming = "Forming",
        /// The cluster matches the spec.
        Running = "Running",
        /// A change is in progress.
        Changing = "Changing",
        /// Available, but does not match the spec.
        Degraded = "Degraded",
        /// No leader; a quorum can still return.
        Unavailable = "Unavailable",
        /// No leader, and a quorum cannot return without a recovery.
        QuorumLost = "QuorumLost",
        /// A recovery from a lost quorum is in progress.
        Recovering = "Recovering",
        /// The operator is paused for this cluster.
        Paused = "Paused",
        /// Stopped, or being stopped, because spec.hibernated is true.
        Hibernated = "Hibernated",
        /// The cluster is being deleted.
        Deleting = "Deleting",
        /// The spec is invalid.
        Invalid = "Invalid",
    }
}

open_enum! {
    /// Kind of an operation.
    pub enum OperationType {
        /// Forming the cluster.
        Bootstrap = "Bootstrap",
        /// Adding a voter.
        ScaleUp = "ScaleUp",
        /// Removing a voter.
        ScaleDown = "ScaleDown",
        /// Replacing one outdated pod.
        Update = "Update",
        /// Recreating the StatefulSet for larger volumes without touching its pods.
        Resize = "Resize",
        /// Stopping all nodes because spec.hibernated is true.
        Hibernate = "Hibernate",
        /// Starting a hibernated cluster.
        Resume = "Resume",
        /// Replacing a permanently lost member.
        Replace = "Replace",
        /// Recovering from a lost quorum.
        Recover = "Recover",
        /// Taking the database back to a point of its own archive.
        Restore = "Restore",
    }
}

open_enum! {
    /// Progress of an operation. Only steps whose order must survive a restart of the operator are recorded.
    #[derive(Default)]
    pub enum Step {
        /// The operation is recorded, and its first step is in progress.
        #[default]
        Start = "Start",
        /// Two members confirm that the member is out of the committed configuration: its pod is deleted.
        Shrink = "Shrink",
        /// A leadership transfer has been requested once.
        Transfer = "Transfer",
        /// All pods but the first are being stopped.
        StopOthers = "StopOthers",
        /// The last pod is being stopped.
        StopLast = "StopLast",
        /// The lost member is out of the committed configuration: its pod is recreated, and its claim if the
        /// volume is lost.
        Recreate = "Recreate",
        /// As Recreate, but only the data is damaged: it is parked on its volume.
        Park = "Park",
        /// The plan of a recovery is published: the survivor applies it.
        Apply = "Apply",
        /// The survivor runs alone and is being checked.
        Verify = "Verify",
    }
}

/// The operation in progress.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Unique id.
    pub id: String,
    /// Kind of the operation: Bootstrap, ScaleUp, ScaleDown, Update, Resize, Hibernate, Resume, Replace,
    /// Recover or Restore. One of a newer operator is left to it.
    #[serde(rename = "type")]
    pub kind: OperationType,
    /// Current step: Start, Shrink, Transfer, StopOthers, StopLast, Recreate, Park, Apply or Verify. One of a
    /// newer operator is left to it.
    #[serde(default)]
    pub step: Step,
    /// The pod or member concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Uid of the object that is to be deleted; an object of the same name with another uid is never touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// When the operation was recorded.
    pub started_at: Time,
    /// When the current step began.
    pub step_at: Time,
    /// What the operation is waiting for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Fields that a newer operator wrote: kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub newer: BTreeMap<String, Value>,
}

/// State of a pool of pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Desired number of pods.
    #[serde(default)]
    pub desired: i32,
    /// Number of pods that are ready.
    #[serde(default)]
    pub ready: i32,
}

/// The PersistentVolumeClaim of a removed member.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetiredClaim {
    /// Name of the claim.
    pub name: String,
    /// Uid of the claim. A later claim of the same name is a different one.
    pub uid: String,
    /// The removed member.
    pub member: String,
    /// When the member was removed.
    pub retired_at: Time,
}

/// A PersistentVolumeClaim that a pod of this cluster uses or has used.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsedClaim {
    /// Name of the claim.
    pub name: String,
    /// Uid of the claim. A later claim of the same name is a different one.
    pub uid: String,
    /// Its volume has grown, and its file system has not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_resize: Option<PendingResize>,
}

/// A volume that has grown, while its file system has not yet.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingResize {
    /// Since when.
    pub since: Time,
    /// Uid of the pod that used it then. If the file system does not grow while it is mounted, this pod is
    /// restarted once.
    pub pod_uid: String,
}

/// A voter that was removed because it no longer had a pod.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reaped {
    /// Raft id of the voter.
    pub raft_id: String,
    /// When it was removed.
    pub at: Time,
}

/// A member of the configuration that belongs to no pod of this cluster, and that was never seen in one.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnknownMember {
    /// Its node id.
    pub name: String,
    /// Its Raft id.
    pub raft_id: String,
    /// Address that it advertises to the other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whether it votes.
    #[serde(default)]
    pub voter: bool,
    /// When it was first seen.
    pub since: Time,
}

/// A leadership transfer away from a Kubernetes node that was being drained.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainTransfer {
    /// Uid of the pod that led.
    pub pod_uid: String,
    /// When it began.
    pub at: Time,
}

/// Removals of unknown members.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnknownRemovals {
    /// Raft id of the last one.
    pub raft_id: String,
    /// When its removal began.
    pub at: Time,
    /// How many have been removed; begins again with 1 after an hour without any. If they keep coming back,
    /// each waits longer, at most a minute.
    pub count: i32,
}

/// Addresses for clients.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Service of all voters.
    pub client: String,
    /// Service of the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Service of the read replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
}

impl RqliteClusterStatus {
    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == kind)
    }

    /// Whether the condition of this type is true.
    pub fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|c| c.status == "True")
    }
}
