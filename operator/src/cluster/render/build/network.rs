//! The pods' service account, and the NetworkPolicy.
use k8s_openapi::{
    api::{
        core::v1::ServiceAccount,
        networking::v1::{
            NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
            NetworkPolicySpec,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use operator_api::{cluster::ClientAccess, names};

use super::common::{map, metadata, selecting};
use crate::cluster::facts::{network, view::View};

/// Label that Kubernetes sets on every namespace.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn account(view: &View<'_>) -> ServiceAccount {
    let mut metadata = metadata(view, view.object_prefix());
    let pods = view.spec.pods.clone().unwrap_or_default();
    let annotations = pods.service_account_annotations;
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    ServiceAccount {
        metadata,
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// Between nodes: the cluster's own pods. HTTP: these, the operator, and whom the spec or the cluster's
/// defaults admit. Health: whom the spec admits; the kubelet's probes come from the pod's own Kubernetes
/// node, which network plugins admit in any case.
pub(super) fn policy(view: &View<'_>) -> NetworkPolicy {
    let members = LabelSelector {
        match_labels: Some(selecting(view, None)),
        match_expressions: None,
    };
    let member = NetworkPolicyPeer {
        pod_selector: Some(members.clone()),
        ..NetworkPolicyPeer::default()
    };
    let asked = view.spec.network_policy.clone().unwrap_or_default();
    let mut clients = vec![member.clone(), operator(view), backups()];
    clients.extend(asked.client_from);
    let http_from = match network::clients(view) {
        ClientAccess::Listed => Some(clients),
        ClientAccess::Namespace => {
            clients.push(NetworkPolicyPeer {
                pod_selector: Some(LabelSelector::default()),
                ..NetworkPolicyPeer::default()
            });
            Some(clients)
        }
        ClientAccess::Everywhere => None,
    };
    let mut ingress = vec![
        rule(Some(vec![member]), names::RAFT_PORT),
        rule(http_from, names::HTTP_PORT),
    ];
    // An empty list of peers would admit everybody.
    if !asked.monitoring_from.is_empty() {
        ingress.push(rule(Some(asked.monitoring_from), names::HEALTH_PORT));
    }
    let mut metadata = metadata(view, view.object_prefix());
    let default = network::defaults(view).clients;
    metadata.annotations = Some(map([(names::CLIENTS_ANNOTATION, default.as_str())]));
    NetworkPolicy {
        metadata,
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(members),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(ingress),
            egress: None,
        }),
    }
}

/// The pods that make backups. Their labels can be copied within the namespace; users and TLS are what keeps
/// others out.
fn backups() -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(LabelSelector {
            match_labels: Some(map([
                (names::APP_NAME_LABEL, "rqlite-backup"),
                (names::MANAGED_BY_LABEL, names::MANAGED_BY),
            ])),
            match_expressions: None,
        }),
        ..NetworkPolicyPeer::default()
    }
}

/// The operator's pods.
fn operator(view: &View<'_>) -> NetworkPolicyPeer {
    let selecting = |labels| LabelSelector {
        match_labels: Some(map(labels)),
        match_expressions: None,
    };
    let namespace = view.seen.operator.namespace.as_str();
    NetworkPolicyPeer {
        namespace_selector: Some(selecting([(NAMESPACE_NAME_LABEL, namespace)])),
        pod_selector: Some(selecting([(names::APP_NAME_LABEL, names::MANAGED_BY)])),
        ip_block: None,
    }
}

fn rule(from: Option<Vec<NetworkPolicyPeer>>, to: i32) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from,
        ports: Some(vec![port(to)]),
    }
}

fn port(number: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(number)),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    }
}
