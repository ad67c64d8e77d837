//! Becoming part of a cluster: join an existing one, or form the first one together. Deciding is in `decide.rs` and `claim.rs`, pure; asking
//! and acting are here and in `form.rs` and `register.rs`.
//!
//! DESIGN.md tells the cases and their traps.
pub mod claim;
pub mod decide;
mod form;
pub mod join;
pub mod register;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use self::join::join_once;
use crate::{
    discovery::{AddressLookup, Found, LeaderKey},
    identity::{Cluster, FormingRight, Lineage},
    internode::client::Peers,
    local::Local,
    raft::Consensus,
    stop::stopped_within,
    store::Credentials,
};

/// Between asks of a member that has lost sight of its cluster.
const REJOIN_PAUSE: Duration = Duration::from_secs(3);

/// Where to learn whom to ask.
#[derive(Clone, Debug)]
pub enum Source {
    /// Nowhere: the node is a cluster of its own, or works from what it has stored.
    Nowhere,
    /// `-join`: these addresses, in order.
    Listed(Vec<String>),
    /// `-disco-mode` dns or dns-srv: what the name resolves to, asked anew each round.
    Lookup(AddressLookup),
    /// `-disco-mode` consul-kv or etcd-kv: the key that names the leader.
    LeaderKey(LeaderKey),
}

/// How this node is to become part of a cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to ask.
    pub source: Source,
    /// Rounds over listed addresses, when the node only joins.
    pub attempts: u32,
    /// Between rounds.
    pub interval: Duration,
    /// Nodes needed to form the first cluster; 0 is: do not form one with others.
    pub expect: usize,
    /// Limit of forming for a node without state.
    pub expect_timeout: Duration,
    /// Wants to vote.
    pub voter: bool,
    /// Sent with joins and notices.
    pub credentials: Option<Credentials>,
}

/// Everything needed to talk about membership.
#[derive(Clone, Debug)]
pub struct Forming {
    /// This node.
    pub local: Arc<Local>,
    /// Calls to others.
    pub peers: Peers,
    /// Our Raft.
    pub consensus: Consensus,
    /// The plan.
    pub plan: Arc<Plan>,
}

/// Why a node without state cannot go on. The texts are rqlite's.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A read-only node needs somebody to follow.
    #[error("cannot create a new non-voting node without joining it to an existing cluster")]
    LoneNonVoter,
    /// It was prepared to join.
    #[error(
        "this node was prepared to join cluster {0} and must not form one: give it -join or -disco-mode"
    )]
    JoinOnly(String),
    /// It is a cluster of its own.
    #[error("node is the only node in a single-node cluster, joining other clusters not supported")]
    OwnCluster,
    /// An HTTP server answers where Raft should.
    #[error("join address {0} appears to be serving HTTP when it should be Raft")]
    ServesHttp(String),
    /// No address let it in.
    #[error("failed to join cluster: {0}")]
    Join(String),
    /// Not enough nodes appeared in time.
    #[error("boot timeout: {0}")]
    BootTimeout(String),
    /// Stopped while trying.
    #[error("{0} canceled")]
    Canceled(&'static str),
    /// The disk or Raft refused.
    #[error("{0}")]
    Failed(String),
}

