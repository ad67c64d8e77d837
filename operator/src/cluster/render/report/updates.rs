//! Kept, refused and rolled back images and templates in the status, and plans that wait for approval.
use operator_api::{
    RqliteClusterStatus, names,
    status::{
        APPROVAL_PENDING, DOWNGRADE_REFUSED, Phase, READY, ResolvedImage, Target, UPDATE_AVAILABLE,
        UPDATE_ROLLED_BACK,
    },
};

use super::condition::{NewCondition, condition_of};
use crate::cluster::{
    deciders::rollout::is_outdated,
    facts::{
        downgrade,
        hold::{Hold, Why},
        image::{self, Parts},
        inputs,
        view::View,
    },
};

/// Records the image, and the target once it has worked. `asked` has the spec as it is.
pub(super) fn record(
    view: &View<'_>,
    asked: &View<'_>,
    wanted: &Target,
    hold: Option<&Hold>,
    next: &mut RqliteClusterStatus,
) {
    next.image = Some(image::resolve(asked));
    let rolled_back = hold.is_some_and(|hold| hold.why == Why::RolledBack);
    if asked.status.rolled_back.is_some() && !rolled_back {
        next.rolled_back = None;
    }
    // The annotation can be set again with the same value.
    if asked.annotation(names::ROLLBACK_ANNOTATION).is_none() {
        next.rollback_request = None;
    }
    if let Some(leader) = view.leader {
        let format = leader.status.format_version.map(i32::from);
        next.format_version = format.max(next.format_version);
    }
    let Some(target) = &mut next.target else {
        return;
    };
    if target.inputs.is_none() && inputs::are_same(target, wanted) && target.image == wanted.image {
        target.inputs.clone_from(&wanted.inputs);
    }
    let same = view
        .target()
        .is_some_and(|now| now.template_hash == target.template_hash);
    if target.worked_at.is_none() && same && next.operation.is_none() && works(view) {
        target.worked_at = Some(view.now().clone());
    }
}

/// Have all pods the target's template, and do all members take part?
fn works(view: &View<'_>) -> bool {
    let Some(target) = view.target() else {
        return false;
    };
    let voters = view.config_voters();
    let current = view.seen.pods.iter().all(|pod| {
        let hashes = [
            Some(&target.template_hash),
            target.read_template_hash.as_ref(),
        ];
        pod.ready && !is_outdated(view, pod) && hashes.contains(&Some(&pod.template_hash))
    });
    view.is_formed() && voters > 0 && view.participants().len() == voters && current
}

/// The conditions. `next` has what is recorded with this reconcile.
pub(super) fn conditions(
    asked: &View<'_>,
    hold: Option<&Hold>,
    next: &RqliteClusterStatus,
) -> [NewCondition; 4] {
    [
        available(asked, next.image.as_ref()),
        refused(asked, hold, next),
        rolled_back(next),
        approval(asked, next),
    ]
}

fn available(view: &View<'_>, image: Option<&ResolvedImage>) -> NewCondition {
    let is_not = |reason, text: String| condition_of(UPDATE_AVAILABLE, false, reason, text);
    let Some(image) = image else {
        return is_not("Unknown", "no image has been resolved yet".to_owned());
    };
    let (default, own) = (
        view.seen.operator.node_image.as_str(),
        image.reference.as_str(),
    );
    if default == own {
        return is_not("UpToDate", format!("{own} is the operator's default image"));
    }
    let (theirs, ours) = (Parts::of(default), Parts::of(own));
    let releases = theirs.release().zip(ours.release());
    let newest = image::newest(view);
    if releases.is_some_and(|(default, own)| default <= own) {
        let text =
            format!("the operator's default image {default} is no newer than {own}, which is kept");
        return is_not("DefaultIsOlder", text);
    }
    if newest == own && releases.is_none() {
        let text = format!(
            "spec.image names {own}, which cannot be compared with the operator's default image {default}"
        );
        return is_not("SetBySpec", text);
    }
    let (name, key) = (view.name, names::UPDATE_IMAGE_ANNOTATION);
    let how = if newest == own {
        "To move, set spec.image".to_owned()
    } else {
        format!(
            "To move, run kubectl annotate rqlitecluster {name} {key}={newest} --overwrite, or set spec.image"
        )
    };
    let text = format!("image {default} is the operator's default; the cluster keeps {own}. {how}");
    condition_of(UPDATE_AVAILABLE, true, "DefaultImageDiffers", text)
}

