//! Grows volumes: each claim's request is raised, then the StatefulSet is recreated around its running pods,
//! because its claim template is immutable.
use operator_api::{ByteSize, names, status::OperationType, status::Pool};

use crate::cluster::{
    action::{Action, Decision, begin, finish},
    facts::{claims, observation::ObservedClaim, view::View},
};

/// Is `a` smaller than `b`? False for sizes that cannot be parsed: nothing is done about them.
fn is_smaller(a: &str, b: &ByteSize) -> bool {
    matches!((ByteSize::from(a).bytes(), b.bytes()), (Ok(a), Ok(b)) if a < b)
}

/// The claims of a pool's present pods.
fn claims_of<'a>(view: &View<'a>, pool: Pool) -> Vec<&'a ObservedClaim> {
    let live = view.set(pool).map_or(0, |set| set.replicas);
    (0..live)
        .filter_map(|o| view.claim(&names::pod(&view.set_name(pool), o)))
        .filter(|claim| claims::is_own(view, claim))
        .collect()
}

/// Continues the recreation of a StatefulSet.
pub fn resume(view: &View<'_>) -> Decision {
    let Some(operation) = view.operating(OperationType::Resize) else {
        return Decision::Continue;
    };
    let name = operation.member.as_deref().unwrap_or_default();
    let pool = if name == names::readers(view.name) {
        Pool::Read
    } else {
        Pool::Voter
    };
    let seen = match pool {
        Pool::Voter => &view.seen.voters,
        Pool::Read => &view.seen.readers,
    };
    match seen {
        Some(set) if Some(&set.uid) == operation.uid.as_ref() && !set.deleting => Decision::Act(
            Action::DeleteStatefulSet {
                name: name.to_owned(),
                uid: set.uid.clone(),
                orphan: true,
            },
            format!("recreating the StatefulSet {name} around its running pods"),
        ),
        Some(set) if Some(&set.uid) == operation.uid.as_ref() => Decision::Wait(format!(
            "waiting for the old StatefulSet {name} to be deleted"
        )),
        Some(_) => Decision::Record(
            finish(view.status),
            format!("{name} now requests larger volumes"),
        ),
        None => Decision::Wait(format!("waiting for the new StatefulSet {name}")),
    }
}

/// Raises the requests of claims, or, once all are raised, begins the recreation of their StatefulSet.
pub fn start(view: &View<'_>) -> Decision {
    for pool in [Pool::Voter, Pool::Read] {
        let Some(set) = view.set(pool) else { continue };
        let wanted = view.wanted_size(pool);
        let small = claims_of(view, pool)
            .into_iter()
            .find(|claim| !claim.deleting && is_smaller(&claim.requested, &wanted));
        if let Some(claim) = small {
            return expand(view, claim, &wanted);
        }
        if is_smaller(&set.claim_size, &wanted) {
            let next = begin(
                view.status,
                &view.seen.fresh_id,
                view.now(),
                OperationType::Resize,
                Some(&view.set_name(pool)),
                Some(&set.uid),
            );
            return Decision::Record(next, format!("new volumes will have {wanted}"));
        }
    }
    Decision::Continue
}

fn expand(view: &View<'_>, claim: &ObservedClaim, wanted: &ByteSize) -> Decision {
    let class = claim.class.as_deref().unwrap_or_default();
    if view.seen.expandable.get(class) == Some(&false) {
        // Must not block anything else: the condition StorageReady reports it.
        return Decision::Continue;
    }
    Decision::Act(
        Action::ExpandClaim {
            name: claim.name.clone(),
            uid: claim.uid.clone(),
            size: wanted.0.clone(),
        },
        format!("expanding {} to {wanted}", claim.name),
    )
}

/// What keeps volumes from having the size that the spec asks for.
pub fn problem(view: &View<'_>) -> Option<(&'static str, String)> {
    for pool in [Pool::Voter, Pool::Read] {
        let wanted = view.wanted_size(pool);
        for claim in claims_of(view, pool) {
            let class = claim.class.as_deref().unwrap_or_default();
            let asked = !is_smaller(&claim.requested, &wanted);
            if !asked && view.seen.expandable.get(class) == Some(&false) {
                let text = format!(
                    "{} cannot grow to {wanted}: StorageClass {class:?} does not allow it. Set allowVolumeExpansion on the class, or restore the former storage.size",
                    claim.name
                );
                return Some(("ExpansionNotAllowed", text));
            }
            let small = claim
                .capacity
                .as_ref()
                .is_some_and(|capacity| is_smaller(capacity, &wanted));
            if !asked || small {
                let how = claims::resize_progress(view, claim).unwrap_or_default();
                let text = format!("{} is expanding to {wanted}{how}", claim.name);
                return Some(("Expanding", text));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