impl Forming {
    /// Makes this node part of a cluster, as planned. A node that has state never fails for want of company: it goes on trying.
    ///
    /// # Errors
    /// Only for a node without state, or one that is told to join although it is a cluster of its own.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), ClusterError> {
        if let Source::Listed(addresses) = &self.plan.source {
            tracing::info!(target: "cluster-join", "checking that supplied join addresses don't serve HTTP(S)");
            for address in addresses {
                join::refuse_http(address).await?;
            }
        }
        let has_state = self.has_state().await?;
        match (&self.plan.source, has_state) {
            (Source::Nowhere, true) => Ok(()),
            (Source::Nowhere, false) => self.alone().await,
            (Source::Listed(addresses), _) if self.plan.expect == 0 => {
                self.join(addresses, has_state, stop).await
            }
            (Source::Listed(_) | Source::Lookup(_), false) => self.form(stop).await,
            (Source::LeaderKey(key), false) => self.register(key, stop).await,
            (Source::Listed(_) | Source::Lookup(_), true) => {
                tracing::info!(target: "cluster-bootstrap", "preexisting node state: not bootstrapping");
                self.return_home(stop).await;
                Ok(())
            }
            (Source::LeaderKey(_), true) => {
                tracing::info!(target: "disco", "preexisting node configuration detected, not registering with discovery service");
                self.return_home(stop).await;
                Ok(())
            }
        }
    }

    /// Whom to ask this round.
    async fn found(&self) -> Result<Found, String> {
        match &self.plan.source {
            Source::Nowhere => Ok(Found::default()),
            Source::Listed(addresses) => Ok(Found {
                addresses: addresses.clone(),
                nodes: addresses.iter().collect::<BTreeSet<_>>().len(),
            }),
            Source::Lookup(lookup) => lookup.lookup().await.map_err(|e| e.to_string()),
            Source::LeaderKey(key) => {
                let held = key.read().await.map_err(|e| e.to_string())?;
                let addresses: Vec<String> = held.into_iter().map(|h| h.record.addr).collect();
                Ok(Found {
                    nodes: addresses.len(),
                    addresses,
                })
            }
        }
    }

    async fn has_state(&self) -> Result<bool, ClusterError> {
        self.consensus
            .is_initialized()
            .await
            .map_err(|e| ClusterError::Failed(e.to_string()))
    }

    /// The cluster that this node may form: the one that it was prepared for, or one of its own.
    fn new_cluster(&self) -> Result<Cluster, ClusterError> {
        match self.local.identity().forming_right() {
            FormingRight::Any => Ok(random_cluster()),
            FormingRight::Only(cluster) => Ok(cluster),
            FormingRight::JoinOnly(cluster) => Err(ClusterError::JoinOnly(cluster.id)),
        }
    }

    /// The first node of a new cluster.
    async fn alone(&self) -> Result<(), ClusterError> {
        if !self.plan.voter {
            return Err(ClusterError::LoneNonVoter);
        }
        tracing::info!(target: "rqlited", "bootstrapping single new node");
        let id = self.local.raft_id().to_owned();
        let cluster = match self.local.cluster() {
            // A crash came between saying so and doing it.
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

    async fn initialize(&self, members: &BTreeMap<String, String>) -> Result<(), ClusterError> {
        self.consensus
            .initialize(members)
            .await
            .map_err(|e| ClusterError::Failed(e.to_string()))
    }

    async fn join(
        &self,
        addresses: &[String],
        has_state: bool,
        stop: &CancellationToken,
    ) -> Result<(), ClusterError> {
        if has_state {
            let members = self.consensus.members();
            let alone = matches!(members.as_slice(), [(id, ..)] if id.name() == self.local.name());
            let only_itself = addresses.iter().all(|a| *a == self.local.raft_addr);
            if alone && !only_itself {
                return Err(ClusterError::OwnCluster);
            }
        }
        let mut last = String::from("no join address");
        let attempts = self.plan.attempts.max(1);
        for round in 0..attempts {
            if round > 0 && stopped_within(stop, self.plan.interval).await {
                return Err(ClusterError::Canceled(
                    "failed to join cluster: join operation",
                ));
            }
            match join_once(self, addresses).await {
                Ok(address) => {
                    tracing::info!(target: "cluster-join", "successfully joined cluster at {address}");
                    return Ok(());
                }
                Err(e) => last = e.to_string(),
            }
            tracing::info!(target: "cluster-join", "not joined yet (try {} of {attempts})", round + 1);
            if has_state && self.consensus.is_mine() {
                // Nobody else can admit it; returning home records its address.
                last = "this node leads".into();
                break;
            }
            if !has_state && self.has_state().await? {
                // The leader has admitted this node; only its answer was lost.
                tracing::info!(target: "cluster-join", "admitted, although the answer to the join was lost");
                return Ok(());
            }
        }
        if has_state {
            tracing::warn!(target: "cluster-join", "not joined ({last}); this node has state and keeps running on it");
            self.return_home(stop).await;
            return Ok(());
        }
        Err(ClusterError::Join(last))
    }

    /// A member comes back. Its cluster may be without a leader, or know it under another address, so it keeps asking until it follows a leader
    /// (or leads) and the membership holds its address: for ever, if need be.
    async fn return_home(&self, stop: &CancellationToken) {
        let mut leadership = self.consensus.watch_leadership();
        loop {
            // A leader usually is heard within a moment; asking around before would only make noise.
            let led = tokio::select! {
                () = stop.cancelled() => return,
                _ = leadership.wait_for(|l| l.leader.is_some()) => true,
                () = tokio::time::sleep(REJOIN_PAUSE) => false,
            };
            if led && self.is_recorded() {
                return;
            }
            if self.consensus.is_mine() {
                match self.consensus.record_own_address().await {
                    Ok(()) => continue,
                    Err(e) => {
                        tracing::info!(target: "cluster-join", "recording this node's new address: {e}");
                    }
                }
            } else {
                self.ask_to_return().await;
            }
            if led && stopped_within(stop, REJOIN_PAUSE).await {
                return;
            }
        }
    }

    /// The membership holds this node at its present address.
    fn is_recorded(&self) -> bool {
        self.consensus.recorded_address().as_deref() == Some(self.local.raft_addr.as_str())
    }

    async fn ask_to_return(&self) {
        let found = match self.found().await {
            Ok(found) => found,
            Err(e) => {
                tracing::info!(target: "cluster-join", "nobody to ask: {e}");
                return;
            }
        };
        if let Ok(address) = join_once(self, &found.addresses).await {
            tracing::info!(target: "cluster-join", "successfully joined cluster at {address}");
            return;
        }
        // Nobody leads, perhaps because all addresses changed at once. Members that tell each other where they are can elect again.
        self.tell_members(&found.addresses).await;
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
