//! What a pass may do to the world. Every action names the uid of what it touches, or can be repeated without harm.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator_api::{RqliteClusterStatus, status::Operation, status::OperationType, status::Step};
use serde::{Deserialize, Serialize};

use crate::cluster::facts::observation::{NodeStatus, ObservedPod};

/// A member that must not be in the leader's committed configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequiredAbsence {
    /// Who is asked, and has to lead.
    pub leader: String,
    /// The member's name.
    pub member: String,
    /// Term of the newest entry that the leader had when it was looked at.
    pub last_log_term: u64,
    /// Index of that entry.
    pub last_log_index: u64,
}

impl RequiredAbsence {
    /// Do these words of the leader, of now, prove it? Leadership may have gone and come back since it was looked at, and who was just elected may
    /// not know what its predecessors have committed. A busy leader always has entries that are not committed yet: then the one that was seen
    /// tells, if it is of the present term.
    pub fn is_proven_by(&self, node: &NodeStatus) -> bool {
        let leads = node.is_leader && node.leader.as_ref() == Some(&self.leader);
        let committed = node.term == self.last_log_term && node.commit_index >= self.last_log_index;
        let out = !node.config.iter().any(|m| m.name == self.member);
        leads && out && (committed || node.has_committed_in_term())
    }
}

/// One side effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Action {
    /// Lets a deleted cluster's object go.
    ReleaseFinalizer,
    /// Deletes a StatefulSet, with its pods or (orphan) without. Only this uid.
    DeleteStatefulSet {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// Leave its pods running?
        orphan: bool,
    },
    /// Deletes a claim that no pod uses. Only this uid.
    DeleteClaim {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Sets `spec.replicas` of a StatefulSet, if it still is `from`.
    SetReplicas {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// What it is.
        from: i32,
        /// What it becomes.
        to: i32,
        /// Only if this holds at that very moment: what was seen may be seconds old, and a member may have joined again since.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        absent: Option<RequiredAbsence>,
    },
    /// Asks the leader to hand over.
    TransferLeader {
        /// The leader.
        from: String,
        /// Who shall lead.
        to: String,
    },
    /// Asks the leader to remove a member.
    RemoveMember {
        /// The leader.
        leader: String,
        /// The member's name.
        name: String,
        /// The member's Raft id, as the configuration has it.
        raft_id: String,
    },
    /// Evicts a pod, sharing the disruption budget with drains. Only this uid.
    EvictPod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Deletes a pod that takes no part, so that it is made anew. Only this uid.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Asks for a larger volume. Only this uid.
    ExpandClaim {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// The new size.
        size: String,
    },
    /// Checks a node's database: SQLite's own check, and a linearizable read if it leads. Changes nothing; the outcome is seen by the next pass.
    CheckMember {
        /// The node.
        name: String,
        /// Its Raft id.
        raft_id: String,
    },
    /// Creates an RqliteRecovery, unless there is one of this name.
    CreateRecovery {
        /// Its name.
        name: String,
        /// Consent given beforehand.
        accept_data_loss: bool,
        /// Why.
        reason: String,
    },
}

impl Action {
    /// Deletes this very pod, and none that has taken its place.
    pub fn delete_pod(pod: &ObservedPod) -> Self {
        Self::DeletePod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        }
    }

    /// Its name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ReleaseFinalizer => "release_finalizer",
            Self::DeleteStatefulSet { .. } => "delete_stateful_set",
            Self::DeleteClaim { .. } => "delete_claim",
            Self::SetReplicas { .. } => "set_replicas",
            Self::TransferLeader { .. } => "transfer_leader",
            Self::RemoveMember { .. } => "remove_member",
            Self::EvictPod { .. } => "evict_pod",
            Self::DeletePod { .. } => "delete_pod",
            Self::ExpandClaim { .. } => "expand_claim",
            Self::CheckMember { .. } => "check_member",
            Self::CreateRecovery { .. } => "create_recovery",
        }
    }

    /// Could this take something from a running cluster?
    pub fn is_disruptive(&self) -> bool {
        match self {
            Self::SetReplicas { from, to, .. } => to < from,
            Self::ReleaseFinalizer
            | Self::ExpandClaim { .. }
            | Self::CheckMember { .. }
            | Self::CreateRecovery { .. } => false,
            Self::DeleteStatefulSet { .. }
            | Self::DeleteClaim { .. }
            | Self::TransferLeader { .. }
            | Self::RemoveMember { .. }
            | Self::EvictPod { .. }
            | Self::DeletePod { .. } => true,
        }
    }
}

/// What a decider says.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Not concerned: ask the next one.
    Continue,
    /// Concerned, and nothing can be done now: nobody after it acts. For a person, what is waited for.
    Wait(String),
    /// As `Wait`, but something is wrong that a person should know of: a reason in CamelCase and the text.
    Blocked(&'static str, String),
    /// Write this status and do nothing else.
    Record(Box<RqliteClusterStatus>, String),
    /// Do this, which the status already announces or which can be repeated without harm.
    Act(Action, String),
}

/// A status that announces a new operation.
pub fn begin(
    status: &RqliteClusterStatus,
    id: &str,
    now: &Time,
    kind: OperationType,
    member: Option<&str>,
    uid: Option<&str>,
) -> Box<RqliteClusterStatus> {
    let mut next = status.clone();
    next.operation = Some(Operation {
        id: id.to_owned(),
        kind,
        step: Step::Start,
        member: member.map(str::to_owned),
        uid: uid.map(str::to_owned),
        started_at: now.clone(),
        step_at: now.clone(),
        message: None,
    });
    Box::new(next)
}

/// A status whose operation has reached another step.
pub fn step(status: &RqliteClusterStatus, now: &Time, to: Step) -> Box<RqliteClusterStatus> {
    let mut next = status.clone();
    if let Some(operation) = &mut next.operation {
        operation.step = to;
        operation.step_at = now.clone();
    }
    Box::new(next)
}

/// A status whose operation is done.
pub fn finish(status: &RqliteClusterStatus) -> Box<RqliteClusterStatus> {
    let mut next = status.clone();
    next.operation = None;
    Box::new(next)
}

/// Something for `kubectl describe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Does it need attention?
    pub warning: bool,
    /// In CamelCase.
    pub reason: String,
    /// For a person.
    pub message: String,
}
