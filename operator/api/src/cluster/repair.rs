//! Policies for members that will not return, and for a lost quorum.
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::Period;

/// Replacement of a single member whose volume is permanently lost while the others have a quorum. Only
/// positive evidence counts as loss: the claim or its volume is gone, the volume is bound to a deleted
/// Kubernetes node, or the data is damaged. A member that is merely unreachable is never replaced.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("duration(self.after) <= duration('720h')").message("memberReplacement.after is longer than 30 days: lower it, or use policy Manual"))]
pub struct MemberReplacement {
    /// Automatic: the lost member is removed, its pod (and its claim, if the volume is gone) is recreated,
    /// and it joins with an empty volume. Manual: the condition Degraded says which commands to run. Defaults
    /// to Automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RepairPolicy>,
    /// How long the evidence must persist before anything is done. A node that joins by itself with an empty
    /// volume does not wait for this. Defaults to 10m.
    #[serde(default = "ten_minutes")]
    pub after: Period,
}

fn ten_minutes() -> Period {
    Period::from("10m")
}

impl Default for MemberReplacement {
    fn default() -> Self {
        Self {
            policy: None,
            after: ten_minutes(),
        }
    }
}

/// Who replaces a lost member.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum RepairPolicy {
    /// The operator.
    #[default]
    Automatic,
    /// The user.
    Manual,
}

/// What happens when so many voters are permanently lost that the quorum cannot return. Whatever the policy,
/// a majority that is merely unreachable is never treated as lost.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.automaticAfter) >= duration(self.detectAfter)").message("quorumRecovery.automaticAfter is shorter than detectAfter: raise automaticAfter or lower detectAfter"),
    validation = Rule::new("!self.acceptDataLoss || (has(self.policy) && self.policy == 'Automatic')").message("quorumRecovery.acceptDataLoss only means something with policy Automatic: remove it, or consent in an RqliteRecovery when the time comes")
)]
pub struct QuorumRecovery {
    /// Manual: the user creates an RqliteRecovery. Automatic: the operator creates one, once, if there is
    /// evidence that every missing voter is lost and if a survivor could be inspected. Defaults to Manual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RecoveryPolicy>,
    /// How long the evidence of the loss must persist before the condition QuorumLost turns true. Defaults to
    /// 5m.
    #[serde(default = "five_minutes")]
    pub detect_after: Period,
    /// With policy Automatic: how long the evidence of the loss must persist before the operator creates an
    /// RqliteRecovery. Defaults to 30m.
    #[serde(default = "thirty_minutes")]
    pub automatic_after: Period,
    /// With policy Automatic: maximum number of recoveries within 24 hours, from 1 to 24. A cluster that
    /// keeps losing its disks needs attention. Defaults to 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 24))]
    pub max_per_day: i32,
    /// With policy Automatic: advance consent to lose what no survivor has. Without it, the operator recovers
    /// by itself only if nothing can be lost. Setting it needs the permission to create RqliteRecoveries.
    /// Defaults to false.
    #[serde(default)]
    pub accept_data_loss: bool,
}

fn five_minutes() -> Period {
    Period::from("5m")
}

fn thirty_minutes() -> Period {
    Period::from("30m")
}

fn one() -> i32 {
    1
}

impl Default for QuorumRecovery {
    fn default() -> Self {
        Self {
            policy: None,
            detect_after: five_minutes(),
            automatic_after: thirty_minutes(),
            max_per_day: one(),
            accept_data_loss: false,
        }
    }
}

/// Who starts a recovery.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum RecoveryPolicy {
    /// The user.
    #[default]
    Manual,
    /// The operator, within the limits of the policy.
    Automatic,
}

/// Removal of members from the configuration that no longer have a pod.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.voterTimeout) >= duration('1h')").message("reaping.voterTimeout is shorter than an hour: raise it, as a reboot or a pulled image may take longer than you think"),
    validation = Rule::new("duration(self.readReplicaTimeout) >= duration('1m')").message("reaping.readReplicaTimeout is shorter than a minute: raise it")
)]
pub struct Reaping {
    /// Whether voters are removed that should exist, that have been unreachable for voterTimeout, and whose
    /// volume is permanently lost. A voter beyond the desired number is always removed. Defaults to false.
    #[serde(default)]
    pub voters: bool,
    /// How long a voter must have been unreachable for the leader; at least 1h. Defaults to 72h.
    #[serde(default = "three_days")]
    pub voter_timeout: Period,
    /// How long a read replica must have been unreachable for the leader. The nodes enforce this themselves
    /// as well, so that it works while the operator is not running. Defaults to 30m.
    #[serde(default = "thirty_minutes")]
    pub read_replica_timeout: Period,
    /// Whether nodes without a vote that belong to no pod of this cluster stay members, for example an
    /// external replica that you run yourself. By default they are removed within seconds, like unknown
    /// voters, which are always removed: anybody who can reach the inter-node port could otherwise get a copy
    /// of the database. Defaults to false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_unknown_readers: bool,
}

fn three_days() -> Period {
    Period::from("72h")
}

impl Default for Reaping {
    fn default() -> Self {
        Self {
            voters: false,
            voter_timeout: three_days(),
            read_replica_timeout: thirty_minutes(),
            keep_unknown_readers: false,
        }
    }
}
