//! Defaults of network access, decided once for a cluster.
use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::open::open_enum;

open_enum! {
    /// Who may use the HTTP API of a cluster whose spec does not say.
    pub enum DefaultClients {
        /// Pods of the cluster's namespace.
        Namespace = "Namespace",
        /// Everybody who reaches the pods: a cluster of before that was decided.
        Everywhere = "Everywhere",
    }
}

/// What was decided once about network access, for what the spec leaves open. Another version of the operator
/// changes nothing in it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkDefaults {
    /// Who may use the HTTP API if spec.networkPolicy does not say: Namespace, or Everywhere for a cluster of
    /// an earlier operator.
    pub clients: DefaultClients,
    /// The cluster had a Service of type LoadBalancer or NodePort without users and TLS when this was
    /// decided. It keeps it; new ones are refused.
    #[serde(default)]
    pub exposed_before: bool,
    /// Fields that a newer operator wrote: kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub newer: BTreeMap<String, Value>,
}
