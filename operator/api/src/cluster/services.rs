//! The Services in front of the nodes.
use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The Services in front of the nodes. A headless Service for the nodes themselves always exists.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Services {
    /// Service <name>-client: all voters that are ready. A voter forwards writes to the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientService>,
    /// Service <name>-leader: only the leader, as soon as the operator has observed it. It saves a hop and is
    /// not a guarantee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<Toggle>,
}

/// The client Service.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientService {
    /// ClusterIP, NodePort or LoadBalancer. Defaults to ClusterIP.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub kind: Option<ServiceKind>,
    /// Port of the Service. Defaults to 4001.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Annotations of the Service, such as load balancer settings; at most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// Type of a Service.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum ServiceKind {
    /// Reachable within the Kubernetes cluster.
    #[default]
    ClusterIP,
    /// Reachable at a port of every Kubernetes node.
    NodePort,
    /// Reachable through the cloud provider's load balancer.
    LoadBalancer,
}

/// A feature that is enabled by default.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toggle {
    /// Whether it is enabled. Defaults to true.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

impl Default for Toggle {
    fn default() -> Self {
        Self { enabled: yes() }
    }
}
