//! What joining and forming share: the node's options for them, its connections to other nodes, and the first
//! start of Raft.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::callers::Callers;
use crate::{
    auth::OwnUser,
    discovery::{AddressLookup, Found, LeaderKey},
    identity::{Cluster, FormingRight, Lineage},
    internode::client::Peers,
    local::Local,
    raft::Consensus,
};

/// Where the addresses of other nodes come from.
#[derive(Clone, Debug)]
pub enum AddressSource {
    /// None: the node forms a cluster of its own, or continues with the state that it has stored.
    None,
    /// `-join`: these addresses, in order.
    Static(Vec<String>),
    /// `-disco-mode` dns or dns-srv: the addresses that the name resolves to, looked up again in each round.
    Lookup(AddressLookup),
    /// `-disco-mode` consul-kv or etcd-kv: the key that names the leader.
    LeaderKey(LeaderKey),
}

/// How this node is to become part of a cluster.
#[derive(Clone, Debug)]
pub struct BootstrapOptions {
    /// Where the addresses of other nodes come from.
    pub source: AddressSource,
    /// Rounds over the static addresses, if the node only joins.
    pub attempts: u32,
    /// Pause between rounds.
    pub interval: Duration,
    /// Number of nodes that form the first cluster together; 0 means that this node does not form one with
    /// others.
    pub expect: usize,
    /// Time limit of forming for a node without state.
    pub expect_timeout: Duration,
    /// This node is a voter.
    pub voter: bool,
    /// Its credentials are sent with joins and notices.
    pub own_user: OwnUser,
}

/// Makes this node part of a cluster: joins an existing one, or forms the first one with other nodes.
#[derive(Clone, Debug)]
pub struct Bootstrapper {
    /// This node.
    pub local: Arc<Local>,
    /// Client for the other nodes.
    pub peers: Peers,
    /// This node's Raft.
    pub consensus: Consensus,
    /// Nodes that have contacted this one to form a cluster.
    pub callers: Arc<Callers>,
    /// Options.
    pub options: Arc<BootstrapOptions>,
}

/// Why a node without state cannot become part of a cluster. The texts are rqlite's.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A read-only node cannot be the only node.
    #[error("cannot create a new non-voting node without joining it to an existing cluster")]
    LoneNonVoter,
    /// The node was prepared to join a cluster, and has no addresses to join through.
    #[error(
        "this node was prepared to join cluster {0} and must not form one: give it -join or -disco-mode"
    )]
    JoinOnly(String),
    /// The node is a cluster of its own.
    #[error("node is the only node in a single-node cluster, joining other clusters not supported")]
    OwnCluster,
    /// An HTTP server listens at a join address.
    #[error("join address {0} appears to be serving HTTP when it should be Raft")]
    ServesHttp(String),
    /// Joining through every address failed.
    #[error("failed to join cluster: {0}")]
    Join(String),
    /// Not enough nodes were found in time.
    #[error("boot timeout: {0}")]
    BootTimeout(String),
    /// The node was stopped meanwhile.
    #[error("{0} canceled")]
    Canceled(&'static str),
    /// The disk or Raft failed.
    #[error("{0}")]
    Failed(String),
}

impl Bootstrapper {
    /// The addresses to contact in this round.
    pub(super) async fn addresses(&self) -> Result<Found, String> {
        match &self.options.source {
            AddressSource::None => Ok(Found::default()),
            AddressSource::Static(addresses) => Ok(Found {
                addresses: addresses.clone(),
                nodes: addresses.iter().collect::<BTreeSet<_>>().len(),
            }),
            AddressSource::Lookup(lookup) => lookup.lookup().await.map_err(|e| e.to_string()),
            AddressSource::LeaderKey(key) => {
                let held = key.read().await.map_err(|e| e.to_string())?;
                let addresses: Vec<String> = held.into_iter().map(|h| h.record.addr).collect();
                Ok(Found {
                    nodes: addresses.len(),
                    addresses,
                })
            }
        }
    }

    /// This node has a log or a vote.
    pub(super) async fn has_state(&self) -> Result<bool, ClusterError> {
        self.consensus
            .is_initialized()
            .await
            .map_err(|e| ClusterError::Failed(e.to_string()))
    }

    /// The cluster that this node may form: the one that it was prepared for, or a new one.
    pub(super) fn new_cluster(&self) -> Result<Cluster, ClusterError> {
        match self.local.identity().forming_right() {
            FormingRight::Any => Ok(random_cluster()),
            FormingRight::Only(cluster) => Ok(cluster),
            FormingRight::JoinOnly(cluster) => Err(ClusterError::JoinOnly(cluster.id)),
        }
    }

    /// Forms a cluster with this node as its only member.
    pub(super) async fn form_alone(&self) -> Result<(), ClusterError> {
        if !self.options.voter {
            return Err(ClusterError::LoneNonVoter);
        }
        tracing::info!(target: "rqlited", "bootstrapping single new node");
        let id = self.local.raft_id().to_owned();
        let cluster = match self.local.cluster() {
            // The process crashed after the pledge and before Raft was initialized.
            Some(cluster)
                if self.local.identity().pledged.as_deref() == Some(std::slice::from_ref(&id)) =>
            {
                cluster
            }
            Some(_) | None => self.new_cluster()?,
        };
        self.local
            .pledge(&cluster, std::slice::from_ref(&id))
            .map_err(|e| ClusterError::Failed(e.to_string()))?;
        self.initialize(&BTreeMap::from([(id, self.local.raft_addr.clone())]))
            .await
    }

    /// Initializes Raft with exactly these members (Raft id to address).
    pub(super) async fn initialize(
        &self,
        members: &BTreeMap<String, String>,
    ) -> Result<(), ClusterError> {
        self.consensus
            .initialize(members)
            .await
            .map_err(|e| ClusterError::Failed(e.to_string()))
    }
}

fn random_cluster() -> Cluster {
    let random = || format!("{:032x}", rand::random::<u128>());
    Cluster {
        id: random(),
        lineage: Lineage {
            id: random(),
            epoch: 0,
        },
    }
}
