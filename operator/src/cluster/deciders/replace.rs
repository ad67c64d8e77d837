//! Replaces a member that is lost for good while the others have a quorum. It is first removed from the
//! configuration, which two voters must confirm; then its pod, and its claim if the volume is lost, is
//! recreated and joins as a new member. Data that is merely damaged, or of an ended lineage, is parked on its
//! volume, not deleted.
use std::collections::BTreeMap;

use operator_api::{
    cluster::RepairPolicy,
    names,
    status::{Operation, OperationType, Pool, Step},
};

use crate::cluster::{
    action::{Action, Decision, begin, finish, step},
    deciders::scale::wait_or_blocked,
    facts::lineage::is_stale,
    facts::{
        claims,
        observation::{ConfigMember, ObservedClaim, ObservedPod, PrepareReport},
        view::{View, quorum, seconds_between},
    },
};

/// What a member has lost.
enum Loss<'a> {
    /// The volume can never be used again: the claim and the reason.
    Volume(&'a ObservedClaim, &'a str),
    /// The data is damaged or of an ended lineage, the volume is usable: the pod and the reason.
    Data(&'a ObservedPod, &'a str),
}

impl Loss<'_> {
    fn uid(&self) -> &str {
        match self {
            Self::Volume(claim, _) => &claim.uid,
            Self::Data(pod, _) => &pod.uid,
        }
    }

    fn why(&self) -> &str {
        match self {
            Self::Volume(_, why) | Self::Data(_, why) => why,
        }
    }
}

/// Evidence that a member is lost. A node that responds is never lost: if its disk was wiped, the leader
/// replaces its record when it joins.
fn loss<'a>(view: &View<'a>, name: &str) -> Option<Loss<'a>> {
    if view.node(name).is_some() {
        return None;
    }
    let claim = view.claim(name).filter(|claim| !claim.deleting);
    let claim = claim.filter(|claim| claims::is_own(view, claim));
    if let Some(claim) = claim
        && let Some(why) = &claim.lost
    {
        return Some(Loss::Volume(claim, why));
    }
    let pod = view.pod(name).filter(|pod| !pod.deleting)?;
    let report = pod.prepared.as_ref().filter(|r| is_useless(r))?;
    Some(Loss::Data(pod, &report.reason))
}

/// Can a node never start again with this data, because it is damaged or of an ended lineage?
fn is_useless(report: &PrepareReport) -> bool {
    report.is_damaged() || is_stale(report)
}

/// Pods that the StatefulSets have and should keep. Of surplus voters only the last is about to be removed:
/// while another one is lost, the others may be too few for that removal.
fn expected(view: &View<'_>) -> Vec<String> {
    let of = |pool, wanted: Option<i32>| {
        let live = view.set(pool).map_or(0, |set| set.replicas);
        let set_name = view.set_name(pool);
        (0..wanted.map_or(live, |wanted| live.min(wanted)))
            .map(move |ordinal| names::pod(&set_name, ordinal))
    };
    let live = view.set(Pool::Voter).map_or(0, |set| set.replicas);
    let voters = of(Pool::Voter, Some(view.spec.replicas.max(live - 1)));
    voters
        .chain(of(Pool::Read, view.wanted_readers()))
        .collect()
}

/// Do the voters that take part form a quorum without this member, while it still counts?
fn others_have_quorum(view: &View<'_>, name: &str) -> bool {
    if view.member(name).is_none_or(|m| !m.voter) {
        return true;
    }
    let others = view.participants();
    let others = others.iter().filter(|other| **other != name).count();
    others >= quorum(view.config_voters())
}

fn is_automatic(view: &View<'_>) -> bool {
    let policy = view.spec.member_replacement.clone().unwrap_or_default();
    policy.policy.unwrap_or_default() == RepairPolicy::Automatic
}

/// Seconds for which evidence has to persist.
fn replacement_delay_seconds(view: &View<'_>) -> u64 {
    let policy = view.spec.member_replacement.clone().unwrap_or_default();
    policy.after.duration().map_or(600, |d| d.as_secs())
}

/// Has the evidence persisted long enough?
fn is_due(view: &View<'_>, name: &str) -> bool {
    let known = view.status.members.iter().find(|m| m.name == name);
    let since = known.and_then(|m| m.lost_since.as_ref());
    since.is_some_and(|since| seconds_between(since, view.now()) >= replacement_delay_seconds(view))
}

