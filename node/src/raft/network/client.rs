//! The calling side of Raft's messages: one connection per target and purpose, dialed when needed, dropped on the first doubt.
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
    messages::{Answer, Ask, SnapshotAnswer, SnapshotHead, another_question, unreachable},
    pipeline::{StreamItem, Told, Unsendable, append, range_of, replicate, stream_result},
};
use crate::{
    internode::wire::{Connection, Hello, Purpose, WireError, write_frame},
    local::Local,
    metrics::Counter,
    raft::{
        codec::{MembershipRecord, VoteRecord, id},
        storage::state_machine::{Snapshot, SnapshotData, format_version_of},
        types::{Member, RaftId, Types, Vote},
    },
    version,
};

/// A snapshot transfer may take hours, but not this long without a byte moving (or, at its end, without the receiver's answer).
const SNAPSHOT_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Installing at the receiver waits for its readers and syncs the whole file.
const SNAPSHOT_INSTALL_TIMEOUT: Duration = Duration::from_secs(300);
/// Pieces of a snapshot read and written at a time: the sender's memory for any database size.
const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;

/// Members that could not be dialed when it was tried last, with the reason that they gave. Known to all clients: each round of votes makes new ones.
type Lost = Arc<Mutex<BTreeMap<RaftId, String>>>;

/// Makes clients for targets.
#[derive(Clone, Debug)]
pub struct Network {
    local: Arc<Local>,
    lost: Lost,
    unsendable: Unsendable,
}

impl Network {
    /// Dials as `local`; what cannot be sent is told in `unsendable`.
    pub fn new(local: Arc<Local>, unsendable: Unsendable) -> Self {
        Self {
            local,
            lost: Lost::default(),
            unsendable,
        }
    }

    /// For [`Client::holds`].
    pub(crate) fn witness(&self, target: RaftId, member: &Member) -> Client {
        self.client(Purpose::Beat, target, member)
    }

