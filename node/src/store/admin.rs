//! Administration: list nodes, remove one, transfer leadership, snapshot, readiness.
use std::time::{Duration, Instant};

use node_api::nodes::NodeInfo;
use node_contract::duration;
use node_db::{Kind, Read};
use node_values::{Statement, StatementResult};

use super::{Caller, Opened, Readiness, Store, read::read_on_this_thread};
use crate::{
    internode::messages::{Meta, PeerRequest, PeerResponse},
    metrics::Counter,
    raft::membership::ChangeError,
    store_types::StoreError,
};

/// Interval at which the applied index is checked while `/readyz?sync` waits.
const SYNC_PAUSE: Duration = Duration::from_millis(20);
/// How long a new leader may take from its election until it leads: one round of heartbeats.
const SUCCESSOR_LIMIT: Duration = Duration::from_secs(2);
/// Interval at which it is asked.
const SUCCESSOR_PAUSE: Duration = Duration::from_millis(5);
/// Limit of a probe of the local database.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

impl Store {
    /// Facts about this node.
    ///
    /// # Errors
    /// None for a store that is not open: a node that is just starting still identifies itself.
    pub fn meta(&self) -> Meta {
        let consensus = self.0.opened.get().map(|o| &o.consensus);
        Meta {
            name: self.0.local.name().to_owned(),
            raft_id: self.0.local.raft_id().to_owned(),
            api_url: self.0.local.api_url.clone(),
            version: crate::VERSION.to_owned(),
            commit_index: consensus.map_or(0, |c| c.commit_index()),
            leader: consensus.is_some_and(|c| c.leads()),
        }
    }

    async fn meta_of(&self, address: &str, limit: Duration) -> Result<Meta, String> {
        if address == self.0.local.raft_addr {
            let metrics = &self.0.local.metrics;
            metrics.count(Counter::ClusterNumGetNodeApiReqLocal);
            return Ok(self.meta());
        }
        match self.0.peers.call(address, &PeerRequest::Meta, limit).await {
            Ok(PeerResponse::Meta(meta)) => Ok(meta),
            Ok(_) => Err(format!("{address} sent an unexpected response")),
            Err(crate::internode::wire::WireError::Timeout { .. }) => {
                Err("timeout waiting for node to respond".into())
            }
            Err(e) => Err(e.to_string()),
        }
    }

    /// The leader's advertised HTTP URL, requested from the leader.
    ///
    /// # Errors
    /// No leader is known, or it does not respond.
    pub async fn leader_api_url(&self, timeout: Duration) -> Result<String, StoreError> {
        let leader = self.leader().ok_or(StoreError::LeaderNotFound)?;
        self.meta_of(&leader.raft_addr, timeout)
            .await
            .map(|meta| meta.api_url)
            .map_err(StoreError::Refused)
    }

    /// Probes all members in parallel.
    ///
    /// # Errors
    /// Not open.
    pub async fn nodes(
        &self,
        include_non_voters: bool,
        timeout: Duration,
    ) -> Result<Vec<NodeInfo>, StoreError> {
        let opened = self.open()?;
        // A leader whose lease is over is no leader, also where it is listed.
        let leader = self
            .leader()
            .and_then(|_| opened.consensus.leadership().leader);
        let members = opened
            .consensus
            .members()
            .into_iter()
            .filter(|(_, _, voter)| include_non_voters || *voter);
        let probes = members.map(|(id, member, voter)| {
            let is_leader = leader.as_ref() == Some(&id);
            async move {
                let started = Instant::now();
                let response = self.meta_of(&member.raft_addr, timeout).await;
                // A response from another data directory at that address is not this member's.
                let response = response.and_then(|meta| {
                    if meta.raft_id == id.0.as_ref() {
                        Ok(meta)
                    } else {
                        Err(format!(
                            "the data directory of node {} is not the one that joined",
                            id.name()
                        ))
                    }
                });
                let elapsed = started.elapsed();
                let mut info = NodeInfo {
                    id: id.name().to_owned(),
                    addr: member.raft_addr,
                    voter,
                    leader: is_leader,
                    ..NodeInfo::default()
                };
                match response {
                    Ok(meta) => {
                        info.api_addr = meta.api_url;
                        info.version = meta.version;
                        info.reachable = true;
                        info.time = elapsed.as_secs_f64();
                        info.time_s = duration::format(elapsed);
                    }
                    Err(error) => info.error = error,
                }
                info
            }
        });
        Ok(futures_util::future::join_all(probes).await)
    }

