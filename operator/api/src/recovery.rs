//! `RqliteRecovery`: a one-time, immutable request to recover a cluster that has lost its quorum, and the
//! record of what was done.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{
    lineage::Lineage,
    open::open_enum,
    scalar::{Moment, Period},
};

/// How a cluster may be recovered.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rqlite.dev",
    version = "v1alpha1",
    kind = "RqliteRecovery",
    plural = "rqliterecoveries",
    shortname = "rqrec",
    category = "databases",
    namespaced,
    doc = "A one-time recovery of a cluster that lost its quorum for good. It cannot be changed: to try something else, create another one.",
    status = "RqliteRecoveryStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterRef.name"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Stalled",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"RecoveryStalled\")].status"
    ),
    printcolumn(
        name = "Check %",
        type_ = "integer",
        json_path = ".status.check.percent"
    ),
    printcolumn(name = "Survivor", type_ = "string", json_path = ".status.survivor"),
    printcolumn(
        name = "Known lost",
        type_ = "integer",
        json_path = ".status.possiblyLostEntries"
    ),
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
    validation = Rule::new("self == oldSelf").message("a recovery cannot be changed: create another RqliteRecovery"),
    validation = Rule::new("self.mode != 'RewriteAddresses' || !has(self.survivor)").message("mode RewriteAddresses needs all voters and chooses no survivor: remove survivor, or use mode SingleSurvivor"),
    validation = Rule::new("self.mode != 'FromArchive' || !has(self.survivor)").message("mode FromArchive is for a cluster without any survivor: remove survivor, or use mode SingleSurvivor"),
    validation = Rule::new("self.mode == 'FromArchive' || !(has(self.toTime) || has(self.toIndex))").message("toTime and toIndex are points of the archive: use them with mode FromArchive, or create an RqliteRestore for a cluster that runs"),
    validation = Rule::new("!(has(self.toTime) && has(self.toIndex))").message("a point is a time or an index: give toTime or toIndex, or neither for the archive's end"),
    validation = Rule::new("self.mode != 'RewriteAddresses' || !has(self.ignoreMembers)").message("mode RewriteAddresses needs all voters: remove ignoreMembers, or use mode SingleSurvivor"),
    validation = Rule::new("!has(self.survivor) || !has(self.ignoreMembers) || !self.ignoreMembers.exists(m, m == self.survivor)").message("the survivor is also in ignoreMembers: remove it from one of them")
)]
pub struct RqliteRecoverySpec {
    /// The cluster, in the same namespace.
    pub cluster_ref: ClusterRef,
    /// SingleSurvivor: one member becomes the cluster and the others rejoin it. RewriteAddresses: all voters
    /// exist, but under new names; nothing is lost. FromArchive: no data is left but the archive
    /// (spec.archive of the cluster), from which the cluster begins again with empty volumes. Defaults to
    /// SingleSurvivor.
    #[serde(default)]
    #[schemars(extend("enum" = ["SingleSurvivor", "RewriteAddresses", "FromArchive"]))]
    pub mode: RecoveryMode,
    /// Pod of the member to recover from. Defaults to the member with the newest log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub survivor: Option<String>,
    /// With mode FromArchive: the last state at this time. Defaults to the archive's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_time: Option<Moment>,
    /// With mode FromArchive: the state after this Raft index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub to_index: Option<i64>,
    /// Consent to lose what the survivor does not have. Without it, a recovery that may lose data stops in
    /// phase AwaitingApproval and reports how many entries may be lost. Defaults to false.
    #[serde(default)]
    pub accept_data_loss: bool,
    /// Members that are known to be gone and need not be inspected first; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub ignore_members: Vec<String>,
    /// Pods that are known not to be running any more although Kubernetes cannot tell; at most 64. If one of
    /// them is still running, clients may read its old data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub assume_stopped: Vec<String>,
    /// Only inspect the members and report what would be done. Defaults to false.
    #[serde(default)]
    pub dry_run: bool,
    /// Go on without the integrity check of the survivor's database, before and after the recovery, for
    /// example because it takes too long. A damaged database is then not noticed. A check that is under way
    /// is skipped by the annotation rqlite.dev/skip-database-check: "true". Defaults to false.
    #[serde(default)]
    pub skip_database_check: bool,
    /// How long each of the two checks of the database may take. Defaults to 10 minutes and 2 more for each
    /// GiB of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_check_timeout: Option<Period>,
    /// Why the recovery is needed, for the record.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Seconds after its end at which this object is deleted. Defaults to 30 days (a dry run: one day), and
    /// to at once for all but the newest 10 ended ones of a cluster; objects that Argo CD, Flux or Helm
    /// manages are then kept, because such a tool would create them again, and a new object is a new consent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub ttl_seconds_after_finished: Option<i32>,
}

