//! The cluster that a command is about, and the client to reach it.
use anyhow::Context;
use kube::{Api, Client};
use operator_api::RqliteCluster;

/// A cluster, and the client to reach it.
pub(crate) struct Target {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) context: Option<String>,
    pub(crate) name: String,
}

impl Target {
    pub(crate) fn clusters(&self) -> Api<RqliteCluster> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn cluster(&self) -> anyhow::Result<RqliteCluster> {
        self.clusters().get(&self.name).await.with_context(|| {
            format!(
                "reading the RqliteCluster {} in the namespace {}",
                self.name, self.namespace
            )
        })
    }

    /// The leader's pod, by the cluster's status.
    pub(crate) async fn leader(&self) -> anyhow::Result<String> {
        let status = self.cluster().await?.status.unwrap_or_default();
        status.leader.with_context(|| {
            format!(
                "{} has no leader now: see kubectl rqlite status {}",
                self.name, self.name
            )
        })
    }
}
