//! The calling side of Raft's messages: one connection per target and purpose, opened when needed, dropped at
//! the first error.
use std::{collections::BTreeMap, future::Future, io, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    messages::{
        Request, Response, SnapshotHeader, SnapshotReply, unexpected_response, unreachable,
    },
    pipeline::{StreamItem, Target, Unsendable, append, range_of, replicate, stream_result},
};
use crate::{
    internode::wire::{Connection, Hello, Purpose, WireError, is_retired, write_frame},
    local::Local,
    metrics::Counter,
    raft::{
        codec::{MembershipRecord, VoteRecord, id},
        storage::state_machine::{Snapshot, SnapshotData, format_version_of},
        types::{Member, RaftId, Types, Vote},
    },
    version,
};

/// A snapshot transfer may take hours, but not this long without progress (or, at its end, without the
/// receiver's response).
const SNAPSHOT_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit for installing at the receiver, which waits for its readers and syncs the whole file.
const SNAPSHOT_INSTALL_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of a snapshot read and written at a time: the sender's memory for any database size.
const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;

/// Members to which the last connection failed, with the reason for a refusal. Shared by all clients: each
/// vote round makes new ones.
type Unreachables = Arc<Mutex<BTreeMap<RaftId, String>>>;

/// Creates clients for targets.
#[derive(Clone, Debug)]
pub struct Network {
    local: Arc<Local>,
    unreachable_members: Unreachables,
    unsendable: Unsendable,
}

impl Network {
    /// Connects as `local`; appends that cannot be sent are recorded in `unsendable`.
    pub fn new(local: Arc<Local>, unsendable: Unsendable) -> Self {
        Self {
            local,
            unreachable_members: Unreachables::default(),
            unsendable,
        }
    }

    /// A client for [`Client::holds_vote`].
    pub(crate) fn voter_probe(&self, target: RaftId, member: &Member) -> Client {
        self.client(Purpose::Beat, target, member)
    }

    fn client(&self, purpose: Purpose, target: RaftId, member: &Member) -> Client {
        Client {
            local: Arc::clone(&self.local),
            purpose,
            target,
            address: member.raft_addr.clone(),
            connection: None,
            unreachable_members: Arc::clone(&self.unreachable_members),
            unsendable: self.unsendable.clone(),
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: RaftId, member: &Member) -> Client {
        self.client(Purpose::Append, target, member)
    }

    async fn new_heartbeat_client(&mut self, target: RaftId, member: &Member) -> Client {
        self.client(Purpose::Beat, target, member)
    }

    async fn new_snapshot_client(&mut self, target: RaftId, member: &Member) -> Client {
        self.client(Purpose::Snapshot, target, member)
    }
}

/// A client for one target and one purpose.
#[derive(Debug)]
pub struct Client {
    local: Arc<Local>,
    purpose: Purpose,
    target: RaftId,
    address: String,
    /// Taken while in use and returned only after a complete exchange, so that a half-used connection is
    /// never reused.
    connection: Option<Connection>,
    unreachable_members: Unreachables,
    unsendable: Unsendable,
}

impl Client {
    fn hello(&self) -> Hello {
        Hello {
            purpose: self.purpose,
            from: self.local.raft_id().to_string(),
            to: Some(self.target.to_string()),
            cluster: self.local.cluster(),
            version: version::NEWEST,
        }
    }

    async fn take_connection(&mut self) -> Result<Connection, WireError> {
        let kept = self.connection.take();
        if let Some(connection) = kept.filter(|kept| !is_retired(kept.link.as_ref())) {
            return Ok(connection);
        }
        let dialed = self
            .dial()
            .await
            .and_then(|connection| self.check_version(connection));
        if self.purpose == Purpose::Append {
            self.log_reachability(dialed.as_ref().err());
        }
        dialed
    }

    /// Records which version the other side supports; a node that is too old for this cluster is refused.
    fn check_version(&self, connection: Connection) -> Result<Connection, WireError> {
        self.local
            .note_supported_version(&self.target.0, connection.version);
        let in_effect = self.local.format_version();
        match version::may_take_part(self.target.name(), connection.version, in_effect) {
            Ok(()) => Ok(connection),
            Err(reason) => Err(WireError::Refused {
                address: self.address.clone(),
                reason,
            }),
        }
    }