    /// Removes a member by node name; unknown names are not an error. Forwarded to the leader.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove(&self, name: &str, caller: &Caller) -> Result<(), StoreError> {
        let opened = self.open()?;
        match Self::elsewhere(opened) {
            None => self.remove_as_leader(name).await,
            Some(address) => {
                let request = PeerRequest::Remove {
                    name: name.to_owned(),
                    credentials: caller.credentials.clone(),
                };
                self.forward_admin(&address, &request, caller).await
            }
        }
    }

    /// Serves a forwarded removal.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove_as_leader(&self, name: &str) -> Result<(), StoreError> {
        self.open()?
            .consensus
            .remove(name)
            .await
            .map_err(Into::into)
    }

    async fn forward_admin(
        &self,
        address: &str,
        request: &PeerRequest,
        caller: &Caller,
    ) -> Result<(), StoreError> {
        match self.0.peers.call(address, request, caller.timeout).await {
            Ok(PeerResponse::Done(done)) => done,
            Ok(_) => Err(StoreError::Unknown(format!(
                "{address} sent an unexpected response"
            ))),
            Err(e) if e.nothing_sent() => Err(StoreError::Refused(e.to_string())),
            Err(e) => Err(StoreError::Unknown(e.to_string())),
        }
    }

    /// Transfers leadership to the named node or the best one; with `wait`, returns when another node leads.
    /// Forwarded to the leader.
    ///
    /// # Errors
    /// See [`StoreError`]; refusals begin with `stepdown: `.
    pub async fn stepdown(
        &self,
        to: Option<&str>,
        wait: bool,
        caller: &Caller,
    ) -> Result<(), StoreError> {
        let opened = self.open()?;
        match Self::elsewhere(opened) {
            None => self.stepdown_as_leader(to, wait).await,
            Some(address) => {
                let request = PeerRequest::StepDown {
                    to: to.map(Into::into),
                    wait,
                    credentials: caller.credentials.clone(),
                };
                self.forward_admin(&address, &request, caller).await?;
                // The client asks this node next.
                if wait {
                    self.successor_leads(opened, &address).await?;
                }
                Ok(())
            }
        }
    }

    /// Waits until this node knows another leader than the one at `former`, and that leader says itself that
    /// it leads: it has to hear from a quorum first, some milliseconds after it was elected.
    async fn successor_leads(&self, opened: &Opened, former: &str) -> Result<(), StoreError> {
        let mut leadership = opened.consensus.watch_leadership();
        let leads = async {
            loop {
                leadership.mark_unchanged();
                if let Some(leader) = self.leader().filter(|l| l.raft_addr != former)
                    && let Ok(meta) = self.meta_of(&leader.raft_addr, SUCCESSOR_LIMIT).await
                    && meta.leader
                {
                    return;
                }
                let _ = tokio::time::timeout(SUCCESSOR_PAUSE, leadership.changed()).await;
            }
        };
        tokio::time::timeout(SUCCESSOR_LIMIT, leads)
            .await
            .map_err(|_| StoreError::Unknown("stepdown: no node took over in time".into()))
    }

    /// Serves a forwarded leadership transfer.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn stepdown_as_leader(&self, to: Option<&str>, wait: bool) -> Result<(), StoreError> {
        let opened = self.open()?;
        let consensus = opened.consensus.clone();
        let to = to.map(ToOwned::to_owned);
        if wait {
            consensus.transfer_leadership(to.as_deref()).await?;
            return self.successor_leads(opened, &self.0.local.raft_addr).await;
        }
        tokio::spawn(async move {
            if let Err(e) = consensus.transfer_leadership(to.as_deref()).await {
                tracing::warn!(target: "store", "{e}");
            }
        });
        Ok(())
    }

    /// Makes a checkpoint and purges the log behind it; `Ok(false)` if there was nothing new.
    ///
    /// # Errors
    /// The store is not open, or a pin holds the main file.
    pub async fn snapshot(&self, trailing_logs: Option<u64>) -> Result<bool, StoreError> {
        let opened = self.open()?;
        let consensus = &opened.consensus;
        let last = consensus.metrics().snapshot.map_or(0, |s| s.index);
        if consensus.applied_index() <= last {
            return Ok(false);
        }
        let metrics = &self.0.local.metrics;
        match consensus.checkpoint(&opened.db, trailing_logs).await {
            Ok(_) => {
                metrics.count(Counter::StoreNumUserSnapshots);
                Ok(true)
            }
            Err(why) => {
                metrics.count(Counter::StoreNumUserSnapshotsFailed);
                Err(StoreError::Refused(format!(
                    "snapshot deferred: {why}; try again"
                )))
            }
        }
    }

    /// Readiness, checked in the order in which things become ready.
    pub async fn ready(&self, sync: bool, timeout: Duration) -> Readiness {
        let Some(opened) = self.0.opened.get() else {
            return Readiness::NoLeader;
        };
        if let Some(difference) = self.difference() {
            return Readiness::DatabaseFailed(format!(
                "this node's copy differs from the majority's at index {}",
                difference.index
            ));
        }
        if let Some(waiting) = opened.db.waiting() {
            return Readiness::DatabaseFailed(waiting);
        }
        let Some(leader) = self.leader() else {
            return Readiness::NoLeader;
        };
        let meta = match self.meta_of(&leader.raft_addr, timeout).await {
            Ok(meta) => meta,
            Err(e) => return Readiness::LeaderNotContactable(e),
        };
        if self.is_restoring() || opened.consensus.awaits_vote() {
            return Readiness::NotReady;
        }
        if sync && let Err(e) = self.caught_up(meta.commit_index.max(1), timeout).await {
            return Readiness::SyncFailed(e);
        }
        let probe = Read {
            kind: Kind::Query,
            transaction: false,
            qualify_columns: false,
            statements: vec![Statement {
                sql: "SELECT 1".into(),
                parameters: Vec::new(),
            }],
            timeout: Some(PROBE_TIMEOUT),
        };
        let probed = match tokio::time::timeout(PROBE_TIMEOUT, query_database(opened, probe)).await
        {
            Ok(probed) => probed,
            Err(_) => Err("no response in time".into()),
        };
        probed.map_or_else(Readiness::DatabaseFailed, |()| Readiness::Ready)
    }

    async fn caught_up(&self, index: u64, timeout: Duration) -> Result<(), String> {
        let deadline = Instant::now() + timeout;
        loop {
            let applied = self
                .0
                .opened
                .get()
                .map_or(0, |o| o.consensus.applied_index());
            if applied >= index {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("timeout waiting for index {index}, at {applied}"));
            }
            tokio::time::sleep(SYNC_PAUSE).await;
        }
    }
}

/// Runs a query on the database; on this thread if that needs no waiting, so that a probe does not stand in a
/// queue.
async fn query_database(opened: &Opened, probe: Read) -> Result<(), String> {
    let at_once = match opened.consensus.disk_responds() {
        Ok(()) => read_on_this_thread(opened, &probe),
        Err(_) => None,
    };
    let outcome = match at_once {
        Some(outcome) => outcome,
        None => opened.db.read(probe).await.map_err(|_| "closed")?,
    };
    match (outcome.error, outcome.results.into_iter().next()) {
        (None, Some(StatementResult::Rows(_))) => Ok(()),
        (Some(error), _) | (None, Some(StatementResult::Error(error))) => Err(error),
        (None, _) => Err("no result".into()),
    }
}

impl From<ChangeError> for StoreError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotLeader => Self::LeaderNotFound,
            ChangeError::Refused(text) => Self::Refused(text),
            ChangeError::Unknown(text) => Self::Unknown(text),
        }
    }
}