fn refused(view: &View<'_>, hold: Option<&Hold>, next: &RqliteClusterStatus) -> NewCondition {
    if let Some(Why::Downgrade(text)) = hold.map(|hold| &hold.why) {
        return condition_of(DOWNGRADE_REFUSED, true, "OlderRelease", text.clone());
    }
    let back = next.rolled_back.as_ref();
    if let Some(back) = back.filter(|back| back.reason == downgrade::REASON) {
        return condition_of(DOWNGRADE_REFUSED, true, "DataIsNewer", back.message.clone());
    }
    if let Some(pod) = downgrade::pod_with_newer_data(view) {
        let reason = pod.prepared.as_ref().map_or("", |p| p.reason.as_str());
        let text = format!(
            "{} does not start: {reason}. Set spec.image to a newer release",
            pod.name
        );
        return condition_of(DOWNGRADE_REFUSED, true, "DataIsNewer", text);
    }
    condition_of(DOWNGRADE_REFUSED, false, "Allowed", "no image is refused")
}

fn rolled_back(next: &RqliteClusterStatus) -> NewCondition {
    let Some(back) = &next.rolled_back else {
        return condition_of(
            UPDATE_ROLLED_BACK,
            false,
            "NotRolledBack",
            "the spec is carried out",
        );
    };
    let reason = match back.reason.as_str() {
        "UpdateStalled" => "UpdateStalled",
        downgrade::REASON => downgrade::REASON,
        _ => "Requested",
    };
    let text = format!(
        "{}. The pods keep the template with {} until the parts of the spec that affect pods change: correct the spec, or set it back",
        back.message, back.instead.image
    );
    condition_of(UPDATE_ROLLED_BACK, true, reason, text)
}

fn approval(view: &View<'_>, next: &RqliteClusterStatus) -> NewCondition {
    match &next.proposed_plan {
        Some(plan) => condition_of(
            APPROVAL_PENDING,
            true,
            "PlanProposed",
            format!(
                "plan {}: {}. To carry it out: kubectl rqlite approve {} {} (or the annotation {}={})",
                plan.id,
                plan.text,
                view.name,
                plan.id,
                names::APPROVE_ANNOTATION,
                plan.id
            ),
        ),
        None => condition_of(
            APPROVAL_PENDING,
            false,
            "NothingProposed",
            "no plan waits for approval",
        ),
    }
}

/// Ready means that the spec is carried out: not while another template is kept.
pub(super) fn correct_ready(
    hold: Option<&Hold>,
    next: &RqliteClusterStatus,
) -> Option<(NewCondition, Option<Phase>)> {
    let ready = next.is(READY);
    if let Some(plan) = &next.proposed_plan {
        let quiet = ready
            || next
                .condition(READY)
                .is_some_and(|c| c.reason == "Changing");
        let text = format!("waits for approval of plan {}: {}", plan.id, plan.text);
        let one = condition_of(READY, false, "ApprovalPending", text);
        return quiet.then_some((one, None));
    }
    let (reason, text) = match &hold.filter(|_| ready)?.why {
        Why::RolledBack => (
            "UpdateRolledBack",
            "the update was rolled back: see UpdateRolledBack",
        ),
        Why::Downgrade(_) => (
            "DowngradeRefused",
            "the image is refused: see DowngradeRefused",
        ),
        Why::Unapproved(..) => return None,
    };
    let one = condition_of(READY, false, reason, text);
    Some((one, Some(Phase::Degraded)))
}