    /// Logs one line when a member becomes unreachable, one when it is reachable again, and one when it
    /// refuses for another reason; not one for every attempt.
    fn log_reachability(&self, failure: Option<&WireError>) {
        let mut unreachable_members = self.unreachable_members.lock();
        if matches!(failure, Some(WireError::Dial { .. })) {
            self.local.forget_supported_version(&self.target.0);
        }
        let reason = match failure {
            Some(WireError::Refused { reason, .. }) => reason.clone(),
            _ => String::new(),
        };
        let is_news = match unreachable_members.get(&self.target) {
            None => true,
            Some(known) => !reason.is_empty() && *known != reason,
        };
        match failure {
            Some(e) if is_news => {
                unreachable_members.insert(self.target.clone(), reason);
                tracing::warn!(target: "raft", "node {} is unreachable: {e}", self.target.name());
            }
            None if unreachable_members.remove(&self.target).is_some() => {
                tracing::info!(target: "raft", "node {} is reachable again", self.target.name());
            }
            _ => {}
        }
    }

    /// Tries the address that a moved member announced first: whole clusters restart under new addresses, and
    /// no leader can record those before it is elected. The recorded address is looked up at each attempt,
    /// because openraft keeps this client when only the address of its target changes.
    async fn dial(&mut self) -> Result<Connection, WireError> {
        let (hello, limit) = (self.hello(), self.local.dial_timeout());
        let transport = &self.local.transport;
        if let Some(recorded) = self.local.recorded(&self.target.0) {
            self.address = recorded;
        }
        if let Some(moved) = self.local.moved_to(&self.target.0)
            && moved != self.address
        {
            match Connection::dial(transport, &moved, &hello, limit).await {
                Ok(connection) => return Ok(connection),
                Err(_) => self.local.forget_moved(&self.target.0),
            }
        }
        Connection::dial(transport, &self.address, &hello, limit).await
    }

