//! What an administrator does: look at nodes, remove one, hand leadership over, snapshot, probe readiness.
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

/// A commit index is looked at this often while `/readyz?sync` waits.
const SYNC_PAUSE: Duration = Duration::from_millis(20);
/// The longest a probe of the local database may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

impl Store {
    /// This node about itself.
    ///
    /// # Errors
    /// Never for want of an open store: a node that is just starting still says who it is.
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

    /// The leader's advertised HTTP URL, asked from the leader.
    ///
    /// # Errors
    /// No leader, or it does not answer.
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
        let leader = opened.consensus.leadership().leader;
        let members = opened
            .consensus
            .members()
            .into_iter()
            .filter(|(_, _, voter)| include_non_voters || *voter);
        let probes = members.map(|(id, member, voter)| {
            let is_leader = leader.as_ref() == Some(&id);
            async move {
                let started = Instant::now();
                let answer = self.meta_of(&member.raft_addr, timeout).await;
                // Another data directory on that address is not this member.
                let answer = answer.and_then(|meta| {
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
                match answer {
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
                let ask = PeerRequest::Remove {
                    name: name.to_owned(),
                    credentials: caller.credentials.clone(),
                };
                self.forward_admin(&address, &ask, caller).await
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
        ask: &PeerRequest,
        caller: &Caller,
    ) -> Result<(), StoreError> {
        match self.0.peers.call(address, ask, caller.timeout).await {
            Ok(PeerResponse::Done(done)) => done,
            Ok(_) => Err(StoreError::Unknown(format!(
                "{address} sent an unexpected response"
            ))),
            Err(e) if e.nothing_sent() => Err(StoreError::Refused(e.to_string())),
            Err(e) => Err(StoreError::Unknown(e.to_string())),
        }
    }

    /// Hands leadership over, to the named node or the best one; with `wait` returns when another node leads. Forwarded to the leader.
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
                let ask = PeerRequest::StepDown {
                    to: to.map(Into::into),
                    wait,
                    credentials: caller.credentials.clone(),
                };
                self.forward_admin(&address, &ask, caller).await
            }
        }
    }

    /// Serves a forwarded handing over.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn stepdown_as_leader(&self, to: Option<&str>, wait: bool) -> Result<(), StoreError> {
        let consensus = self.open()?.consensus.clone();
        let to = to.map(ToOwned::to_owned);
        if wait {
            return consensus
                .transfer_leadership(to.as_deref())
                .await
                .map_err(Into::into);
        }
        tokio::spawn(async move {
            if let Err(e) = consensus.transfer_leadership(to.as_deref()).await {
                tracing::warn!(target: "store", "{e}");
            }
        });
        Ok(())
    }

    /// Makes a checkpoint and trims the log; `Ok(false)` if nothing was new.
    ///
    /// # Errors
    /// Not open, or something holds the main file still.
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

    /// Readiness, in the order in which things become ready.
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
        let probed = match tokio::time::timeout(PROBE_TIMEOUT, answers(opened, probe)).await {
            Ok(probed) => probed,
            Err(_) => Err("no answer in time".into()),
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

/// Asks the database something. On this thread if that waits for nothing, so that a probe stands in no queue.
async fn answers(opened: &Opened, probe: Read) -> Result<(), String> {
    let at_once = match opened.consensus.disk_answers() {
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
        (None, _) => Err("no answer".into()),
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
