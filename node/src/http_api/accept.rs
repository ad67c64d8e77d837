//! Connections of clients: accepted up to a limit, served by hyper, and closed in order at the stop.
//!
//! The accept loop is generic over the stream, so that TLS can be put between (`secure.rs`).
use std::{
    collections::HashMap, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use hyper::{
    StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue, InvalidHeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, Id, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    body::{self, ClientBody},
    client_stream::ClientStream,
    connections::{ClientConnection, Connections, Rejection},
    error::Failure,
    head_timer::HeadTimer,
    reply::{HttpResult, Response},
    route::{self, Content},
    secure::Https,
    state::{HttpServices, HttpState},
    stop_signal::StopSignal,
};

/// Connections that are accepted beyond the limit for a moment, while others are being closed for them.
const CLOSING_CONNECTIONS: usize = 32;
/// The reply on a new connection when every open one is in use.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 39\r\n\r\nall connections are busy, try it again\n";
/// How long a connection may be idle until the head of its next request is complete. rqlite has no limit.
/// Clients keep idle connections for a minute and more (Go's default is 90 s), so the limit is above that.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(120);
/// TCP keep-alive: idle time before the first probe, and the pause between probes.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// TCP keep-alive: probes without a response after which the connection is closed.
const KEEP_ALIVE_PROBES: u32 = 3;
/// How long running requests may take after the stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Pause after a failure to accept that does not concern a single connection (out of file descriptors), so
/// that the loop does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Size of hyper's buffer per connection, which also limits the head of a request.
const BUFFER_BYTES: usize = 256 << 10;

/// Why the HTTP API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting cannot be part of a header.
    #[error(
        "the advertised HTTP address or the allowed origin holds characters that no HTTP header may hold: {0}"
    )]
    Header(InvalidHeaderValue),
}

/// Serves HTTP, or HTTPS where its certificates are among the services, until `stop` is cancelled; then
/// accepts no more connections, and lets running requests finish for up to 5 s.
///
/// # Errors
/// See [`ServeError`]. Failures to accept are logged and tried again.
pub async fn serve(
    listener: TcpListener,
    services: HttpServices,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let Some(side) = services.tls.http.clone() else {
        let begin = |stream, _from| async { Ok(stream) };
        return serve_begun(listener, begin, FULL, services, stop).await;
    };
    let https = Https {
        side,
        metrics: Arc::clone(&services.metrics),
        idle: HEADER_READ_TIMEOUT,
    };
    let begin = move |stream, from| https.clone().begin(stream, from);
    serve_begun(listener, begin, &[], services, stop).await
}

/// As [`serve`], but lets `begin` make each connection ready (a TLS handshake), within its own time limit. A
/// connection is closed if that fails. `full` is sent where there is no room for another one.
async fn serve_begun<W, F, S>(
    listener: TcpListener,
    begin: W,
    full: &[u8],
    services: HttpServices,
    stop: CancellationToken,
) -> Result<(), ServeError>
where
    W: Fn(TcpStream, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    body::remove_left_uploads(&services.settings.scratch_dir);
    let connections = Connections::new(services.settings.max_connections);
    let state = Arc::new(HttpState::new(services).map_err(ServeError::Header)?);
    let stopping = Arc::new(StopSignal::default());
    let mut running = JoinSet::new();
    let mut open: HashMap<Id, OpenConnection> = HashMap::new();
    loop {
        let may_accept = running.len() < connections.max() + CLOSING_CONNECTIONS;
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = running.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                open.remove(&id);
                continue;
            }
            accepted = listener.accept(), if may_accept => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        if running.len() >= connections.max() && !close_some(&connections, &open) {
            // The socket's send buffer is empty, so this is sent unless the client is gone.
            let _ = stream.try_write(full);
            continue;
        }
        // Replies are written at once: waiting for more data would only delay them.
        let _ = stream.set_nodelay(true);
        keep_alive(&stream);
        let begun = begin(stream, client);
        let connection = connections.add();
        let (state, stopping) = (Arc::clone(&state), Arc::clone(&stopping));
        let shared = Arc::clone(&connection);
        let task = running.spawn(async move {
            match stopping.run_until_sent(pin!(begun)).await {
                Some(Ok(stream)) => {
                    connection.opened();
                    serve_connection(stream, client, state, connection, &stopping).await;
                }
                Some(Err(error)) => tracing::debug!("connection refused: {error}"),
                None => {}
            }
        });
        let connection = OpenConnection {
            connection: shared,
            task,
        };
        open.insert(connection.task.id(), connection);
    }
    drop(listener);
    stopping.send();
    finish(running).await;
    Ok(())
}

/// Waits until the running requests have their replies, at most [`STOP_LIMIT`].
async fn finish(mut running: JoinSet<()>) {
    let ended = async { while running.join_next().await.is_some() {} };
    if timeout(STOP_LIMIT, ended).await.is_err() {
        tracing::warn!(
            "HTTP: {} connections still had a running request {STOP_LIMIT:?} after the stop and were cut",
            running.len()
        );
        running.shutdown().await;
    }
}

/// A client whose machine has failed does not close its connection; keep-alive detects that, and its requests
/// are ended.
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

/// A connection in the table of the accept loop.
struct OpenConnection {
    connection: Arc<ClientConnection>,
    task: AbortHandle,
}

/// Closes some connections that are not in use. False if there are none.
fn close_some(connections: &Connections, open: &HashMap<Id, OpenConnection>) -> bool {
    let open: Vec<&OpenConnection> = open.values().collect();
    let closing = connections.close_some(open.iter().map(|one| &*one.connection));
    for one in closing.iter().filter_map(|at| open.get(*at)) {
        one.task.abort();
    }
    tracing::debug!("HTTP: {} connections were ended for others", closing.len());
    // Connections that were closed before may still be ending.
    !closing.is_empty() || open.iter().any(|one| one.connection.is_closing())
}

/// Serves one connection until it ends, or, after the stop, until its running request has its reply.
async fn serve_connection<S>(
    stream: S,
    client: SocketAddr,
    state: Arc<HttpState>,
    connection: Arc<ClientConnection>,
    stopping: &StopSignal,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(ClientStream::new(stream, Arc::clone(&connection)));
    let service = service_fn(move |request| {
        handle(request, client, Arc::clone(&state), Arc::clone(&connection))
    });
    let serving = http1::Builder::new()
        .timer(HeadTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        // Go writes them in title case.
        .title_case_headers(true)
        .serve_connection(io, service);
    let mut serving = pin!(serving);
    let ended = match stopping.run_until_sent(serving.as_mut()).await {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("HTTP connection ended: {error}");
    }
}

/// Answers a request unless the node is overloaded or the connection is being closed.
async fn handle(
    request: hyper::Request<Incoming>,
    client: SocketAddr,
    state: Arc<HttpState>,
    connection: Arc<ClientConnection>,
) -> HttpResult {
    let is_probe =
        connection.connections().is_overloaded() && route::is_probe(request.uri().path());
    let active = match connection.begin(is_probe) {
        Ok(active) => active,
        Err(why) => return Ok(reject(&state, why)),
    };
    let request = request.map(|body| ClientBody::new(body, connection));
    let replied = state.handle(request, Some(client)).await;
    replied.map(|response| response.map(|body| body.until_sent(active)))
}

/// The reply to a request that was not begun. The client may repeat it, best on a new connection.
fn reject(state: &HttpState, why: Rejection) -> Response {
    let failure = match why {
        Rejection::Overloaded => Failure::Overloaded,
        Rejection::Closing => Failure::ConnectionClosing,
    };
    let mut response = state.replies.failure(&failure, Content::Text);
    debug_assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
