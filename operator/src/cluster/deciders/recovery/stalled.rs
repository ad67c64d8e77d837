//! Reports that a recovery makes no progress, and what it waits for.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use operator_api::{
    RqliteRecovery, RqliteRecoveryStatus,
    recovery::{RecoveryCheckState, RecoveryPhase},
};

use super::{check::patience_seconds, record::is_open};
use crate::cluster::{
    action::Decision,
    facts::view::{View, seconds_between},
};

/// Condition: the recovery makes no progress; also the reason on the cluster.
const STALLED: &str = "RecoveryStalled";
/// Limit in seconds of a phase that only sends requests to Kubernetes and nodes.
const SHORT_SECONDS: u64 = 120;
/// Limit in seconds of a phase that may rewrite a log.
const REWRITE_SECONDS: u64 = 300;
/// Limit in seconds of the phase in which members receive a copy of the database and join.
const REJOIN_SECONDS: u64 = 600;

/// For how many seconds it has made no progress, if that exceeds the phase's limit.
fn stalled_seconds(view: &View<'_>, status: &RqliteRecoveryStatus) -> Option<u64> {
    let phase = status.phase?;
    let check = status.check.as_ref();
    let running = check.filter(|check| check.state == RecoveryCheckState::Running);
    let checks = matches!(phase, RecoveryPhase::Inspecting | RecoveryPhase::Verifying);
    if let Some(check) = running.filter(|_| checks) {
        let still = seconds_between(&check.progress_at, view.now());
        let limit = patience_seconds(check).max(SHORT_SECONDS);
        return (still >= limit).then_some(limit);
    }
    let limit = match phase {
        RecoveryPhase::Inspecting | RecoveryPhase::Fencing => SHORT_SECONDS,
        RecoveryPhase::Applying | RecoveryPhase::Verifying => REWRITE_SECONDS,
        RecoveryPhase::Rejoining => REJOIN_SECONDS,
        // It waits for a person, and its message says so.
        _ => return None,
    };
    let entered = status.steps.iter().rev().find(|step| step.phase == phase)?;
    (seconds_between(&entered.at, view.now()) >= limit).then_some(limit)
}

/// Sets the condition. The time in it is a limit, so that the text does not change while nothing does.
pub(super) fn report(
    view: &View<'_>,
    recovery: &RqliteRecovery,
    status: &mut RqliteRecoveryStatus,
) {
    let phase = status.phase.unwrap_or(RecoveryPhase::Pending);
    let stalled = stalled_seconds(view, status);
    let waits = status.message.clone().unwrap_or_default();
    let (is, message) = match stalled {
        Some(limit) => {
            let waits = waits.trim_end_matches('.');
            let text = format!("no progress for {limit} s: {waits}. Runbook: recovery-stalled");
            ("True", text)
        }
        None => ("False", String::new()),
    };
    let old = status.conditions.iter().find(|c| c.type_ == STALLED);
    let since = old
        .filter(|c| c.status == is)
        .map_or_else(|| view.now().clone(), |c| c.last_transition_time.clone());
    let condition = Condition {
        type_: STALLED.to_owned(),
        status: is.to_owned(),
        reason: format!("{phase:?}"),
        message,
        last_transition_time: since,
        observed_generation: recovery.metadata.generation,
    };
    status.conditions.retain(|c| c.type_ != STALLED);
    status.conditions.push(condition);
}

/// While the quorum is lost, a stalled recovery is reported instead of the advice to create one.
pub fn report_stalled(view: &View<'_>, decision: Decision) -> Decision {
    if !matches!(
        decision,
        Decision::Blocked("QuorumLost" | "LossDetected", _)
    ) {
        return decision;
    }
    let mut open = view.seen.recoveries.iter();
    let stalled = open.find_map(|recovery| {
        let counts = is_open(view, recovery) && !recovery.spec.dry_run;
        let status = recovery.status.as_ref().filter(|_| counts)?;
        let known = status.conditions.iter().find(|c| c.type_ == STALLED)?;
        let name = recovery.metadata.name.as_deref().unwrap_or_default();
        (known.status == "True").then(|| format!("RqliteRecovery {name}: {}", known.message))
    });
    stalled.map_or(decision, |text| Decision::Blocked("RecoveryStalled", text))
}
