//! What users add to the pods: volumes, containers, DNS settings, and who the processes run as.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, HostAlias, PodDNSConfig, SELinuxOptions, Volume, VolumeMount,
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Additions to the pods of both pools. What the operator's safety depends on cannot be changed: the
/// containers prepare and rqlited, their command lines and ports, and the volumes data, cluster and tmp.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// Additional volumes; at most 16. The names data, cluster and tmp are the operator's. The claims of the
    /// cluster's nodes are refused. Pods of backups and drills have those that the nodes mount and that are
    /// ConfigMaps, Secrets, emptyDir, or projected without a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("!self.exists(v, v.name in ['data', 'cluster', 'tmp'])").message("pods.volumes has a volume named data, cluster or tmp, which are the operator's: choose another name"))]
    pub volumes: Vec<Volume>,
    /// Where the node's container mounts additional volumes; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("!self.exists(m, m.name in ['data', 'cluster', 'tmp'])").message("pods.volumeMounts mounts data, cluster or tmp, which the operator mounts itself: mount volumes of pods.volumes only"))]
    #[x_kube(validation = Rule::new("!self.exists(m, m.mountPath in ['/', '/rqlite', '/tmp', '/etc/rqlite-cluster'] || m.mountPath.startsWith('/rqlite/') || m.mountPath.startsWith('/tmp/') || m.mountPath.startsWith('/etc/rqlite-cluster/'))").message("pods.volumeMounts has a mountPath at or below /rqlite, /tmp or /etc/rqlite-cluster, which the node needs: choose another path, such as /certificates"))]
    pub volume_mounts: Vec<VolumeMount>,
    /// Sources of additional environment variables of the nodes; at most 16. For single variables, see
    /// config.extraEnv.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvFromSource>,
    /// Additional init containers; at most 8. They run after the operator's own, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("!self.exists(c, c.name in ['rqlited', 'prepare'])").message("pods.initContainers has a container named rqlited or prepare, which are the operator's: choose another name"))]
    pub init_containers: Vec<Container>,
    /// Additional containers; at most 8. A container without a securityContext gets the one of the restricted
    /// Pod Security standard. Of the operator's volumes they may mount data only, and that read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("!self.exists(c, c.name in ['rqlited', 'prepare'])").message("pods.sidecars has a container named rqlited or prepare, which are the operator's: choose another name"))]
    pub sidecars: Vec<Container>,
    /// RuntimeClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// Scheduler of the pods. Defaults to Kubernetes' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub scheduler_name: Option<String>,
    /// Additional lines of /etc/hosts; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub host_aliases: Vec<HostAlias>,
    /// ClusterFirst, or None, for which dnsConfig must name servers that know the Kubernetes cluster's
    /// names: the nodes find each other by them. Defaults to ClusterFirst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_policy: Option<DnsPolicy>,
    /// DNS settings of the pods, merged with those of dnsPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<PodDNSConfig>,
    /// Annotations of the ServiceAccount that the operator creates; at most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub service_account_annotations: BTreeMap<String, String>,
}

/// How pods resolve names.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsPolicy {
    /// By the Kubernetes cluster's DNS.
    ClusterFirst,
    /// As dnsConfig says.
    None,
}

impl DnsPolicy {
    /// Kubernetes' spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterFirst => "ClusterFirst",
            Self::None => "None",
        }
    }
}

/// Who the processes in the pods run as. All else of the restricted Pod Security standard always holds: no
/// root, no privileges, a read-only root file system, the runtime's seccomp profile.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.identity) && self.identity == 'Platform' && (has(self.runAsUser) || has(self.runAsGroup) || has(self.fsGroup)))").message("with podSecurity.identity Platform, the platform chooses user and groups: remove runAsUser, runAsGroup and fsGroup, or set identity to Fixed"))]
pub struct PodSecurity {
    /// Fixed (the user and groups given here) or Platform (none are given, because the platform assigns them,
    /// as OpenShift does with restricted-v2). Defaults to Platform on OpenShift, else to Fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// User of the processes. Defaults to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,
    /// Group of the processes. Defaults to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub run_as_group: Option<i64>,
    /// Group to which the volumes belong. Defaults to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub fs_group: Option<i64>,
    /// Additional groups of the processes; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(range(min = 0, max = 2_147_483_647)))]
    pub supplemental_groups: Vec<i64>,
    /// SELinux labels of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub se_linux_options: Option<SELinuxOptions>,
}

/// Who chooses the user and groups of the processes.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// The spec, or the operator's defaults.
    Fixed,
    /// The platform.
    Platform,
}

/// A service mesh whose sidecars the pods get.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceMesh {
    /// Istio with sidecars.
    Istio,
    /// Linkerd.
    Linkerd,
}
