//! The Kubernetes objects of one cluster as the API server has them: the input of an observation, and what is
//! compared before objects are applied.
use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{
            ConfigMap, ContainerStatus, Node, PersistentVolume, PersistentVolumeClaim, Pod,
            PodStatus, Service, ServiceAccount,
        },
        events::v1::Event,
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    jiff::Timestamp,
};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use operator_api::{RqliteBackup, RqliteCluster, RqliteRecovery, RqliteRestore, names};
use serde::de::DeserializeOwned;

use crate::{
    cluster::facts::{
        observation::RestoreSource,
        own_pods::{self, Controller, KnownSet, Ownership, PodIdentity},
        ownership::is_ours,
    },
    error::Error,
};

/// All objects with the cluster's label in its namespace, and the Kubernetes nodes and storage classes as far
/// as they can be read.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// StatefulSets of both pools.
    pub sets: Vec<Arc<StatefulSet>>,
    /// Pods of both pools: those that the cluster's own StatefulSets made.
    pub pods: Vec<Arc<Pod>>,
    /// Names of pods that carry the cluster's label and are not its own.
    pub strays: Vec<String>,
    /// Claims of both pools.
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
    /// ConfigMaps: the state file, and the plan of a recovery.
    pub maps: Vec<Arc<ConfigMap>>,
    /// Services.
    pub services: Vec<Arc<Service>>,
    /// The pods' ServiceAccount.
    pub accounts: Vec<Arc<ServiceAccount>>,
    /// NetworkPolicies.
    pub policies: Vec<Arc<NetworkPolicy>>,
    /// PodDisruptionBudgets.
    pub budgets: Vec<Arc<PodDisruptionBudget>>,
    /// RqliteRecoveries that refer to this cluster.
    pub recoveries: Vec<Arc<RqliteRecovery>>,
    /// RqliteRestores that refer to this cluster.
    pub restores: Vec<Arc<RqliteRestore>>,
    /// The object that a new cluster begins with, where its spec names one.
    pub restore_source: Option<RestoreSource>,
    /// Names of cordoned Kubernetes nodes.
    pub cordoned: Vec<String>,
    /// Host name label of every Kubernetes node, by name; None without permission to read nodes.
    pub host_names: Option<BTreeMap<String, String>>,
    /// Volumes that the claims refer to, by name; None if the volume does not exist. Volumes that could not
    /// be read are absent.
    pub volumes: BTreeMap<String, Option<Arc<PersistentVolume>>>,
    /// StorageClasses by name: whether volumes can be expanded.
    pub expandable: BTreeMap<String, bool>,
    /// Names of the default StorageClasses; None without permission to read classes.
    pub default_classes: Option<Vec<String>>,
    /// Events about objects that do not start ([`crate::evidence`]); empty until they are read.
    pub events: Vec<Event>,
}

/// Finds an object by name.
pub fn named<'a, K: Resource>(all: &'a [Arc<K>], name: &str) -> Option<&'a Arc<K>> {
    all.iter().find(|o| o.meta().name.as_deref() == Some(name))
}

/// Taints that announce that a Kubernetes node is about to be removed, by what sets them.
const LEAVING_TAINTS: [&str; 10] = [
    // kubectl cordon and drain
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/out-of-service",
    // cluster-autoscaler
    "ToBeDeletedByClusterAutoscaler",
    // Karpenter, since version 1 and before
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    // The cloud's controller: the machine was stopped
    "node.cloudprovider.kubernetes.io/shutdown",
    // Spot machines and maintenance on AWS and Google Cloud
    "aws-node-termination-handler/spot-itn",
    "aws-node-termination-handler/scheduled-maintenance",
    "aws-node-termination-handler/asg-lifecycle-termination",
    "cloud.google.com/impending-node-termination",
];

/// Whether a Kubernetes node is cordoned, or about to be removed.
pub fn is_cordoned(node: &Node) -> bool {
    let Some(spec) = &node.spec else {
        return false;
    };
    let mut taints = spec.taints.iter().flatten();
    spec.unschedulable == Some(true)
        || taints.any(|taint| LEAVING_TAINTS.contains(&taint.key.as_str()))
}

/// The host name label of a Kubernetes node, by which volumes refer to it.
pub fn host_name(node: &Node) -> String {
    let label = node.labels().get("kubernetes.io/hostname");
    label.cloned().unwrap_or_else(|| node.name_any())
}

/// Names of the volumes that these claims refer to.
pub fn volume_names(claims: &[Arc<PersistentVolumeClaim>]) -> impl Iterator<Item = &String> {
    claims
        .iter()
        .filter_map(|claim| claim.spec.as_ref()?.volume_name.as_ref())
}

/// Reads a volume: `Some(None)` if it does not exist, `None` if it could not be read.
pub async fn look_up(client: &Client, name: &str) -> Option<Option<Arc<PersistentVolume>>> {
    let api: Api<PersistentVolume> = Api::all(client.clone());
    api.get_opt(name)
        .await
        .ok()
        .map(|volume| volume.map(Arc::new))
}

