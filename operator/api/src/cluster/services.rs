//! The Services in front of the nodes.
use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The Services in front of the nodes. A headless Service for the nodes themselves always exists.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.client) || self.client.enabled").message("services.client cannot be disabled: it is the address of the cluster; leave its type ClusterIP to keep it inside the Kubernetes cluster"))]
pub struct Services {
    /// Service <name>-client: all voters that are ready. A voter forwards writes to the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ServiceSettings>,
    /// Service <name>-leader: only the leader, as soon as the operator has observed it. It saves a hop and is
    /// not a guarantee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<ServiceSettings>,
    /// Service <name>-read: the read replicas that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<ServiceSettings>,
    /// Labels and annotations of the headless Service <name>-headless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headless: Option<ServiceMetadata>,
    /// IP families of all Services, also of the headless one, by whose names the nodes find each other.
    /// SingleStack, PreferDualStack or RequireDualStack. Defaults to SingleStack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// IP families of all Services, the preferred one first: IPv4, IPv6 or both. Kubernetes does not let the
    /// first one of an existing Service change. Defaults to the Kubernetes cluster's families.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(validation = Rule::new("self.size() < 2 || self[0] != self[1]").message("ipFamilies names a family twice: name each family once"))]
    pub ip_families: Vec<IpFamily>,
}

/// Labels and annotations of a Service.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMetadata {
    /// Annotations; at most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// Labels; at most 64. Keys that the operator sets itself keep the operator's value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
}

/// Settings of one Service, with the names that Kubernetes gives them.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.type) && self.type == 'LoadBalancer') || !(has(self.loadBalancerClass) || has(self.loadBalancerSourceRanges) || has(self.allocateLoadBalancerNodePorts) || has(self.healthCheckNodePort))").message("loadBalancerClass, loadBalancerSourceRanges, allocateLoadBalancerNodePorts and healthCheckNodePort need type LoadBalancer: set type, or remove them"),
    validation = Rule::new("(has(self.type) && self.type != 'ClusterIP') || !(has(self.nodePort) || has(self.externalTrafficPolicy))").message("nodePort and externalTrafficPolicy need type NodePort or LoadBalancer: set type, or remove them"),
    validation = Rule::new("!has(self.healthCheckNodePort) || (has(self.externalTrafficPolicy) && self.externalTrafficPolicy == 'Local')").message("healthCheckNodePort needs externalTrafficPolicy Local: set it, or remove healthCheckNodePort"),
    validation = Rule::new("!has(self.sessionAffinitySeconds) || (has(self.sessionAffinity) && self.sessionAffinity == 'ClientIP')").message("sessionAffinitySeconds needs sessionAffinity ClientIP: set it, or remove sessionAffinitySeconds")
)]
pub struct ServiceSettings {
    /// Whether the Service exists. Defaults to true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// ClusterIP, NodePort or LoadBalancer. Defaults to ClusterIP.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub kind: Option<ServiceKind>,
    /// Port of the Service. Defaults to 4001.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Port on every Kubernetes node, for the types NodePort and LoadBalancer. Defaults to one that
    /// Kubernetes chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,
    /// Annotations of the Service, such as load balancer settings; at most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// Labels of the Service; at most 64. Keys that the operator sets itself keep the operator's value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Which load balancer implementation serves it. Kubernetes does not let it change while the type is
    /// LoadBalancer. Defaults to the Kubernetes cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub load_balancer_class: Option<String>,
    /// Client networks that the load balancer admits, such as 10.0.0.0/8; at most 64. Defaults to all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub load_balancer_source_ranges: Vec<String>,
    /// Whether Kubernetes reserves node ports for the load balancer. Defaults to true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// Port on every Kubernetes node at which a load balancer asks whether the node has a ready pod.
    /// Defaults to one that Kubernetes chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub health_check_node_port: Option<i32>,
    /// Cluster (any Kubernetes node passes traffic on) or Local (only nodes with a pod do, which keeps the
    /// client's address). Defaults to Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// Cluster (any pod) or Local (only pods on the client's Kubernetes node). Defaults to Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<TrafficPolicy>,
    /// Which pods are preferred, such as PreferClose. Defaults to no preference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub traffic_distribution: Option<String>,
    /// ClientIP (a client stays with its pod) or None. Defaults to None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
    /// For how many seconds a client stays with its pod. Defaults to 10800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub session_affinity_seconds: Option<i32>,
    /// SingleStack, PreferDualStack or RequireDualStack. Defaults to services.ipFamilyPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// IP families, the preferred one first. Defaults to services.ipFamilies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(validation = Rule::new("self.size() < 2 || self[0] != self[1]").message("ipFamilies names a family twice: name each family once"))]
    pub ip_families: Vec<IpFamily>,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            enabled: yes(),
            kind: None,
            port: None,
            node_port: None,
            annotations: BTreeMap::new(),
            labels: BTreeMap::new(),
            load_balancer_class: None,
            load_balancer_source_ranges: Vec::new(),
            allocate_load_balancer_node_ports: None,
            health_check_node_port: None,
            external_traffic_policy: None,
            internal_traffic_policy: None,
            traffic_distribution: None,
            session_affinity: None,
            session_affinity_seconds: None,
            ip_family_policy: None,
            ip_families: Vec::new(),
        }
    }
}

fn yes() -> bool {
    true
}

/// Declares an enum of names that Kubernetes knows, with their spelling.
macro_rules! spelled {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Kubernetes' spelling.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

spelled! {
    /// Type of a Service.
    ServiceKind {
        /// Reachable within the Kubernetes cluster.
        ClusterIP = "ClusterIP",
        /// Reachable at a port of every Kubernetes node.
        NodePort = "NodePort",
        /// Reachable through the cloud provider's load balancer.
        LoadBalancer = "LoadBalancer",
    }
}

spelled! {
    /// Which pods a Kubernetes node passes traffic to.
    TrafficPolicy {
        /// All pods.
        Cluster = "Cluster",
        /// Pods on the same Kubernetes node.
        Local = "Local",
    }
}

spelled! {
    /// Whether a client stays with its pod.
    SessionAffinity {
        /// It does, by its address.
        ClientIp = "ClientIP",
        /// It does not.
        None = "None",
    }
}

spelled! {
    /// How many IP families a Service has.
    IpFamilyPolicy {
        /// One.
        SingleStack = "SingleStack",
        /// Two, where the Kubernetes cluster has two.
        PreferDualStack = "PreferDualStack",
        /// Two, or the Service is refused.
        RequireDualStack = "RequireDualStack",
    }
}

spelled! {
    /// An IP family.
    IpFamily {
        /// IPv4.
        V4 = "IPv4",
        /// IPv6.
        V6 = "IPv6",
    }
}
