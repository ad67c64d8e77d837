//! Watches and caches of the API server's objects, and the triggers of reconciles. One set for each watched
//! namespace, or one for all namespaces.
mod watch_errors;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt, stream::BoxStream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{
            ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount,
        },
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        storage::v1::StorageClass,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use operator_api::{RqliteCluster, RqliteRecovery, RqliteRestore, names};
use serde::de::DeserializeOwned;

use crate::{
    caches::watch_errors::WatchErrors,
    error::Error,
    evidence,
    live::{
        self, Live, controller, defaults, host_name, is_cordoned, look_up, may_grow, refers_to,
        volume_names,
    },
};

/// A cluster, or the error if it cannot be parsed: one invalid object must not block the others.
pub type Guarded = DeserializeGuard<RqliteCluster>;
/// A recovery, or the error if it cannot be parsed.
pub type GuardedRecovery = DeserializeGuard<RqliteRecovery>;
/// A restore, or the error if it cannot be parsed.
pub type GuardedRestore = DeserializeGuard<RqliteRestore>;
/// Reference to a cluster that is to be reconciled.
pub type ClusterRef = ObjectRef<Guarded>;
/// Stream of clusters that are to be reconciled.
pub type Triggers = BoxStream<'static, ClusterRef>;

/// How long a reconcile waits for the initial list of a watch.
const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// The namespaces that one controller watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All namespaces.
    Everywhere,
    /// One namespace.
    Namespace(String),
}

impl Scope {
    /// API of the objects of a kind.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self {
            Self::Everywhere => Api::all(client.clone()),
            Self::Namespace(name) => Api::namespaced(client.clone(), name),
        }
    }
}

/// Cached objects of one scope.
#[derive(Clone, Debug)]
pub struct Caches {
    sets: Store<StatefulSet>,
    pods: Store<Pod>,
    claims: Store<PersistentVolumeClaim>,
    maps: Store<ConfigMap>,
    services: Store<Service>,
    accounts: Store<ServiceAccount>,
    policies: Store<NetworkPolicy>,
    budgets: Store<PodDisruptionBudget>,
    recoveries: Store<GuardedRecovery>,
    restores: Store<GuardedRestore>,
    cluster_scoped: ClusterScopedCaches,
    events: Arc<evidence::Known>,
}

/// Caches of cluster-scoped objects. A cache is absent if the operator has no permission to read its kind.
#[derive(Clone, Debug, Default)]
pub struct ClusterScopedCaches {
    nodes: Option<Store<Node>>,
    classes: Option<Store<StorageClass>>,
    volumes: Option<Store<PersistentVolume>>,
}

impl Caches {
    /// Starts the watches. The streams must be polled for the caches to fill.
    pub fn start(
        client: &Client,
        scope: &Scope,
        cluster_scoped: ClusterScopedCaches,
    ) -> (Self, Vec<Triggers>) {
        let mut triggers = Vec::new();
        let sets = labelled(client, scope, &mut triggers);
        let pods = labelled(client, scope, &mut triggers);
        let claims = labelled(client, scope, &mut triggers);
        let maps = labelled(client, scope, &mut triggers);
        let services = labelled(client, scope, &mut triggers);
        let accounts = labelled(client, scope, &mut triggers);
        let policies = labelled(client, scope, &mut triggers);
        let budgets = labelled(client, scope, &mut triggers);
        let (recoveries, stream) = watch(scope.api(client), watcher::Config::default());
        triggers.push(to_clusters(stream, |recovery: GuardedRecovery| {
            let namespace = recovery.namespace()?;
            let name = recovery.0.ok()?.spec.cluster_ref.name;
            Some(ObjectRef::new(&name).within(&namespace))
        }));
        let (restores, stream) = watch(scope.api(client), watcher::Config::default());
        triggers.push(to_clusters(stream, |restore: GuardedRestore| {
            let namespace = restore.namespace()?;
            let name = restore.0.ok()?.spec.cluster_ref.name;
            Some(ObjectRef::new(&name).within(&namespace))
        }));
        let caches = Self {
            sets,
            pods,
            claims,
            maps,
            services,
            accounts,
            policies,
            budgets,
            recoveries,
            restores,
            cluster_scoped,
            events: Arc::default(),
        };
        (caches, triggers)
    }

    /// Waits for the initial list of every watch. Without it, an object that is not yet cached would be taken
    /// for one that does not exist.
    ///
    /// # Errors
    /// The first kind whose list has not arrived in time.
    pub async fn wait(&self) -> Result<(), Error> {
        synced("StatefulSets", &self.sets).await?;
        synced("Pods", &self.pods).await?;
        synced("PersistentVolumeClaims", &self.claims).await?;
        synced("ConfigMaps", &self.maps).await?;
        synced("Services", &self.services).await?;
        synced("ServiceAccounts", &self.accounts).await?;
        synced("NetworkPolicies", &self.policies).await?;
        synced("PodDisruptionBudgets", &self.budgets).await?;
        synced("RqliteRecoveries", &self.recoveries).await
    }

