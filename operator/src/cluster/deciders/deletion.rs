//! A deleted cluster: its pods go first, then, if the spec says so, the claims, then the object. No node is
//! queried.
use operator_api::{
    cluster::Deletion,
    names,
    status::{OperationType, Pool},
};

use crate::cluster::{
    action::{Action, Decision},
    facts::{claims, observation::ObservedPod, view::View},
};

/// Does this cluster's object need the finalizer?
pub fn needs_finalizer(view: &View<'_>) -> bool {
    view.spec.deletion_protection || deletes_claims(view) || is_remade(view)
}

/// Is a StatefulSet being recreated around its pods, or do pods have no StatefulSet? Then the operator must
/// delete these pods: they have no owner for the garbage collector.
fn is_remade(view: &View<'_>) -> bool {
    let resizes = view.operating(OperationType::Resize).is_some();
    resizes || view.seen.pods.iter().any(|pod| pod.orphaned)
}

fn deletes_claims(view: &View<'_>) -> bool {
    let retention = view.spec.storage.retention.clone().unwrap_or_default();
    retention.when_deleted.unwrap_or_default() == Deletion::Delete
}

/// Deletes what belongs to a deleted cluster, one object at a time.
pub fn decide(view: &View<'_>) -> Decision {
    let metadata = &view.seen.cluster.metadata;
    if metadata.deletion_timestamp.is_none() {
        return Decision::Continue;
    }
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    if !finalizers.iter().any(|f| f == names::FINALIZER) {
        return Decision::Wait("the garbage collector deletes what belongs to it".to_owned());
    }
    let kept = "the volumes are kept".to_owned();
    if !deletes_claims(view) && !is_remade(view) {
        return Decision::Act(Action::ReleaseFinalizer, kept);
    }
    for (pool, set) in [
        (Pool::Read, &view.seen.readers),
        (Pool::Voter, &view.seen.voters),
    ] {
        match set {
            Some(set) if !set.deleting => {
                let name = view.set_name(pool);
                let action = Action::DeleteStatefulSet {
                    name: name.clone(),
                    uid: set.uid.clone(),
                    orphan: false,
                };
                return Decision::Act(action, format!("deleting {name}"));
            }
            Some(_) => {
                return Decision::Wait("waiting for the StatefulSets to be deleted".to_owned());
            }
            None => {}
        }
    }
    let orphan = |pod: &&ObservedPod| pod.orphaned && !pod.deleting;
    if let Some(pod) = view.seen.pods.iter().find(orphan) {
        let text = format!("deleting the pod {}, which has no StatefulSet", pod.name);
        return Decision::Act(Action::delete_pod(pod), text);
    }
    if !view.seen.pods.is_empty() {
        return Decision::Wait("waiting for the pods to stop".to_owned());
    }
    if !deletes_claims(view) {
        return Decision::Act(Action::ReleaseFinalizer, kept);
    }
    delete_claims(view)
}

/// Deletes the claims that pods of this cluster have used, and no other.
fn delete_claims(view: &View<'_>) -> Decision {
    let mut own = view.seen.claims.iter().filter(|c| claims::is_own(view, c));
    match own.clone().find(|claim| !claim.deleting) {
        Some(claim) => {
            let action = Action::DeleteClaim {
                name: claim.name.clone(),
                uid: claim.uid.clone(),
            };
            Decision::Act(action, format!("deleting the claim {}", claim.name))
        }
        None if own.next().is_some() => {
            Decision::Wait("waiting for the claims to be deleted".to_owned())
        }
        None => Decision::Act(Action::ReleaseFinalizer, left_over(view)),
    }
}

/// Text about what remains of a cluster whose claims were to be deleted.
fn left_over(view: &View<'_>) -> String {
    match claims::left_over(view) {
        None => "everything is deleted".to_owned(),
        Some(names) => format!(
            "everything is deleted except claims that carry the cluster's label and that no pod of it is known to have used: {names}. \
             Look at them, then delete them yourself if nobody needs them"
        ),
    }
}

/// Are there claims with the cluster's label that remain when the finalizer is removed, and that its user may
/// have expected to be deleted?
pub fn leaves_claims(view: &View<'_>) -> bool {
    deletes_claims(view) && claims::left_over(view).is_some()
}

/// Does deletion protection keep the cluster although its object was deleted?
pub fn is_protected(view: &View<'_>) -> bool {
    let metadata = &view.seen.cluster.metadata;
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    view.spec.deletion_protection && finalizers.iter().any(|f| f == names::FINALIZER)
}

#[cfg(test)]
mod tests;
