//! Builds an observation: converts the API server's objects, and requests the status of all nodes
//! concurrently.
mod blockers;
mod claim;
mod drain;
mod pod;
mod set;
mod settle;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Pod},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::ResourceExt;
use node_contract::{PLAN_FILE, STATE_FILE};
use operator_api::{RqliteCluster, names, status::DefaultClients};
use serde::de::DeserializeOwned;

use self::settle::Again;
use crate::{
    carried::CarriedState,
    cluster::{
        Failure, NodeStatus, Observation,
        deciders::restore,
        facts::{
            observation::{FailureKind, ObservedClaim, OperatorFacts, ProbeResult},
            view::View,
        },
    },
    live::{Live, named},
    node_client::NodeClient,
};

/// How nodes are addressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Addressing {
    /// By the IP address in the pod's status, which always belongs to this pod.
    #[default]
    PodIp,
    /// By the pod's DNS name in the headless Service.
    PodDns,
}

impl Addressing {
    /// `host:port` of the HTTP API of a pod's node; None while the pod has no IP address. `domain`: the DNS
    /// domain of the Kubernetes cluster, for a cluster whose status has none.
    pub fn address(self, cluster: &RqliteCluster, domain: &str, pod: &Pod) -> Option<String> {
        let by_ip = pod_address(pod)?;
        let port = names::HTTP_PORT;
        Some(match self {
            Self::PodIp => by_ip,
            Self::PodDns => format!(
                "{}.{}.{}.svc.{}:{port}",
                pod.name_any(),
                names::headless(&cluster.name_any()),
                pod.namespace().unwrap_or_default(),
                cluster.domain(domain)
            ),
        })
    }
}

/// Address of the HTTP API of a pod's node by the pod's IP address; None while it has none.
pub fn pod_address(pod: &Pod) -> Option<String> {
    let ip = pod.status.as_ref()?.pod_ip.as_ref()?;
    let port = names::HTTP_PORT;
    Some(if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    })
}

/// The addresses at which a cluster's nodes are queried, with their pods.
pub fn addresses(
    cluster: &RqliteCluster,
    live: &Live,
    environment: &Environment,
) -> Vec<(String, Arc<Pod>)> {
    let domain = &environment.operator.platform.cluster_domain;
    let pods = live.pods.iter();
    let all = pods.flat_map(|pod| {
        let named = environment.addressing.address(cluster, domain, pod);
        let both = [pod_address(pod), named].into_iter().flatten();
        both.map(|address| (address, Arc::clone(pod)))
    });
    all.collect()
}

/// Inputs of an observation that do not come from Kubernetes objects.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The operator itself.
    pub operator: OperatorFacts,
    /// How nodes are addressed.
    pub addressing: Addressing,
}

/// Observes one cluster.
pub async fn observe(
    cluster: RqliteCluster,
    live: &Live,
    nodes: &impl NodeClient,
    environment: &Environment,
    carried: CarriedState,
) -> Observation {
    let name = cluster.name_any();
    let responses = request(&cluster, &live.pods, nodes, environment).await;
    let set = |name: &str| named(&live.sets, name).map(|set| set::convert(set));
    let now = now();
    let mut seen = Observation {
        now: now.clone(),
        fresh_id: fresh_id(),
        operator: environment.operator.clone(),
        voters: set(&names::voters(&name)),
        readers: set(&names::readers(&name)),
        pods: live
            .pods
            .iter()
            .filter_map(|pod| pod::convert(pod))
            .collect(),
        strays: live.strays.clone(),
        claims: claims(&cluster, live),
        state: named(&live.maps, &names::state(&name)).and_then(|map| file(map, STATE_FILE)),
        default_clients: live
            .policies
            .iter()
            .find_map(|policy| default_clients(policy)),
        plan: named(&live.maps, &names::recovery(&name)).and_then(|map| file(map, PLAN_FILE)),
        recoveries: live.recoveries.iter().map(|r| (**r).clone()).collect(),
        restores: live.restores.iter().map(|r| (**r).clone()).collect(),
        restore_source: live.restore_source.clone(),
        restore_states: carried.restores,
        nodes: responses,
        cordoned: live.cordoned.clone(),
        drain: drain::find(live),
        expandable: live.expandable.clone(),
        blockers: blockers::find(live, now.0.as_second()),
        edits: carried.edits,
        leader_seen: carried.leader_seen,
        secrets: carried.secrets,
        taken: carried.taken,
        namespace_ends: carried.namespace_ends,
        refused: carried.refused,
        checks: carried.checks,
        issued: carried.issued,
        cluster,
    };
    let settled = settle(&mut seen, live, nodes, environment);
    // After the limit, the responses so far are used.
    let _ = tokio::time::timeout(settle::LIMIT, settled).await;
    ask_for_restore(&mut seen, live, nodes, environment).await;
    seen
}

