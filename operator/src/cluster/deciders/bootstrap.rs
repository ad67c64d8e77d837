//! Forms a new cluster, once. Until it has certainly formed, it follows edits of its spec. Afterwards the
//! state file no longer permits forming, and no decider ever permits it again, except a recovery from the
//! archive if nothing else is left.
mod pods;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use node_contract::FormingPhase;
use operator_api::{
    RqliteClusterStatus,
    lineage::Lineage,
    names,
    status::{OperationType, Pool, RetiredClaim, Target},
};

use crate::cluster::{
    action::{Decision, begin, finish},
    deciders::scale::grow_set,
    facts::{
        beginning, forming, network,
        pods::pods_of_members,
        view::{View, seconds_between},
    },
};

/// Before anything is created: gives a new cluster its identity, or finds the identity that it already has.
pub fn identity(view: &View<'_>, target: &Target) -> Decision {
    if view.status.cluster_id.is_some() && view.status.target.is_some() {
        return Decision::Continue;
    }
    let annotations = view.seen.cluster.metadata.annotations.as_ref();
    let adopted = annotations.and_then(|a| a.get(names::ADOPT_ANNOTATION));
    let mut next = view.status.clone();
    let text = if let Some(state) = &view.seen.state {
        // The object's status was lost, for example because it was restored from a backup without it; the
        // cluster still exists.
        let replicas = view.seen.voters.as_ref().map(|set| set.replicas);
        next.target = Some(Target {
            replicas: replicas.filter(|r| *r > 0).unwrap_or(target.replicas),
            bootstrap_replicas: state.expect,
            ..target.clone()
        });
        next.cluster_id = Some(state.cluster_id.clone());
        next.lineage = Some(Lineage::of_node(&state.lineage, None));
        let phase = if state.phase == FormingPhase::Forming {
            FormingPhase::Forming
        } else {
            FormingPhase::Formed
        };
        formed(&mut next, phase, view.now());
        format!("adopted the running cluster {}", state.cluster_id)
    } else if let Some(adopted) = adopted {
        let Some((id, lineage)) = read_adopted(adopted) else {
            let text = format!(
                "the annotation {} is {adopted:?}: set it to <cluster id>/<lineage id>/<epoch>, as shown in the message with reason ForeignData of the new cluster",
                names::ADOPT_ANNOTATION
            );
            return Decision::Blocked("InvalidAnnotation", text);
        };
        next.target = Some(target.clone());
        next.cluster_id = Some(id.clone());
        next.lineage = Some(lineage);
        formed(&mut next, FormingPhase::Formed, view.now());
        format!("adopting the retained volumes of cluster {id}")
    } else {
        next.target = Some(target.clone());
        next.cluster_id = Some(view.seen.fresh_id.clone());
        next.lineage = Some(Lineage {
            id: format!("{}-0", view.seen.fresh_id),
            epoch: 0,
            since: Some(view.now().clone()),
        });
        format!("creating cluster {}", view.seen.fresh_id)
    };
    let existed = view.status.cluster_id.is_some() || view.seen.state.is_some();
    next.network
        .get_or_insert_with(|| network::of_new(view, existed));
    let prefix = view.object_prefix();
    next.object_prefix = (prefix != view.name).then_some(prefix);
    if next.bootstrapped_at.is_none() {
        next = *begin(
            &next,
            &view.seen.fresh_id,
            view.now(),
            OperationType::Bootstrap,
            None,
            None,
        );
    }
    Decision::Record(Box::new(next), text)
}

/// Parses `<cluster id>/<lineage id>/<epoch>`.
fn read_adopted(text: &str) -> Option<(String, Lineage)> {
    let mut parts = text.split('/');
    let (cluster, id, epoch) = (parts.next()?, parts.next()?, parts.next()?);
    let lineage = Lineage {
        id: id.to_owned(),
        epoch: epoch.parse().ok().filter(|epoch| *epoch >= 0)?,
        since: None,
    };
    let whole = parts.next().is_none() && !cluster.is_empty() && !id.is_empty();
    whole.then(|| (cluster.to_owned(), lineage))
}

fn formed(status: &mut RqliteClusterStatus, phase: FormingPhase, now: &Time) {
    if phase == FormingPhase::Formed {
        status.bootstrapped_at = Some(now.clone());
    }
}

