//! The result of checking a recovery that has not been admitted, and what all checks have in common.
use operator_api::recovery::{Candidate, RecoveryCheck, RecoveryPhase, RecoveryRecord};

use crate::cluster::{action::Action, facts::view::View};

/// Seconds that a recovery waits for evidence before it is rejected without it: a deleted claim disappears
/// only with its pod.
pub const PATIENCE_SECONDS: u64 = 30;

/// The result of checking a recovery that has not been admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// The phase for its status.
    pub phase: RecoveryPhase,
    /// What it waits for, or why it is rejected.
    pub message: String,
    /// What data each member has.
    pub candidates: Vec<Candidate>,
    /// Name of the member it would recover from.
    pub chosen: Option<String>,
    /// Number of entries that the survivor lacks, as far as is known.
    pub possibly_lost_entries: Option<i64>,
    /// With phase Fencing: the record for the cluster's status.
    pub record: Option<Box<RecoveryRecord>>,
    /// A check to request first.
    pub check: Option<Action>,
    /// The state of that check.
    pub check_report: Option<RecoveryCheck>,
}

impl Admission {
    pub(super) fn new(phase: RecoveryPhase, message: impl Into<String>) -> Self {
        Self {
            phase,
            message: message.into(),
            candidates: Vec::new(),
            chosen: None,
            possibly_lost_entries: None,
            record: None,
            check: None,
            check_report: None,
        }
    }

    pub(super) fn rejected(message: impl Into<String>) -> Self {
        Self::new(RecoveryPhase::Rejected, message)
    }

    pub(super) fn inspecting(message: impl Into<String>) -> Self {
        Self::new(RecoveryPhase::Inspecting, message)
    }
}

/// A member that the user has declared lost although Kubernetes or the node itself proves that it runs.
pub(super) fn given_up_but_alive(view: &View<'_>, gone: &[String]) -> Option<String> {
    let alive = gone.iter().find(|name| {
        view.node(name).is_some_and(|node| view.is_ours(node))
            || view.pod(name).is_some_and(|pod| pod.ready)
    })?;
    Some(format!(
        "{alive} is in ignoreMembers, but it runs: nothing was changed. Create another RqliteRecovery without it"
    ))
}
