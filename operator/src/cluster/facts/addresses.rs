//! Addresses under which the pods of a cluster reach each other.
use operator_api::names;

use crate::cluster::facts::view::View;

/// DNS domain of the headless Service; every pod has a name below it.
pub fn pod_domain(view: &View<'_>) -> String {
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    format!(
        "{}.{}.svc.{}",
        names::headless(view.name),
        namespace.unwrap_or("default"),
        view.cluster_domain()
    )
}

/// Inter-node address that a pod advertises: `host:port`.
pub fn raft_address(view: &View<'_>, pod: &str) -> String {
    format!("{pod}.{}:{}", pod_domain(view), names::RAFT_PORT)
}
