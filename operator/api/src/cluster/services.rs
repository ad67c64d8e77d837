//! The Services in front of the nodes.
use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The Services in front of the nodes. A headless one for the nodes themselves always exists.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Services {
    /// <name>-client: any voter that is ready. It forwards writes to the leader itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientService>,
    /// <name>-leader: only the leader, as soon as the operator has seen it. Saves a hop; not a guarantee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<Toggle>,
}

/// The client Service.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientService {
    /// ClusterIP, NodePort or LoadBalancer; ClusterIP unless given.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub kind: Option<ServiceKind>,
    /// Its port; 4001 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Annotations, such as a cloud's load balancer settings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// Kind of a Service.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum ServiceKind {
    /// Reachable within the Kubernetes cluster.
    #[default]
    ClusterIP,
    /// Reachable at a port of every machine.
    NodePort,
    /// Reachable through the cloud's load balancer.
    LoadBalancer,
}

/// Something that is on unless switched off.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toggle {
    /// True unless given.
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