impl RqliteRecoverySpec {
    /// A recovery of this cluster with the default of everything else.
    pub fn new(cluster: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            cluster_ref: ClusterRef {
                name: cluster.into(),
                uid: None,
            },
            mode: RecoveryMode::default(),
            survivor: None,
            to_time: None,
            to_index: None,
            accept_data_loss: false,
            ignore_members: Vec::new(),
            assume_stopped: Vec::new(),
            dry_run: false,
            skip_database_check: false,
            database_check_timeout: None,
            reason: reason.into(),
            ttl_seconds_after_finished: None,
        }
    }
}

/// Reference to an RqliteCluster by name.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRef {
    /// Name of the RqliteCluster.
    #[schemars(length(min = 1, max = 45))]
    pub name: String,
    /// Its uid. A cluster of the same name with another uid is not recovered. Defaults to the cluster that
    /// exists when the operator first processes the recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub uid: Option<String>,
}

open_enum! {
    /// The kind of a recovery. Closed in a spec, by its schema.
    #[derive(Default)]
    pub enum RecoveryMode {
        /// One member becomes the cluster; the others rejoin it.
        #[default]
        SingleSurvivor = "SingleSurvivor",
        /// All voters exist, under new names.
        RewriteAddresses = "RewriteAddresses",
        /// No data is left but the archive.
        FromArchive = "FromArchive",
    }
}

open_enum! {
    /// Progress of a recovery.
    pub enum RecoveryPhase {
        /// Not yet processed by the operator.
        Pending = "Pending",
        /// Reading the newest log entry of each member.
        Inspecting = "Inspecting",
        /// Data may be lost and acceptDataLoss is not set. Another RqliteRecovery with acceptDataLoss: true
        /// supersedes this one.
        AwaitingApproval = "AwaitingApproval",
        /// Stopping every node.
        Fencing = "Fencing",
        /// Rewriting the survivor's Raft configuration.
        Applying = "Applying",
        /// The first of the new, empty nodes restores the archive.
        Restoring = "Restoring",
        /// Checking the running survivor.
        Verifying = "Verifying",
        /// The other nodes join as new members.
        Rejoining = "Rejoining",
        /// Finished successfully.
        Succeeded = "Succeeded",
        /// Failed; status.message says where the data is and what to do.
        Failed = "Failed",
        /// Refused; nothing was changed.
        Rejected = "Rejected",
    }
}

/// A position in the Raft log.
#[derive(
    KubeSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct LogPosition {
    /// Term of the entry.
    pub term: i64,
    /// Index of the entry.
    pub index: i64,
}

/// A member that the cluster could be recovered from.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Name of its pod.
    pub member: String,
    /// Position of its newest log entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_log: Option<LogPosition>,
    /// Incarnation of its data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// Why it cannot be the survivor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A phase and when it was entered.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryStep {
    /// The phase.
    pub phase: RecoveryPhase,
    /// When it was entered.
    pub at: Time,
}

