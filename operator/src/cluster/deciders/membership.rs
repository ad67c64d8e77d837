//! Two checks of membership: a newer configuration than the recorded one, and data of another cluster or
//! lineage.
use operator_api::{
    names,
    status::{Member, OperationType, Pool, Role},
};

use crate::cluster::{
    action::Decision,
    facts::lineage::has_ended,
    facts::{
        claims,
        observation::{ConfigMember, ObservedPod},
        view::View,
    },
};

/// Without a leader: records a committed configuration that is newer than the recorded one, before any
/// conclusion is drawn from that. The last change may have been committed, unobserved, just before the quorum
/// was lost.
pub fn adopt_configuration(view: &View<'_>) -> Decision {
    let recovers = view.operating(OperationType::Recover).is_some();
    if view.leader.is_some() || !view.is_formed() || recovers {
        return Decision::Continue;
    }
    let newest = view.newest_configuration();
    let Some(newest) = newest.filter(|node| node.config_index > view.known_configuration()) else {
        return Decision::Continue;
    };
    let mut next = view.status.clone();
    next.configuration_index = i64::try_from(newest.config_index).ok();
    next.members = newest
        .config
        .iter()
        .map(|entry| member(view, entry))
        .collect();
    let text = format!(
        "recording the configuration of index {}",
        newest.config_index
    );
    Decision::Record(Box::new(next), text)
}

fn member(view: &View<'_>, entry: &ConfigMember) -> Member {
    let known = view.status.members.iter();
    let known = known
        .into_iter()
        .find(|m| m.raft_id.as_ref() == Some(&entry.raft_id));
    let role = match entry.voter {
        true => Role::Voter,
        false => Role::Learner,
    };
    if let Some(known) = known {
        return Member {
            role,
            ..known.clone()
        };
    }
    let reader = names::ordinal(&view.set_name(Pool::Read), &entry.name);
    // Only a node that responds proves which claim its data is on.
    let here = view.node(&entry.name);
    let here = here.is_some_and(|node| node.raft_id == entry.raft_id);
    let claim = view.claim(&entry.name).filter(|_| here);
    let pool = reader.map_or(Pool::Voter, |_| Pool::Read);
    Member {
        role,
        raft_id: Some(entry.raft_id.clone()),
        claim_uid: claim.map(|claim| claim.uid.clone()),
        ..Member::absent(&entry.name, pool)
    }
}

/// Data of another cluster or lineage blocks every change that could damage it. A read replica's data is in
/// no quorum and decides nothing: it keeps only this read replica from starting ([`foreign_reader`]).
pub fn foreign(view: &View<'_>) -> Decision {
    let Some((pod, theirs)) = find_foreign(view, Pool::Voter) else {
        return Decision::Continue;
    };
    let text = format!(
        "the volume of {} belongs to another cluster ({theirs}). Nothing is changed. To use its data, delete this cluster (its volumes are kept) \
         and create it again with the annotation {}: {theirs}; to start without it, delete the claim {} and the pod",
        pod.name,
        names::ADOPT_ANNOTATION,
        claims::name_of(pod)
    );
    Decision::Blocked("ForeignData", text)
}

/// Describes a read replica whose volume belongs to another cluster or lineage. It blocks nothing else.
pub fn foreign_reader(view: &View<'_>) -> Option<String> {
    let (pod, theirs) = find_foreign(view, Pool::Read)?;
    Some(format!(
        "the volume of {0} belongs to another cluster ({theirs}), so this read replica does not start. To start it without that data: \
         kubectl delete pvc {1} && kubectl delete pod {0}",
        pod.name,
        claims::name_of(pod)
    ))
}

/// A pod whose data is of another cluster or lineage, and which that is.
fn find_foreign<'a>(view: &View<'a>, pool: Pool) -> Option<(&'a ObservedPod, String)> {
    let (pod, cluster, lineage) = view.pods(pool).into_iter().find_map(|pod| {
        if is_foreign(pod) {
            let report = pod.prepared.as_ref()?;
            return Some((pod, &report.cluster_id, &report.lineage));
        }
        let node = view.node(&pod.name)?;
        let is_foreign = !view.is_ours(node) && !has_ended(view, node);
        is_foreign.then_some((pod, &node.cluster_id, &node.lineage))
    })?;
    let theirs = format!(
        "{}/{}/{}",
        cluster.as_deref().unwrap_or("unknown"),
        lineage.as_ref().map_or("unknown", |l| l.id.as_str()),
        lineage.as_ref().map_or(0, |l| l.epoch)
    );
    Some((pod, theirs))
}

/// Did the preparation of a pod's data find that it belongs to another cluster?
pub fn is_foreign(pod: &ObservedPod) -> bool {
    let report = pod.prepared.as_ref();
    report.is_some_and(|report| report.state == "Foreign")
}

#[cfg(test)]
mod tests;
