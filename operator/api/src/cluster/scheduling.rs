//! Where pods run, and the pool of read replicas.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::storage::ReadStorage;

/// Where pods may run. Unless given, pods of one pool avoid sharing a machine and are spread over zones, where possible.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Whether two pods of a pool may share a machine: Required (never; a pod without a machine of its own waits), Preferred (only if
    /// there is no other) or None. Preferred unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anti_affinity: Option<AntiAffinity>,
    /// Labels that a machine must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Rules of affinity; a podAntiAffinity given here replaces the one that antiAffinity makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How pods are spread; at most 8. Replaces the spreading over zones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
}

/// Whether pods of one pool may share a machine.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum AntiAffinity {
    /// Never.
    Required,
    /// Only if there is no other machine.
    #[default]
    Preferred,
    /// Freely.
    None,
}

/// A pool of nodes that serve reads and do not vote.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(self.autoscaled && has(self.replicas))").message("with autoscaled, the autoscaler sets the number of read replicas: remove readReplicas.replicas, or set autoscaled to false"))]
pub struct ReadReplicas {
    /// Number of read replicas, from 0 to 50; 0 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50))]
    pub replicas: Option<i32>,
    /// Leave the number to a HorizontalPodAutoscaler that scales the StatefulSet <name>-ro; false unless given.
    #[serde(default)]
    pub autoscaled: bool,
    /// Count a read replica as ready although it knows no leader, so that it goes on serving old data; false unless given.
    #[serde(default)]
    pub serve_stale: bool,
    /// CPU and memory of each read replica; the voters' unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// The volume of each read replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<ReadStorage>,
    /// Where they may run; as the voters unless given. Replaces the voters' scheduling as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
}
