//! Polls the nodes, because changes within Raft (a new leader, another configuration) cause no Kubernetes
//! event. The leader's node of each cluster is queried once a second, without the API server; a response that
//! differs from the previous one triggers a reconcile.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use operator_api::names;

use crate::{
    caches::{Caches, ClusterRef, Triggers},
    cluster::NodeStatus,
    managed::Managed,
    node_client::NodeClient,
    observe::pod_address,
};

/// Interval at which a cluster's leader is queried.
const INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which the cached Kubernetes nodes are checked for changes.
const MACHINES_INTERVAL: Duration = Duration::from_millis(200);
/// Concurrent queries. With many clusters a round takes longer instead of costing more.
const CONCURRENCY: usize = 16;

/// The parts of a node's status that a reconcile depends on and that rarely change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Digest {
    responds: bool,
    raft_id: String,
    leads: bool,
    leader: Option<String>,
    configuration: u64,
}

impl Digest {
    fn of(status: &NodeStatus) -> Self {
        Self {
            responds: true,
            raft_id: status.raft_id.clone(),
            leads: status.is_leader,
            leader: status.leader.clone(),
            configuration: status.config_index,
        }
    }
}

/// Number of rounds for which reconciles are triggered while the pod with the leader's label does not lead:
/// the first reconcile may see neither the old nor the new leader. After that only changes trigger, for
/// example in a paused cluster.
const REPEATED_ROUNDS: u32 = 30;

/// The last responses of a cluster.
#[derive(Debug, Default)]
struct Seen {
    digests: BTreeMap<String, Digest>,
    /// Rounds since the last change in which no queried pod led.
    leaderless: u32,
}

/// The last responses of each cluster.
type Known = HashMap<ClusterRef, Seen>;

/// Name of a pod, and address of its node.
type Address = (String, String);

/// The pods of a cluster to query: the leader's, or all if none carries the leader's label; and the others,
/// in case none of these responds.
fn to_ask(pods: Vec<Arc<Pod>>) -> (Vec<Address>, Vec<Address>) {
    let running = pods.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.labels().get(names::POOL_LABEL).map(String::as_str) == Some("voter")
    });
    let all: Vec<(bool, String, String)> = running
        .filter_map(|pod| {
            let role = pod.labels().get(names::ROLE_LABEL);
            let leads = role.is_some_and(|role| role == "leader");
            Some((leads, pod.name_any(), pod_address(pod)?))
        })
        .collect();
    let some_leads = all.iter().any(|(leads, ..)| *leads);
    let (first, others): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|(leads, ..)| *leads || !some_leads);
    let addresses = |all: Vec<(bool, String, String)>| {
        let all = all.into_iter();
        all.map(|(_, name, address)| (name, address)).collect()
    };
    (addresses(first), addresses(others))
}

/// Records the digests of a cluster. Returns whether a reconcile is due: a digest has changed, or the pod
/// with the leader's label does not lead.
fn note(known: &mut Known, cluster: &ClusterRef, now: BTreeMap<String, Digest>) -> bool {
    let is_new = !known.contains_key(cluster);
    let seen = known.entry(cluster.clone()).or_default();
    let changed = now.iter().any(|(pod, digest)| {
        let before = seen.digests.get(pod);
        before.is_some_and(|old| old != digest)
    });
    let leads = now.values().any(|digest| digest.leads);
    seen.leaderless = match (leads, changed) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => seen.leaderless.saturating_add(1),
    };
    seen.digests = now;
    let repeated = !leads && seen.leaderless <= REPEATED_ROUNDS;
    !is_new && (changed || repeated)
}

async fn ask<N: NodeClient>(nodes: &N, pods: Vec<Arc<Pod>>) -> BTreeMap<String, Digest> {
    let (first, others) = to_ask(pods);
    let mut digests = ask_all(nodes, first).await;
    // The leader's machine may have failed; the other nodes elect another leader.
    if !digests.values().any(|digest| digest.responds) {
        digests.extend(ask_all(nodes, others).await);
    }
    digests
}

async fn ask_all<N: NodeClient>(nodes: &N, all: Vec<Address>) -> BTreeMap<String, Digest> {
    let requests = all.into_iter().map(|(name, address)| async move {
        let status = nodes.leadership(&address).await;
        let digest = status.map_or_else(|_| Digest::default(), |status| Digest::of(&status));
        (name, digest)
    });
    join_all(requests).await.into_iter().collect()
}

/// Queries all clusters of this installation once; returns those that have changed.
async fn round<N: NodeClient>(
    caches: &Caches,
    nodes: &N,
    managed: &Managed,
    known: &mut Known,
) -> Vec<ClusterRef> {
    let mut clusters = caches.pods_by_cluster();
    clusters.retain(|cluster, _| is_managed(managed, cluster));
    known.retain(|cluster, _| clusters.contains_key(cluster));
    let requests = clusters
        .into_iter()
        .map(|(cluster, pods)| async move { (cluster, ask(nodes, pods).await) });
    let digests: Vec<_> = stream::iter(requests)
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    digests
        .into_iter()
        .filter(|(cluster, now)| note(known, cluster, now.clone()))
        .map(|(cluster, _)| cluster)
        .collect()
}

