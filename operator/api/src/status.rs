//! The status of a cluster: what is, and what the operator is about to do. Each operation is written here before its first side effect.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::recovery::RecoveryRecord;

/// Condition: available, complete, and nothing under way.
pub const READY: &str = "Ready";
/// Condition: a leader exists and is seen by a quorum.
pub const AVAILABLE: &str = "Available";
/// Condition: something is under way; false with a reason that ends in `Stalled` if it got stuck.
pub const PROGRESSING: &str = "Progressing";
/// Condition: it works, but something needs attention.
pub const DEGRADED: &str = "Degraded";
/// Condition: so many voters are lost for good that no quorum can ever come back by itself.
pub const QUORUM_LOST: &str = "QuorumLost";
/// Condition: the operator changes nothing, as it was told.
pub const PAUSED: &str = "Paused";
/// Condition: stopped on purpose.
pub const HIBERNATED: &str = "Hibernated";
/// Condition: volumes are as the spec wants them.
pub const STORAGE_READY: &str = "StorageReady";
/// Condition: pods are older than the template, and why they are left alone.
pub const UPDATE_PENDING: &str = "UpdatePending";
/// Condition: a hint about the spec.
pub const ADVISORY: &str = "Advisory";

/// What is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RqliteClusterStatus {
    /// Generation of the spec that this status answers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Version of the operator that wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_version: Option<String>,
    /// Id of the cluster, drawn when it was created. Nodes with data of another cluster are not let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The unbroken history that the members share. Changes with every recovery from a lost quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// When the cluster was first complete. From then on empty nodes can only join, never form a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrapped_at: Option<Time>,
    /// The target that is being carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The one operation under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Pod of the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Since when it leads, as far as the operator has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_since: Option<Time>,
    /// When a leader was last seen. Updated at most every 30 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_leader_seen: Option<Time>,
    /// Highest commit index ever seen, to tell what a recovery could lose. Updated at most every 30 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_index: Option<i64>,
    /// Log index of the newest configuration that is known to be committed: `members` are those of this one or of a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_index: Option<i64>,
    /// Pods of voters that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Voters that take part.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Voters in the last confirmed configuration.
    #[serde(default)]
    pub voters: i32,
    /// Selects the voters' pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The read replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_replicas: Option<PoolStatus>,
    /// All members of the last confirmed configuration and all pods, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub members: Vec<Member>,
    /// Claims of members that left. Their data never votes again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub retired_claims: Vec<RetiredClaim>,
    /// The recovery from a lost quorum that is under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryRecord>,
    /// When the operator began recoveries by itself, for the last 24 hours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    pub automatic_recoveries: Vec<Time>,
    /// The voter that was last removed because nobody stood behind it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reaped: Option<Reaped>,
    /// Where clients connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// Ready, Available, Progressing, Degraded, QuorumLost, Paused, Hibernated, StorageReady, UpdatePending, Advisory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The conditions in one word.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Forming for the first time.
    Forming,
    /// All is as wanted.
    Running,
    /// Something is being changed.
    Changing,
    /// Works, but not as wanted.
    Degraded,
    /// No leader; expected to come back.
    Unavailable,
    /// No leader, and none will come back by itself.
    QuorumLost,
    /// Being recovered from a lost quorum.
    Recovering,
    /// The operator stays away.
    Paused,
    /// Being stopped, or stopped, on purpose.
    Hibernated,
    /// Being deleted.
    Deleting,
    /// The spec cannot be carried out.
    Invalid,
}

/// One unbroken history.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Its id.
    #[serde(default)]
    pub id: String,
    /// How many recoveries came before; 0 at first.
    #[serde(default)]
    pub epoch: i64,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// The target that is being carried out. Edits of the spec reach it only between two operations.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Voters at this moment of a change; differs from spec.replicas while members are added or removed one at a time.
    #[serde(default)]
    pub replicas: i32,
    /// Voters with which the cluster formed. Part of the nodes' command line, therefore kept.
    #[serde(default)]
    pub bootstrap_replicas: i32,
    /// The image that the nodes run. Kept when the operator's default changes.
    #[serde(default)]
    pub image: String,
    /// Hash of what the user asked for, as far as it reaches the voters' pods.
    #[serde(default)]
    pub input_hash: String,
    /// Hash of the voters' pod template.
    #[serde(default)]
    pub template_hash: String,
    /// Hash of the read replicas' pod template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_template_hash: Option<String>,
}

