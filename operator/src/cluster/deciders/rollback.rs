//! Rolls the pods back to the last template that worked: on a person's request, by policy when an update
//! stalls, or because the program of a new pod cannot read the data.
use operator_api::{
    RqliteClusterStatus,
    cluster::OnStall,
    names,
    status::{OperationType, Pool, RolledBack, Target},
};

use crate::cluster::{
    action::Decision,
    facts::{
        downgrade,
        hold::Hold,
        image, inputs,
        view::{View, seconds_between},
    },
};

/// Decides whether the present template is rolled back. `asked` has the spec as the user wrote it, `hold` the
/// template that is kept instead, if any.
pub fn decide(view: &View<'_>, asked: &View<'_>, hold: Option<&Hold>) -> Decision {
    let Some(target) = view.target().filter(|_| view.is_formed()) else {
        return Decision::Continue;
    };
    // The present spec is adopted as the target before it can be rolled back.
    let wanted = view
        .kept_image
        .map_or_else(|| image::resolve(view).reference, str::to_owned);
    if target.image != wanted || !inputs::follows(target, view) {
        return Decision::Continue;
    }
    if let Some(pod) = downgrade::pod_with_newer_data(view) {
        let reason = pod.prepared.as_ref().map_or("", |p| p.reason.as_str());
        let text = format!(
            "{} cannot use its data with {}: {reason}",
            pod.name, target.image
        );
        return take_back(asked, hold, downgrade::REASON, text);
    }
    if let Some(text) = stalled(view) {
        return take_back(asked, hold, "UpdateStalled", text);
    }
    let request = view.annotation(names::ROLLBACK_ANNOTATION);
    if request.is_none() || request == view.status.rollback_request.as_deref() {
        return Decision::Continue;
    }
    let done = |status: &RqliteClusterStatus| {
        let mut next = status.clone();
        next.rollback_request = request.map(str::to_owned);
        Box::new(next)
    };
    let text = format!("{} was given up on request", target.image);
    match take_back(asked, hold, "Requested", text) {
        Decision::Record(next, text) => Decision::Record(done(&next), text),
        _ => Decision::Record(
            done(view.status),
            "nothing to roll back: no earlier template is known to have worked".to_owned(),
        ),
    }
}

/// The target to return to, which is never the present one, even if that worked.
fn good<'a>(view: &View<'a>) -> Option<&'a Target> {
    let good = view.status.last_good_target.as_ref()?;
    (good.inputs.is_some()
        && Some(good.template_hash.as_str()) != view.target().map(|t| t.template_hash.as_str()))
    .then_some(good)
}

fn take_back(asked: &View<'_>, hold: Option<&Hold>, reason: &str, text: String) -> Decision {
    let mut next = asked.status.clone();
    if hold.is_some() && asked.status.rolled_back.is_some() && reason == downgrade::REASON {
        // The template that was rolled back to no longer works, so the spec's own is used.
        next.rolled_back = None;
        return Decision::Record(
            Box::new(next),
            format!("{text}; the spec's template is used again"),
        );
    }
    let Some(good) = good(asked).filter(|_| hold.is_none()) else {
        return Decision::Continue;
    };
    next.rolled_back = Some(RolledBack {
        reason: reason.to_owned(),
        message: text.clone(),
        at: asked.now().clone(),
        image: image::resolve(asked).reference,
        input_hash: inputs::spec_hash(asked),
        restarted_at: inputs::of(asked).1,
        instead: good.clone(),
    });
    Decision::Record(
        Box::new(next),
        format!(
            "{text}; the pods return to the last template that worked, with {}",
            good.image
        ),
    )
}

/// With policy RollBack: what keeps an update from making progress, once its deadline has passed. Needs no
/// leader, because a bad template may be why there is none.
fn stalled(view: &View<'_>) -> Option<String> {
    let update = view.spec.update.clone().unwrap_or_default();
    let operation = view.operating(OperationType::Update)?;
    let deadline = update
        .progress_deadline
        .duration()
        .map_or(600, |d| d.as_secs());
    let late = seconds_between(&operation.step_at, view.now()) > deadline;
    if update.on_stall != Some(OnStall::RollBack) || !late {
        return None;
    }
    let name = operation.member.as_deref()?;
    let pod = view.pod(name)?;
    let is_new = operation.uid.as_deref() != Some(pod.uid.as_str());
    let back = view.participates(name) || (pod.pool == Pool::Read && pod.ready);
    let why = pod.stuck.as_deref().unwrap_or("it does not take part");
    (is_new && !back && !pod.deleting).then(|| {
        format!(
            "the new {name} did not work within {}: {why}",
            update.progress_deadline
        )
    })
}

#[cfg(test)]
mod tests;
