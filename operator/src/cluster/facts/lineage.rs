//! Which lineage data belongs to: the recorded one, a newer one that a person created by hand, or one that
//! has ended.
use node_contract::Lineage;

use crate::cluster::facts::{
    observation::{NodeStatus, PrepareReport, ProbeResult},
    view::View,
};

/// State that `rqlited prepare` reports for data of a lineage that has ended.
pub const STALE: &str = "StaleLineage";

/// Data of this cluster with a newer lineage than the recorded one: pod name and lineage of each.
pub fn newer_lineages<'a>(view: &View<'a>) -> Vec<(&'a str, &'a Lineage)> {
    let Some(ours) = view.status.lineage.as_ref().map(Lineage::from) else {
        return Vec::new();
    };
    let is_newer = |cluster: &Option<String>, theirs: &Lineage| {
        cluster.is_some()
            && *cluster == view.status.cluster_id
            && theirs.id != ours.id
            && theirs.epoch > ours.epoch
    };
    let running = view.seen.nodes.iter().filter_map(|(name, answer)| {
        let ProbeResult::Ok(node) = answer else {
            return None;
        };
        Some((name.as_str(), &node.cluster_id, node.lineage.as_ref()?))
    });
    // `rqlited prepare` does not let a node start on such data.
    let held = view.seen.pods.iter().filter_map(|pod| {
        let report = pod.prepared.as_ref()?;
        let refused = report.state == "UnknownLineage" && view.node(&pod.name).is_none();
        let theirs = report.lineage.as_ref().filter(|_| refused)?;
        Some((pod.name.as_str(), &report.cluster_id, theirs))
    });
    let all = running.chain(held);
    all.filter(|(_, cluster, theirs)| is_newer(cluster, theirs))
        .map(|(name, _, theirs)| (name, theirs))
        .collect()
}

/// Is this data of a lineage before the recorded one, which no recovery's plan parks? Its node never votes
/// again.
pub fn is_stale(report: &PrepareReport) -> bool {
    report.state == STALE
}

/// Does this node run in an ended lineage of this cluster, without a leader in it? Then it can be ignored.
pub fn has_ended(view: &View<'_>, node: &NodeStatus) -> bool {
    let ours = view.status.lineage.as_ref().map(Lineage::from);
    let (Some(theirs), Some(ours)) = (&node.lineage, ours) else {
        return false;
    };
    node.cluster_id.is_some()
        && node.cluster_id == view.status.cluster_id
        && node.leader.is_none()
        && theirs.id != ours.id
        && theirs.epoch < ours.epoch
}
