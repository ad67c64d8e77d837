//! The opt-in policy by which the operator creates an RqliteRecovery itself.
use operator_api::{
    cluster::RecoveryPolicy,
    names,
    recovery::RecoveryPhase,
    status::{MemberState, Pool},
};

use super::belonging::{attempt_name, is_present_attempt, other_cluster, owner};
use crate::cluster::{
    action::{Action, Decision},
    facts::{
        quorum::{Outage, assess, classify_outage, may_lose_writes},
        view::{View, seconds_between},
    },
};

const DAY_SECONDS: u64 = 24 * 3600;

/// Creates a recovery if the policy allows it: every missing voter is lost by evidence, a surviving voter
/// responds, no write can be lost unless that was accepted beforehand, and the limit per day is not reached.
/// There is one attempt for each lineage; a failure needs a person.
pub fn automatic(view: &View<'_>) -> Decision {
    let policy = view.spec.quorum_recovery.clone().unwrap_or_default();
    if policy.policy.unwrap_or_default() != RecoveryPolicy::Automatic {
        return Decision::Continue;
    }
    let Outage::Permanent(_, seconds) = classify_outage(view) else {
        return Decision::Continue;
    };
    let patience = policy.automatic_after.duration();
    if seconds < patience.map_or(1800, |d| d.as_secs()) {
        return Decision::Continue;
    }
    let ours = || {
        let all = view.seen.recoveries.iter();
        all.filter(|recovery| other_cluster(view, recovery).is_none())
    };
    let waits = ours().any(|r| {
        let phase = r.status.as_ref().and_then(|s| s.phase);
        let phase = phase.unwrap_or(RecoveryPhase::Pending);
        !phase.is_final() && phase != RecoveryPhase::Rejoining && !r.spec.dry_run
    });
    if waits || ours().any(|recovery| is_present_attempt(view, recovery)) {
        return Decision::Continue;
    }
    let recent = view.status.automatic_recoveries.iter();
    let recent = recent.filter(|at| seconds_between(at, view.now()) < DAY_SECONDS);
    if recent.count() >= usize::try_from(policy.max_per_day).unwrap_or(1) {
        return Decision::Continue;
    }
    let assessment = assess(view, &[]);
    let uncertain = assessment
        .voters
        .iter()
        .any(|v| !v.is_lost() && view.node(&v.member.name).is_none());
    let survivors = assessment.voters.iter().filter(|v| {
        v.member.pool == Pool::Voter
            && v.state == MemberState::Leaderless
            && view.node(&v.member.name).is_some()
    });
    let survivors = survivors.count();
    let agreed = policy.accept_data_loss || !may_lose_writes(assessment.voters.len(), survivors);
    if uncertain || survivors == 0 || !agreed {
        return Decision::Continue;
    }
    let text = format!(
        "{} of {} voters are lost for good: recovering automatically, as quorumRecovery.policy allows",
        assessment.voters.len() - survivors,
        assessment.voters.len()
    );
    Decision::Act(
        Action::CreateRecovery {
            name: attempt_name(view),
            accept_data_loss: policy.accept_data_loss,
            reason: format!("{text}: {}", assessment.describe()),
        },
        text,
    )
}

/// The object that [`Action::CreateRecovery`] stands for.
pub fn object(
    cluster: &operator_api::RqliteCluster,
    name: &str,
    accept_data_loss: bool,
    reason: &str,
) -> operator_api::RqliteRecovery {
    let of = cluster.metadata.name.clone().unwrap_or_default();
    let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    let mut spec = operator_api::RqliteRecoverySpec::new(of, reason);
    spec.cluster_ref.uid.clone_from(&cluster.metadata.uid);
    spec.accept_data_loss = accept_data_loss;
    let mut recovery = operator_api::RqliteRecovery::new(name, spec);
    recovery
        .metadata
        .namespace
        .clone_from(&cluster.metadata.namespace);
    recovery.metadata.owner_references = owner(cluster).map(|owner| vec![owner]);
    let labels = [
        (names::AUTOMATIC_LABEL, "true"),
        (
            names::CLUSTER_LABEL,
            cluster.metadata.name.as_deref().unwrap_or_default(),
        ),
    ];
    recovery.metadata.labels = Some(
        labels
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    );
    recovery
}

/// Limit of `spec.reason` in the custom resource definition.
const MAX_REASON_CHARS: usize = 1024;