/// An admitted recovery as recorded in the cluster's status: everything that its steps need, so that it can
/// be finished even if its RqliteRecovery object has been deleted.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryRecord {
    /// Name of the RqliteRecovery.
    pub name: String,
    /// Uid of the RqliteRecovery; also the id of the plan.
    pub uid: String,
    /// Kind of recovery.
    #[serde(default)]
    pub mode: RecoveryMode,
    /// Current phase.
    pub phase: RecoveryPhase,
    /// The member that the cluster is recovered from.
    pub survivor: String,
    /// Incarnation of the survivor's data when it was inspected.
    pub incarnation: String,
    /// Position of the survivor's newest log entry when it was inspected.
    pub last_log: LogPosition,
    /// The lineage that ends.
    pub from: Lineage,
    /// The lineage that begins.
    pub to: Lineage,
    /// The archive's point; only with mode FromArchive. Without one: its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_time: Option<Moment>,
    /// The archive's index; only with mode FromArchive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_index: Option<i64>,
    /// Members of the new configuration besides the survivor; only with mode RewriteAddresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub peers: Vec<RecoveryPeer>,
    /// Pods that the user asserts are not running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub assume_stopped: Vec<String>,
    /// Number of read replicas that an autoscaler had set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_replicas: Option<i32>,
    /// Number of log entries that are known to be missing. Absent if acknowledged writes may be lost and
    /// it is not known how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possibly_lost_entries: Option<i64>,
    /// The user's word to go on without the check of the database.
    #[serde(default, skip_serializing_if = "is_false")]
    pub skip_database_check: bool,
    /// How long the check of the database may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_check_timeout: Option<Period>,
    /// What the recovery is waiting for, or how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When each phase was entered.
    #[schemars(length(max = 32))]
    pub steps: Vec<RecoveryStep>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

open_enum! {
    /// State of a check of a database.
    pub enum RecoveryCheckState {
        /// It is about to be requested, or waits for another one.
        Pending = "Pending",
        /// The node carries it out.
        Running = "Running",
        /// No problem was found.
        Passed = "Passed",
        /// The database is damaged.
        Failed = "Failed",
        /// It was not finished by its deadline.
        TimedOut = "TimedOut",
        /// A person said to go on without it.
        Skipped = "Skipped",
    }
}

/// The integrity check of the survivor's database, which its node carries out in the background.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryCheck {
    /// The pod whose database is checked.
    pub member: String,
    /// Its Raft id: a check says nothing of the data of another incarnation.
    pub raft_id: String,
    /// Id of the check. A result of another recovery, or of an earlier check, has another id and never
    /// counts.
    pub id: String,
    /// Its state: Pending, Running, Passed, Failed, TimedOut or Skipped. Others are possible after a newer
    /// operator.
    pub state: RecoveryCheckState,
    /// When it was requested first.
    pub started_at: Time,
    /// When it is given up.
    pub deadline: Time,
    /// How much of the reading is done, at least.
    pub percent: i32,
    /// When its state or percentage last changed.
    pub progress_at: Time,
    /// Size of the database in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_bytes: Option<i64>,
}

/// A member of the Raft configuration that a recovery writes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPeer {
    /// Name of the node.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Whether it votes.
    pub voter: bool,
}

impl RecoveryPhase {
    /// Whether the recovery is over.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Rejected)
    }
}

/// The state of a recovery.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RqliteRecoveryStatus {
    /// Current phase: Pending, Inspecting, AwaitingApproval, Fencing, Applying, Restoring, Verifying,
    /// Rejoining, Succeeded, Failed or Rejected. Others are possible after a newer operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RecoveryPhase>,
    /// Uid of the RqliteCluster that this recovery is for. It stays the same when a cluster of the same name
    /// is created again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// Id of the recovery plan, which is the uid of this object. A plan is executed at most once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_id: Option<String>,
    /// What was found on each member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["member".into()]))]
    pub candidates: Vec<Candidate>,
    /// The member that the cluster is recovered from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survivor: Option<String>,
    /// Number of log entries that are known to be missing: the highest commit index ever seen minus the
    /// survivor's last log index. More may be lost if the message says so. Absent if acknowledged writes may
    /// be lost and it is not known how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possibly_lost_entries: Option<i64>,
    /// What the recovery is waiting for, or why it failed or was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The check of the survivor's database: the first one before anything is changed, later the second one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<RecoveryCheck>,
    /// When each phase was entered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub steps: Vec<RecoveryStep>,
    /// Complete: true once the recovery has succeeded, failed or been refused. RecoveryStalled: true while it
    /// makes no progress; the message says what it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
