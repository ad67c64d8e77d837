//! Simulated database nodes: each pod has its own loopback address and answers `/status`, `/readyz` and
//! `/archive/restore` like a member of a formed cluster that accepts writes.
use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::archives::Archive;

/// Port of the HTTP API.
const HTTP_PORT: u16 = 4001;
/// Simulated writes per second of a cluster: its commit index advances, as the operator records it.
const WRITES_PER_SECOND: u64 = 10;

/// State shared by the members of one cluster.
#[derive(Debug, Default)]
struct Cluster {
    /// The state file, as the operator wrote it.
    state: Value,
    members: BTreeMap<String, Member>,
    archive: Archive,
}

#[derive(Debug)]
struct Member {
    raft_id: String,
    voter: bool,
    server: JoinHandle<()>,
}

/// The simulated nodes of all clusters.
#[derive(Debug)]
pub struct Nodes {
    clusters: Mutex<HashMap<String, Cluster>>,
    start: Instant,
}

/// The node that a request addresses.
#[derive(Clone, Debug)]
struct Endpoint {
    nodes: Arc<Nodes>,
    cluster: String,
    pod: String,
}

impl Nodes {
    /// No clusters yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            clusters: Mutex::default(),
            start: Instant::now(),
        })
    }

    /// Sets the state file of a cluster.
    pub fn learn(&self, cluster: &str, state: Value) {
        self.with(cluster, |known| known.state = state);
    }

    /// Starts the node of a pod.
    ///
    /// # Errors
    /// If its address is not available.
    pub async fn start(
        self: &Arc<Self>,
        cluster: &str,
        pod: &str,
        uid: &str,
        voter: bool,
        address: Ipv4Addr,
    ) -> Result<()> {
        let at = SocketAddr::from((address, HTTP_PORT));
        let listener = TcpListener::bind(at)
            .await
            .with_context(|| format!("listen at {at}"))?;
        let endpoint = Endpoint {
            nodes: Arc::clone(self),
            cluster: cluster.to_owned(),
            pod: pod.to_owned(),
        };
        let router = Router::new()
            .route("/status", get(status))
            .route("/readyz", get(|| async { "[+]node ok" }))
            .route("/archive/restore", get(restore_state).post(restore))
            .with_state(endpoint);
        let server = tokio::spawn(async move {
            // Returns only when the task is aborted.
            let _ = axum::serve(listener, router).await;
        });
        let member = Member {
            raft_id: format!("{pod}#{uid}"),
            voter,
            server,
        };
        self.with(cluster, |known| {
            known.members.insert(pod.to_owned(), member)
        });
        Ok(())
    }

    /// Stops the node of a pod.
    pub fn stop(&self, cluster: &str, pod: &str) {
        self.with(cluster, |known| {
            if let Some(member) = known.members.remove(pod) {
                member.server.abort();
            }
        });
    }

    /// What the leader of a cluster says of its archive from now on; `None`: it has none.
    pub fn archives(&self, cluster: &str, status: Option<Value>) {
        self.with(cluster, |known| known.archive.status = status);
    }

    /// Whether a restore that is asked for stays under way.
    pub fn hold_restores(&self, cluster: &str, hold: bool) {
        self.with(cluster, |known| known.archive.is_held = hold);
    }

    /// Requests for restores that a cluster's nodes were sent, in their order.
    pub fn restores_asked(&self, cluster: &str) -> Vec<Value> {
        self.with(cluster, |known| known.archive.asked.clone())
    }

    fn commit_index(&self) -> u64 {
        100 + self.start.elapsed().as_secs() * WRITES_PER_SECOND
    }

    fn with<T>(&self, cluster: &str, work: impl FnOnce(&mut Cluster) -> T) -> T {
        let mut all = self.clusters.lock();
        work(all.entry(cluster.to_owned()).or_default())
    }
}

async fn status(State(endpoint): State<Endpoint>) -> impl IntoResponse {
    let index = endpoint.nodes.commit_index();
    let status = endpoint.nodes.with(&endpoint.cluster, |cluster| {
        cluster.status(&endpoint.pod, index)
    });
    (
        [(header::CONTENT_TYPE, "application/json")],
        status.to_string(),
    )
}

async fn restore(State(endpoint): State<Endpoint>, body: String) -> impl IntoResponse {
    let request = serde_json::from_str(&body).unwrap_or_default();
    let newest = endpoint.nodes.commit_index();
    let (code, reply) = endpoint.nodes.with(&endpoint.cluster, |cluster| {
        let id = cluster.state["cluster_id"].clone();
        cluster.archive.restore(request, &id, newest)
    });
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, reply.to_string())
}

async fn restore_state(State(endpoint): State<Endpoint>) -> impl IntoResponse {
    let of = |cluster: &mut Cluster| cluster.archive.state();
    endpoint.nodes.with(&endpoint.cluster, of).to_string()
}

impl Cluster {
    /// The part of `rqlited`'s `/status` that the operator reads. The first voter leads, once as many are
    /// present as the state file expects.
    fn status(&self, pod: &str, index: u64) -> Value {
        let Some(own) = self.members.get(pod) else {
            return json!({ "store": { "open": false } });
        };
        let voters = self.members.values().filter(|m| m.voter).count() as u64;
        let has_formed = self.state["expect"]
            .as_u64()
            .is_some_and(|expect| voters >= expect);
        let leader = self
            .members
            .iter()
            .find(|(_, m)| m.voter && has_formed)
            .map(|(name, _)| name.as_str());
        let members = self.members.iter().filter(|_| has_formed);
        let members: Vec<_> = members
            .map(|(name, m)| json!({ "id": name, "raft_id": m.raft_id, "voter": m.voter }))
            .collect();
        json!({ "archive": self.archive.status, "store": {
            "node_id": pod,
            "leader": leader.map(|name| json!({ "node_id": name })),
            "identity": { "raft_id": own.raft_id, "cluster_id": self.state["cluster_id"], "lineage": self.state["lineage"] },
            "raft": {
                "state": if leader == Some(pod) { "Leader" } else { "Follower" },
                "term": 1,
                "last_log_index": index,
                "last_log_term": 1,
                "commit_index": index,
                "applied_index": index,
                "committed_configuration": { "index": 1, "members": members },
            },
        } })
    }
}
