//! Requests to join a cluster and to form one: joins, notices, pledges and releases.
use std::{collections::BTreeSet, io, time::Duration};

use super::{caller::Peer, requests::RequestServer};
use crate::{
    auth::Perm,
    cluster::moved::{note_if_moved, note_member},
    identity::{Cluster, FormingRight, name_of},
    internode::{
        messages::{JoinRequest, JoinResponse, Notice, NoticeState},
        wire::Hello,
    },
    metrics::Counter,
    raft::membership::{ChangeError, JoinPlan, Joiner},
    store_types::{Credentials, StoreError},
};

/// How long the response to a join is delayed until the new member is a voter. Usually that takes
/// milliseconds; if it takes longer, the response is sent without it.
const PROMOTION_TIMEOUT: Duration = Duration::from_secs(2);

impl RequestServer {
    pub(super) async fn may_join(
        &self,
        credentials: Option<&Credentials>,
        voter: bool,
        peer: Peer<'_>,
    ) -> bool {
        let perm = if voter {
            Perm::Join
        } else {
            Perm::JoinReadOnly
        };
        let access = self.auth.check(credentials, &[perm], peer.login()).await;
        if let Some(notes) = peer.note() {
            notes.access(access);
        }
        access.is_allowed()
    }

    pub(super) async fn join(&self, request: JoinRequest, peer: Peer<'_>) -> JoinResponse {
        let hello = peer.hello;
        let credentials = request.credentials.as_ref();
        if !self.may_join(credentials, request.voter, peer).await {
            return JoinResponse::Unauthorized;
        }
        let (Some(consensus), Some(own)) = (self.consensus.get(), self.local.cluster()) else {
            return JoinResponse::NotLeader(None);
        };
        if let Some(theirs) = &request.cluster
            && *theirs != own
        {
            return JoinResponse::Refused(if theirs.id == own.id {
                "its data is of a lineage that a recovery has left behind; give it an empty data directory to join with".into()
            } else {
                // Whoever knows this cluster's id counts as one of it, so it is not disclosed.
                format!(
                    "it belongs to cluster {}, which is another one; give it an empty data directory to join with",
                    theirs.id
                )
            });
        }
        // Without this address Raft may not reach enough members for a quorum, which recording the new
        // address requires.
        note_if_moved(&self.local, &request.id, &request.raft_addr);
        let leadership = consensus.leadership();
        if !leadership.mine {
            return JoinResponse::NotLeader(leadership.addr);
        }
        let name = name_of(&request.id);
        if let Err(reason) = consensus.may_join(name, hello.version) {
            return JoinResponse::Refused(reason);
        }
        self.local
            .note_supported_version(&request.id, hello.version);
        if let Err(e) = resolve(&request.raft_addr).await {
            return JoinResponse::Refused(format!("failed to resolve {}: {e}", request.raft_addr));
        }
        let joiner = Joiner {
            id: request.id.into(),
            raft_addr: request.raft_addr,
            voter: request.voter,
        };
        match consensus.admit(&joiner).await {
            Ok(plan) => {
                self.count_join(&plan);
                if joiner.voter {
                    consensus
                        .wait_for_voter(&joiner.id, PROMOTION_TIMEOUT)
                        .await;
                }
                JoinResponse::Joined(own)
            }
            Err(ChangeError::NotLeader) => JoinResponse::NotLeader(consensus.leadership().addr),
            Err(ChangeError::Refused(reason)) => JoinResponse::Refused(reason),
            Err(ChangeError::Unknown(reason)) => {
                tracing::warn!(target: "cluster", "join of {}: {reason}", joiner.id);
                JoinResponse::NotLeader(None)
            }
        }
    }

    fn count_join(&self, plan: &JoinPlan) {
        match plan {
            JoinPlan::Nothing => self.metrics.count(Counter::StoreNumIgnoredJoins),
            JoinPlan::Record => self.metrics.count(Counter::StoreNumJoins),
            JoinPlan::Admit { replace } => {
                self.metrics.count(Counter::StoreNumJoins);
                if !replace.is_empty() {
                    self.metrics.count(Counter::StoreNumRemovedBeforeJoins);
                }
            }
            JoinPlan::Probe(_) | JoinPlan::Refuse(_) => {}
        }
    }

    /// This node's own notice, in response to another node's.
    /// `trusted`: it may know who this node is. `may_join`: it may form a cluster with this node.
    pub(super) async fn notice(&self, theirs: &Notice, trusted: bool, may_join: bool) -> Notice {
        if may_join {
            note_member(&self.local, theirs);
        }
        let identity = self.local.identity();
        let initialized = match self.consensus.get() {
            Some(consensus) => consensus.is_initialized().await.unwrap_or(true),
            // Raft is not open yet, so the log on disk may hold a cluster: nobody may treat this node as
            // empty.
            None => true,
        };
        let state = if initialized {
            NoticeState::Member
        } else if !self.voter
            || !self.forms
            || matches!(identity.forming_right(), FormingRight::JoinOnly(_))
            || !may_join
        {
            NoticeState::Bystander
        } else {
            if matches!(theirs.state, NoticeState::Empty { .. }) {
                self.callers.note(&theirs.raft_addr);
            }
            NoticeState::Empty {
                pledged: identity.pledged.clone(),
            }
        };
        let (id, raft_addr) = if trusted {
            (identity.raft_id(), self.local.raft_addr.clone())
        } else {
            Default::default()
        };
        Notice {
            id,
            raft_addr,
            state,
            credentials: None,
        }
    }

    /// Pledges this node to form `cluster`. Only a node without log and vote does so, only if it is one of
    /// the members, and only if the sender is the coordinator.
    pub(super) async fn pledge(
        &self,
        cluster: &Cluster,
        members: &[String],
        hello: &Hello,
    ) -> Result<(), StoreError> {
        let refuse = |text: &str| Err(StoreError::Refused(text.into()));
        let Some(consensus) = self.consensus.get() else {
            return Err(StoreError::NotOpen);
        };
        if members.first() != Some(&hello.from)
            || !members.iter().any(|m| m == self.local.raft_id())
        {
            return refuse("not a forming that this node is part of");
        }
        let names: BTreeSet<_> = members.iter().map(|id| name_of(id)).collect();
        if names.len() != members.len() {
            return refuse(
                "two of the nodes have the same node ID; give each node its own -node-id",
            );
        }
        if consensus
            .is_initialized()
            .await
            .map_err(|e| StoreError::Refused(e.to_string()))?
            && self.local.cluster().as_ref() != Some(cluster)
        {
            return refuse("this node already belongs to a cluster");
        }
        self.local
            .pledge(cluster, members)
            .map_err(|e| StoreError::Refused(e.to_string()))
    }

    /// Withdraws this node's pledge at the request of the coordinator. Any other request is ignored.
    pub(super) async fn release(&self, cluster: &Cluster, hello: &Hello) -> Result<(), StoreError> {
        let Some(consensus) = self.consensus.get() else {
            return Err(StoreError::NotOpen);
        };
        let identity = self.local.identity();
        let coordinator = identity.pledged.as_ref().and_then(|p| p.first());
        let initialized = consensus.is_initialized().await.unwrap_or(true);
        if initialized
            || identity.cluster.as_ref() != Some(cluster)
            || coordinator != Some(&hello.from)
        {
            return Ok(());
        }
        self.local
            .release()
            .map_err(|e| StoreError::Refused(e.to_string()))
    }
}

async fn resolve(address: &str) -> io::Result<()> {
    match tokio::net::lookup_host(address).await?.next() {
        Some(_) => Ok(()),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "no such host")),
    }
}
