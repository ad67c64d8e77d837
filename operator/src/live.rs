//! The objects around one cluster as the API server has them: what an observation is made of and what is compared before anything is applied.
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

/// All objects with the cluster's label in its namespace, and what is known of machines and classes.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// StatefulSets of both pools.
    pub sets: Vec<Arc<StatefulSet>>,
    /// Pods of both pools.
    pub pods: Vec<Arc<Pod>>,
    /// Claims of both pools.
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
    /// The state file, and a recovery's plan.
    pub maps: Vec<Arc<ConfigMap>>,
    /// Services.
    pub services: Vec<Arc<Service>>,
    /// The pods' account.
    pub accounts: Vec<Arc<ServiceAccount>>,
    /// Who may connect.
    pub policies: Vec<Arc<NetworkPolicy>>,
    /// Budgets for evictions.
    pub budgets: Vec<Arc<PodDisruptionBudget>>,
    /// Recoveries that name this cluster.
    pub recoveries: Vec<Arc<RqliteRecovery>>,
    /// Machines that take no new pods.
    pub cordoned: Vec<String>,
    /// The host name label of every machine, by name; None if machines may not be read.
    pub machines: Option<BTreeMap<String, String>>,
    /// Volumes that claims name; a name without a volume is one that was looked for and is not there. Those that could not be read are absent.
    pub volumes: BTreeMap<String, Option<Arc<PersistentVolume>>>,
    /// StorageClasses by name: may volumes grow?
    pub expandable: BTreeMap<String, bool>,
    /// Those of them that are the default; None if classes may not be read.
    pub default_classes: Option<Vec<String>>,
    /// Events about what does not start.
    pub events: Vec<Event>,
}

/// One by name.
pub fn named<'a, K: Resource>(all: &'a [Arc<K>], name: &str) -> Option<&'a Arc<K>> {
    all.iter().find(|o| o.meta().name.as_deref() == Some(name))
}

/// Does this machine take no new pods?
pub fn is_cordoned(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    spec.is_some_and(|spec| spec.unschedulable == Some(true))
}

/// The label by which volumes name a machine.
pub fn host_name(node: &Node) -> String {
    let label = node.labels().get("kubernetes.io/hostname");
    label.cloned().unwrap_or_else(|| node.name_any())
}

/// The volumes that claims name.
pub fn volume_names(claims: &[Arc<PersistentVolumeClaim>]) -> impl Iterator<Item = &String> {
    claims
        .iter()
        .filter_map(|claim| claim.spec.as_ref()?.volume_name.as_ref())
}

/// Looks a volume up; None if that was not possible.
pub async fn look_up(client: &Client, name: &str) -> Option<Option<Arc<PersistentVolume>>> {
    let api: Api<PersistentVolume> = Api::all(client.clone());
    api.get_opt(name)
        .await
        .ok()
        .map(|volume| volume.map(Arc::new))
}

/// May volumes of this class grow?
pub fn may_grow(class: &StorageClass) -> bool {
    class.allow_volume_expansion == Some(true)
}

/// Names of the classes that are for claims which name none.
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

/// The pods of a StatefulSet that are not on their way out.
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

/// Does a recovery concern this cluster?
pub fn concerns(recovery: &RqliteRecovery, cluster: &str) -> bool {
    recovery.spec.cluster_ref.name == cluster
}

impl Live {
    /// Reads everything from the API server, for one look without caches.
    ///
    /// # Errors
    /// What cannot be read. Machines and classes are left out if they cannot.
    pub async fn read(client: &Client, cluster: &RqliteCluster) -> Result<Self, Error> {
        let namespace = cluster.namespace().unwrap_or_default();
        let name = cluster.name_any();
        let label = format!("{}={name}", names::CLUSTER_LABEL);
        let recoveries: Api<RqliteRecovery> = Api::namespaced(client.clone(), &namespace);
        let recoveries = recoveries
            .list(&ListParams::default())
            .await
            .map_err(Error::kubernetes("listing RqliteRecoveries"))?;
        let recoveries = recoveries.items.into_iter().filter(|r| concerns(r, &name));
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
        let machines = nodes.as_ref().map(|nodes| {
            let nodes = nodes.iter();
            nodes
                .map(|node| (node.name_any(), host_name(node)))
                .collect()
        });
        Ok(Self {
            claims,
            volumes,
            machines,
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
