//! Side effects of a reconcile, and what a decider may return. Every action either names the uid of the
//! object it touches or can be repeated without harm.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use node_contract::RestoreRequest;
use operator_api::{RqliteClusterStatus, status::Operation, status::OperationType, status::Step};
use serde::{Deserialize, Serialize};

use crate::cluster::facts::observation::{NodeStatus, ObservedPod};

/// A condition: this member must not be in the leader's committed configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequiredAbsence {
    /// Name of the node that is queried; it must be the leader.
    pub leader: String,
    /// The member's name.
    pub member: String,
    /// Term of the leader's newest log entry at the time of the observation.
    pub last_log_term: u64,
    /// Index of that entry.
    pub last_log_index: u64,
}

impl RequiredAbsence {
    /// Does the leader's present status prove the absence? Leadership may have moved and returned since the
    /// observation, and a leader that was just elected may not know what its predecessors committed. A busy
    /// leader always has entries that are not committed yet; then it suffices that the entry seen in the
    /// observation is committed now, if it is of the current term.
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
    /// Removes the finalizer, so that a deleted cluster's object disappears.
    ReleaseFinalizer,
    /// Deletes the StatefulSet with this uid, with its pods or (`orphan`) without them.
    DeleteStatefulSet {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// Keep its pods running?
        orphan: bool,
    },
    /// Deletes the claim with this uid. No pod uses it.
    DeleteClaim {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Sets `spec.replicas` of the StatefulSet with this uid, if the number is still `from`.
    SetReplicas {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// Present number of replicas.
        from: i32,
        /// New number of replicas.
        to: i32,
        /// Checked again immediately before the write: the observation may be seconds old, and a removed
        /// member may have rejoined since.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        absent: Option<RequiredAbsence>,
    },
    /// Requests a leadership transfer from the leader.
    TransferLeader {
        /// Name of the leader.
        from: String,
        /// Name of the voter that shall lead.
        to: String,
    },
    /// Asks the leader to remove a member.
    RemoveMember {
        /// Name of the leader.
        leader: String,
        /// The member's name.
        name: String,
        /// The member's Raft id, as the configuration has it.
        raft_id: String,
    },
    /// Evicts the pod with this uid; evictions and drains share the disruption budget.
    EvictPod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Deletes the pod with this uid, which takes no part in the cluster; its StatefulSet recreates it.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Requests a larger volume for the claim with this uid.
    ExpandClaim {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// The new size, a Kubernetes quantity.
        size: String,
    },
    /// Requests SQLite's integrity check of a node's database in the background. Changes nothing; the node's
    /// status shows the result under this id.
    CheckMember {
        /// Name of the node.
        name: String,
        /// Its Raft id.
        raft_id: String,
        /// Id of the check.
        id: String,
        /// The check ends after this time.
        limit_seconds: u64,
        /// Must the node lead, and prove it first by a linearizable read?
        as_leader: bool,
    },
    /// Ends a check that nothing waits for.
    EndCheck {
        /// Name of the node.
        name: String,
        /// Id of the check.
        id: String,
    },
    /// Requests a restore in place from the leader, or (`dry_run`) only what it would undo. The leader never
    /// starts two under the same id.
    Restore {
        /// Name of the leader.
        leader: String,
        /// Its Raft id.
        raft_id: String,
        /// The term in which it leads: another term may be another process, which knows nothing of an
        /// earlier request.
        term: u64,
        /// The request.
        request: RestoreRequest,
    },
    /// Creates an RqliteRecovery, unless one of this name exists.
    CreateRecovery {
        /// Its name.
        name: String,
        /// Is the loss of acknowledged writes accepted?
        accept_data_loss: bool,
        /// Text of `spec.reason`.
        reason: String,
    },
}

impl Action {
    /// Deletes this pod, but not a successor of the same name.
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
            Self::EndCheck { .. } => "end_check",
            Self::CreateRecovery { .. } => "create_recovery",
            Self::Restore { .. } => "restore",
        }
    }
}

/// What a decider returns. Texts are for people.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// This decider has nothing to do: ask the next one.
    Continue,
    /// Something has to be waited for; no later decider is asked. The text says what for.
    Wait(String),
    /// As `Wait`, but a person should look at it: a reason in CamelCase, and the text.
    Blocked(&'static str, String),
    /// Write this status and do nothing else in this reconcile.
    Record(Box<RqliteClusterStatus>, String),
    /// Carry out this action. The status already announces it, or it can be repeated without harm.
    Act(Action, String),
}

/// Returns a status that announces a new operation.
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
        newer: BTreeMap::new(),
    });
    Box::new(next)
}

/// Returns a status whose operation has reached another step.
pub fn step(status: &RqliteClusterStatus, now: &Time, to: Step) -> Box<RqliteClusterStatus> {
    let mut next = status.clone();
    if let Some(operation) = &mut next.operation {
        operation.step = to;
        operation.step_at = now.clone();
    }
    Box::new(next)
}

/// Returns a status without an operation.
pub fn finish(status: &RqliteClusterStatus) -> Box<RqliteClusterStatus> {
    let mut next = status.clone();
    next.operation = None;
    Box::new(next)
}

/// A Kubernetes event about the cluster, as `kubectl describe` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Type `Warning` instead of `Normal`?
    pub warning: bool,
    /// The reason, in CamelCase.
    pub reason: String,
    /// The message.
    pub message: String,
}

impl Event {
    /// A warning.
    pub fn warning(reason: &str, message: String) -> Self {
        Self {
            warning: true,
            reason: reason.to_owned(),
            message,
        }
    }
}
