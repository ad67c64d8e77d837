//! The calling side of the messages between nodes: pooled connections, one request and one response at a
//! time.
//!
//! The client never repeats a request of which any byte was sent: what failed after that may have taken
//! effect.
use std::{
    collections::HashMap,
    future::{Future, pending, ready},
    io,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt},
    time::timeout,
};

use super::{
    messages::{PeerRequest, PeerResponse},
    transfer::copy_exactly,
    wire::{Connection, Hello, MAX_FRAME_BYTES, Purpose, WireError, is_retired, read_frame},
};
use crate::{
    local::Local,
    metrics::{Counter, Metrics},
    store_types::{Served, StoreError},
    version,
};

/// Idle connections kept per address. Calls beyond them open a connection of their own and close it.
const POOL_SIZE: usize = 8;
/// How long to wait, after sending an upload has failed, for a response that explains the failure.
const LATE_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait for the index behind a backup.
const INDEX_TIMEOUT: Duration = Duration::from_secs(5);

/// How far a call got. It is read when the call's time is over.
#[derive(Debug, Default)]
struct Progress {
    connected: AtomicBool,
    sent: AtomicBool,
}

impl Progress {
    fn count_timeout(&self, metrics: &Metrics) {
        match (self.connected.load(Relaxed), self.sent.load(Relaxed)) {
            (false, _) => {}
            (true, false) => metrics.count(Counter::ClusterNumClientWriteTimeouts),
            (true, true) => metrics.count(Counter::ClusterNumClientReadTimeouts),
        }
    }
}

/// Calls other nodes over pooled connections.
#[derive(Clone, Debug)]
pub struct Peers {
    local: Arc<Local>,
    connect_timeout: Duration,
    idle: Arc<Mutex<HashMap<String, Vec<Connection>>>>,
}

impl Peers {
    /// `connect_timeout` is `-cluster-connect-timeout` (default 30 s).
    pub fn new(local: Arc<Local>, connect_timeout: Duration) -> Self {
        Self {
            local,
            connect_timeout,
            idle: Arc::default(),
        }
    }

    /// The cluster's format version. It decides which messages may be sent.
    pub fn format_version(&self) -> u16 {
        self.local.format_version()
    }