/// Reads the state of a restore from the leader, while a restore is open.
async fn ask_for_restore(
    seen: &mut Observation,
    live: &Live,
    nodes: &impl NodeClient,
    environment: &Environment,
) {
    if !restore::is_open(&View::of(seen)) {
        return;
    }
    let leader = View::of(seen).leader.map(|leader| leader.name.to_owned());
    let pod = leader.and_then(|leader| named(&live.pods, &leader));
    let domain = &environment.operator.platform.cluster_domain;
    let address = pod.and_then(|pod| environment.addressing.address(&seen.cluster, domain, pod));
    let Some(address) = address else {
        return;
    };
    match nodes.restore_state(&address).await {
        Ok(answer) => restore::note_answer(&mut seen.restore_states, answer),
        Err(failure) => tracing::debug!("how far the restore is: {}", failure.message),
    }
}

/// What a NetworkPolicy says of the defaults that it was made with.
fn default_clients(policy: &NetworkPolicy) -> Option<DefaultClients> {
    let annotations = policy.metadata.annotations.as_ref()?;
    let text = annotations.get(names::CLIENTS_ANNOTATION)?;
    Some(DefaultClients::from(text.as_str())).filter(DefaultClients::is_known)
}

/// Queries nodes again if one response of each does not suffice.
async fn settle(
    seen: &mut Observation,
    live: &Live,
    nodes: &impl NodeClient,
    environment: &Environment,
) {
    for _ in 0..settle::ROUNDS {
        match settle::again(seen) {
            Again::Nothing => return,
            Again::Everything => {
                tokio::time::sleep(settle::PAUSE).await;
                seen.nodes = request(&seen.cluster, &live.pods, nodes, environment).await;
            }
            Again::Lagging(names) => {
                tokio::time::sleep(settle::PAUSE).await;
                let pods = live.pods.iter();
                let pods = pods.filter(|pod| names.contains(&pod.name_any()));
                let later = request(&seen.cluster, pods, nodes, environment).await;
                settle::advance(&mut seen.nodes, later);
            }
        }
    }
}

/// The claims; in an ephemeral cluster a pod's own disk takes their place.
fn claims(cluster: &RqliteCluster, live: &Live) -> Vec<ObservedClaim> {
    match &cluster.spec.storage.ephemeral {
        None => live
            .claims
            .iter()
            .map(|c| claim::convert(c, live))
            .collect(),
        Some(_) => live
            .pods
            .iter()
            .map(|pod| claim::of_ephemeral(pod, &cluster.spec.storage.size))
            .collect(),
    }
}