    /// All objects of one cluster.
    pub async fn of(&self, client: &Client, cluster: &RqliteCluster) -> Live {
        let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
        let (namespace, name) = (namespace.as_str(), name.as_str());
        let recoveries = self.recoveries.state();
        let recoveries = recoveries
            .iter()
            .filter(|recovery| recovery.namespace().as_deref() == Some(namespace))
            .filter_map(|recovery| recovery.0.as_ref().ok())
            .filter(|recovery| refers_to(recovery, name));
        let claims = select(&self.claims, namespace, name);
        let nodes = self.cluster_scoped.nodes().await;
        let classes = self.cluster_scoped.classes().await;
        let mut live = Live {
            volumes: self.cluster_scoped.volumes_of(client, &claims).await,
            host_names: nodes.as_ref().map(|nodes| {
                let nodes = nodes.iter();
                nodes
                    .map(|node| (node.name_any(), host_name(node)))
                    .collect()
            }),
            sets: select(&self.sets, namespace, name),
            pods: select(&self.pods, namespace, name),
            strays: Vec::new(),
            claims,
            maps: select(&self.maps, namespace, name),
            services: select(&self.services, namespace, name),
            accounts: select(&self.accounts, namespace, name),
            policies: select(&self.policies, namespace, name),
            budgets: select(&self.budgets, namespace, name),
            recoveries: recoveries.cloned().map(Arc::new).collect(),
            restores: self.restores_of(client, namespace, name).await,
            restore_source: live::restore_source(client, cluster).await,
            cordoned: nodes
                .into_iter()
                .flatten()
                .filter(|node| is_cordoned(node))
                .map(|node| node.name_any())
                .collect(),
            default_classes: classes
                .as_ref()
                .map(|classes| defaults(classes.iter().map(|class| &**class))),
            expandable: classes
                .into_iter()
                .flatten()
                .map(|class| (class.name_any(), may_grow(&class)))
                .collect(),
            events: Vec::new(),
        };
        live.disown(cluster);
        live.retain_own(&cluster.uid().unwrap_or_default());
        live.events = evidence::read(client, namespace, &live, &self.events).await;
        live
    }

    /// The restores of a cluster. Their watch is not waited for: after an upgrade of the operator alone the
    /// definition may be missing, which must not block anything else.
    async fn restores_of(
        &self,
        client: &Client,
        namespace: &str,
        cluster: &str,
    ) -> Vec<Arc<RqliteRestore>> {
        let is_filled = self.restores.wait_until_ready().now_or_never();
        if !matches!(is_filled, Some(Ok(()))) {
            return live::restores_of(client, namespace, cluster).await;
        }
        let all = self.restores.state();
        let readable = all.iter().filter_map(|restore| {
            let of_namespace = restore.namespace().as_deref() == Some(namespace);
            restore.0.as_ref().ok().filter(|_| of_namespace)
        });
        let of_cluster = readable.filter(|restore| restore.spec.cluster_ref.name == cluster);
        of_cluster.cloned().map(Arc::new).collect()
    }

    /// Machines that are cordoned or about to be removed, as far as they are cached.
    pub fn leaving_machines(&self) -> BTreeSet<String> {
        let nodes = self.cluster_scoped.nodes.as_ref();
        let nodes = nodes.map(Store::state).unwrap_or_default();
        let leaving = nodes.iter().filter(|node| is_cordoned(node));
        leaving.map(|node| node.name_any()).collect()
    }

    /// The cached pods of every cluster: those that a StatefulSet with the cluster's label controls.
    pub fn pods_by_cluster(&self) -> HashMap<ClusterRef, Vec<Arc<Pod>>> {
        let sets: HashMap<String, ClusterRef> = self
            .sets
            .state()
            .iter()
            .filter_map(|set| Some((set.uid()?, owner(&**set)?)))
            .collect();
        let mut all: HashMap<ClusterRef, Vec<Arc<Pod>>> = HashMap::new();
        for pod in self.pods.state() {
            let set = controller(&*pod).and_then(|owner| sets.get(&owner.uid));
            if let Some(cluster) = owner(&*pod).filter(|cluster| set == Some(cluster)) {
                all.entry(cluster).or_default().push(pod);
            }
        }
        all
    }
}

/// Bounds of a kind that can be watched.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

