//! Becoming part of a cluster: join an existing one, or form the first one together. Deciding is in `decide.rs`, pure; this file asks and acts.
//!
//! DESIGN.md tells the cases and their traps.
pub mod decide;
pub mod join;
pub mod serve;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use self::{
    decide::{Decision, Own, decide},
    join::{JoinError, join_once},
};
use crate::{
    identity::{Cluster, Lineage},
    local::Local,
    peer::{Answer, Ask, Notice, NoticeState, Peers},
    raft::Consensus,
    stop::stopped_within,
    store::Credentials,
};

/// Pause between rounds of forming, jittered up to twice as long so that equal nodes do not march in step.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// A notice exchange with one address.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between asks of a member that has lost sight of its cluster.
const REJOIN_PAUSE: Duration = Duration::from_secs(3);

/// How this node is to become part of a cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Addresses to join, in order.
    pub join: Vec<String>,
    /// Rounds over them.
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
        for address in &self.plan.join {
            join::refuse_http(address).await?;
        }
        let has_state = self.has_state().await?;
        match (self.plan.join.is_empty(), self.plan.expect, has_state) {
            (true, _, true) => Ok(()),
            (true, _, false) => self.alone().await,
            (false, 0, _) => self.join(has_state, stop).await,
            (false, _, true) => {
                tracing::info!(target: "cluster-bootstrap", "preexisting node state: not bootstrapping");
                self.rejoin_until_led(stop).await;
                Ok(())
            }
            (false, _, false) => self.form(stop).await,
        }
    }

    async fn has_state(&self) -> Result<bool, ClusterError> {
        self.consensus
            .is_initialized()
            .await
            .map_err(|e| ClusterError::Failed(e.to_string()))
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
            Some(_) | None => new_cluster(),
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

    async fn join(&self, has_state: bool, stop: &CancellationToken) -> Result<(), ClusterError> {
        if has_state {
            let members = self.consensus.members();
            let alone = matches!(members.as_slice(), [(id, ..)] if id.name() == self.local.name());
            let only_itself = self.plan.join.iter().all(|a| *a == self.local.raft_addr);
            if alone && !only_itself {
                return Err(ClusterError::OwnCluster);
            }
        }
        let mut last = String::from("no join address");
        for round in 0..self.plan.attempts.max(1) {
            if round > 0 && stopped_within(stop, self.plan.interval).await {
                return Err(ClusterError::Canceled(
                    "failed to join cluster: join operation",
                ));
            }
            match join_once(self).await {
                Ok(address) => {
                    tracing::info!(target: "cluster-join", "successfully joined cluster at {address}");
                    return Ok(());
                }
                Err(JoinError::Final(reason)) if !has_state => {
                    return Err(ClusterError::Join(reason));
                }
                Err(e) => last = e.to_string(),
            }
            if !has_state && self.has_state().await? {
                // The leader has admitted this node; only its answer was lost.
                tracing::info!(target: "cluster-join", "admitted, although the answer to the join was lost");
                return Ok(());
            }
        }
        if has_state {
            tracing::warn!(target: "cluster-join", "not joined ({last}); this node has state and keeps running on it");
            self.rejoin_until_led(stop).await;
            return Ok(());
        }
        Err(ClusterError::Join(last))
    }

    /// A member without a leader in sight: its address may have changed, so it keeps asking to be joined again, for ever.
    async fn rejoin_until_led(&self, stop: &CancellationToken) {
        while self.consensus.leadership().leader.is_none() {
            if stopped_within(stop, REJOIN_PAUSE).await
                || self.consensus.leadership().leader.is_some()
            {
                return;
            }
            if let Ok(address) = join_once(self).await {
                tracing::info!(target: "cluster-join", "successfully joined cluster at {address}");
                return;
            }
        }
    }

    /// Joins, or forms the first cluster once enough empty nodes have been seen.
    async fn form(&self, stop: &CancellationToken) -> Result<(), ClusterError> {
        let deadline = Instant::now() + self.plan.expect_timeout;
        loop {
            if self.consensus.leadership().leader.is_some() {
                tracing::info!(target: "cluster-bootstrap", "boot operation marked done");
                return Ok(());
            }
            let why = match join_once(self).await {
                Ok(address) => {
                    tracing::info!(target: "cluster-bootstrap", "succeeded directly joining cluster via node at {address}");
                    return Ok(());
                }
                Err(e) => e.to_string(),
            };
            let why = self.form_round().await?.unwrap_or(why);
            if Instant::now() >= deadline {
                return Err(ClusterError::BootTimeout(why));
            }
            let pause = ROUND_PAUSE.mul_f64(1.0 + rand::random::<f64>());
            if self.led_within(pause, stop).await {
                return Err(ClusterError::Canceled("boot"));
            }
        }
    }

    /// Waits for a leader to appear, at most `pause`. True if stopped.
    async fn led_within(&self, pause: Duration, stop: &CancellationToken) -> bool {
        let mut leadership = self.consensus.watch_leadership();
        tokio::select! {
            () = stop.cancelled() => true,
            _ = leadership.wait_for(|l| l.leader.is_some()) => false,
            () = tokio::time::sleep(pause) => false,
        }
    }

    /// One round of notices and what follows from them. Returns what is missing, for a person.
    async fn form_round(&self) -> Result<Option<String>, ClusterError> {
        if !self.plan.voter {
            return Ok(Some("a read-only node waits for a cluster to join".into()));
        }
        let identity = self.local.identity();
        let own = Own {
            id: identity.raft_id(),
            raft_addr: self.local.raft_addr.clone(),
            expect: self.plan.expect,
            pledged: identity.pledged.clone(),
        };
        let answers = self.exchange_notices().await;
        match decide(&own, &self.plan.join, &answers) {
            Decision::Wait(why) => Ok(Some(why)),
            Decision::Release => {
                tracing::info!(target: "cluster-bootstrap", "released from a forming that did not happen");
                self.local
                    .release()
                    .map_err(|e| ClusterError::Failed(e.to_string()))?;
                Ok(None)
            }
            Decision::Form(members) => self.coordinate(members).await,
        }
    }

    async fn exchange_notices(&self) -> Vec<Option<Notice>> {
        let identity = self.local.identity();
        let notice = Notice {
            id: identity.raft_id(),
            raft_addr: self.local.raft_addr.clone(),
            state: NoticeState::Empty {
                pledged: identity.pledged,
            },
            credentials: self.plan.credentials.clone(),
        };
        let calls = self.plan.join.iter().map(|address| {
            let ask = Ask::Notify(notice.clone());
            async move {
                match self.peers.call(address, &ask, NOTICE_TIMEOUT).await {
                    Ok(Answer::Notify(answer)) => Some(answer),
                    Ok(_) => None,
                    Err(e) => {
                        tracing::debug!(target: "cluster-bootstrap", "notice to {address}: {e}");
                        None
                    }
                }
            }
        });
        futures_util::future::join_all(calls).await
    }

    /// This node coordinates: everybody pledges, then Raft is initialized with exactly this set.
    async fn coordinate(
        &self,
        members: BTreeMap<String, String>,
    ) -> Result<Option<String>, ClusterError> {
        let ids: Vec<String> = members.keys().cloned().collect();
        let identity = self.local.identity();
        let cluster = match (identity.cluster, identity.pledged) {
            (Some(cluster), Some(pledged)) if pledged == ids => cluster,
            _ => new_cluster(),
        };
        tracing::info!(target: "cluster-bootstrap", "reached expected bootstrap count of {}, starting cluster bootstrap", ids.len());
        if let Err(e) = self.local.pledge(&cluster, &ids) {
            return Ok(Some(e.to_string()));
        }
        for (id, address) in members.iter().filter(|(id, _)| *id != self.local.raft_id()) {
            let ask = Ask::Pledge {
                cluster: cluster.clone(),
                members: ids.clone(),
                credentials: self.plan.credentials.clone(),
            };
            let why = match self.peers.call(address, &ask, NOTICE_TIMEOUT).await {
                Ok(Answer::Done(Ok(()))) => continue,
                Ok(Answer::Done(Err(e))) => e.to_string(),
                Ok(_) => "answered another question".into(),
                // It may have pledged; it is asked again with the same set in the next round.
                Err(e) => return Ok(Some(format!("node {id} at {address}: {e}"))),
            };
            self.abandon(&cluster, &members).await?;
            return Ok(Some(format!("node {id} at {address}: {why}")));
        }
        self.initialize(&members).await?;
        tracing::info!(target: "cluster-bootstrap", "cluster bootstrap successful, servers: {members:?}");
        Ok(None)
    }

    /// Somebody refused: nobody is bound any longer. Our own release is durable before anyone hears of it.
    async fn abandon(
        &self,
        cluster: &Cluster,
        members: &BTreeMap<String, String>,
    ) -> Result<(), ClusterError> {
        self.local
            .release()
            .map_err(|e| ClusterError::Failed(e.to_string()))?;
        for address in members.values().filter(|a| **a != self.local.raft_addr) {
            // Best effort: who misses it sees at the next notice that the coordinator is not bound.
            let _ = self
                .peers
                .call(address, &Ask::Release(cluster.clone()), NOTICE_TIMEOUT)
                .await;
        }
        Ok(())
    }
}

fn new_cluster() -> Cluster {
    let random = || format!("{:032x}", rand::random::<u128>());
    Cluster {
        id: random(),
        lineage: Lineage {
            id: random(),
            epoch: 0,
        },
    }
}
