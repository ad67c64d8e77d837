//! A deleted cluster: its pods go first, then, if the spec says so, the claims, then the object. No node is
//! queried.
use operator_api::{cluster::Deletion, names, status::Pool};

use crate::cluster::{
    action::{Action, Decision},
    facts::view::View,
};

/// Does this cluster's object need the finalizer?
pub fn needs_finalizer(view: &View<'_>) -> bool {
    view.spec.deletion_protection || deletes_claims(view)
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
    if !deletes_claims(view) {
        let text = "the volumes are kept".to_owned();
        return Decision::Act(Action::ReleaseFinalizer, text);
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
    if !view.seen.pods.is_empty() {
        return Decision::Wait("waiting for the pods to stop".to_owned());
    }
    match view.seen.claims.iter().find(|claim| !claim.deleting) {
        Some(claim) => {
            let action = Action::DeleteClaim {
                name: claim.name.clone(),
                uid: claim.uid.clone(),
            };
            Decision::Act(action, format!("deleting the claim {}", claim.name))
        }
        None if !view.seen.claims.is_empty() => {
            Decision::Wait("waiting for the claims to be deleted".to_owned())
        }
        None => Decision::Act(Action::ReleaseFinalizer, "everything is deleted".to_owned()),
    }
}

/// Does deletion protection keep the cluster although its object was deleted?
pub fn is_protected(view: &View<'_>) -> bool {
    let metadata = &view.seen.cluster.metadata;
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    view.spec.deletion_protection && finalizers.iter().any(|f| f == names::FINALIZER)
}

#[cfg(test)]
mod tests;