    fn client(&self, purpose: Purpose, target: RaftId, member: &Member) -> Client {
        Client {
            local: Arc::clone(&self.local),
            purpose,
            target,
            address: member.raft_addr.clone(),
            connection: None,
            lost: Arc::clone(&self.lost),
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

/// One target, one purpose.
#[derive(Debug)]
pub struct Client {
    local: Arc<Local>,
    purpose: Purpose,
    target: RaftId,
    address: String,
    /// Taken while in use and put back only after a complete exchange, so a half-used one is never reused.
    connection: Option<Connection>,
    lost: Lost,
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
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let dialed = self
            .dial()
            .await
            .and_then(|connection| self.speaks(connection));
        if self.purpose == Purpose::Append {
            self.note(dialed.as_ref().err());
        }
        dialed
    }

    /// Notes which version the other side speaks; one that is too old for this cluster gets nothing.
    fn speaks(&self, connection: Connection) -> Result<Connection, WireError> {
        self.local.note_spoken(&self.target.0, connection.version);
        let in_effect = self.local.format_version();
        match version::may_take_part(self.target.name(), connection.version, in_effect) {
            Ok(()) => Ok(connection),
            Err(reason) => Err(WireError::Refused {
                address: self.address.clone(),
                reason,
            }),
        }
    }

    /// One line when a member goes, one when it returns, and one when it refuses for another reason; not one a try.
    fn note(&self, failure: Option<&WireError>) {
        let mut lost = self.lost.lock();
        if matches!(failure, Some(WireError::Dial { .. })) {
            self.local.forget_spoken(&self.target.0);
        }
        let reason = match failure {
            Some(WireError::Refused { reason, .. }) => reason.clone(),
            _ => String::new(),
        };
        let is_news = match lost.get(&self.target) {
            None => true,
            Some(known) => !reason.is_empty() && *known != reason,
        };
        match failure {
            Some(e) if is_news => {
                lost.insert(self.target.clone(), reason);
                tracing::warn!(target: "raft", "node {} cannot be reached: {e}", self.target.name());
            }
            None if lost.remove(&self.target).is_some() => {
                tracing::info!(target: "raft", "node {} is reached again", self.target.name());
            }
            _ => {}
        }
    }

    /// A member that said it has moved is looked for there first: whole clusters come back under new addresses, and no leader can
    /// record them before it is elected. The recorded address is looked up at each dial, because openraft keeps this client when only the
    /// address of its target changes.
    async fn dial(&mut self) -> Result<Connection, WireError> {
        let (hello, limit) = (self.hello(), self.local.dial_timeout());
        if let Some(recorded) = self.local.recorded(&self.target.0) {
            self.address = recorded;
        }
        if let Some(moved) = self.local.moved_to(&self.target.0)
            && moved != self.address
        {
            match Connection::dial(&moved, &hello, limit).await {
                Ok(connection) => return Ok(connection),
                Err(_) => self.local.forget_moved(&self.target.0),
            }
        }
        Connection::dial(&self.address, &hello, limit).await
    }

    async fn exchange(&mut self, ask: &Ask, limit: Duration) -> Result<Answer, RPCError<Types>> {
        let mut connection = self.take_connection().await.map_err(|e| unreachable(&e))?;
        let exchange = async {
            connection.send(ask).await?;
            connection
                .receive::<Answer>()
                .await?
                .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        match timeout(limit, exchange).await {
            Ok(Ok(answer)) => {
                self.connection = Some(connection);
                Ok(answer)
            }
            Ok(Err(e)) => Err(unreachable(&connection.broken(e))),
            Err(_) => Err(unreachable(&WireError::Timeout {
                address: self.address.clone(),
            })),
        }
    }

    fn unexpected(&self) -> RPCError<Types> {
        another_question(&self.address)
    }

    /// Does the node still hold this vote? No is also the answer of one that says nothing within `limit`.
    pub(crate) async fn holds(&mut self, vote: &VoteRecord, limit: Duration) -> bool {
        let ask = Ask::Holds(vote.clone());
        let answer = timeout(limit, self.exchange(&ask, limit)).await;
        matches!(answer, Ok(Ok(Answer::Holds(true))))
    }

    async fn ask_vote(
        &mut self,
        ask: Ask,
        option: &RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.exchange(&ask, option.hard_ttl()).await? {
            Answer::Vote(answer) => Ok(answer.into()),
            Answer::Append(_) | Answer::Transfer(_) | Answer::Holds(_) => Err(self.unexpected()),
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
        let head = SnapshotHead {
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
        let answer = within(
            SNAPSHOT_INSTALL_TIMEOUT,
            connection.receive::<SnapshotAnswer>(),
        )
        .await?;
        match answer {
            Some(SnapshotAnswer::Done(vote)) => Ok(SnapshotResponse::new(vote.into())),
            Some(SnapshotAnswer::Failed(reason)) => Err(io::Error::other(reason)),
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
            Answer::Append(answer) => answer.response().map_err(|reason| {
                RPCError::Unreachable(Unreachable::from_string(format!(
                    "{}: {reason}",
                    self.address
                )))
            }),
            Answer::Vote(_) | Answer::Transfer(_) | Answer::Holds(_) => Err(self.unexpected()),
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
                // A heartbeat is one request: no task, no pipeline.
                let Some(rpc) = input.next().await else {
                    return Ok(Box::pin(stream::empty()) as _);
                };
                let range = range_of(&rpc);
                let beat = append(&self.local, &rpc);
                let answer = self.exchange(&beat, option.hard_ttl()).await;
                if answer.is_err() {
                    let metrics = &self.local.metrics;
                    metrics.count(Counter::StoreFailedHeartbeatObserved);
                }
                let item = match answer? {
                    Answer::Append(answer) => stream_result(answer, range, &self.address),
                    Answer::Vote(_) | Answer::Transfer(_) | Answer::Holds(_) => {
                        Err(self.unexpected())
                    }
                };
                return Ok(Box::pin(stream::iter([item])) as _);
            }
            // openraft waits out its back-off inside this stream, so the first request comes before the dialing.
            let Some(first) = input.next().await else {
                return Ok(Box::pin(stream::empty()) as _);
            };
            let input = stream::iter([first]).chain(input);
            let connection = self.take_connection().await.map_err(|e| unreachable(&e))?;
            let told = Told {
                local: &self.local,
                target: &self.target,
                unsendable: &self.unsendable,
            };
            Ok(Box::pin(replicate(connection, &mut self.connection, input, told)) as _)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(Ask::Vote(rpc.into()), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(Ask::PreVote(rpc.into()), &option).await
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
        let ask = Ask::Transfer {
            from: rpc.from_leader().into(),
            to: rpc.to_node_id().clone(),
            last: rpc.last_log_id().map(id),
        };
        match self.exchange(&ask, option.hard_ttl()).await? {
            Answer::Transfer(Ok(())) => Ok(Ok(())),
            Answer::Transfer(Err(reason)) => {
                Err(RPCError::Unreachable(Unreachable::from_string(reason)))
            }
            Answer::Append(_) | Answer::Vote(_) | Answer::Holds(_) => Err(self.unexpected()),
        }
    }
}
