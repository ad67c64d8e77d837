//! Forming the first cluster: rounds of joins and notices until one node coordinates, and the coordination itself.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    ClusterError, Forming,
    decide::{Decision, Own, decide},
    join::join_once,
};
use crate::{
    discovery::Found,
    identity::{Cluster, FormingRight},
    internode::client::{Answer, Ask, Notice, NoticeState},
    internode_server::requests,
};

/// Pause between rounds of forming, jittered up to twice as long so that equal nodes do not march in step.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// A notice exchange with one address.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);

impl Forming {
    /// Joins, or forms the first cluster once enough empty nodes have been seen.
    pub(super) async fn form(&self, stop: &CancellationToken) -> Result<(), ClusterError> {
        let deadline = Instant::now() + self.plan.expect_timeout;
        let mut last_why = String::new();
        loop {
            if self.consensus.leadership().leader.is_some() {
                tracing::info!(target: "cluster-bootstrap", "boot operation marked done");
                return Ok(());
            }
            let why = match self.found().await {
                Ok(found) if found.addresses.is_empty() => "no addresses to ask yet".to_owned(),
                Ok(found) => {
                    let why = match join_once(self, &found.addresses).await {
                        Ok(address) => {
                            tracing::info!(target: "cluster-bootstrap", "succeeded directly joining cluster via node at {address}");
                            return Ok(());
                        }
                        Err(e) => e.to_string(),
                    };
                    self.form_round(&found).await?.unwrap_or(why)
                }
                Err(e) => format!("provider lookup failed: {e}"),
            };
            if last_why != why {
                tracing::info!(target: "cluster-bootstrap", "not formed yet: {why}");
                last_why.clone_from(&why);
            }
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
    async fn form_round(&self, found: &Found) -> Result<Option<String>, ClusterError> {
        if !self.plan.voter {
            return Ok(Some("a read-only node waits for a cluster to join".into()));
        }
        let identity = self.local.identity();
        if let FormingRight::JoinOnly(cluster) = identity.forming_right() {
            return Ok(Some(format!(
                "this node was prepared to join cluster {}, and waits for its leader",
                cluster.id
            )));
        }
        let own = Own {
            id: identity.raft_id(),
            raft_addr: self.local.raft_addr.clone(),
            expect: self.plan.expect,
            pledged: identity.pledged.clone(),
        };
        let empty = NoticeState::Empty {
            pledged: identity.pledged,
        };
        let answers = self.exchange_notices(&found.addresses, empty).await;
        match decide(&own, found.nodes, &answers) {
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

    async fn exchange_notices(
        &self,
        addresses: &[String],
        state: NoticeState,
    ) -> Vec<Option<Notice>> {
        let notice = Notice {
            id: self.local.raft_id().to_owned(),
            raft_addr: self.local.raft_addr.clone(),
            state,
            credentials: self.plan.credentials.clone(),
        };
        let calls = addresses.iter().map(|address| {
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

    /// A member tells the others where it is, and hears where they are.
    pub(super) async fn tell_members(&self, addresses: &[String]) {
        let answers = self.exchange_notices(addresses, NoticeState::Member).await;
        for notice in answers.iter().flatten() {
            requests::note_member(&self.local, notice);
        }
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
            _ => self.new_cluster()?,
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
