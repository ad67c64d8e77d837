//! The cluster of `manifests/plain` in a namespace, accessed through the API server only.
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    command::until,
    namespace::{LIMIT, Namespace},
};

/// Name of the voters' StatefulSet, and of the Service for clients.
pub const VOTERS: &str = "rqlite";
/// Number of voters in the manifests.
pub const COUNT: usize = 3;
const HTTP_PORT: u16 = 4001;
/// kubectl's timeout for a node's response: a node that is cut off would block for ever.
const ANSWER_LIMIT: &str = "--request-timeout=10s";

/// Path of a file of `manifests/plain`.
#[must_use]
pub fn manifest(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../manifests/plain")
        .join(file)
}

/// Names of the voters' pods, which are also their node IDs.
#[must_use]
pub fn voters() -> Vec<String> {
    (0..COUNT).map(|n| format!("{VOTERS}-{n}")).collect()
}

/// URLs of the voters' own HTTP APIs, for use within the namespace.
#[must_use]
pub fn urls() -> Vec<String> {
    let url = |pod| format!("http://{pod}.{VOTERS}-internal:{HTTP_PORT}");
    voters().into_iter().map(url).collect()
}

impl Namespace {
    /// Applies a file of `manifests/plain`.
    ///
    /// # Errors
    /// If it does not exist or the cluster rejects it.
    pub fn apply_plain(&self, file: &str) -> Result<()> {
        let path = manifest(file);
        let yaml = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        self.apply(&yaml)
    }

    /// Sends a GET to a pod's HTTP API through the API server.
    ///
    /// # Errors
    /// If it does not answer with success.
    pub fn get(&self, pod: &str, path: &str) -> Result<String> {
        let url = format!(
            "/api/v1/namespaces/{}/pods/{pod}:{HTTP_PORT}/proxy{path}",
            self.name
        );
        self.run(&["get", "--raw", &url, ANSWER_LIMIT])
    }

    /// The leader's pod, according to any of `pods`.
    ///
    /// # Errors
    /// If none knows a leader; shows their errors.
    pub fn leader(&self, pods: &[String]) -> Result<String> {
        let mut said = Vec::new();
        for pod in pods {
            match self.get(pod, "/leader") {
                Ok(text) => {
                    let node: Value = serde_json::from_str(&text).context("read /leader")?;
                    let id = node["id"]
                        .as_str()
                        .with_context(|| format!("no ID: {text}"))?;
                    return Ok(id.to_owned());
                }
                Err(error) => said.push(format!("{pod}: {error:#}")),
            }
        }
        bail!("no leader: {said:?}")
    }

    /// Moves leadership to another pod than `pod`.
    ///
    /// # Errors
    /// If it stays there.
    pub fn lead_elsewhere(&self, pods: &[String], pod: &str) -> Result<String> {
        until(&format!("a leader other than {pod}"), LIMIT, || {
            let leader = self.leader(pods)?;
            if leader == pod {
                self.in_pod(pod, &["rqlite", "-e", ".stepdown"])?;
            }
            ensure!(leader != pod, "it leads");
            Ok(leader)
        })
    }

    /// Waits until all voters are Ready.
    ///
    /// # Errors
    /// If that takes longer than `limit`; shows the pods' state.
    pub fn voters_ready(&self, limit: Duration) -> Result<()> {
        let wanted = COUNT.to_string();
        let set = format!("statefulset/{VOTERS}");
        self.until_field(&set, "{.status.readyReplicas}", &wanted, limit)
            .map_err(|error| error.context(self.pods()))
    }

    /// The machine on which a pod runs.
    ///
    /// # Errors
    /// If it is not scheduled.
    pub fn node_of(&self, pod: &str) -> Result<String> {
        let node = self.field(&format!("pod/{pod}"), "{.spec.nodeName}")?;
        ensure!(!node.is_empty(), "{pod} is not scheduled");
        Ok(node)
    }

    /// URL of the clients' Service by its address, so that a writer does not depend on DNS.
    ///
    /// # Errors
    /// If it has no address.
    pub fn service_url(&self) -> Result<String> {
        let address = self.field(&format!("service/{VOTERS}"), "{.spec.clusterIP}")?;
        ensure!(!address.is_empty(), "the Service has no address");
        Ok(format!("http://{address}:{HTTP_PORT}"))
    }
}