fn is_managed(managed: &Managed, cluster: &ClusterRef) -> bool {
    let namespace = cluster.namespace.as_deref();
    managed.contains(namespace.unwrap_or_default(), &cluster.name)
}

/// Triggers for clusters with pods on machines whose state has changed: `kubectl drain` evicts pods right
/// after it has cordoned.
pub fn machine_triggers(caches: Caches) -> Triggers {
    stream::unfold((caches, None), |(caches, before)| async move {
        tokio::time::sleep(MACHINES_INTERVAL).await;
        let now = caches.leaving_machines();
        let changed = match &before {
            Some(before) if *before != now => on_machines(&caches, before, &now),
            _ => Vec::new(),
        };
        Some((stream::iter(changed), (caches, Some(now))))
    })
    .flatten()
    .boxed()
}

/// Clusters with a pod on a machine that is in one of the sets only.
fn on_machines(
    caches: &Caches,
    before: &BTreeSet<String>,
    now: &BTreeSet<String>,
) -> Vec<ClusterRef> {
    let changed: BTreeSet<&String> = before.symmetric_difference(now).collect();
    let is_there = |pod: &Arc<Pod>| {
        let machine = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        machine.is_some_and(|machine| changed.contains(machine))
    };
    let clusters = caches.pods_by_cluster().into_iter();
    clusters
        .filter(|(_, pods)| pods.iter().any(is_there))
        .map(|(cluster, _)| cluster)
        .collect()
}

/// Clusters of this installation whose nodes report a change.
pub fn triggers<N: NodeClient + 'static>(caches: Caches, nodes: N, managed: Managed) -> Triggers {
    let start = (caches, nodes, managed, Known::new());
    stream::unfold(start, |(caches, nodes, managed, mut known)| async move {
        tokio::time::sleep(INTERVAL).await;
        let changed = round(&caches, &nodes, &managed, &mut known).await;
        Some((stream::iter(changed), (caches, nodes, managed, known)))
    })
    .flatten()
    .boxed()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, role: &str, ip: &str) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": name, "labels": {names::POOL_LABEL: "voter", names::ROLE_LABEL: role}},
            "status": {"podIP": ip},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn the_leader_is_asked_or_everybody() {
        let names = |pods: Vec<Arc<Pod>>| -> Vec<String> {
            let (first, others) = to_ask(pods);
            assert!(first.len() == 1 || others.is_empty());
            first.into_iter().map(|(name, _)| name).collect()
        };
        let followers = || vec![pod("a", "follower", "10.0.0.1"), pod("b", "x", "10.0.0.2")];
        assert_eq!(names(followers()), ["a", "b"]);
        let with = |ip| [followers(), vec![pod("c", "leader", ip)]].concat();
        assert_eq!(names(with("10.0.0.3")), ["c"]);
    }

    #[test]
    fn clusters_of_others_are_not_asked() {
        let managed = Managed::default();
        let cluster = |name: &str| ClusterRef::new(name).within("shop");
        let asked = |name: &str| is_managed(&managed, &cluster(name));
        assert!(!asked("demo"), "not reconciled yet");
        managed.note("shop", "demo", true);
        assert!(asked("demo") && !asked("other"));
        managed.note("shop", "demo", false);
        assert!(!asked("demo"), "its class was changed");
    }

    #[test]
    fn a_change_of_the_same_pod_counts_and_a_leader_that_does_not_lead() {
        let cluster = ClusterRef::new("demo").within("shop");
        let digest = |leads, configuration| Digest {
            responds: true,
            leads,
            configuration,
            ..Digest::default()
        };
        let one = |pod: &str, digest: Digest| BTreeMap::from([(pod.to_owned(), digest)]);
        let mut known = Known::new();
        let steps = [
            (one("a", digest(true, 1)), false),
            (one("a", digest(true, 1)), false),
            (one("a", digest(true, 2)), true),
            (one("a", digest(true, 2)), false),
            // The first reconcile may come too early.
            (one("a", digest(false, 2)), true),
            (one("a", digest(false, 2)), true),
            (one("b", digest(true, 2)), false),
            (one("b", Digest::default()), true),
        ];
        for (now, changed) in steps {
            assert_eq!(note(&mut known, &cluster, now.clone()), changed, "{now:?}");
        }
        let none = one("b", Digest::default());
        let repeated = (0..100).filter(|_| note(&mut known, &cluster, none.clone()));
        assert_eq!(repeated.count(), REPEATED_ROUNDS as usize - 1);
    }
}
