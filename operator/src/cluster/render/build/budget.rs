//! PodDisruptionBudgets. For voters `minAvailable` is a number, the quorum of the largest number of voters in
//! question: a percentage or `maxUnavailable` would be computed again from the remaining pods, and a draining
//! cluster would lose its quorum one pod at a time.
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use operator_api::{names, status::Pool, status::Target};

use super::common::{has_readers, metadata, selecting};
use crate::cluster::facts::view::View;
use crate::cluster::facts::view::quorum;

pub(super) fn all(view: &View<'_>, target: &Target) -> Vec<PodDisruptionBudget> {
    let enabled = view.spec.disruption.clone().unwrap_or_default();
    if !enabled.pod_disruption_budget {
        return Vec::new();
    }
    let mut all = Vec::new();
    all.extend(voters(view, target));
    if has_readers(view) {
        all.push(readers(view));
    }
    all
}

/// None for a single voter: a budget would only block every drain.
fn voters(view: &View<'_>, target: &Target) -> Option<PodDisruptionBudget> {
    let live = view.set(Pool::Voter).map_or(0, |set| set.replicas);
    let sizes = [target.replicas, view.spec.replicas, live];
    let largest = sizes
        .into_iter()
        .max()
        .and_then(|n| usize::try_from(n).ok());
    let voters = largest.unwrap_or(1).max(view.config_voters());
    if voters < 2 {
        return None;
    }
    let healthy = view.participants().len() >= quorum(voters);
    let mut select = selecting(view, Some(Pool::Voter));
    select.insert(names::RAFT_LABEL.to_owned(), "member".to_owned());
    let needed = i32::try_from(quorum(voters)).unwrap_or(i32::MAX);
    Some(PodDisruptionBudget {
        metadata: metadata(view, names::voters(&view.object_prefix())),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(needed)),
            selector: Some(matching(select)),
            // A broken pod may be evicted only while the others are a quorum without it.
            unhealthy_pod_eviction_policy: Some(
                if healthy {
                    "AlwaysAllow"
                } else {
                    "IfHealthyBudget"
                }
                .to_owned(),
            ),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}

fn readers(view: &View<'_>) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(view, names::readers(&view.object_prefix())),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::String("50%".to_owned())),
            selector: Some(matching(selecting(view, Some(Pool::Read)))),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

fn matching(labels: std::collections::BTreeMap<String, String>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels),
        match_expressions: None,
    }
}