/// Whether volumes of this class can be expanded.
pub fn may_grow(class: &StorageClass) -> bool {
    class.allow_volume_expansion == Some(true)
}

/// Names of the default classes.
pub fn defaults<'a>(classes: impl IntoIterator<Item = &'a StorageClass>) -> Vec<String> {
    let is_default = |class: &&StorageClass| {
        let mark = class
            .annotations()
            .get("storageclass.kubernetes.io/is-default-class");
        mark.is_some_and(|value| value == "true")
    };
    let all = classes.into_iter().filter(is_default);
    all.map(ResourceExt::name_any).collect()
}

/// The pods of a StatefulSet that are not being deleted.
pub fn pods_of<'a>(live: &'a Live, set: &StatefulSet) -> impl Iterator<Item = &'a Arc<Pod>> {
    let name = set.name_any();
    live.pods.iter().filter(move |pod| {
        pod.metadata.deletion_timestamp.is_none()
            && names::ordinal(&name, &pod.name_any()).is_some()
    })
}

/// The status of every container of a pod, init containers first.
pub fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
}

/// Whether a recovery refers to this cluster.
pub fn refers_to(recovery: &RqliteRecovery, cluster: &str) -> bool {
    recovery.spec.cluster_ref.name == cluster
}

/// The RqliteRestores that refer to a cluster, from the API server. None where the definition or the
/// permission is missing, as after an upgrade of the operator alone.
pub async fn restores_of(
    client: &Client,
    namespace: &str,
    cluster: &str,
) -> Vec<Arc<RqliteRestore>> {
    let api: Api<RqliteRestore> = Api::namespaced(client.clone(), namespace);
    let all = api.list(&ListParams::default()).await;
    let all = all.map(|list| list.items).unwrap_or_else(|error| {
        tracing::debug!("listing RqliteRestores: {error}");
        Vec::new()
    });
    let of_cluster = all.into_iter();
    let of_cluster = of_cluster.filter(|restore| restore.spec.cluster_ref.name == cluster);
    of_cluster.map(Arc::new).collect()
}

/// Reads the backup or the cluster that a new cluster begins with; None if its spec names none, or it has
/// formed.
pub async fn restore_source(client: &Client, cluster: &RqliteCluster) -> Option<RestoreSource> {
    let status = cluster.status.as_ref();
    if status.is_some_and(|status| status.bootstrapped_at.is_some()) {
        return None;
    }
    let asked = cluster.spec.bootstrap.as_ref()?.restore.as_ref()?;
    let namespace = cluster.namespace()?;
    let found = if let Some(backup) = &asked.backup {
        let api: Api<RqliteBackup> = Api::namespaced(client.clone(), &namespace);
        let found = api.get_opt(&backup.name).await;
        found.map(|found| RestoreSource::Backup {
            found: found.map(Box::new),
        })
    } else {
        let name = asked.archive.as_ref()?.cluster.as_ref()?;
        let api: Api<RqliteCluster> = Api::namespaced(client.clone(), &namespace);
        let found = api.get_opt(name).await;
        found.map(|found| RestoreSource::Cluster {
            found: found.map(Box::new),
        })
    };
    Some(found.unwrap_or_else(|error| RestoreSource::Unread {
        why: error.to_string(),
    }))
}

impl Live {
    /// Drops the objects that the cluster with this uid does not own, whatever their labels say. Pods and
    /// claims stay: they have other owners.
    pub fn retain_own(&mut self, uid: &str) {
        fn own<K: Resource>(all: &mut Vec<Arc<K>>, uid: &str) {
            all.retain(|object| is_ours(object.meta(), uid));
        }
        own(&mut self.sets, uid);
        own(&mut self.maps, uid);
        own(&mut self.services, uid);
        own(&mut self.accounts, uid);
        own(&mut self.policies, uid);
        own(&mut self.budgets, uid);
    }

