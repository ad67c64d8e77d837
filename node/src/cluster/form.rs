//! Forming the first cluster: rounds of joins and notices until one node coordinates, and the coordination
//! itself.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    bootstrapper::{AddressSource, Bootstrapper, ClusterError},
    decide::{Decision, Own, Round, decide},
    join::join_once,
    notices::NOTICE_TIMEOUT,
};
use crate::{
    discovery::Found,
    identity::{Cluster, FormingRight},
    internode::messages::{Notice, NoticeState, PeerRequest, PeerResponse},
};

/// Shortest pause between rounds. The pause is random, up to twice as long, so that the nodes do not act in
/// lockstep.
const ROUND_PAUSE: Duration = Duration::from_secs(1);

impl Bootstrapper {
    /// Joins a cluster, or forms the first one once enough empty nodes have been found.
    pub(super) async fn form(&self) -> Result<(), ClusterError> {
        let deadline = Instant::now() + self.options.expect_timeout;
        let mut last_why = String::new();
        loop {
            if self.consensus.leadership().leader.is_some() {
                tracing::info!(target: "cluster-bootstrap", "boot operation marked done");
                return Ok(());
            }
            let why = match self.addresses().await {
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
            let mut leadership = self.consensus.watch_leadership();
            let led = leadership.wait_for(|l| l.leader.is_some());
            let _ = tokio::time::timeout(pause, led).await;
        }
    }

    /// Exchanges notices once and acts on them. Returns what is still missing, as a text for the log.
    async fn form_round(&self, found: &Found) -> Result<Option<String>, ClusterError> {
        if !self.options.voter {
            return Ok(Some("a read-only node waits for a cluster to join".into()));
        }
        let identity = self.local.identity();
        if let FormingRight::JoinOnly(cluster) = identity.forming_right() {
            return Ok(Some(format!(
                "this node was prepared to join cluster {}, and waits for its leader",
                cluster.id
            )));
        }
        let empty = NoticeState::Empty {
            pledged: identity.pledged.clone(),
        };
        // A discovery service returns as many addresses as nodes must take part: callers beyond them do not
        // count.
        let callers = match &self.options.source {
            AddressSource::Static(_) => self
                .callers
                .others_than(&found.addresses, &self.local.raft_addr),
            _ => Vec::new(),
        };
        let (from_listed, from_callers) = tokio::join!(
            self.exchange_notices(&found.addresses, empty.clone()),
            self.exchange_notices(&callers, empty),
        );
        let id = identity.raft_id();
        // Some nodes cannot reach themselves at the address that they advertise.
        let is_listed = found.addresses.iter().zip(&from_listed).any(|(at, found)| {
            *at == self.local.raft_addr && found.as_ref().is_none_or(|n| n.id == id)
        });
        let own = Own {
            is_listed: is_listed || from_listed.iter().flatten().any(|n| n.id == id),
            id,
            raft_addr: self.local.raft_addr.clone(),
            expect: self.options.expect,
            pledged: identity.pledged,
        };
        let round = Round {
            listed: found.nodes,
            from_listed: &from_listed,
            from_callers: &from_callers,
        };
        if own.pledged.is_none() {
            self.introduce(&from_listed, &from_callers).await;
        }
        match decide(&own, &round) {
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

    /// Makes unlisted nodes known to all others, so that every node decides on the same set. An introduction
    /// is a notice in the name of that node, which the receiver contacts then.
    async fn introduce(&self, listed: &[Option<Notice>], callers: &[Option<Notice>]) {
        let own = self.local.raft_id();
        let empty = |n: &&Notice| matches!(n.state, NoticeState::Empty { .. }) && n.id != own;
        let unlisted = |n: &&Notice| !listed.iter().flatten().any(|other| other.id == n.id);
        let unlisted: Vec<_> = callers
            .iter()
            .flatten()
            .filter(empty)
            .filter(unlisted)
            .collect();
        let others = listed.iter().chain(callers).flatten().filter(empty);
        let calls = others.flat_map(|to| {
            let introduced = unlisted.iter().filter(|node| node.id != to.id);
            introduced.map(move |node| {
                let notice = Notice {
                    credentials: self.options.own_user.credentials(),
                    ..(*node).clone()
                };
                let request = PeerRequest::Notify(notice);
                async move {
                    self.peers
                        .call(&to.raft_addr, &request, NOTICE_TIMEOUT)
                        .await
                }
            })
        });
        // Failures are ignored: the next round introduces them again.
        let _ = futures_util::future::join_all(calls).await;
    }

    /// Coordinates the forming: collects every member's pledge, then initializes Raft with exactly these
    /// members.
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
            let request = PeerRequest::Pledge {
                cluster: cluster.clone(),
                members: ids.clone(),
                credentials: self.options.own_user.credentials(),
            };
            let why = match self.peers.call(address, &request, NOTICE_TIMEOUT).await {
                Ok(PeerResponse::Done(Ok(()))) => continue,
                Ok(PeerResponse::Done(Err(e))) => e.to_string(),
                Ok(_) => "unexpected response".into(),
                // It may have pledged. It is asked again for the same members in the next round.
                Err(e) => return Ok(Some(format!("node {id} at {address}: {e}"))),
            };
            self.abandon(&cluster, &members).await?;
            return Ok(Some(format!("node {id} at {address}: {why}")));
        }
        self.initialize(&members).await?;
        tracing::info!(target: "cluster-bootstrap", "cluster bootstrap successful, servers: {members:?}");
        Ok(None)
    }

    /// Withdraws all pledges after one node has refused. This node's own withdrawal is durable before any
    /// other node learns of it.
    async fn abandon(
        &self,
        cluster: &Cluster,
        members: &BTreeMap<String, String>,
    ) -> Result<(), ClusterError> {
        self.local
            .release()
            .map_err(|e| ClusterError::Failed(e.to_string()))?;
        for address in members.values().filter(|a| **a != self.local.raft_addr) {
            // Failures are ignored: the next notice shows the node that its coordinator is no longer pledged.
            let _ = self
                .peers
                .call(
                    address,
                    &PeerRequest::Release(cluster.clone()),
                    NOTICE_TIMEOUT,
                )
                .await;
        }
        Ok(())
    }
}
