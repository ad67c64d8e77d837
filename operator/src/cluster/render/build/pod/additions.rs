//! What the user and the environment add to a pod: volumes, containers, DNS, annotations for service meshes
//! and for the cluster autoscaler.
use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, EmptyDirVolumeSource, PodSpec, Volume},
    apimachinery::pkg::api::resource::Quantity,
};
use operator_api::{
    cluster::{Ephemeral, Medium, Pods, ServiceMesh},
    names,
};

use crate::cluster::{
    facts::{pod_parts, view::View},
    render::build::common::{DATA_VOLUME, TMP_VOLUME},
};

/// Adds what the spec asks for. The operator's own containers come first: the init container `prepare`
/// decides about the data before anything else sees it.
pub(super) fn extend(pod: &mut PodSpec, user: Pods) {
    pod.runtime_class_name = user.runtime_class_name;
    pod.scheduler_name = user.scheduler_name;
    pod.dns_policy = user.dns_policy.map(|policy| policy.as_str().to_owned());
    pod.dns_config = user.dns_config;
    pod.host_aliases = (!user.host_aliases.is_empty()).then_some(user.host_aliases);
    pod.volumes.get_or_insert_default().extend(user.volumes);
    for node in &mut pod.containers {
        if !user.env_from.is_empty() {
            node.env_from = Some(user.env_from.clone());
        }
        let mounts = node.volume_mounts.get_or_insert_default();
        mounts.extend(user.volume_mounts.iter().cloned());
    }
    pod.containers
        .extend(user.sidecars.into_iter().map(secured));
    let init = pod.init_containers.get_or_insert_default();
    init.extend(user.init_containers.into_iter().map(secured));
}

/// A container without a security context would keep the whole pod from being admitted.
fn secured(container: Container) -> Container {
    Container {
        security_context: container
            .security_context
            .or_else(|| Some(pod_parts::of_container())),
        ..container
    }
}

/// The volume of an ephemeral cluster; it ends with its pod.
pub(super) fn ephemeral(wanted: &Ephemeral) -> Volume {
    Volume {
        name: DATA_VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: (wanted.medium == Some(Medium::Memory)).then(|| "Memory".to_owned()),
            size_limit: wanted.size_limit.clone().map(|size| Quantity(size.0)),
        }),
        ..Volume::default()
    }
}

/// Annotations with which the user's own take precedence.
pub(super) fn annotations(view: &View<'_>) -> BTreeMap<String, String> {
    // Without the first, the cluster autoscaler never removes a machine with a node, because of its temporary
    // files; the budget is what protects the quorum. An ephemeral node's data is in its pod.
    let eviction = match &view.spec.storage.ephemeral {
        None => (
            "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes",
            TMP_VOLUME.to_owned(),
        ),
        Some(_) => (
            "cluster-autoscaler.kubernetes.io/safe-to-evict",
            "false".to_owned(),
        ),
    };
    let raft = names::RAFT_PORT.to_string();
    let mesh: &[(&str, &str)] = match view.spec.service_mesh {
        None => &[],
        // Nodes authenticate each other's data by ids and must be able to talk while a sidecar restarts.
        Some(ServiceMesh::Istio) => &[
            ("traffic.sidecar.istio.io/excludeInboundPorts", &raft),
            ("traffic.sidecar.istio.io/excludeOutboundPorts", &raft),
            (
                "proxy.istio.io/config",
                r#"{"holdApplicationUntilProxyStarts":true}"#,
            ),
        ],
        Some(ServiceMesh::Linkerd) => &[
            ("config.linkerd.io/skip-inbound-ports", &raft),
            ("config.linkerd.io/skip-outbound-ports", &raft),
            ("config.linkerd.io/proxy-await", "enabled"),
        ],
    };
    let mesh = mesh.iter().map(|(key, value)| (*key, (*value).to_owned()));
    mesh.chain([eviction])
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}
