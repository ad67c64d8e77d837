//! No leader: is that for a while, or for good? Only positive evidence counts as loss; what cannot be judged may come back.
use operator_api::{
    names,
    status::{Member, MemberState, Pool, Role},
};

use super::{
    action::{Action, Decision},
    observation::{Answer, FailureKind},
    view::{View, quorum},
};

/// What an outage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outage {
    /// A leader is there.
    None,
    /// Enough voters may come back by themselves.
    Temporary(String),
    /// Fewer voters than a quorum can ever come back.
    Permanent(String),
    /// All pods are ready, but the operator reaches none of them: nothing is known about the cluster.
    Unreachable(String),
}

/// How a member is, from all that is known of it.
pub fn state_of(view: &View<'_>, member: &Member) -> (MemberState, Option<String>) {
    let claim = view.claim(&member.name);
    let replaced = match (claim, &member.claim_uid) {
        (None, Some(_)) => Some("its claim is gone".to_owned()),
        (Some(now), Some(then)) if now.uid != *then => Some("its claim was replaced".to_owned()),
        (Some(now), _) if now.lost => Some("its volume is gone".to_owned()),
        _ => None,
    };
    let pod = view.pod(&member.name);
    if let Some(node) = view.answer(&member.name) {
        let wiped = member
            .raft_id
            .as_ref()
            .is_some_and(|id| *id != node.raft_id);
        return if !view.is_ours(node) {
            (
                MemberState::Foreign,
                Some("its volume belongs to another cluster".to_owned()),
            )
        } else if wiped {
            let text = "its data directory was lost; the node has a new one".to_owned();
            (MemberState::Lost, Some(text))
        } else if view.participates(&member.name) {
            (MemberState::Healthy, None)
        } else if node.leader.is_none() {
            (MemberState::Leaderless, Some("sees no leader".to_owned()))
        } else {
            (MemberState::Starting, Some("catches up".to_owned()))
        };
    }
    if let Some(text) = replaced {
        return (MemberState::Lost, Some(text));
    }
    match pod {
        Some(pod) if pod.ready => {
            let text = match view.seen.nodes.get(&member.name) {
                Some(Answer::Failed(failure)) => failure.message.clone(),
                _ => "not asked".to_owned(),
            };
            (MemberState::Unreachable, Some(text))
        }
        Some(pod) if pod.stuck.is_none() && !pod.deleting => {
            (MemberState::Starting, Some("its pod starts".to_owned()))
        }
        Some(pod) => {
            let text = pod
                .stuck
                .clone()
                .unwrap_or_else(|| "its pod stops".to_owned());
            (MemberState::Recoverable, Some(text))
        }
        None => (MemberState::Recoverable, Some("it has no pod".to_owned())),
    }
}

/// Judges a missing leader by the voters of the last confirmed configuration, as the status remembers them.
pub fn classify(view: &View<'_>) -> Outage {
    if view.leader.is_some() {
        return Outage::None;
    }
    let voters: Vec<_> = view
        .status
        .members
        .iter()
        .filter(|m| matches!(m.role, Role::Leader | Role::Voter))
        .map(|m| (m, state_of(view, m)))
        .collect();
    let missing: Vec<String> = voters
        .iter()
        .filter_map(|(m, (state, reason))| {
            let reason = reason.as_deref()?;
            Some(format!("{} ({state:?}): {reason}", m.name))
        })
        .collect();
    let missing = missing.join("; ");
    let lost = voters
        .iter()
        .filter(|(_, (state, _))| matches!(state, MemberState::Lost | MemberState::Foreign))
        .count();
    let needed = quorum(voters.len());
    if !voters.is_empty() && voters.len() - lost < needed {
        let text = format!(
            "{lost} of {} voters are lost for good and {needed} are needed: {missing}",
            voters.len()
        );
        return Outage::Permanent(text);
    }
    if operator_cannot_reach(view) {
        let text = format!(
            "all pods are ready, but the operator reaches none: {missing}. Check NetworkPolicies between its namespace and this one"
        );
        return Outage::Unreachable(text);
    }
    Outage::Temporary(format!("no leader is seen: {missing}"))
}

/// Kubernetes says that all is well, only the operator gets no answer: its view is not to be trusted.
fn operator_cannot_reach(view: &View<'_>) -> bool {
    let pods = view.pods(Pool::Voter);
    !pods.is_empty()
        && pods.iter().all(|pod| {
            let silent = match view.seen.nodes.get(&pod.name) {
                Some(Answer::Failed(failure)) => failure.failure != FailureKind::Malformed,
                Some(Answer::Ok(_)) => false,
                None => true,
            };
            pod.ready && silent
        })
}

/// The one thing that helps without a leader and costs nothing: a pod that cannot start, made from a template that is not wanted any more,
/// is made anew.
pub fn unstick(view: &View<'_>) -> Decision {
    let Some(target) = view.target() else {
        return Decision::Pass;
    };
    let hash = |pool| match pool {
        Pool::Voter => Some(&target.template_hash),
        Pool::Read => target.read_template_hash.as_ref(),
    };
    let stuck = view.seen.pods.iter().find(|pod| {
        let wanted = hash(pod.pool);
        let template = view.set(pod.pool).map(|set| &set.template_hash);
        !pod.deleting
            && !pod.ready
            && pod.stuck.is_some()
            && view.answer(&pod.name).is_none()
            && template.is_some()
            && template == wanted
            && Some(&pod.template_hash) != wanted
    });
    match stuck {
        Some(pod) => Decision::Act(
            Action::DeletePod {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
            },
            format!(
                "{} cannot start from an older template ({}) and is made anew",
                pod.name,
                pod.stuck.as_deref().unwrap_or_default()
            ),
        ),
        None => Decision::Pass,
    }
}

/// What may happen without a leader: almost nothing.
pub fn outage(view: &View<'_>) -> Decision {
    match classify(view) {
        Outage::None => return Decision::Pass,
        Outage::Unreachable(text) => return Decision::Blocked("OperatorCannotReachNodes", text),
        Outage::Temporary(_) | Outage::Permanent(_) => {}
    }
    // Pods that somebody took away by lowering the StatefulSet come back with their volumes.
    if let Some(target) = view.target()
        && let Decision::Act(action, text) = super::scale::grow_set(view, target.replicas)
    {
        return Decision::Act(action, text);
    }
    match unstick(view) {
        Decision::Pass => {}
        decision => return decision,
    }
    match classify(view) {
        Outage::Permanent(text) => {
            let text = format!(
                "{text}. See kubectl explain rqliterecovery ({})",
                names::APP_NAME
            );
            Decision::Blocked("QuorumLost", text)
        }
        Outage::Temporary(text) | Outage::Unreachable(text) => {
            Decision::Blocked("QuorumUnavailable", text)
        }
        Outage::None => Decision::Pass,
    }
}