/// Watches a kind. `managedFields` are dropped: they are half of an object's size and not used.
pub fn watch<K: Watched>(
    api: Api<K>,
    config: watcher::Config,
) -> (
    Store<K>,
    impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + 'static,
) {
    let (store, writer) = reflector::store();
    let stream = watcher(api, config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .inspect(error_logger::<K>());
    (store, stream)
}

/// Watches the objects that have the cluster label.
fn labelled<K>(client: &Client, scope: &Scope, triggers: &mut Vec<Triggers>) -> Store<K>
where
    K: Watched + Resource<Scope = NamespaceResourceScope>,
{
    let config = watcher::Config::default().labels(names::CLUSTER_LABEL);
    let (store, stream) = watch(scope.api::<K>(client), config);
    triggers.push(to_clusters(stream, |object: K| owner(&object)));
    store
}

/// The cluster named by the object's label.
fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<ClusterRef> {
    let name = object.labels().get(names::CLUSTER_LABEL)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

/// Logs the errors of a watch of this kind.
fn error_logger<K: Watched>()
-> impl FnMut(&Result<watcher::Event<K>, watcher::Error>) + Send + 'static {
    let mut errors = WatchErrors::default();
    move |event| errors.observe(&K::plural(&()), event)
}

/// Maps watch events to clusters. Errors are ignored here: the watch restarts by itself.
fn to_clusters<K: Watched>(
    stream: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + 'static,
    which: impl Fn(K) -> Option<ClusterRef> + Send + Sync + Copy + 'static,
) -> Triggers {
    stream
        .touched_objects()
        .filter_map(move |object| std::future::ready(object.ok().and_then(which)))
        .boxed()
}

async fn synced<K>(kind: &'static str, store: &Store<K>) -> Result<(), Error>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    match tokio::time::timeout(SYNC_LIMIT, store.wait_until_ready()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Error::NotSynced(kind)),
    }
}

fn select<K: Watched>(store: &Store<K>, namespace: &str, name: &str) -> Vec<Arc<K>> {
    let mut all = store.state_filter(|object: &K| {
        object
            .labels()
            .get(names::CLUSTER_LABEL)
            .map(String::as_str)
            == Some(name)
            && object.namespace().as_deref() == Some(namespace)
    });
    all.sort_by_key(|object| object.name_any());
    all
}

impl ClusterScopedCaches {
    /// Watches nodes, storage classes and volumes as far as permissions allow. The streams must be polled for
    /// as long as the caches are used.
    pub async fn start(client: &Client) -> (Self, Vec<BoxStream<'static, ()>>) {
        let mut streams = Vec::new();
        let nodes =
            optional_watch(client, &mut streams, |node: &mut Node| node.status = None).await;
        let classes = optional_watch(client, &mut streams, |_: &mut StorageClass| {}).await;
        let volumes = optional_watch(client, &mut streams, |_: &mut PersistentVolume| {}).await;
        let cluster_scoped = Self {
            nodes,
            classes,
            volumes,
        };
        (cluster_scoped, streams)
    }

    /// All Kubernetes nodes, once the initial list has arrived.
    async fn nodes(&self) -> Option<Vec<Arc<Node>>> {
        let nodes = self.nodes.as_ref()?;
        synced("Nodes", nodes).await.ok()?;
        Some(nodes.state())
    }

    /// All storage classes, once the initial list has arrived.
    async fn classes(&self) -> Option<Vec<Arc<StorageClass>>> {
        let classes = self.classes.as_ref()?;
        synced("StorageClasses", classes).await.ok()?;
        Some(classes.state())
    }

    /// The volumes of these claims. A volume that is not cached is read from the API server: the watch may
    /// lag, and a missing volume counts as a lost member.
    async fn volumes_of(
        &self,
        client: &Client,
        claims: &[Arc<PersistentVolumeClaim>],
    ) -> BTreeMap<String, Option<Arc<PersistentVolume>>> {
        let mut found = BTreeMap::new();
        let Some(volumes) = &self.volumes else {
            return found;
        };
        for name in volume_names(claims) {
            let kept = volumes.get(&ObjectRef::new(name));
            let volume = match kept {
                Some(volume) => Some(Some(volume)),
                None => look_up(client, name).await,
            };
            if let Some(volume) = volume {
                found.insert(name.clone(), volume);
            }
        }
        found
    }

    /// Whether any kind is watched.
    pub fn exist(&self) -> bool {
        self.nodes.is_some() || self.classes.is_some() || self.volumes.is_some()
    }
}

/// Watches a cluster-scoped kind, unless the operator has no permission to read it.
async fn optional_watch<K>(
    client: &Client,
    streams: &mut Vec<BoxStream<'static, ()>>,
    trim: impl Fn(&mut K) + Send + Sync + 'static,
) -> Option<Store<K>>
where
    K: Watched + Resource<Scope = k8s_openapi::ClusterResourceScope>,
{
    let api: Api<K> = Api::all(client.clone());
    if let Err(kube::Error::Api(status)) = api.list(&ListParams::default().limit(1)).await
        && status.code == 403
    {
        tracing::info!(
            "no permission to read {}, continuing without: {}",
            K::plural(&()),
            status.message
        );
        return None;
    }
    let (store, writer) = reflector::store();
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(move |object: &mut K| {
            object.managed_fields_mut().clear();
            trim(object);
        })
        .reflect(writer)
        .inspect(error_logger::<K>())
        .map(drop);
    streams.push(stream.boxed());
    Some(store)
}
