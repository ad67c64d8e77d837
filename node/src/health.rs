//! The health listener (`-health-addr`): `/readyz`, `/livez` and `/metrics` for probes and Prometheus,
//! without passwords, certificates or the SQL port.
//!
//! It has a thread and a runtime of its own, so that it answers while the HTTP port is full, while the data
//! is being opened, and when the main runtime is stuck. `/readyz` and `/metrics` say what the API's say, but
//! no reasons: those name addresses and files. `/livez` is 200 while the main runtime runs tasks, that is,
//! unless it has run none for 30 s. It says nothing of leaders, quorums and disks: a restart would help none
//! of them. Everything else is 404. A connection carries one request and must send it at once; when all
//! places are taken, the oldest connection is closed.
use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Handle},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::shared::Shared;
use crate::bind::bind;

mod answer;
mod recent;
mod shared;

pub use self::shared::About;

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 32;
/// Time for the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// Time for a connection as a whole.
const CONNECTION_LIMIT: Duration = Duration::from_secs(20);
/// Largest head. Probes send a few hundred bytes.
const HEAD_BYTES: usize = 16 << 10;
/// Pause after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the main runtime shows that it runs tasks.
const BEAT: Duration = Duration::from_secs(1);
/// The running listener; it ends when this value is dropped.
#[derive(Debug)]
pub struct Health {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Health {
    /// Listens at `host:port`. To be called in the main runtime. Until [`Health::opened`] the node is alive,
    /// but not ready.
    ///
    /// # Errors
    /// The address cannot be bound, or the system gives no thread.
    pub async fn start(address: &str) -> io::Result<Self> {
        let listener = bind(address).await?.into_std()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared::new(Handle::current()));
        let stop = CancellationToken::new();
        tokio::spawn(beat(Arc::clone(&shared), stop.clone()));
        let serving = serve(listener, Arc::clone(&shared), stop.clone());
        std::thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serving) {
                    tracing::error!(target: "health", "the health listener ended: {error}");
                }
            })?;
        tracing::info!(target: "health", "health listener available at http://{address}");
        Ok(Self { shared, stop })
    }

    /// The node is there, though its data may not be open yet.
    pub fn opened(&self, about: About) {
        let _ = self.shared.about.set(about);
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn beat(shared: Arc<Shared>, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(BEAT)).await.is_some() {
        shared.beat();
    }
}

async fn serve(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut running = JoinSet::new();
    let mut places: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_ended) = running.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        places.retain(|one| !one.is_finished());
        while places.len() >= MAX_CONNECTIONS {
            // A good request takes milliseconds, so the oldest one is the least likely to be one.
            places.pop_front().inspect(AbortHandle::abort);
        }
        let connection = timeout(CONNECTION_LIMIT, carry(stream, Arc::clone(&shared)));
        places.push_back(running.spawn(async move {
            let _ = connection.await;
        }));
    }
}

/// Serves one request.
async fn carry(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, std::convert::Infallible>(answer::answer(&shared, &request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(target: "health", "connection ended: {error}");
    }
}

#[cfg(test)]
mod tests;
