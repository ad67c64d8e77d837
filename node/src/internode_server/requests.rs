//! Serves connections with the purpose `Cluster`: checks each request's rights and passes it to the function
//! that answers it.
use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    admission::{Protection, Slot, Standing, is_outsider, standing},
    audited::Trail,
    caller::{Peer, while_connected},
};
use crate::{
    archive::Archive,
    audit::Audit,
    auth::{Access, Auth, Perm},
    cluster::callers::Callers,
    internode::{
        messages::{Meta, PeerRequest, PeerResponse},
        wire::{Connection, Hello, MAX_FRAME_BYTES, MAX_UNKNOWN_FRAME_BYTES, withdrawn},
    },
    local::Local,
    metrics::{Counter, Metrics},
    raft::Consensus,
    store::Store,
    store_types::{Credentials, HashReport, StoreError},
};

/// A member's connection is closed after this long without a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for nodes that have not proven to be members, which also have to accept each response within this
/// time. A node that wants to join sends its request at once.
const UNKNOWN_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the requests of other nodes.
#[derive(Clone, Debug)]
pub struct RequestServer {
    /// This node.
    pub local: Arc<Local>,
    /// Users and their permissions.
    pub auth: Arc<Auth>,
    /// The audit log, if there is one.
    pub audit: Option<Audit>,
    /// The database.
    pub store: Store,
    /// This node's Raft, once it is open.
    pub consensus: Arc<OnceLock<Consensus>>,
    /// The archive, if there is one.
    pub archive: Option<Archive>,
    /// This node is a voter.
    pub voter: bool,
    /// `-bootstrap-expect` was given: this node takes part in forming clusters.
    pub forms: bool,
    /// Nodes that have contacted this one to form a cluster.
    pub callers: Arc<Callers>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl RequestServer {
    /// What the hello proves about its sender.
    pub fn standing(&self, hello: &Hello) -> Standing {
        let members = self.consensus.get().map(Consensus::members);
        let is_member = |id: &str| members.iter().flatten().any(|(m, ..)| *m.0 == *id);
        let own = self.local.cluster();
        standing(hello, self.local.raft_id(), own.as_ref(), is_member)
    }

    /// Accepts the hello and serves requests until the connection ends.
    ///
    /// # Errors
    /// The connection failed. The caller can only log it.
    pub async fn serve(
        self,
        mut connection: Connection,
        hello: Hello,
        mut slot: Slot,
    ) -> io::Result<()> {
        connection.accepted().await?;
        let address = connection.address.parse().ok();
        let verified = connection.is_verified_client();
        loop {
            // The sender may have joined since the last request.
            let standing = if slot.is_members() {
                Standing::Member
            } else {
                self.standing(&hello)
            };
            let known = standing == Standing::Member && slot.admit_member();
            let Some(request) = receive(&mut connection, known).await? else {
                return Ok(());
            };
            slot.set_busy(true);
            let trail = Trail::begin(self.audit.as_ref(), &request, &hello, address);
            let peer = Peer {
                hello: &hello,
                standing,
                verified,
                address,
                notes: trail.notes(),
            };
            if let Some(refusal) = self.refusal(&request, peer) {
                trail.finish(&refusal);
                return connection.send(&refusal).await;
            }
            let response = match request {
                request @ (PeerRequest::Backup { .. } | PeerRequest::Load { .. }) => {
                    self.transfer(&mut connection, peer, request).await?;
                    trail.done();
                    return Ok(());
                }
                request @ PeerRequest::ReadParts { .. } => {
                    self.read_in_parts(&mut connection, peer, request).await?;
                    trail.done();
                    slot.set_busy(false);
                    continue;
                }
                // A read has no effect, so it ends when the other side has closed the connection.
                request @ PeerRequest::Read { .. } => {
                    let response = self.respond(request, peer);
                    match while_connected(&mut connection, response).await {
                        Some(response) => response,
                        None => return Ok(()),
                    }
                }
                request => self.respond(request, peer).await,
            };
            trail.finish(&response);
            send(&mut connection, &response, known).await?;
            if matches!(response, PeerResponse::Meta(_)) {
                self.metrics.count(Counter::ClusterNumGetNodeApiResp);
            }
            slot.set_busy(false);
        }
    }

    /// Refuses work that is meant for another cluster, because an address may come to belong to a node of
    /// another one; and what outsiders may not ask.
    fn refusal(&self, request: &PeerRequest, peer: Peer<'_>) -> Option<PeerResponse> {
        let has_own_check = self.auth.enabled() && carries_credentials(request);
        if self.is_outsider(peer) && !has_own_check {
            let error = StoreError::Unauthorized("unauthorized".into());
            return refused(request, &error);
        }
        let (Some(theirs), Some(own)) = (&peer.hello.cluster, self.local.cluster()) else {
            return None;
        };
        if theirs.id == own.id {
            return None;
        }
        let error = StoreError::Refused(format!(
            "the node at this address does not belong to cluster {}",
            theirs.id
        ));
        refused(request, &error)
    }

    /// Whether it learns nothing, and may only ask to join or to form a cluster (or what its credentials
    /// permit).
    fn is_outsider(&self, peer: Peer<'_>) -> bool {
        let protection = Protection {
            users: self.auth.enabled(),
            tls: self.local.transport.stage().is_some(),
        };
        is_outsider(peer.standing, peer.verified, protection)
    }

    async fn respond(&self, request: PeerRequest, peer: Peer<'_>) -> PeerResponse {
        let Peer {
            hello, standing, ..
        } = peer;
        match request {
            PeerRequest::Meta => {
                self.metrics.count(Counter::ClusterNumGetNodeApiReq);
                PeerResponse::Meta(if self.is_outsider(peer) {
                    Meta::default()
                } else {
                    self.store.meta()
                })
            }
            PeerRequest::RoomToVacuum => PeerResponse::Room(self.store.room_to_vacuum().await),
            request @ (PeerRequest::ContentHash { .. }
            | PeerRequest::CopyDecision { .. }
            | PeerRequest::Compare { .. }) => self.compare_copies(request, peer).await,
            PeerRequest::Join(request) => {
                self.metrics.count(Counter::ClusterNumJoinReq);
                PeerResponse::Join(self.join(request, peer).await)
            }
            PeerRequest::Notify(notice) => {
                self.metrics.count(Counter::ClusterNumNotifyReq);
                let may_join = self.may_join(notice.credentials.as_ref(), true, peer).await;
                let trusted = standing != Standing::Unknown || may_join;
                if trusted {
                    self.local
                        .note_supported_version(&hello.from, hello.version);
                }
                PeerResponse::Notify(self.notice(&notice, trusted, may_join).await)
            }
            PeerRequest::Pledge {
                cluster,
                members,
                credentials,
            } => PeerResponse::Done(
                match self.may_join(credentials.as_ref(), true, peer).await {
                    true => self.pledge(&cluster, &members, hello).await,
                    false => Err(StoreError::Unauthorized("unauthorized".into())),
                },
            ),
            PeerRequest::Release(cluster) => {
                PeerResponse::Done(self.release(&cluster, hello).await)
            }
            request @ (PeerRequest::Remove { .. } | PeerRequest::StepDown { .. }) => {
                self.administer(request, peer).await
            }
            PeerRequest::Write(writes) => self.write(writes, Vec::new(), peer).await,
            PeerRequest::BoundedWrite(writes, bounds) => self.write(writes, bounds, peer).await,
            PeerRequest::Room => PeerResponse::Spare(self.store.spare_bytes().await),
            request @ (PeerRequest::Archived { .. } | PeerRequest::LoggedEntries { .. }) => {
                self.archived(request).await
            }
            request @ PeerRequest::Read { .. } => self.read_whole(request, peer).await,
            PeerRequest::Backup { .. }
            | PeerRequest::Load { .. }
            | PeerRequest::ReadParts { .. } => PeerResponse::Done(Err(StoreError::Refused(
                "a transfer needs a connection of its own".into(),
            ))),
        }
    }

    pub(super) async fn authorized(
        &self,
        credentials: Option<&Credentials>,
        perms: &[Perm],
        what: &str,
        peer: Peer<'_>,
    ) -> Result<(), StoreError> {
        let access = self.auth.check(credentials, perms, peer.login()).await;
        if let Some(notes) = peer.note() {
            notes.access(access);
        }
        match access {
            Access::Allowed | Access::Anyone => Ok(()),
            Access::Denied => Err(StoreError::Unauthorized(format!(
                "remote {what} not authorized"
            ))),
            Access::Busy(busy) => Err(StoreError::Refused(busy.to_string())),
        }
    }
}

/// The request names its caller's credentials, and is checked by them if there are users.
fn carries_credentials(request: &PeerRequest) -> bool {
    !matches!(
        request,
        PeerRequest::RoomToVacuum
            | PeerRequest::Room
            | PeerRequest::ContentHash { .. }
            | PeerRequest::CopyDecision { .. }
            | PeerRequest::Archived { .. }
            | PeerRequest::LoggedEntries { .. }
    )
}

/// The response that refuses a request; `None` for those of nodes that want to join or to form a cluster,
/// which have checks of their own.
fn refused(request: &PeerRequest, error: &StoreError) -> Option<PeerResponse> {
    let error = error.clone();
    match request {
        PeerRequest::Meta
        | PeerRequest::Join(_)
        | PeerRequest::Notify(_)
        | PeerRequest::Pledge { .. }
        | PeerRequest::Release(_) => None,
        PeerRequest::Write(writes) | PeerRequest::BoundedWrite(writes, _) => {
            let errors = writes.iter().map(|_| Err(error.clone())).collect();
            Some(PeerResponse::Write(errors))
        }
        PeerRequest::Read { .. } | PeerRequest::ReadParts { .. } | PeerRequest::Load { .. } => {
            Some(PeerResponse::Served(Err(error)))
        }
        PeerRequest::Backup { .. } => Some(PeerResponse::Backup(Err(error))),
        PeerRequest::Remove { .. }
        | PeerRequest::StepDown { .. }
        | PeerRequest::Archived { .. } => Some(PeerResponse::Done(Err(error))),
        PeerRequest::LoggedEntries { .. } => Some(PeerResponse::LoggedEntries(Err(error))),
        PeerRequest::RoomToVacuum => Some(PeerResponse::Room(Err(error))),
        PeerRequest::ContentHash { .. } => {
            let report = HashReport::Unavailable(error.to_string());
            Some(PeerResponse::ContentHash(report))
        }
        PeerRequest::CopyDecision { .. } => Some(PeerResponse::CopyDecision(Err(error))),
        PeerRequest::Compare { .. } => Some(PeerResponse::Compared(Err(error))),
        PeerRequest::Room => Some(PeerResponse::Spare(Err(error))),
    }
}

/// The next request; `None` if the connection was closed or was idle for too long. `known` is a member with a
/// member's slot.
async fn receive(connection: &mut Connection, known: bool) -> io::Result<Option<PeerRequest>> {
    let (limit_bytes, idle_timeout) = if known {
        (MAX_FRAME_BYTES, IDLE_TIMEOUT)
    } else {
        (MAX_UNKNOWN_FRAME_BYTES, UNKNOWN_IDLE_TIMEOUT)
    };
    let link = connection.link.clone();
    let receiving = connection.receive_within(limit_bytes);
    tokio::select! {
        biased;
        () = withdrawn(link.as_ref()) => Ok(None),
        received = timeout(idle_timeout, receiving) => received.unwrap_or(Ok(None)),
    }
}

async fn send(connection: &mut Connection, response: &PeerResponse, known: bool) -> io::Result<()> {
    let sent = connection.send(response);
    if known {
        return sent.await;
    }
    timeout(UNKNOWN_IDLE_TIMEOUT, sent)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}
