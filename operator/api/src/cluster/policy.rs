//! How the operator goes about things: forming, updating, deleting, protecting.
use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::Period;

/// How the cluster comes into being.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// After this long without a cluster, the condition Available says what each node waits for; 120s unless given. Nothing is given up or
    /// deleted.
    #[serde(default = "two_minutes")]
    pub timeout: Period,
}

fn two_minutes() -> Period {
    Period::from("120s")
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            timeout: two_minutes(),
        }
    }
}

/// What happens to volumes that are not needed any more.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Claims of a deleted cluster: Retain or Delete; Retain unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_deleted: Option<Deletion>,
    /// Claims of members that left when the cluster was scaled down: Retain or Delete; Retain unless given. A retained claim is not
    /// attached again: when the cluster grows, its data is put aside first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_scaled: Option<Deletion>,
}

/// Keep or delete.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum Deletion {
    /// Keep it.
    #[default]
    Retain,
    /// Delete it.
    Delete,
}

/// Protection against evictions that would cost the quorum.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Make PodDisruptionBudgets; true unless given. A cluster of one voter gets none, as it would block every drain.
    #[serde(default = "yes")]
    pub pod_disruption_budget: bool,
}

impl Default for Disruption {
    fn default() -> Self {
        Self {
            pod_disruption_budget: yes(),
        }
    }
}

fn yes() -> bool {
    true
}

/// How changes reach the pods: one pod at a time, the leader last, and the next only when the one before takes part again.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.progressDeadline) > duration(self.minReady)").message("update.progressDeadline must be longer than update.minReady: raise progressDeadline"))]
pub struct Update {
    /// Automatic, or Manual: then a pod is only replaced when it carries the annotation rqlite.dev/update-now: "true". Automatic unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<UpdateStrategy>,
    /// Whether a new version of the operator may restart nodes on its own account: Deferred (with the next change of yours) or Immediate.
    /// Deferred unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_changes: Option<OperatorChanges>,
    /// How long a replaced node must take part before the next one is replaced; 10s unless given.
    #[serde(default = "ten_seconds")]
    pub min_ready: Period,
    /// How long one step may take before the condition Progressing turns false with the reason. Nothing more is touched until the step
    /// succeeds or the spec changes. 10m unless given.
    #[serde(default = "ten_minutes")]
    pub progress_deadline: Period,
}

fn ten_seconds() -> Period {
    Period::from("10s")
}

fn ten_minutes() -> Period {
    Period::from("10m")
}

impl Default for Update {
    fn default() -> Self {
        Self {
            strategy: None,
            operator_changes: None,
            min_ready: ten_seconds(),
            progress_deadline: ten_minutes(),
        }
    }
}

/// Who decides when a pod is replaced.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum UpdateStrategy {
    /// The operator.
    #[default]
    Automatic,
    /// A person, pod by pod.
    Manual,
}

/// When changes of the operator's own making reach the pods.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum OperatorChanges {
    /// With the next change by the user.
    #[default]
    Deferred,
    /// At once.
    Immediate,
}

/// Who may connect.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Make a NetworkPolicy: the inter-node port is then open to the cluster's own pods only; true unless given.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Who may use the HTTP API, besides the cluster's own pods and the operator; everybody unless given. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub client_from: Vec<NetworkPolicyPeer>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self {
            enabled: yes(),
            client_from: Vec::new(),
        }
    }
}

/// Labels and annotations for pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}
