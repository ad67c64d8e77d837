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
use operator_api::names;

use super::common::{map, metadata, selecting};
use crate::cluster::facts::view::View;

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

pub(super) fn policy(view: &View<'_>) -> NetworkPolicy {
    let members = LabelSelector {
        match_labels: Some(selecting(view, None)),
        match_expressions: None,
    };
    let member = NetworkPolicyPeer {
        pod_selector: Some(members.clone()),
        ..NetworkPolicyPeer::default()
    };
    let clients = view
        .spec
        .network_policy
        .clone()
        .unwrap_or_default()
        .client_from;
    let http_from = (!clients.is_empty()).then(|| {
        let operator = NetworkPolicyPeer {
            namespace_selector: Some(LabelSelector {
                match_labels: Some(map([(NAMESPACE_NAME_LABEL, &view.seen.operator.namespace)])),
                match_expressions: None,
            }),
            pod_selector: Some(LabelSelector {
                match_labels: Some(map([(names::APP_NAME_LABEL, names::MANAGED_BY)])),
                match_expressions: None,
            }),
            ip_block: None,
        };
        let mut peers = vec![member.clone(), operator];
        peers.extend(clients);
        peers
    });
    NetworkPolicy {
        metadata: metadata(view, view.object_prefix()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(members),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                NetworkPolicyIngressRule {
                    from: Some(vec![member]),
                    ports: Some(vec![port(names::RAFT_PORT)]),
                },
                NetworkPolicyIngressRule {
                    from: http_from,
                    ports: Some(vec![port(names::HTTP_PORT)]),
                },
            ]),
            egress: None,
        }),
    }
}

fn port(number: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(number)),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    }
}
