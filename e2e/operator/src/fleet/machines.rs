//! Simulates kubelets and a volume provisioner, as far as the API server sees them: pods get an address and
//! become ready, claims are bound.
use std::{
    collections::HashSet,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use k8s_openapi::{
    api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{NAMESPACE, nodes::Nodes};

/// How long the API server may be unavailable.
const OUTAGE_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(200);
/// Second parts of addresses `127.N.x.y`, one for each simulation on a machine.
const NETWORKS: std::ops::Range<u8> = 100..164;
/// Port of the listener that claims one.
const CLAIM_PORT: u16 = 4001;
/// Label with the cluster's name on all its objects.
const CLUSTER_LABEL: &str = "rqlite.dev/cluster";
/// Label with a pod's pool.
const POOL_LABEL: &str = "rqlite.dev/pool";

/// Simulates all machines for as long as it is polled.
///
/// # Errors
/// If the API server rejects a request or an address is not available.
pub async fn simulate(client: Client, nodes: Arc<Nodes>) -> Result<()> {
    let (network, _claim) = free_network().await?;
    let machines = Machines {
        client,
        nodes,
        network,
        addresses: AtomicU16::new(1),
        started: Mutex::default(),
    };
    tokio::try_join!(machines.pods(), machines.claims(), machines.state_files()).map(drop)
}

/// Second part of the nodes' addresses, and the listener by which other simulations on this machine see that
/// it is taken.
async fn free_network() -> Result<(u8, TcpListener)> {
    for network in NETWORKS {
        let claim = TcpListener::bind((Ipv4Addr::new(127, network, 255, 254), CLAIM_PORT)).await;
        if let Ok(claim) = claim {
            return Ok((network, claim));
        }
    }
    bail!("{NETWORKS:?} are all taken by other simulations")
}

struct Machines {
    client: Client,
    nodes: Arc<Nodes>,
    network: u8,
    addresses: AtomicU16,
    /// Uids of pods that were started: an event may be older than the latest write.
    started: Mutex<HashSet<String>>,
}

fn cluster_of<K: Resource<DynamicType = ()>>(object: &K) -> String {
    object
        .labels()
        .get(CLUSTER_LABEL)
        .cloned()
        .unwrap_or_default()
}

impl Machines {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn pods(&self) -> Result<()> {
        let config = watcher::Config::default().labels(CLUSTER_LABEL);
        let mut events = std::pin::pin!(watcher(self.api::<Pod>(), config).default_backoff());
        while let Some(event) = events.next().await {
            // The watch restarts by itself.
            let Ok(event) = event else { continue };
            match event {
                Event::Apply(pod) | Event::InitApply(pod) => self.run(&pod).await?,
                Event::Delete(pod) => self.nodes.stop(&cluster_of(&pod), &pod.name_any()),
                Event::Init | Event::InitDone => {}
            }
        }
        Ok(())
    }

    /// Gives a new pod an address and makes it ready at once.
    async fn run(&self, pod: &Pod) -> Result<()> {
        let has_address = pod.status.as_ref().is_some_and(|s| s.pod_ip.is_some());
        if has_address || pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let uid = pod.uid().unwrap_or_default();
        let is_new = {
            let mut started = self.started.lock();
            started.insert(uid.clone())
        };
        if !is_new {
            return Ok(());
        }
        let [high, low] = self.addresses.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let address = Ipv4Addr::new(127, self.network, high, low);
        let is_voter = pod
            .labels()
            .get(POOL_LABEL)
            .is_some_and(|pool| pool == "voter");
        self.nodes
            .start(&cluster_of(pod), &pod.name_any(), &uid, is_voter, address)
            .await?;
        let now = Timestamp::now().to_string();
        let condition =
            |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": now });
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
        let status = json!({
            "phase": "Running",
            "podIP": address.to_string(),
            "podIPs": [{ "ip": address.to_string() }],
            "startTime": now,
            "conditions": conditions,
        });
        self.report::<Pod>(&pod.name_any(), status).await
    }

    async fn claims(&self) -> Result<()> {
        let config = watcher::Config::default();
        let mut events =
            std::pin::pin!(watcher(self.api::<PersistentVolumeClaim>(), config).default_backoff());
        while let Some(event) = events.next().await {
            // The watch restarts by itself.
            let Ok(event) = event else { continue };
            let (Event::Apply(claim) | Event::InitApply(claim)) = event else {
                continue;
            };
            let is_bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
            if !is_bound && claim.metadata.deletion_timestamp.is_none() {
                let size = claim
                    .spec
                    .as_ref()
                    .and_then(|s| s.resources.as_ref()?.requests.clone());
                let status = json!({ "phase": "Bound", "capacity": size });
                self.report::<PersistentVolumeClaim>(&claim.name_any(), status)
                    .await?;
            }
        }
        Ok(())
    }

    async fn state_files(&self) -> Result<()> {
        let config = watcher::Config::default().labels(CLUSTER_LABEL);
        let mut events = std::pin::pin!(watcher(self.api::<ConfigMap>(), config).default_backoff());
        while let Some(event) = events.next().await {
            // The watch restarts by itself.
            let Ok(event) = event else { continue };
            let (Event::Apply(map) | Event::InitApply(map)) = event else {
                continue;
            };
            let file = map.data.as_ref().and_then(|data| data.get("state.json"));
            if let Some(text) = file {
                let state: Value = serde_json::from_str(text).context("read a state file")?;
                self.nodes.learn(&cluster_of(&map), state);
            }
        }
        Ok(())
    }

    /// Writes an object's status; does nothing if the object has been deleted.
    async fn report<K>(&self, name: &str, status: Value) -> Result<()>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + serde::de::DeserializeOwned,
    {
        let change = Patch::Strategic(json!({ "status": status }));
        let start = Instant::now();
        loop {
            let params = PatchParams::default();
            match self.api::<K>().patch_status(name, &params, &change).await {
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                // The API server is unavailable: retry, as kubelets do.
                Err(_) if start.elapsed() < OUTAGE_LIMIT => tokio::time::sleep(PAUSE).await,
                result => {
                    return result
                        .map(drop)
                        .with_context(|| format!("the status of {name}"));
                }
            }
        }
    }
}
