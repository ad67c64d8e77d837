//! What the operator may do by itself about members that will not come back, and about a lost quorum.
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::Period;

/// Replacing a single member whose volume is lost for good, while the others have a quorum. Loss is positive evidence only: the claim or its volume
/// is gone, the volume is pinned to a machine that was deleted, the data is damaged. A member that is merely away is never replaced.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("duration(self.after) <= duration('720h')").message("memberReplacement.after is longer than 30 days: lower it, or use policy Manual"))]
pub struct MemberReplacement {
    /// Automatic: the lost member is removed, its pod (and its claim, if the volume is gone) is made anew, and it joins with an empty volume.
    /// Manual: the condition Degraded says what to type. Automatic unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RepairPolicy>,
    /// How long the evidence must stand before anything is done; 10m unless given. A node that joins by itself with an empty volume does not
    /// wait for this.
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

/// Who decides.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum RepairPolicy {
    /// The operator.
    #[default]
    Automatic,
    /// A person.
    Manual,
}

/// What happens when so many voters are lost for good that no quorum can come back. Whatever the policy, an absent majority is never taken for a
/// lost one.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.automaticAfter) >= duration(self.detectAfter)").message("quorumRecovery.automaticAfter is shorter than detectAfter: raise automaticAfter or lower detectAfter"),
    validation = Rule::new("!self.acceptDataLoss || (has(self.policy) && self.policy == 'Automatic')").message("quorumRecovery.acceptDataLoss only means something with policy Automatic: remove it, or consent in an RqliteRecovery when the time comes")
)]
pub struct QuorumRecovery {
    /// Manual: a person creates an RqliteRecovery. Automatic: the operator creates one itself, once, if every missing voter is lost on evidence and
    /// a survivor could be inspected. Manual unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RecoveryPolicy>,
    /// How long the loss must be evident before the condition QuorumLost turns true; 5m unless given.
    #[serde(default = "five_minutes")]
    pub detect_after: Period,
    /// With policy Automatic: how long the loss must be evident before the operator creates an RqliteRecovery; 30m unless given.
    #[serde(default = "thirty_minutes")]
    pub automatic_after: Period,
    /// With policy Automatic: most recoveries within 24 hours, from 1 to 24; 1 unless given. A cluster that keeps losing its disks needs a person.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 24))]
    pub max_per_day: i32,
    /// With policy Automatic: consent beforehand to lose what no survivor has. Without it the operator recovers by itself only if nothing can be
    /// lost; false unless given.
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

/// Who begins a recovery.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum RecoveryPolicy {
    /// A person.
    #[default]
    Manual,
    /// The operator, within its guards.
    Automatic,
}

/// Removing members from the configuration that no pod stands behind any more.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.voterTimeout) >= duration('1h')").message("reaping.voterTimeout is shorter than an hour: raise it, as a reboot or a pulled image may take longer than you think"),
    validation = Rule::new("duration(self.readReplicaTimeout) >= duration('1m')").message("reaping.readReplicaTimeout is shorter than a minute: raise it")
)]
pub struct Reaping {
    /// Also remove voters that should be there, that the leader has not heard for voterTimeout, and whose volume is lost for good; false unless
    /// given. A voter beyond the wanted number is always removed.
    #[serde(default)]
    pub voters: bool,
    /// How long the leader must have heard nothing of a voter; 72h unless given, at least 1h.
    #[serde(default = "three_days")]
    pub voter_timeout: Period,
    /// How long the leader must have heard nothing of a read replica; 30m unless given. The nodes watch this themselves as well, so that it
    /// works while the operator is away.
    #[serde(default = "thirty_minutes")]
    pub read_replica_timeout: Period,
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
        }
    }
}