/// Begins the replacement of one lost member.
pub fn start(view: &View<'_>) -> Decision {
    if view.leader.is_none() || !is_automatic(view) {
        return Decision::Continue;
    }
    for name in expected(view) {
        let Some(loss) = loss(view, &name) else {
            continue;
        };
        if !is_due(view, &name) || !others_have_quorum(view, &name) {
            continue;
        }
        let next = begin(
            view.status,
            &view.seen.fresh_id,
            view.now(),
            OperationType::Replace,
            Some(&name),
            Some(loss.uid()),
        );
        return Decision::Record(next, format!("replacing {name}: {}", loss.why()));
    }
    Decision::Continue
}

/// Restarts a node that was removed while it ran and that should be a member: it rejoins only when it starts.
pub fn rejoin_removed(view: &View<'_>) -> Decision {
    let rejoin_removed = expected(view).into_iter().find(|name| {
        let out = view.is_proven_absent(name);
        let node = view.node(name).filter(|node| view.is_ours(node));
        // A node that never was a member joins by itself.
        out && node.is_some_and(|node| node.leader.is_none() && !node.config.is_empty())
    });
    let pod = rejoin_removed
        .and_then(|name| view.pod(&name))
        .filter(|pod| !pod.deleting);
    let Some(pod) = pod else {
        return Decision::Continue;
    };
    let mut next = begin(
        view.status,
        &view.seen.fresh_id,
        view.now(),
        OperationType::Replace,
        Some(&pod.name),
        Some(&pod.uid),
    );
    if let Some(operation) = &mut next.operation {
        operation.step = Step::Recreate;
    }
    let text = format!(
        "restarting {}, which was removed, so that it rejoins",
        pod.name
    );
    Decision::Record(next, text)
}

/// Lets a replacement interrupt an operation that waits for members: it may wait for the very member that can
/// only come back through its replacement. The interrupted operation begins again afterwards; everything that
/// it has stopped comes back by itself.
pub fn interrupt(view: &View<'_>) -> Decision {
    let may_wait = view.operation().is_some_and(|operation| {
        use OperationType::{ScaleDown, ScaleUp, Update};
        match operation.kind {
            ScaleUp | Update => true,
            ScaleDown => operation.step == Step::Start,
            _ => false,
        }
    });
    if may_wait {
        start(view)
    } else {
        Decision::Continue
    }
}

/// Describes lost members that are not being replaced at present.
pub fn problem(view: &View<'_>) -> Option<String> {
    let described: Vec<String> = expected(view)
        .iter()
        .filter_map(|name| {
            let loss = loss(view, name)?;
            let what = if !is_automatic(view) {
                let claim = match loss {
                    Loss::Volume(claim, _) => format!("kubectl delete pvc {} and ", claim.name),
                    Loss::Data(..) => format!("kubectl delete pvc {} and ", names::claim(name)),
                };
                format!("memberReplacement.policy is Manual: to replace it, {claim}kubectl delete pod {name}")
            } else if !others_have_quorum(view, name) {
                "it is replaced once the others have a quorum without it".to_owned()
            } else {
                let policy = view.spec.member_replacement.clone().unwrap_or_default();
                format!("it is replaced once that has lasted for {}", policy.after)
            };
            Some(format!("{name} is lost ({}): {what}", loss.why()))
        })
        .collect();
    (!described.is_empty()).then(|| described.join("; "))
}

/// Continues a replacement.
pub fn resume(view: &View<'_>) -> Decision {
    let Some(operation) = view.operating(OperationType::Replace) else {
        return Decision::Continue;
    };
    let name = operation.member.as_deref().unwrap_or_default();
    if !expected(view).iter().any(|pod| pod == name) {
        let text = format!("the spec no longer asks for {name}");
        return Decision::Record(finish(view.status), text);
    }
    let reads = names::ordinal(&view.set_name(Pool::Read), name).is_some();
    let back = view.participates(name) && (reads || view.member(name).is_some_and(|m| m.voter));
    if back {
        return Decision::Record(finish(view.status), format!("{name} takes part again"));
    }
    match operation.step {
        Step::Recreate => recreate(view, operation, name),
        Step::Park => park_data(view, operation, name),
        _ => remove_member(view, operation, name),
    }
}