    async fn exchange(
        &mut self,
        request: &Request,
        limit: Duration,
    ) -> Result<Response, RPCError<Types>> {
        let mut connection = self.take_connection().await.map_err(|e| unreachable(&e))?;
        let exchange = async {
            connection.send(request).await?;
            connection
                .receive::<Response>()
                .await?
                .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        match timeout(limit, exchange).await {
            Ok(Ok(response)) => {
                self.connection = Some(connection);
                Ok(response)
            }
            Ok(Err(e)) => Err(unreachable(&connection.broken(e))),
            Err(_) => Err(unreachable(&WireError::Timeout {
                address: self.address.clone(),
            })),
        }
    }

    fn unexpected(&self) -> RPCError<Types> {
        unexpected_response(&self.address)
    }

    /// Whether the node still holds this vote; false if it does not respond within `limit`.
    pub(crate) async fn holds_vote(&mut self, vote: &VoteRecord, limit: Duration) -> bool {
        let request = Request::HoldsVote(vote.clone());
        let response = timeout(limit, self.exchange(&request, limit)).await;
        matches!(response, Ok(Ok(Response::HoldsVote(true))))
    }

    async fn request_vote(
        &mut self,
        request: Request,
        option: &RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.exchange(&request, option.hard_ttl()).await? {
            Response::Vote(response) => Ok(response.into()),
            Response::Append(_) | Response::Transfer(_) | Response::HoldsVote(_) => {
                Err(self.unexpected())
            }
        }
    }

    async fn send_snapshot(
        &mut self,
        vote: &Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<Types>, io::Error> {
        let SnapshotData::Pinned(pinned) = snapshot.snapshot else {
            return Err(io::Error::other("only a pinned snapshot can be sent"));
        };
        let mut connection = self.take_connection().await.map_err(io::Error::other)?;
        let head = SnapshotHeader {
            vote: vote.into(),
            last: snapshot.meta.last_log_id.as_ref().map(id),
            membership: MembershipRecord::new(
                snapshot.meta.last_membership.membership(),
                snapshot.meta.last_membership.log_id().as_ref(),
            ),
            len_bytes: pinned.len_bytes,
            format_version: format_version_of(&pinned.meta),
        };
        write_frame(&mut connection.writer, &head).await?;
        let pinned = Arc::new(pinned);
        let mut piece = vec![0; SNAPSHOT_PIECE_BYTES];
        let mut left = pinned.len_bytes;
        let mut crc = crc32fast::Hasher::new();
        while left > 0 {
            piece.resize(
                usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .min(SNAPSHOT_PIECE_BYTES),
                0,
            );
            let (source, at) = (Arc::clone(&pinned), pinned.len_bytes - left);
            let read = tokio::task::spawn_blocking(move || {
                let got = source.read_at(&mut piece, at)?;
                io::Result::Ok((piece, got))
            });
            let got;
            (piece, got) = read.await.map_err(io::Error::other)??;
            let Some(part) = piece.get(..got).filter(|p| !p.is_empty()) else {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "snapshot file is shorter than recorded",
                ));
            };
            crc.update(part);
            within(SNAPSHOT_IDLE_TIMEOUT, connection.writer.write_all(part)).await?;
            left -= got as u64;
        }
        connection.writer.write_u32_le(crc.finalize()).await?;
        within(SNAPSHOT_IDLE_TIMEOUT, connection.writer.flush()).await?;
        let response = within(
            SNAPSHOT_INSTALL_TIMEOUT,
            connection.receive::<SnapshotReply>(),
        )
        .await?;
        match response {
            Some(SnapshotReply::Done(vote)) => Ok(SnapshotResponse::new(vote.into())),
            Some(SnapshotReply::Failed(reason)) => Err(io::Error::other(reason)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        match self
            .exchange(&append(&self.local, &rpc), option.hard_ttl())
            .await?
        {
            Response::Append(response) => response.response().map_err(|reason| {
                RPCError::Unreachable(Unreachable::from_string(format!(
                    "{}: {reason}",
                    self.address
                )))
            }),
            Response::Vote(_) | Response::Transfer(_) | Response::HoldsVote(_) => {
                Err(self.unexpected())
            }
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> openraft::base::BoxFuture<
        's,
        Result<openraft::base::BoxStream<'s, StreamItem>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.purpose == Purpose::Beat {
                // A heartbeat is a single request: no task, no pipeline.
                let Some(rpc) = input.next().await else {
                    return Ok(Box::pin(stream::empty()) as _);
                };
                let range = range_of(&rpc);
                let beat = append(&self.local, &rpc);
                let response = self.exchange(&beat, option.hard_ttl()).await;
                if response.is_err() {
                    let metrics = &self.local.metrics;
                    metrics.count(Counter::StoreFailedHeartbeatObserved);
                }
                let item = match response? {
                    Response::Append(response) => stream_result(response, range, &self.address),
                    Response::Vote(_) | Response::Transfer(_) | Response::HoldsVote(_) => {
                        Err(self.unexpected())
                    }
                };
                return Ok(Box::pin(stream::iter([item])) as _);
            }
            // openraft waits for its back-off inside this stream, so the connection is opened after the first
            // request.
            let Some(first) = input.next().await else {
                return Ok(Box::pin(stream::empty()) as _);
            };
            let input = stream::iter([first]).chain(input);
            let connection = self.take_connection().await.map_err(|e| unreachable(&e))?;
            let target = Target {
                local: &self.local,
                target: &self.target,
                unsendable: &self.unsendable,
            };
            Ok(Box::pin(replicate(connection, &mut self.connection, input, target)) as _)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.request_vote(Request::Vote(rpc.into()), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.request_vote(Request::PreVote(rpc.into()), &option)
            .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(&vote, snapshot) => {
                sent.map_err(|e| {
                    tracing::warn!(target: "raft", "sending a snapshot to {} failed: {e}", self.target);
                    StreamingError::Unreachable(Unreachable::new(&e))
                })
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let request = Request::Transfer {
            from: rpc.from_leader().into(),
            to: rpc.to_node_id().clone(),
            last: rpc.last_log_id().map(id),
        };
        match self.exchange(&request, option.hard_ttl()).await? {
            Response::Transfer(Ok(())) => Ok(Ok(())),
            Response::Transfer(Err(reason)) => {
                Err(RPCError::Unreachable(Unreachable::from_string(reason)))
            }
            Response::Append(_) | Response::Vote(_) | Response::HoldsVote(_) => {
                Err(self.unexpected())
            }
        }
    }
}
