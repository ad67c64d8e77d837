//! Connections: accepted up to a limit, served by hyper, ended in order.
//!
//! The loop does not care what a connection is made of, so that TLS can be put between.
use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{body::Incoming, header::InvalidHeaderValue, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Edge, HttpState, bell::Bell, body, head_timer::HeadTimer};

/// Connections at a time. Each costs a descriptor and some tens of KiB; beyond the limit new ones wait in the kernel's queue.
pub(super) const MAX_CONNECTIONS: usize = 8192;
/// How long a connection may be silent before the next request's head is complete. rqlite has no limit; clients keep idle
/// connections for a minute and more (Go's default is 90 s), so this is above that.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Silence after which the system asks whether a client's machine is still there, and the pause between two such questions.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Questions without an answer after which it is not.
const KEEP_ALIVE_PROBES: u32 = 3;
/// How long running requests may take after the stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Pause after a failure to accept that is not one connection's own (no descriptors left), so that the loop does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How long wrapping a connection (a TLS handshake) may take.
const WRAP_TIMEOUT: Duration = Duration::from_secs(10);
/// hyper's buffer per connection, also the limit of a request's head.
const BUFFER_BYTES: usize = 256 << 10;

/// Why the edge cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting cannot stand in a header.
    #[error(
        "the advertised HTTP address or the allowed origin holds characters that no HTTP header may hold: {0}"
    )]
    Header(InvalidHeaderValue),
}

/// Serves plain HTTP until `stop` is cancelled; then no longer accepts, and lets running requests finish for up to 5 s.
///
/// # Errors
/// See [`ServeError`]. Failures to accept are logged and tried again.
pub async fn serve(
    listener: TcpListener,
    state: HttpState,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    serve_wrapped(listener, |stream| async { Ok(stream) }, state, stop).await
}

/// As [`serve`], with each connection handed through `wrap` first (a TLS handshake). A connection whose wrapping fails is dropped.
///
/// # Errors
/// See [`serve`].
pub async fn serve_wrapped<W, F, S>(
    listener: TcpListener,
    wrap: W,
    state: HttpState,
    stop: CancellationToken,
) -> Result<(), ServeError>
where
    W: Fn(TcpStream) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    body::remove_left_uploads(&state.settings.data_dir);
    let edge = Arc::new(Edge::new(state)?);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let bell = Arc::new(Bell::default());
    let mut running = JoinSet::new();
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = running.join_next() => continue,
            next = next => next,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        // Replies are written in one go: waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        keep_alive(&stream);
        let wrapped = wrap(stream);
        let (edge, bell) = (Arc::clone(&edge), Arc::clone(&bell));
        running.spawn(async move {
            match timeout(WRAP_TIMEOUT, wrapped).await {
                Ok(Ok(stream)) => serve_connection(stream, client, edge, &bell).await,
                Ok(Err(error)) => tracing::debug!("connection refused: {error}"),
                Err(_elapsed) => tracing::debug!("connection refused: handshake timed out"),
            }
            drop(place);
        });
    }
    drop(listener);
    bell.ring();
    let ended = async { while running.join_next().await.is_some() {} };
    if timeout(STOP_LIMIT, ended).await.is_err() {
        tracing::warn!(
            "HTTP: {} connections still had a running request {STOP_LIMIT:?} after the stop and were cut",
            running.len()
        );
        running.shutdown().await;
    }
    Ok(())
}

/// A client whose machine is gone closes nothing; what runs for it ends when the system has found that out.
fn keep_alive(stream: &TcpStream) {
    let probes = socket2::TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE)
        .with_retries(KEEP_ALIVE_PROBES);
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&probes);
}

async fn pause_after(error: &io::Error) {
    let one_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    );
    if !one_connection {
        tracing::error!("HTTP: cannot accept connections, trying again: {error}");
        sleep(ACCEPT_BACKOFF).await;
    }
}

/// Serves one connection until it ends, or until the request that runs at the stop has its reply.
async fn serve_connection<S>(stream: S, client: SocketAddr, edge: Arc<Edge>, bell: &Bell)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        Arc::clone(&edge).answer(request, Some(client))
    });
    let connection = http1::Builder::new()
        .timer(HeadTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        // As Go prints them.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = match bell.or(connection.as_mut()).await {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("HTTP connection ended: {error}");
    }
}