/// What an operation is about.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationType {
    /// Forming the cluster.
    Bootstrap,
    /// Adding a voter.
    ScaleUp,
    /// Removing a voter.
    ScaleDown,
    /// Replacing one pod by a newer one.
    Update,
    /// Making the StatefulSet anew for larger volumes, its pods untouched.
    Resize,
    /// Stopping on purpose.
    Hibernate,
    /// Starting again.
    Resume,
    /// Replacing a member that is lost for good.
    Replace,
    /// Recovering from a lost quorum.
    Recover,
}

/// How far an operation is. Only steps whose order matters across a restart of the operator are recorded.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum Step {
    /// Recorded, and whatever comes first.
    #[default]
    Start,
    /// The member is out of the committed configuration, by two witnesses: its pod goes.
    Shrink,
    /// Leadership has been asked to move once.
    Transfer,
    /// All pods but the first go.
    StopOthers,
    /// The last pod goes.
    StopLast,
    /// The lost member is out of the committed configuration: its pod, and its claim if that is lost, are made anew.
    Recreate,
    /// As Recreate, where only the data is damaged: it is put aside on its volume.
    Park,
    /// The plan of a recovery is out: the survivor follows it.
    Apply,
    /// The survivor runs alone and is checked.
    Verify,
}

/// The one operation under way.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Unique id.
    pub id: String,
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: OperationType,
    /// How far it is.
    #[serde(default)]
    pub step: Step,
    /// The pod or member that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Uid of the object that is to go: an operation never touches its successor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// When it was recorded.
    pub started_at: Time,
    /// When its present step began.
    pub step_at: Time,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A pool of pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// How many there should be.
    #[serde(default)]
    pub desired: i32,
    /// How many are ready.
    #[serde(default)]
    pub ready: i32,
}

/// Which pool.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Votes.
    Voter,
    /// Serves reads only.
    Read,
}

/// What a member is to the others.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Leads.
    Leader,
    /// Votes.
    Voter,
    /// Follows without a vote.
    Learner,
    /// Is not in the configuration.
    Absent,
}

/// How a member is.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    /// Answers, sees the leader, is caught up.
    Healthy,
    /// Answers, but sees no leader.
    Leaderless,
    /// Its containers are starting, or it is catching up.
    Starting,
    /// Its pod is ready, but the operator cannot reach it.
    Unreachable,
    /// It is away, and its volume still exists or cannot be judged.
    Recoverable,
    /// Its volume is gone: it cannot come back with its data.
    Lost,
    /// It is being removed.
    Leaving,
    /// It holds data of another cluster or history.
    Foreign,
}

/// One member or pod.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Name of the pod, which is the node's id.
    pub name: String,
    /// Its pool.
    pub pool: Pool,
    /// What it is to the others.
    pub role: Role,
    /// How it is.
    pub state: MemberState,
    /// Its Raft id: the name and the incarnation of its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_id: Option<String>,
    /// Uid of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Uid of the claim with its data. Kept while the pod is away: a claim of the same name with another uid is not this member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_uid: Option<String>,
    /// The machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Why it is not healthy, in Kubernetes' or the node's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is known to be lost for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_since: Option<Time>,
}

/// A claim of a member that left.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetiredClaim {
    /// Name of the claim.
    pub name: String,
    /// Its uid. A later claim of the same name is not this one.
    pub uid: String,
    /// Whose it was.
    pub member: String,
    /// When the member left.
    pub retired_at: Time,
}

/// A voter that was removed because nobody stood behind it any more.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reaped {
    /// Its Raft id.
    pub raft_id: String,
    /// When.
    pub at: Time,
}

/// Where clients connect.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Any voter.
    pub client: String,
    /// The leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The read replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
}

impl RqliteClusterStatus {
    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == kind)
    }

    /// Is the condition of this type true?
    pub fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|c| c.status == "True")
    }
}