    /// Reads all objects except events from the API server, without caches.
    ///
    /// # Errors
    /// The first kind that cannot be read. Nodes, classes and volumes that cannot be read are left out.
    pub async fn read(client: &Client, cluster: &RqliteCluster) -> Result<Self, Error> {
        let namespace = cluster.namespace().unwrap_or_default();
        let name = cluster.name_any();
        let label = format!("{}={name}", names::CLUSTER_LABEL);
        let recoveries: Api<RqliteRecovery> = Api::namespaced(client.clone(), &namespace);
        let recoveries = recoveries
            .list(&ListParams::default())
            .await
            .map_err(Error::kubernetes("listing RqliteRecoveries"))?;
        let recoveries = recoveries.items.into_iter().filter(|r| refers_to(r, &name));
        let restores = restores_of(client, &namespace, &name).await;
        let nodes: Api<Node> = Api::all(client.clone());
        let nodes = nodes
            .list(&ListParams::default())
            .await
            .ok()
            .map(|list| list.items);
        let classes: Api<StorageClass> = Api::all(client.clone());
        let classes = classes.list(&ListParams::default()).await;
        let classes = classes.ok().map(|list| list.items);
        let claims = list(client, &namespace, &label).await?;
        let mut volumes = BTreeMap::new();
        for name in volume_names(&claims) {
            if let Some(found) = look_up(client, name).await {
                volumes.insert(name.clone(), found);
            }
        }
        let host_names = nodes.as_ref().map(|nodes| {
            let nodes = nodes.iter();
            nodes
                .map(|node| (node.name_any(), host_name(node)))
                .collect()
        });
        let mut live = Self {
            claims,
            volumes,
            host_names,
            sets: list(client, &namespace, &label).await?,
            pods: list(client, &namespace, &label).await?,
            strays: Vec::new(),
            maps: list(client, &namespace, &label).await?,
            services: list(client, &namespace, &label).await?,
            accounts: list(client, &namespace, &label).await?,
            policies: list(client, &namespace, &label).await?,
            budgets: list(client, &namespace, &label).await?,
            recoveries: recoveries.map(Arc::new).collect(),
            restores,
            restore_source: restore_source(client, cluster).await,
            cordoned: nodes
                .into_iter()
                .flatten()
                .filter(is_cordoned)
                .map(|node| node.name_any())
                .collect(),
            default_classes: classes.as_ref().map(defaults),
            expandable: classes
                .into_iter()
                .flatten()
                .map(|class| (class.name_any(), may_grow(&class)))
                .collect(),
            events: Vec::new(),
        };
        live.disown(cluster);
        live.retain_own(&cluster.uid().unwrap_or_default());
        Ok(live)
    }

    /// Moves pods that only carry the cluster's label to `strays`: nothing may be concluded from them.
    pub fn disown(&mut self, cluster: &RqliteCluster) {
        let name = cluster.name_any();
        let sets: Vec<KnownSet> = [names::voters(&name), names::readers(&name)]
            .iter()
            .filter_map(|set| known_set(cluster, named(&self.sets, set)?))
            .collect();
        let status = cluster.status.as_ref();
        let now = Timestamp::now().as_second();
        let mut strays = Vec::new();
        self.pods.retain(|pod| {
            let age = created(&**pod).map(|at| now - at);
            let kind = own_pods::of_pod(&identity(pod, age), &name, &sets, status);
            if kind == Ownership::Stray {
                strays.push(pod.name_any());
            }
            kind == Ownership::Own
        });
        strays.sort();
        self.strays = strays;
    }
}

fn known_set(cluster: &RqliteCluster, set: &StatefulSet) -> Option<KnownSet> {
    Some(KnownSet {
        uid: set.uid()?,
        is_own: is_ours(set.meta(), cluster.metadata.uid.as_deref()?),
        is_deleting: set.metadata.deletion_timestamp.is_some(),
        name: set.name_any(),
    })
}

fn identity(pod: &Pod, age_seconds: Option<i64>) -> PodIdentity<'_> {
    PodIdentity {
        name: pod.metadata.name.as_deref().unwrap_or_default(),
        uid: pod.metadata.uid.as_deref().unwrap_or_default(),
        controller: controller(pod).map(|owner| Controller {
            is_stateful_set: owner.kind == "StatefulSet" && owner.api_version.starts_with("apps/"),
            name: &owner.name,
            uid: &owner.uid,
        }),
        age_seconds,
    }
}

/// The controller of an object, from its owner references.
pub fn controller<K: Resource>(object: &K) -> Option<&OwnerReference> {
    let mut owners = object.meta().owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true))
}

/// When an object was created, in Unix seconds.
pub fn created<K: Resource>(object: &K) -> Option<i64> {
    let created = object.meta().creation_timestamp.as_ref();
    created.map(|time| time.0.as_second())
}

async fn list<K>(client: &Client, namespace: &str, label: &str) -> Result<Vec<Arc<K>>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let all = api
        .list(&ListParams::default().labels(label))
        .await
        .map_err(Error::kubernetes(format!("listing {}s", K::kind(&()))))?;
    Ok(all.items.into_iter().map(Arc::new).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn machines_that_are_about_to_leave() {
        let leaves = |spec| {
            let node = json!({"metadata": {"name": "m"}, "spec": spec});
            is_cordoned(&serde_json::from_value(node).unwrap())
        };
        let taint = |key: &str| json!({"taints": [{"key": key, "effect": "NoSchedule"}]});
        assert!(leaves(json!({"unschedulable": true})));
        assert!(leaves(taint("ToBeDeletedByClusterAutoscaler")));
        assert!(leaves(taint("karpenter.sh/disrupted")));
        assert!(!leaves(taint("node-role.kubernetes.io/control-plane")));
        assert!(!leaves(taint("dedicated")));
        assert!(!leaves(json!({})));
    }
}
