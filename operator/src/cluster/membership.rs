//! Members that should not be there: foreign data, and entries of the configuration that no pod stands behind.
use operator_api::{names, status::Pool};

use super::{
    action::{Action, Decision},
    view::{View, quorum},
};

/// Data of another cluster or history stops everything that could make it worse.
pub fn foreign(view: &View<'_>) -> Decision {
    let strange = view.seen.pods.iter().find_map(|pod| {
        let prepared = pod.prepared.as_ref().filter(|p| p.state == "Foreign");
        if let Some(report) = prepared {
            return Some((pod, &report.cluster_id, &report.lineage));
        }
        let node = view.answer(&pod.name)?;
        (!view.is_ours(node)).then_some((pod, &node.cluster_id, &node.lineage))
    });
    let Some((pod, cluster, lineage)) = strange else {
        return Decision::Pass;
    };
    let theirs = format!(
        "{}/{}/{}",
        cluster.as_deref().unwrap_or("unknown"),
        lineage.as_ref().map_or("unknown", |l| l.id.as_str()),
        lineage.as_ref().map_or(0, |l| l.epoch)
    );
    let text = format!(
        "the volume of {} belongs to another cluster ({theirs}). Nothing is touched. To use its data, delete this cluster (its volumes stay) \
         and create it again with the annotation {}: {theirs}; to start anew, delete the claim {} and the pod",
        pod.name,
        names::ADOPT_ANNOTATION,
        names::claim(&pod.name)
    );
    Decision::Blocked("ForeignData", text)
}

/// Is this entry of the configuration beyond what both pools should have, without a pod, for good?
fn is_ghost(view: &View<'_>, name: &str) -> bool {
    if view.pod(name).is_some() {
        return false;
    }
    let beyond = |pool: Pool, wanted: Option<i32>| {
        let ordinal = names::ordinal(&view.set_name(pool), name);
        let live = view.set(pool).map_or(0, |set| set.replicas);
        ordinal.map(|ordinal| ordinal >= live && wanted.is_none_or(|wanted| ordinal >= wanted))
    };
    let voters = view.target().map(|t| t.replicas);
    beyond(Pool::Voter, voters)
        .or_else(|| beyond(Pool::Read, view.wanted_readers()))
        // A name of neither pool: nobody will ever start it.
        .unwrap_or(true)
}

/// Removes one such entry, if the others can carry on without it.
pub fn ghosts(view: &View<'_>) -> Decision {
    let Some(leader) = view.leader else {
        return Decision::Pass;
    };
    let ghost = view
        .config()
        .iter()
        .filter(|m| m.name != leader.name)
        .find(|m| is_ghost(view, &m.name));
    let Some(ghost) = ghost else {
        return Decision::Pass;
    };
    let after = view.config_voters() - usize::from(ghost.voter);
    let wanted = usize::try_from(view.spec.replicas).unwrap_or(1);
    let needed = quorum(after.max(wanted)).max(quorum(view.config_voters()));
    if ghost.voter && view.participants().len() < needed {
        return Decision::Pass;
    }
    let remove = Action::RemoveMember {
        leader: leader.name.to_owned(),
        name: ghost.name.clone(),
        raft_id: ghost.raft_id.clone(),
    };
    let text = format!("removes {}, which has no pod any more", ghost.name);
    Decision::Act(remove, text)
}
