//! The condition Ready, and what of the spec is not carried out yet.
use operator_api::{
    RqliteClusterStatus,
    cluster::UpdateStrategy,
    status::{Pool, READY, Target},
};

use super::condition::{NewCondition, condition_of};
use crate::cluster::{
    action::Decision,
    deciders::blocked,
    deciders::rollout::{is_deferred, is_outdated, same_templates},
    facts::{observation::ObservedPod, view::View},
};

/// Ready summarizes Available, Degraded and Progressing, and is false while anything that the spec asks for
/// is still to be done. `held`: what the operator would do if it were not paused.
pub(super) fn ready(
    view: &View<'_>,
    wanted: &Target,
    decision: &Decision,
    held: Option<&Decision>,
    next: &RqliteClusterStatus,
    is_hibernated: bool,
    [available, degraded, progressing]: [&NewCondition; 3],
) -> NewCondition {
    let calm = matches!(held.unwrap_or(decision), Decision::Continue);
    let calm = calm && next.operation.is_none();
    let complete = usize::try_from(view.spec.replicas) == Ok(view.participants().len());
    let pending = pending(view, wanted);
    let well = available.status && !degraded.status && !is_hibernated;
    if well && calm && complete && pending.is_none() {
        let text = match held {
            None => "all voters take part, all read replicas are ready and nothing is to be done",
            Some(_) => {
                "all voters take part, all read replicas are ready and nothing is to be done; paused"
            }
        };
        let blocked = blocked::explain(view).map_or(
            "",
            |_| "; its deletion was requested and is blocked, see the condition DeletionBlocked",
        );
        condition_of(READY, true, "Ready", format!("{text}{blocked}"))
    } else if is_hibernated {
        condition_of(
            READY,
            false,
            "Hibernated",
            "hibernated: set hibernated to false to start it",
        )
    } else if !available.status {
        condition_of(READY, false, available.reason, available.message.clone())
    } else if degraded.status {
        condition_of(READY, false, degraded.reason, degraded.message.clone())
    } else if let Some(held) = held {
        let text = text_of(held).map(str::to_owned).or(pending);
        let text = text.unwrap_or_else(|| "an operation is in progress".to_owned());
        condition_of(READY, false, "Paused", format!("paused before: {text}"))
    } else {
        let text = text_of(decision).map(|_| progressing.message.clone());
        let text = text.or(pending).unwrap_or_else(|| {
            let (there, voters) = (view.participants().len(), view.spec.replicas);
            format!("{there} voters take part, and the spec asks for {voters}")
        });
        condition_of(READY, false, "Changing", text)
    }
}

fn text_of(decision: &Decision) -> Option<&str> {
    match decision {
        Decision::Continue => None,
        Decision::Wait(text)
        | Decision::Blocked(_, text)
        | Decision::Record(_, text)
        | Decision::Act(_, text) => Some(text),
    }
}

/// Something that the spec asks for and that is not carried out, although no decider has anything to do at
/// this moment: for example a StatefulSet gets its new template in this reconcile, after the status is
/// written.
fn pending(view: &View<'_>, wanted: &Target) -> Option<String> {
    let Some(target) = view.target() else {
        return Some("the cluster is about to be created".to_owned());
    };
    if !same_templates(target, wanted) && !is_deferred(view, wanted) {
        return Some("the pods' template changes".to_owned());
    }
    for pool in [Pool::Voter, Pool::Read] {
        let Some(hash) = template(target, pool) else {
            continue;
        };
        let Some(set) = view.set(pool) else {
            continue;
        };
        if set.template_hash != hash {
            return Some(format!("{} gets a new template", view.set_name(pool)));
        }
        let replicas = match pool {
            Pool::Voter => Some(view.spec.replicas),
            Pool::Read => view.wanted_readers(),
        };
        if let Some(replicas) = replicas.filter(|wanted| *wanted != set.replicas) {
            let name = view.set_name(pool);
            return Some(format!("{name} is to have {replicas} pods"));
        }
    }
    let old = outdated(view, wanted);
    let mut replaced = old.into_iter().filter(|pod| !awaits_a_person(view, pod));
    let pod = replaced.next()?;
    Some(format!("{} is to be replaced", pod.name))
}

/// Pods that are older than the template that the spec asks for, or than the present one while a change by
/// another version of the operator is deferred.
pub(super) fn outdated<'a>(view: &View<'a>, wanted: &Target) -> Vec<&'a ObservedPod> {
    let deferred = view.target().filter(|_| is_deferred(view, wanted));
    let newest = deferred.unwrap_or(wanted);
    let pods = view.seen.pods.iter();
    let old = pods.filter(|pod| {
        let hash = template(newest, pod.pool);
        hash.is_some_and(|hash| pod.template_hash != hash) || is_outdated(view, pod)
    });
    old.collect()
}

fn template(target: &Target, pool: Pool) -> Option<&str> {
    match pool {
        Pool::Voter => Some(&target.template_hash),
        Pool::Read => target.read_template_hash.as_deref(),
    }
}

/// Is a pod replaced only on a person's request?
fn awaits_a_person(view: &View<'_>, pod: &ObservedPod) -> bool {
    let strategy = view.spec.update.as_ref().and_then(|u| u.strategy);
    strategy == Some(UpdateStrategy::Manual) && !pod.update_now
}