/// Changes the number of voters with which the cluster forms, before it has formed. Pods beyond it are
/// removed; if they come back, data that their nodes may have prepared is parked.
pub fn correct(view: &View<'_>, wanted: &Target) -> Decision {
    let Some(target) = view.target().filter(|_| !view.is_formed()) else {
        return Decision::Continue;
    };
    let voters = wanted.bootstrap_replicas;
    if target.bootstrap_replicas == voters {
        return Decision::Continue;
    }
    let mut next = begin(
        view.status,
        &view.seen.fresh_id,
        view.now(),
        OperationType::Bootstrap,
        None,
        None,
    );
    next.target = Some(Target {
        replicas: voters,
        ..wanted.clone()
    });
    let set = view.set_name(Pool::Voter);
    let mut claims: Vec<_> = view.seen.claims.iter().collect();
    claims.retain(|claim| {
        let pod = claim.name.strip_prefix(&names::claim("")).unwrap_or("");
        claim.capacity.is_some() && names::ordinal(&set, pod).is_some_and(|o| o >= voters)
    });
    for claim in claims {
        next.retired_claims.retain(|old| old.name != claim.name);
        next.retired_claims.push(RetiredClaim {
            name: claim.name.clone(),
            uid: claim.uid.clone(),
            member: claim.name.replacen(&names::claim(""), "", 1),
            retired_at: view.now().clone(),
        });
    }
    let before = target.bootstrap_replicas;
    let text =
        format!("the cluster has not formed yet: it forms with {voters} voters, not {before}");
    Decision::Record(next, text)
}

/// Waits until the cluster is complete for the first time: there is a leader, and every voter of its
/// configuration takes part.
pub fn forming(view: &View<'_>) -> Decision {
    if view.is_formed() {
        return Decision::Continue;
    }
    let Some(target) = view.target() else {
        return Decision::Continue;
    };
    let Some(operation) = view.operating(OperationType::Bootstrap) else {
        let next = begin(
            view.status,
            &view.seen.fresh_id,
            view.now(),
            OperationType::Bootstrap,
            None,
            None,
        );
        return Decision::Record(next, "forming the cluster".to_owned());
    };
    let there = view.participants().len();
    let wanted = usize::try_from(target.bootstrap_replicas).unwrap_or(1);
    if there >= wanted {
        if let Some((reason, text)) = beginning::unproven(view) {
            return Decision::Blocked(reason, text);
        }
        let mut next = finish(view.status);
        next.bootstrapped_at = Some(view.now().clone());
        beginning::complete(view, &mut next);
        return Decision::Record(next, format!("the cluster of {wanted} has formed"));
    }
    match pods::remake(view, target, operation) {
        Decision::Continue => {}
        remade => return remade,
    }
    // If a person changed the StatefulSet's replicas: the cluster can form neither without these pods, nor
    // without added pods that are members by now.
    let pods = pods_of_members(view);
    if let Decision::Act(action, text) = grow_set(view, pods.max(target.replicas)) {
        return Decision::Act(action, text);
    }
    if let Some(restoring) = restoring(view) {
        return restoring;
    }
    let bootstrap = view.spec.bootstrap.clone().unwrap_or_default();
    let limit = bootstrap.timeout.duration().map_or(120, |d| d.as_secs());
    let mut text = format!("{there} of {wanted} voters take part in the new cluster");
    if target.bootstrap_replicas != view.spec.replicas
        && let Some(doubt) = forming::doubt(view)
    {
        let replicas = view.spec.replicas;
        text = format!(
            "{text}; it may be about to form, so that it forms with these before it gets {replicas}: {doubt}"
        );
    }
    if seconds_between(&operation.started_at, view.now()) > limit {
        Decision::Blocked("BootstrapFailed", text)
    } else {
        Decision::Wait(text)
    }
}

/// A restore has no time limit; only a failure of it is reported.
fn restoring(view: &View<'_>) -> Option<Decision> {
    let record = beginning::unfinished(view)?;
    let source = record.source.as_deref().unwrap_or_default();
    Some(match beginning::failure(view) {
        Some(why) => {
            let text = format!(
                "{source} cannot be restored, and the cluster does not form without it: {why}"
            );
            Decision::Blocked("RestoreFailed", text)
        }
        None => Decision::Wait(format!("the first node restores {source}")),
    })
}

#[cfg(test)]
mod tests;
