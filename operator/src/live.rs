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
};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use operator_api::{RqliteCluster, RqliteRecovery, names};
use serde::de::DeserializeOwned;

use crate::error::Error;

/// All objects with the cluster's label in its namespace, and what is known of Kubernetes nodes and storage
/// classes.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// StatefulSets of both pools.
    pub sets: Vec<Arc<StatefulSet>>,
    /// Pods of both pools.
    pub pods: Vec<Arc<Pod>>,
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

/// Whether a Kubernetes node is cordoned.
pub fn is_cordoned(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    spec.is_some_and(|spec| spec.unschedulable == Some(true))
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

impl Live {
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
        Ok(Self {
            claims,
            volumes,
            host_names,
            sets: list(client, &namespace, &label).await?,
            pods: list(client, &namespace, &label).await?,
            maps: list(client, &namespace, &label).await?,
            services: list(client, &namespace, &label).await?,
            accounts: list(client, &namespace, &label).await?,
            policies: list(client, &namespace, &label).await?,
            budgets: list(client, &namespace, &label).await?,
            recoveries: recoveries.map(Arc::new).collect(),
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
        })
    }
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