/// Removes the old Raft id from the configuration.
fn remove_member(view: &View<'_>, operation: &Operation, name: &str) -> Decision {
    let loss = loss(view, name).filter(|l| Some(l.uid()) == operation.uid.as_deref());
    let Some(loss) = loss else {
        let text = format!("{name} may come back after all");
        return Decision::Record(finish(view.status), text);
    };
    if let Some(member) = view.member(name) {
        return remove(view, name, member);
    }
    if !view.is_proven_absent(name) {
        return Decision::Wait(format!(
            "waiting for a second voter to confirm that {name} is out of the configuration"
        ));
    }
    let to = match loss {
        Loss::Volume(..) => Step::Recreate,
        Loss::Data(..) => Step::Park,
    };
    let text = format!("{name} is out of the configuration");
    Decision::Record(step(view.status, view.now(), to), text)
}

fn remove(view: &View<'_>, name: &str, member: &ConfigMember) -> Decision {
    let Some(leader) = view.leader.filter(|leader| leader.name != name) else {
        return Decision::Record(finish(view.status), format!("{name} leads"));
    };
    if !others_have_quorum(view, name) {
        let text = format!("{name} cannot be replaced now: the others have no quorum without it");
        return Decision::Record(finish(view.status), text);
    }
    let remove = Action::RemoveMember {
        leader: leader.name.to_owned(),
        name: name.to_owned(),
        raft_id: member.raft_id.clone(),
    };
    Decision::Act(
        remove,
        format!("removing {name}, which is lost, from the configuration"),
    )
}

/// Deletes the old claim, then the pod that waits for it; Kubernetes recreates both.
fn recreate(view: &View<'_>, operation: &Operation, name: &str) -> Decision {
    let pod = view.pod(name);
    if let Some(pod) = pod.filter(|pod| Some(&pod.uid) == operation.uid.as_ref() && !pod.deleting) {
        return Decision::Act(Action::delete_pod(pod), format!("restarting {name}"));
    }
    let old = view
        .claim(name)
        .filter(|claim| Some(&claim.uid) == operation.uid.as_ref());
    if let Some(claim) = old {
        if !claim.deleting {
            let delete = Action::DeleteClaim {
                name: claim.name.clone(),
                uid: claim.uid.clone(),
            };
            return Decision::Act(delete, format!("deleting the lost claim {}", claim.name));
        }
        return match pod {
            Some(pod) if !pod.deleting => {
                Decision::Act(Action::delete_pod(pod), format!("recreating {name}"))
            }
            _ => wait_or_blocked(
                view,
                operation,
                "ReplacementStalled",
                format!("waiting for the claim {} to be deleted", claim.name),
            ),
        };
    }
    joins(view, operation, name)
}

/// Recreates the pod, so that its preparation parks the damaged data.
fn park_data(view: &View<'_>, operation: &Operation, name: &str) -> Decision {
    let old = view.pod(name).filter(|pod| {
        Some(&pod.uid) == operation.uid.as_ref()
            && !pod.deleting
            && pod.prepared.as_ref().is_some_and(is_useless)
    });
    match old {
        Some(pod) => Decision::Act(Action::delete_pod(pod), format!("recreating {name}")),
        None => joins(view, operation, name),
    }
}

/// For a while a new pod may report the same as the old one: its kubelet may still show the former state
/// file.
fn has_waited(view: &View<'_>, operation: &Operation) -> bool {
    seconds_between(&operation.step_at, view.now()) >= replacement_delay_seconds(view)
}

fn joins(view: &View<'_>, operation: &Operation, name: &str) -> Decision {
    if let Some(loss) = loss(view, name)
        && Some(loss.uid()) != operation.uid.as_deref()
        && (matches!(loss, Loss::Volume(..)) || has_waited(view, operation))
    {
        let text = format!("the new {name} is lost as well: {}", loss.why());
        return Decision::Record(finish(view.status), text);
    }
    let text = match view.pod(name).map(|pod| &pod.stuck) {
        None => format!("waiting for the pod {name}"),
        Some(Some(stuck)) => format!("the new {name} does not start: {stuck}"),
        Some(None) => format!("the new {name} is joining"),
    };
    wait_or_blocked(view, operation, "ReplacementStalled", text)
}

/// For the state file: the member whose damaged data is to be parked, with a token. Set only once the member
/// is out of the configuration.
pub fn park_tokens(view: &View<'_>) -> BTreeMap<String, String> {
    let operation = view
        .operating(OperationType::Replace)
        .filter(|operation| operation.step == Step::Park);
    let entry = operation.and_then(|o| Some((o.member.clone()?, o.id.clone())));
    entry.into_iter().collect()
}

#[cfg(test)]
mod tests;
