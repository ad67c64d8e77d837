//! Policies: forming a cluster, updating, retaining volumes, disruptions, network access.
use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::restore::BootstrapRestore;
use crate::scalar::Period;

/// How the cluster is formed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// If the cluster has not formed after this time, the condition Available says what each node is waiting
    /// for. Nothing is aborted or deleted. Defaults to 120s.
    #[serde(default = "two_minutes")]
    pub timeout: Period,
    /// The data that the cluster begins with. Defaults to none: an empty database. If it cannot be restored,
    /// the cluster does not form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<BootstrapRestore>,
}

fn two_minutes() -> Period {
    Period::from("120s")
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            timeout: two_minutes(),
            restore: None,
        }
    }
}

/// What happens to volumes that are no longer needed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// PersistentVolumeClaims of a deleted cluster: Retain or Delete. Defaults to Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_deleted: Option<Deletion>,
    /// PersistentVolumeClaims of members that were removed by scaling down: Retain or Delete. The data of a
    /// retained claim is not used again: it is parked when the cluster grows. Defaults to Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_scaled: Option<Deletion>,
}

/// Whether to keep or delete an object.
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

/// Protection against evictions that would break the quorum.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Whether PodDisruptionBudgets are created. A cluster of one voter gets none, because it would block
    /// every drain. Defaults to true.
    #[serde(default = "yes")]
    pub pod_disruption_budget: bool,
    /// Whether voters leave a Kubernetes node that is cordoned or about to be taken away (by an autoscaler,
    /// Karpenter or the cloud): leadership is transferred away at once, and in a cluster of at least three
    /// voters the pod is moved, one at a time, if its volume can follow it and another node takes it. With
    /// update.strategy Manual only leadership is transferred. Defaults to true.
    #[serde(default = "yes")]
    pub follow_drains: bool,
}

impl Default for Disruption {
    fn default() -> Self {
        Self {
            pod_disruption_budget: yes(),
            follow_drains: yes(),
        }
    }
}

fn yes() -> bool {
    true
}

/// How changes are rolled out: one pod at a time, the leader last, each only once the previous one is ready
/// again.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.progressDeadline) > duration(self.minReady)").message("update.progressDeadline must be longer than update.minReady: raise progressDeadline"))]
pub struct Update {
    /// Automatic or Manual. With Manual, a pod is replaced only if it has the annotation
    /// rqlite.dev/update-now: "true". Defaults to Automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<UpdateStrategy>,
    /// When changes made by a new version of the operator restart the nodes: Deferred (together with your
    /// next change) or Immediate. Defaults to Deferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_changes: Option<OperatorChanges>,
    /// What happens to an update that makes no progress for update.progressDeadline: Pause (nothing else is
    /// changed until the spec changes or a person rolls it back) or RollBack (to the last template that
    /// worked). Defaults to Pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_stall: Option<OnStall>,
    /// How long a replaced node must be ready before the next one is replaced. Defaults to 10s.
    #[serde(default = "ten_seconds")]
    pub min_ready: Period,
    /// How long one step may take before the condition Progressing turns false. Nothing else is changed until
    /// the step succeeds or the spec changes. Defaults to 10m.
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
            on_stall: None,
            min_ready: ten_seconds(),
            progress_deadline: ten_minutes(),
        }
    }
}

/// Who decides when an outdated pod is replaced.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum UpdateStrategy {
    /// The operator.
    #[default]
    Automatic,
    /// The user, pod by pod.
    Manual,
}

/// What happens to an update that makes no progress.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum OnStall {
    /// It stops.
    #[default]
    Pause,
    /// The pods return to the last template that worked.
    RollBack,
}

/// Who decides that a change is carried out.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum Management {
    /// The operator.
    #[default]
    Automatic,
    /// A person, plan by plan.
    Manual,
}

/// When changes made by a new version of the operator restart the pods.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum OperatorChanges {
    /// Together with the user's next change.
    #[default]
    Deferred,
    /// Immediately.
    Immediate,
}

/// Restriction of network access to the nodes: between nodes only the cluster's own pods, for everything else
/// as given here. Kubernetes enforces it only where its network does; TLS and users are what keeps others out
/// in any case.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.clients) || self.clients != 'Everywhere' || !has(self.clientFrom) || self.clientFrom.size() == 0").message("networkPolicy.clients Everywhere admits all, so that clientFrom has no effect: remove clientFrom, or set clients to Namespace or Listed")
)]
pub struct NetworkPolicy {
    /// Whether a NetworkPolicy is created, which opens the inter-node port to the cluster's own pods only.
    /// Defaults to true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Who may use the HTTP API besides the cluster's own pods and the operator: Listed (the peers in
    /// clientFrom), Namespace (those, and all pods of the cluster's namespace) or Everywhere. Defaults to
    /// Listed if clientFrom is given; otherwise to Everywhere if a Service of type LoadBalancer or NodePort
    /// asks for clients from outside; otherwise to Namespace. A cluster that was created by an operator of
    /// before this field keeps Everywhere until it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientAccess>,
    /// Peers that may use the HTTP API besides the cluster's own pods and the operator, such as
    /// `namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: web}}`; at most 32. With this list and
    /// without clients, only these: `podSelector: {}` among them is the cluster's own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub client_from: Vec<NetworkPolicyPeer>,
    /// Peers that may use the port for health and metrics, such as Prometheus' namespace; at most 32. The
    /// kubelet's probes come from the pod's own Kubernetes node, which networks admit in any case. Defaults
    /// to none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub monitoring_from: Vec<NetworkPolicyPeer>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self {
            enabled: yes(),
            clients: None,
            client_from: Vec::new(),
            monitoring_from: Vec::new(),
        }
    }
}

/// Who may use the HTTP API.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientAccess {
    /// The listed peers.
    Listed,
    /// The listed peers, and all pods of the cluster's namespace.
    Namespace,
    /// Everybody who reaches the pods.
    Everywhere,
}

/// Labels and annotations for the pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = Rule::new("!self.exists(k, k.startsWith('rqlite.dev/'))").message("podMetadata.labels has a key of rqlite.dev/, which only the operator sets: remove it"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = Rule::new("!self.exists(k, k.startsWith('rqlite.dev/'))").message("podMetadata.annotations has a key of rqlite.dev/, which only the operator sets: remove it"))]
    pub annotations: BTreeMap<String, String>,
}
