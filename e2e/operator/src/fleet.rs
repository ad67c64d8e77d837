//! Many clusters at once on a real API server without machines: pods and nodes are simulated, the operator is
//! real.
//!
//! [`machines`] simulates kubelets and volume provisioners, [`nodes`] simulates database nodes, [`operator`]
//! runs and measures the operator.
mod archives;
pub mod machines;
pub mod nodes;
pub mod operator;

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, stream};
use kube::{
    Api, Client, Config,
    api::{DynamicObject, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

/// Namespace of the clusters.
pub const NAMESPACE: &str = "fleet";
/// Pause between two checks of all clusters. Each check lists all clusters at the API server.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Number of clusters that are created concurrently.
const AT_ONCE: usize = 8;

/// A client with the permissions of this kubeconfig.
///
/// # Errors
/// If it cannot be read.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// A spec for simulated nodes, which speak HTTP and know no users.
#[must_use]
pub fn plain() -> Value {
    let off = json!({ "mode": "Disabled" });
    json!({ "tls": { "nodes": off, "clients": off }, "authentication": off })
}

/// All clusters of the fleet.
#[derive(Clone, Debug)]
pub struct Clusters {
    api: Api<DynamicObject>,
    resource: ApiResource,
}

impl Clusters {
    /// Accessed through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let kind = GroupVersionKind::gvk("rqlite.dev", "v1alpha1", "RqliteCluster");
        let resource = ApiResource::from_gvk(&kind);
        Self {
            api: Api::namespaced_with(client, NAMESPACE, &resource),
            resource,
        }
    }

    /// Creates the clusters with these numbers.
    ///
    /// # Errors
    /// If the API server rejects one.
    pub async fn create(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        let made = stream::iter(numbers).map(|number| async move {
            let mut cluster = DynamicObject::new(&format!("fleet-{number}"), &self.resource);
            // Every fourth cluster has read replicas, and so a second StatefulSet.
            let readers = if number.is_multiple_of(4) {
                json!({ "replicas": 1 })
            } else {
                json!(null)
            };
            let mut spec = plain();
            spec["readReplicas"] = readers;
            cluster.data = json!({ "spec": spec });
            self.api.create(&PostParams::default(), &cluster).await
        });
        let results: Vec<_> = made.buffer_unordered(AT_ONCE).collect().await;
        results
            .into_iter()
            .try_for_each(|result| result.map(drop))
            .context("create a cluster")
    }

    /// Waits until all of them are Ready.
    ///
    /// # Errors
    /// After `limit`; shows the states of clusters that are not Ready.
    pub async fn await_ready(&self, limit: Duration) -> Result<()> {
        let start = std::time::Instant::now();
        loop {
            let waiting = self.not_ready().await?;
            if waiting.is_empty() {
                return Ok(());
            }
            if start.elapsed() > limit {
                let some: Vec<_> = waiting.iter().take(5).collect();
                bail!(
                    "after {limit:?}, {} clusters are not Ready, such as {some:#?}",
                    waiting.len()
                );
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }

    async fn not_ready(&self) -> Result<BTreeMap<String, String>> {
        let all = self.api.list(&ListParams::default()).await?;
        let states = all.items.into_iter().filter_map(|cluster| {
            let conditions = cluster.data["status"]["conditions"].as_array().cloned();
            let ready = conditions
                .into_iter()
                .flatten()
                .find(|c| c["type"] == "Ready");
            let said = ready.unwrap_or_default();
            let waits = said["status"] != "True";
            waits.then(|| (cluster.metadata.name.unwrap_or_default(), said.to_string()))
        });
        Ok(states.collect())
    }
}
