//! Members that should not be there: data of another cluster or history.
use operator_api::names;

use super::{action::Decision, view::View};

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
