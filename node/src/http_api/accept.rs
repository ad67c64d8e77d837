//! Connections: accepted up to a limit, served by hyper, ended in order.
//!
//! The loop does not care what a connection is made of, so that TLS can be put between.
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
    Edge, HttpState,
    bell::Bell,
    body::{self, Arriving},
    crowd::{Crowd, NoTurn, Place},
    doorway::Doorway,
    error::Failure,
    head_timer::HeadTimer,
    reply::{Answered, Response},
    route::{self, Content},
};

/// Accepted beyond the limit for a moment, while others that were sent away are still ending.
const ENDING_CONNECTIONS: usize = 32;
/// What a client hears for which there is no place, not even an idle connection's.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 39\r\n\r\nall connections are busy, try it again\n";
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
    let crowd = Crowd::new(state.settings.max_connections);
    let edge = Arc::new(Edge::new(state)?);
    let bell = Arc::new(Bell::default());
    let mut running = JoinSet::new();
    let mut guests: HashMap<Id, Guest> = HashMap::new();
    loop {
        let has_room = running.len() < crowd.max() + ENDING_CONNECTIONS;
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = running.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                guests.remove(&id);
                continue;
            }
            accepted = listener.accept(), if has_room => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        if running.len() >= crowd.max() && !make_room(&crowd, &guests) {
            // Its buffer is empty, so this goes out or the client is gone.
            let _ = stream.try_write(FULL);
            continue;
        }
        // Replies are written in one go: waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        keep_alive(&stream);
        let wrapped = wrap(stream);
        let (edge, bell, place) = (Arc::clone(&edge), Arc::clone(&bell), crowd.place());
        let guest = Arc::clone(&place);
        let task = running.spawn(async move {
            match timeout(WRAP_TIMEOUT, wrapped).await {
                Ok(Ok(stream)) => serve_connection(stream, client, edge, place, &bell).await,
                Ok(Err(error)) => tracing::debug!("connection refused: {error}"),
                Err(_elapsed) => tracing::debug!("connection refused: handshake timed out"),
            }
        });
        guests.insert(task.id(), Guest { place: guest, task });
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

/// A connection as the loop keeps it.
struct Guest {
    place: Arc<Place>,
    task: AbortHandle,
}

/// Ends some connections that can be spared. False if there are none.
fn make_room(crowd: &Crowd, guests: &HashMap<Id, Guest>) -> bool {
    let guests: Vec<&Guest> = guests.values().collect();
    let leaving = crowd.make_room(guests.iter().map(|guest| &*guest.place));
    for guest in leaving.iter().filter_map(|at| guests.get(*at)) {
        guest.task.abort();
    }
    tracing::debug!("HTTP: {} connections were ended for others", leaving.len());
    // Those that were sent away before are still ending.
    !leaving.is_empty() || guests.iter().any(|guest| guest.place.is_leaving())
}

/// Serves one connection until it ends, or until the request that runs at the stop has its reply.
async fn serve_connection<S>(
    stream: S,
    client: SocketAddr,
    edge: Arc<Edge>,
    place: Arc<Place>,
    bell: &Bell,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let door = TokioIo::new(Doorway::new(stream, Arc::clone(&place)));
    let service =
        service_fn(move |request| answer(request, client, Arc::clone(&edge), Arc::clone(&place)));
    let connection = http1::Builder::new()
        .timer(HeadTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        // As Go prints them.
        .title_case_headers(true)
        .serve_connection(door, service);
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

/// Answers a request if there is a place for it.
async fn answer(
    request: hyper::Request<Incoming>,
    client: SocketAddr,
    edge: Arc<Edge>,
    place: Arc<Place>,
) -> Answered {
    let is_probe = place.crowd().is_crowded() && route::is_probe(request.uri().path());
    let turn = match place.begin(is_probe) {
        Ok(turn) => turn,
        Err(why) => return Ok(no_turn(&edge, why)),
    };
    let request = request.map(|body| Arriving::new(body, place));
    let answered = edge.answer(request, Some(client)).await;
    answered.map(|response| response.map(|body| body.until_sent(turn)))
}

/// Nothing was done, so the client may try it again, best on a new connection.
fn no_turn(edge: &Edge, why: NoTurn) -> Response {
    let failure = match why {
        NoTurn::Crowded => Failure::Crowded,
        NoTurn::SentAway => Failure::SentAway,
    };
    let mut response = edge.replies.failure(&failure, Content::Text);
    debug_assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
