//! Whether the pod template is kept although the spec asks for another one. Then the reconcile uses the kept
//! one: the StatefulSets are still applied, recreated and scaled with it.
use operator_api::{cluster::Management, names, status::TemplateInputs};

use crate::cluster::facts::{downgrade, hash, image, inputs, observation::Observation, view::View};

/// Why a template is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The update was rolled back.
    RolledBack,
    /// The image is of an older release: the text says so.
    Downgrade(String),
    /// A person has not approved it: the key of the plan, and its text.
    Unapproved(String, String),
}

/// A template that is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// Why.
    pub why: Why,
    /// The image.
    pub image: String,
    /// The parts of the spec to use instead; None if they are not recorded: then the StatefulSets are left
    /// unchanged.
    pub inputs: Option<TemplateInputs>,
}

/// Key of the plan to give all pods the template of these inputs.
pub fn roll_key(input_hash: &str, image: &str) -> String {
    format!("Update/{input_hash}/{image}")
}

/// Decides which template is kept, if any. `view` has the spec as the user wrote it.
pub fn decide(view: &View<'_>) -> Option<Hold> {
    let target = view.target().filter(|_| view.is_formed())?;
    let asked = image::resolve(view).reference;
    let (spec, restarted_at) = inputs::of(view);
    let spec_hash = hash::hash(&spec);
    if let Some(back) = &view.status.rolled_back
        && (&back.input_hash, &back.image) == (&spec_hash, &asked)
    {
        let mut kept = back.instead.inputs.clone();
        if let Some(kept) = kept.as_mut().filter(|_| back.restarted_at != restarted_at) {
            // A restart that was requested since then.
            kept.restarted_at = restarted_at;
        }
        return Some(Hold {
            why: Why::RolledBack,
            image: back.instead.image.clone(),
            inputs: kept,
        });
    }
    let keep = |why: Why| Hold {
        why,
        image: target.image.clone(),
        inputs: target.inputs.clone(),
    };
    if let Some(text) = downgrade::refused(view, &asked) {
        return Some(keep(Why::Downgrade(text)));
    }
    let input_hash = inputs::template_hash(view);
    let same = target.image == asked && inputs::follows(target, view);
    let manual = view.spec.management == Some(Management::Manual);
    if same || !manual {
        return None;
    }
    let key = roll_key(&input_hash, &asked);
    let approved = view.status.approved_plan.as_ref();
    if approved.is_some_and(|plan| plan.key == key) {
        return None;
    }
    let text = if target.image == asked {
        "give all pods the changed template, one at a time, the leader last".to_owned()
    } else {
        format!(
            "move all pods from {} to {asked}, one at a time, the leader last",
            target.image
        )
    };
    Some(keep(Why::Unapproved(key, text)))
}

/// The observation for the plan, with the kept parts in the place of the spec's.
pub fn applied(hold: &Hold, seen: &Observation) -> Option<Observation> {
    let inputs = hold.inputs.as_ref()?;
    let spec = inputs::restored(inputs, &seen.cluster.spec)?;
    let mut seen = seen.clone();
    seen.cluster.spec = spec;
    let annotations = seen.cluster.metadata.annotations.get_or_insert_default();
    match &inputs.restarted_at {
        Some(at) => annotations.insert(names::RESTARTED_AT_ANNOTATION.to_owned(), at.clone()),
        None => annotations.remove(names::RESTARTED_AT_ANNOTATION),
    };
    Some(seen)
}
