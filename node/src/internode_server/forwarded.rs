//! Clients' reads and writes that another node forwards to this one as the leader.
use std::io;

use node_db::{Origin, Part, Read};
use tokio::time::timeout;

use super::{
    audited::needed,
    caller::{Peer, origin_of, while_connected},
    requests::RequestServer,
};
use crate::{
    auth::Perm,
    internode::{
        messages::{ForwardedWrite, PeerRequest, PeerResponse, WriteResponse},
        transfer::TRANSFER_IDLE_TIMEOUT,
        wire::Connection,
    },
    metrics::Counter,
    store::{KEEPALIVE_INTERVAL, ReadResponse},
    store_types::{Credentials, ReadOptions, Served, StoreError},
};

impl RequestServer {
    /// Serves `Read`.
    pub(super) async fn read_whole(&self, request: PeerRequest, peer: Peer<'_>) -> PeerResponse {
        let PeerRequest::Read {
            read,
            options,
            credentials,
        } = request
        else {
            return PeerResponse::Done(Err(StoreError::Refused("not a read".into())));
        };
        self.metrics.count(Counter::ClusterNumQueryReq);
        let origin = origin_of(peer.hello, &credentials);
        let response = self.read(&read, &options, false, &credentials, origin, peer);
        PeerResponse::Served(response.await.and_then(whole))
    }

    /// Serves `ReadParts`. Fails if the other side has closed the connection.
    pub(super) async fn read_in_parts(
        &self,
        connection: &mut Connection,
        peer: Peer<'_>,
        request: PeerRequest,
    ) -> io::Result<()> {
        let PeerRequest::ReadParts {
            read,
            options,
            credentials,
            client,
        } = request
        else {
            return Ok(());
        };
        self.metrics.count(Counter::ClusterNumQueryReq);
        let origin = Origin {
            client,
            ..origin_of(peer.hello, &credentials)
        };
        let response = self.read(&read, &options, true, &credentials, origin, peer);
        match while_connected(connection, response).await {
            Some(response) => {
                if let (Some(notes), Err(error)) = (peer.note(), &response) {
                    notes.store_error(error);
                }
                send_read(connection, response).await
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn read(
        &self,
        read: &Read,
        options: &ReadOptions,
        in_parts: bool,
        credentials: &Option<Credentials>,
        origin: Origin,
        peer: Peer<'_>,
    ) -> Result<ReadResponse, StoreError> {
        self.authorized(credentials.as_ref(), &[Perm::Query], "query", peer)
            .await?;
        self.store
            .query_as_leader(read, options, in_parts, origin)
            .await
    }

    /// Serves `Write` and `BoundedWrite`. `bounds` belongs to the first writes, in order; `Write` has none.
    pub(super) async fn write(
        &self,
        mut writes: Vec<ForwardedWrite>,
        bounds: Vec<node_db::Bounds>,
        peer: Peer<'_>,
    ) -> PeerResponse {
        for (write, bounds) in writes.iter_mut().zip(bounds) {
            write.request.rules = node_db::Rules::V2(bounds);
        }
        PeerResponse::Write(self.write_all(writes, peer).await)
    }

    async fn write_all(
        &self,
        writes: Vec<ForwardedWrite>,
        peer: Peer<'_>,
    ) -> Vec<Result<WriteResponse, StoreError>> {
        self.metrics.count(counter_of(&writes));
        let mut denied: Vec<Option<StoreError>> = Vec::with_capacity(writes.len());
        for (at, write) in writes.iter().enumerate() {
            denied.push(self.write_denied(write, peer.of_write(at)).await);
        }
        let allowed = writes
            .into_iter()
            .zip(&denied)
            .filter(|(_, d)| d.is_none())
            .map(|(w, _)| w.request)
            .collect::<Vec<_>>();
        let mut results = if allowed.is_empty() {
            Vec::new()
        } else {
            self.store.write_as_leader(allowed).await
        }
        .into_iter();
        denied
            .into_iter()
            .map(|denied| match denied {
                Some(e) => Err(e),
                None => results
                    .next()
                    .unwrap_or_else(|| Err(StoreError::Unknown("no answer for this write".into()))),
            })
            .collect()
    }

    async fn write_denied(&self, write: &ForwardedWrite, peer: Peer<'_>) -> Option<StoreError> {
        let (perms, what) = needed(write.request.kind);
        let credentials = write.credentials.as_ref();
        self.authorized(credentials, perms, what, peer).await.err()
    }
}

/// A result in parts is sent only in response to `ReadParts`.
fn whole(response: ReadResponse) -> Result<Served, StoreError> {
    match response {
        ReadResponse::Whole(served) => Ok(served),
        ReadResponse::Parts(_) => Err(StoreError::Refused("the result came in pieces".into())),
    }
}

/// Sends the result of a read. Ends the read when the other side closes the connection or accepts nothing for
/// too long.
async fn send_read(
    connection: &mut Connection,
    response: Result<ReadResponse, StoreError>,
) -> io::Result<()> {
    let mut streamed = match response {
        Ok(ReadResponse::Whole(served)) => {
            return connection.send(&PeerResponse::Served(Ok(served))).await;
        }
        Ok(ReadResponse::Parts(streamed)) => streamed,
        Err(e) => return connection.send(&PeerResponse::Served(Err(e))).await,
    };
    connection.send(&PeerResponse::Parts).await?;
    loop {
        let next = timeout(KEEPALIVE_INTERVAL, streamed.next());
        let part = match while_connected(connection, next).await {
            Some(Ok(part)) => part,
            // An empty part keeps the other side from timing out.
            Some(Err(_elapsed)) => Part::Rows(Vec::new()),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let sent = timeout(TRANSFER_IDLE_TIMEOUT, connection.send(&part));
        sent.await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if matches!(part, Part::Done { .. }) {
            return Ok(());
        }
    }
}

/// As in rqlite, requests of the two endpoints are counted separately.
fn counter_of(writes: &[ForwardedWrite]) -> Counter {
    let is_unified = |write: &ForwardedWrite| {
        matches!(
            write.request.kind,
            node_db::Kind::Unified | node_db::Kind::UnifiedPlain
        )
    };
    if writes.iter().any(is_unified) {
        Counter::ClusterNumRequestReq
    } else {
        Counter::ClusterNumExecuteReq
    }
}
