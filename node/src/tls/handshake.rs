//! Handshakes within limits: each ends in time, and their arithmetic takes only a part of the processors.
use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustls::{ServerConfig, server::Acceptor};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

/// Time limit of a handshake.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// First byte of a TLS connection: a record of the handshake.
const HANDSHAKE_RECORD: u8 = 0x16;
/// Failed handshakes that are logged in each [`LOG_PERIOD`]; others must not fill the log.
const LOGGED: u32 = 10;
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Lets the arithmetic of only so many handshakes run at a time that half of the processors stay free for
/// connections that are open.
#[derive(Debug)]
pub(super) struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Semaphore::new((processors / 2).max(1)))
    }
}

impl Gate {
    /// A whole handshake as the server.
    pub(super) async fn accept<S>(
        &self,
        stream: S,
        config: Arc<ServerConfig>,
    ) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = async {
            let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            // The expensive step, a signature, is the first one after the client's hello.
            let permit = self.0.acquire().await.map_err(io::Error::other)?;
            let mut rest = pin!(begun.into_stream(config));
            let first = poll_fn(|context| Poll::Ready(rest.as_mut().poll(context))).await;
            drop(permit);
            match first {
                Poll::Ready(done) => done,
                Poll::Pending => rest.await,
            }
        };
        timeout(HANDSHAKE_LIMIT, handshake)
            .await
            .unwrap_or_else(|_elapsed| Err(timed_out()))
    }
}

/// The error of a handshake that took too long.
pub(super) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake timed out")
}

/// Whether a client begins with TLS; its first byte is looked at, not read. `UnexpectedEof` if it sends none.
///
/// # Errors
/// The connection has failed.
pub async fn begins_with_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first == [HANDSHAKE_RECORD]),
    }
}

/// Counts failed handshakes and says how many of them may be logged.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<Option<Period>>);

#[derive(Debug)]
struct Period {
    begun: Instant,
    seen: u32,
}

impl LogLimit {
    /// `None`: not to be logged. `Some(n)`: to be logged, and `n` before it were not.
    pub(super) fn next(&self, now: Instant) -> Option<u32> {
        let mut period = self.0.lock();
        match period.as_mut() {
            Some(current) if now.saturating_duration_since(current.begun) < LOG_PERIOD => {
                current.seen = current.seen.saturating_add(1);
                (current.seen <= LOGGED).then_some(0)
            }
            last => {
                let left_out = last.map_or(0, |last| last.seen.saturating_sub(LOGGED));
                *period = Some(Period {
                    begun: now,
                    seen: 1,
                });
                Some(left_out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_fill_the_log() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let logged = (0..500).filter(|_| limit.next(start).is_some()).count();
        assert_eq!(logged, 10);
        assert_eq!(limit.next(start + LOG_PERIOD), Some(490));
        assert_eq!(limit.next(start + LOG_PERIOD), Some(0));
    }
}
