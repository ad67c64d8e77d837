//! A member of the configuration, or a pod that is not (yet) one: its role, its health, its disk.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::open::open_enum;

/// A pool of nodes.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Nodes that vote.
    Voter,
    /// Read replicas: nodes that serve reads and do not vote.
    Read,
}

open_enum! {
    /// A member's role in the Raft configuration.
    pub enum Role {
        /// The leader.
        Leader = "leader",
        /// A voter that does not lead.
        Voter = "voter",
        /// A member without a vote.
        Learner = "learner",
        /// Not in the configuration.
        Absent = "absent",
    }
}

open_enum! {
    /// A member's health.
    pub enum MemberState {
        /// Responds, follows the leader and is caught up.
        Healthy = "Healthy",
        /// Responds, but knows no leader.
        Leaderless = "Leaderless",
        /// Its containers are starting, or it is catching up with the log.
        Starting = "Starting",
        /// Its pod is ready, but the operator cannot reach it.
        Unreachable = "Unreachable",
        /// It is not running, but its volume exists or its state is unknown.
        Recoverable = "Recoverable",
        /// Its volume is gone: it cannot return with its data.
        Lost = "Lost",
        /// It is being removed.
        Leaving = "Leaving",
        /// It holds data of another cluster or lineage.
        Foreign = "Foreign",
    }
}

/// A member of the configuration, or a pod that is not (yet) one.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Name of the pod, which is also the node id.
    pub name: String,
    /// Pool of the pod: voter or read. Others are possible after a newer operator.
    #[serde(deserialize_with = "pool_or_read")]
    #[schemars(with = "String")]
    pub pool: Pool,
    /// Role in the Raft configuration: leader, voter, learner or absent. Others are possible after a newer
    /// operator.
    pub role: Role,
    /// Health: Healthy, Leaderless, Starting, Unreachable, Recoverable, Lost, Leaving or Foreign. Others are
    /// possible after a newer operator.
    pub state: MemberState,
    /// Raft id: the node id and the incarnation of its data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_id: Option<String>,
    /// Uid of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Uid of the PersistentVolumeClaim with its data. Kept while the pod does not exist: a claim of the same
    /// name with another uid does not belong to this member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_uid: Option<String>,
    /// Kubernetes node that the pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Version of its program, as it last reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Newest format version that its program supports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format_version_max: Option<i32>,
    /// Why it is not healthy, as reported by Kubernetes or by the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its disk, as its node reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskSummary>,
    /// Copies of data that are parked on its volume; see spec.storage.parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<ParkedSummary>,
    /// Since when it is known to be permanently lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_since: Option<Time>,
}

/// A pool that this version does not know is taken for one that is in no quorum. Members are determined
/// again in every reconcile, so nothing is lost by that.
fn pool_or_read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Pool, D::Error> {
    let text = String::deserialize(from)?;
    Ok(if text == "voter" {
        Pool::Voter
    } else {
        Pool::Read
    })
}

/// A member's disk.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskSummary {
    /// Its size.
    pub total_bytes: i64,
    /// How much of it is used, in steps of 5.
    pub used_percent: i32,
}

/// Parked copies of data.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParkedSummary {
    /// Number of copies.
    pub copies: i32,
    /// Their size.
    pub bytes: i64,
    /// One of them may hold writes that a recovery has lost.
    #[serde(default)]
    pub may_hold_lost_writes: bool,
}

impl Member {
    /// A name of which nothing is known but its pool: not in the configuration, and starting.
    pub fn absent(name: &str, pool: Pool) -> Self {
        Self {
            name: name.to_owned(),
            pool,
            role: Role::Absent,
            state: MemberState::Starting,
            raft_id: None,
            pod_uid: None,
            claim_uid: None,
            node: None,
            version: None,
            format_version_max: None,
            reason: None,
            disk: None,
            parked: None,
            lost_since: None,
        }
    }
}