/// The current time in whole seconds, the API server's resolution: a written time must read back equal.
pub fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// A random UUID.
fn fresh_id() -> String {
    // Version 4 and the variant of RFC 9562; all other bits are random.
    let bits = (rand::random::<u128>() & !(0xf << 76) & !(0xc << 60)) | (0x4 << 76) | (0x8 << 60);
    let hex = format!("{bits:032x}");
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// Parses a file in a ConfigMap. A malformed file counts as missing and is rewritten from the status.
fn file<T: DeserializeOwned>(map: &ConfigMap, key: &str) -> Option<T> {
    let text = map.data.as_ref()?.get(key)?;
    serde_json::from_str(text).ok()
}

/// Requests the status of these pods' nodes at the same time.
async fn request(
    cluster: &RqliteCluster,
    pods: impl IntoIterator<Item = &Arc<Pod>>,
    nodes: &impl NodeClient,
    environment: &Environment,
) -> BTreeMap<String, ProbeResult> {
    let pods = pods.into_iter();
    let requests = pods.map(|pod| request_one(cluster, pod, nodes, environment));
    join_all(requests).await.into_iter().collect()
}

async fn request_one(
    cluster: &RqliteCluster,
    pod: &Arc<Pod>,
    nodes: &impl NodeClient,
    environment: &Environment,
) -> (String, ProbeResult) {
    let name = pod.name_any();
    let domain = &environment.operator.platform.cluster_domain;
    let response = match environment.addressing.address(cluster, domain, pod) {
        Some(address) => nodes
            .status(&address)
            .await
            .and_then(|s| check_identity(&name, s)),
        None => Err(Failure {
            failure: FailureKind::Refused,
            message: "its pod has no address yet".to_owned(),
        }),
    };
    let response = response.map_or_else(ProbeResult::Failed, ProbeResult::Ok);
    (name, response)
}

/// IP addresses are reused: checks that the response comes from the expected node.
fn check_identity(name: &str, status: NodeStatus) -> Result<NodeStatus, Failure> {
    match status.raft_id.split_once('#') {
        Some((answering, _)) if answering == name => Ok(status),
        _ => Err(Failure {
            failure: FailureKind::Malformed,
            message: format!("another node responds at its address: {}", status.raft_id),
        }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;
    use operator_api::RqliteClusterSpec;

    use super::*;

    #[test]
    fn addresses() {
        let mut cluster = RqliteCluster::new("demo", RqliteClusterSpec::default());
        cluster.metadata.namespace = Some("shop".to_owned());
        let mut pod = Pod::default();
        pod.metadata.name = Some("demo-0".to_owned());
        pod.metadata.namespace = Some("shop".to_owned());
        let at = |pod: &Pod, how: Addressing| how.address(&cluster, "cluster.local", pod);
        assert_eq!(at(&pod, Addressing::PodIp), None);
        for (ip, shown) in [("10.0.0.7", "10.0.0.7:4001"), ("fd00::7", "[fd00::7]:4001")] {
            pod.status = Some(PodStatus {
                pod_ip: Some(ip.to_owned()),
                ..PodStatus::default()
            });
            assert_eq!(at(&pod, Addressing::PodIp).as_deref(), Some(shown));
        }
        assert_eq!(
            at(&pod, Addressing::PodDns).as_deref(),
            Some("demo-0.demo-headless.shop.svc.cluster.local:4001")
        );
    }

    #[test]
    fn ids_are_uuids_of_version_four() {
        let (a, b) = (fresh_id(), fresh_id());
        assert_ne!(a, b);
        assert_eq!(a.len(), 36);
        assert_eq!(&a[14..15], "4", "{a}");
        assert!("89ab".contains(&a[19..20]), "{a}");
    }

    #[test]
    fn an_answer_is_of_the_node_that_was_asked() {
        let status = |raft_id: &str| NodeStatus {
            raft_id: raft_id.to_owned(),
            ..NodeStatus::default()
        };
        assert!(check_identity("demo-1", status("demo-1#x")).is_ok());
        for other in ["demo-2#x", "demo-1", "", "demo-11#x"] {
            assert!(check_identity("demo-1", status(other)).is_err(), "{other}");
        }
    }
}