    /// Sends one request and waits for the response, at most `limit`. A pooled connection that the other side
    /// has closed meanwhile is replaced by a new one.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn call(
        &self,
        address: &str,
        request: &PeerRequest,
        limit: Duration,
    ) -> Result<PeerResponse, WireError> {
        self.call_until(address, request, limit, pending()).await
    }

    /// As [`Self::call`], but gives up with [`WireError::Unresponsive`] when `give_up` completes.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn call_until(
        &self,
        address: &str,
        request: &PeerRequest,
        limit: Duration,
        give_up: impl Future<Output = ()>,
    ) -> Result<PeerResponse, WireError> {
        let called = self.call_for_parts(address, request, (limit, ready(())), give_up);
        let called = called.await;
        called.map(|(response, _)| response)
    }

    /// As [`Self::call_until`]. If the response is [`PeerResponse::Parts`], also returns the connection, on
    /// which the parts follow. Once the request is sent, the time is over only when `idle` completes as well,
    /// which begins after `limit`.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn call_for_parts(
        &self,
        address: &str,
        request: &PeerRequest,
        (limit, idle): (Duration, impl Future<Output = ()>),
        give_up: impl Future<Output = ()>,
    ) -> Result<(PeerResponse, Option<Connection>), WireError> {
        let progress = Progress::default();
        let expired = async {
            tokio::time::sleep(limit).await;
            if progress.sent.load(Relaxed) {
                idle.await;
            }
        };
        tokio::select! {
            biased;
            called = self.exchange(address, request, limit, &progress) => called,
            () = expired => {
                progress.count_timeout(&self.local.metrics);
                Err(WireError::Timeout { address: address.to_owned() })
            }
            () = give_up => Err(WireError::Unresponsive {
                address: address.to_owned(),
                nothing_sent: !progress.connected.load(Relaxed),
            }),
        }
    }

    async fn exchange(
        &self,
        address: &str,
        request: &PeerRequest,
        limit: Duration,
        progress: &Progress,
    ) -> Result<(PeerResponse, Option<Connection>), WireError> {
        let (mut connection, of_member) = self.connect(address, limit).await?;
        progress.connected.store(true, Relaxed);
        connection
            .send(request)
            .await
            .map_err(|e| connection.broken(e))?;
        progress.sent.store(true, Relaxed);
        let response = connection
            .receive()
            .await
            .map_err(|e| connection.broken(e))?;
        let response =
            response.ok_or_else(|| connection.broken(io::ErrorKind::UnexpectedEof.into()))?;
        if matches!(response, PeerResponse::Parts) {
            return Ok((response, Some(connection)));
        }
        // A connection whose hello named no cluster has fewer rights; it must not be reused once this node
        // has become a member.
        if of_member {
            self.keep(address, connection);
        }
        Ok((response, None))
    }

    /// Returns a connection and whether its hello named this node's cluster.
    async fn connect(
        &self,
        address: &str,
        limit: Duration,
    ) -> Result<(Connection, bool), WireError> {
        let mut stale = false;
        loop {
            let pooled = self.idle.lock().get_mut(address).and_then(Vec::pop);
            let Some(mut connection) = pooled else { break };
            if connection.is_idle() {
                return Ok((connection, true));
            }
            stale = true;
        }
        if stale {
            let metrics = &self.local.metrics;
            metrics.count(Counter::ClusterNumClientForceNewConn);
        }
        let hello = Hello {
            purpose: Purpose::Cluster,
            from: self.local.raft_id().to_owned(),
            to: None,
            cluster: self.local.cluster(),
            version: version::NEWEST,
        };
        let dialed = {
            let limit = self.connect_timeout.min(limit);
            Connection::dial(&self.local.transport, address, &hello, limit).await?
        };
        Ok((dialed, hello.cluster.is_some()))
    }

    fn keep(&self, address: &str, connection: Connection) {
        let mut idle = self.idle.lock();
        let pool = idle.entry(address.to_owned()).or_default();
        if pool.len() < POOL_SIZE && !is_retired(connection.link.as_ref()) {
            pool.push(connection);
        }
    }

    /// Downloads a backup into the file `to`; returns an index that it holds, if the other node says one.
    /// The connection is not reused.
    ///
    /// # Errors
    /// The other node's refusal, or a failure of the transfer. All of them are `Refused`, because a backup
    /// has no effect.
    pub async fn fetch_backup(
        &self,
        address: &str,
        request: &PeerRequest,
        to: &Path,
        limit: Duration,
    ) -> Result<Option<u64>, StoreError> {
        let refused = |e: &dyn std::fmt::Display| StoreError::Refused(e.to_string());
        let (mut connection, _) = self
            .connect(address, limit)
            .await
            .map_err(|e| refused(&e))?;
        connection.send(request).await.map_err(|e| refused(&e))?;
        let response = connection
            .receive::<PeerResponse>()
            .await
            .map_err(|e| refused(&e))?;
        let Some(PeerResponse::Backup(len)) = response else {
            return Err(StoreError::Refused(unexpected_response(address)));
        };
        let mut file = tokio::fs::File::create(to).await.map_err(|e| refused(&e))?;
        copy_exactly(&mut connection.reader, &mut file, len?)
            .await
            .map_err(|e| refused(&e))?;
        file.flush().await.map_err(|e| refused(&e))?;
        // An older node closes the connection after the file.
        let mut index = [0; 8];
        let said = connection.reader.read_exact(&mut index);
        let said = timeout(INDEX_TIMEOUT, said).await;
        Ok(matches!(said, Ok(Ok(_))).then(|| u64::from_be_bytes(index)))
    }

    /// Sends the file `from` as an upload and waits for its result.
    ///
    /// # Errors
    /// The leader's; `Refused` if nothing was sent; `Unknown` if the connection failed afterwards.
    pub async fn send_load(
        &self,
        address: &str,
        request: &PeerRequest,
        from: &Path,
        limit: Duration,
    ) -> Result<Served, StoreError> {
        let (mut connection, _) = self
            .connect(address, limit)
            .await
            .map_err(|e| StoreError::Refused(e.to_string()))?;
        let unknown =
            |e: io::Error| StoreError::Unknown(format!("forwarding the load to {address}: {e}"));
        let mut file = tokio::fs::File::open(from)
            .await
            .map_err(|e| StoreError::Refused(e.to_string()))?;
        let len = file
            .metadata()
            .await
            .map_err(|e| StoreError::Refused(e.to_string()))?
            .len();
        connection.send(request).await.map_err(unknown)?;
        let Connection { reader, writer, .. } = &mut connection;
        let mut response = pin!(read_frame::<_, PeerResponse>(reader, MAX_FRAME_BYTES));
        let sending = async {
            copy_exactly(&mut file, writer, len).await?;
            writer.flush().await
        };
        // A leader that refuses the upload responds before it has received all of it.
        let received = tokio::select! {
            biased;
            early = &mut response => early,
            sent = sending => match sent {
                Ok(()) => response.await,
                Err(e) => match timeout(LATE_RESPONSE_TIMEOUT, response).await {
                    Ok(Ok(Some(refusal))) => Ok(Some(refusal)),
                    _ => Err(e),
                },
            },
        };
        match received.map_err(unknown)? {
            Some(PeerResponse::Served(served)) => served,
            _ => Err(StoreError::Unknown(format!(
                "{address} did not report the result of the load"
            ))),
        }
    }
}

/// The error text for a response of another kind than the request demands.
pub fn unexpected_response(address: &str) -> String {
    format!("unexpected response from {address}")
}
