//! Scheduling of pods, and the pool of read replicas.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::storage::ReadStorage;

/// Where pods may run. By default, pods of one pool avoid sharing a Kubernetes node and are spread over
/// zones, where possible.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Whether two pods of a pool may share a Kubernetes node: Required (never; a pod waits until a node is
    /// free), Preferred (only if there is no other node) or None (no restriction). Defaults to Preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anti_affinity: Option<AntiAffinity>,
    /// Labels that a Kubernetes node must have; at most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Affinity rules. A podAntiAffinity given here replaces the one that antiAffinity generates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Topology spread constraints; at most 8. They replace the default spread over zones. One without a
    /// labelSelector counts the pods of the pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Label of Kubernetes nodes whose values are zones, over which pods are spread. Defaults to
    /// topology.kubernetes.io/zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub zone_key: Option<String>,
    /// Label of Kubernetes nodes whose values are failure domains that antiAffinity keeps pods apart in, such
    /// as racks. Defaults to kubernetes.io/hostname.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub host_key: Option<String>,
    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
}

/// Whether pods of one pool may share a Kubernetes node.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum AntiAffinity {
    /// Never.
    Required,
    /// Only if there is no other Kubernetes node.
    #[default]
    Preferred,
    /// No restriction.
    None,
}

/// The pool of nodes that serve reads and do not vote.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(self.autoscaled && has(self.replicas))").message("with autoscaled, the autoscaler sets the number of read replicas: remove readReplicas.replicas, or set autoscaled to false"))]
pub struct ReadReplicas {
    /// Number of read replicas, from 0 to 50. Defaults to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50))]
    pub replicas: Option<i32>,
    /// Whether the number is left to a HorizontalPodAutoscaler that scales the StatefulSet <name>-ro.
    /// Defaults to false.
    #[serde(default)]
    pub autoscaled: bool,
    /// Whether a read replica that knows no leader counts as ready and continues to serve stale data.
    /// Defaults to false.
    #[serde(default)]
    pub serve_stale: bool,
    /// CPU and memory of each read replica. Defaults to those of the voters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// The volume of each read replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<ReadStorage>,
    /// Scheduling of the read replicas; replaces the voters' scheduling as a whole. Defaults to the voters'
    /// scheduling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
}
