//! Recreates pods that cannot start because of an outdated template.
use operator_api::status::Pool;

use crate::cluster::{
    action::{Action, Decision},
    facts::{forming, quorum::is_disk_needed, view::View},
};

/// Recreates a pod that cannot start and was created from an outdated template. This is safe without a leader
/// too.
pub fn unstick(view: &View<'_>) -> Decision {
    let Some(target) = view.target() else {
        return Decision::Continue;
    };
    // One at a time while the scheduler may be placing all of them for the first time.
    if !view.is_formed() && forming::is_placing(view) {
        return Decision::Continue;
    }
    let hash = |pool| match pool {
        Pool::Voter => Some(&target.template_hash),
        Pool::Read => target.read_template_hash.as_ref(),
    };
    let stuck = view.seen.pods.iter().find(|pod| {
        let wanted = hash(pod.pool);
        let template = view.set(pod.pool).map(|set| &set.template_hash);
        !pod.deleting
            && !pod.ready
            && pod.stuck.is_some()
            && view.node(&pod.name).is_none()
            && template.is_some()
            && template == wanted
            && Some(&pod.template_hash) != wanted
            && (pod.update_now || !is_disk_needed(view, pod))
    });
    match stuck {
        Some(pod) => Decision::Act(
            Action::delete_pod(pod),
            format!(
                "recreating {}, which cannot start from an outdated template ({})",
                pod.name,
                pod.stuck.as_deref().unwrap_or_default()
            ),
        ),
        None => Decision::Continue,
    }
}
