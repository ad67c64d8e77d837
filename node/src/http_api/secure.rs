//! How a client's connection begins where HTTPS is configured: with a TLS handshake, or, if that is allowed
//! too, with plain HTTP.
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use crate::{
    metrics::{Counter, Metrics},
    tls::{HANDSHAKE_LIMIT, Side, begins_with_tls},
};

/// The reply to plain HTTP where only HTTPS is served. The text is Go's, which rqlite's users know.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: 48\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// Time for that reply, and most bytes of the request that are read meanwhile: a connection that is closed
/// with unread bytes would be reset, and the reply lost.
const PLAIN_LIMIT: Duration = Duration::from_secs(2);
const PLAIN_READ: u64 = 64 << 10;

/// The certificates, and what else is accepted.
#[derive(Clone, Debug)]
pub(super) struct Https {
    pub(super) side: Arc<Side>,
    pub(super) metrics: Arc<Metrics>,
    /// How long a client may send nothing where plain HTTP is accepted too.
    pub(super) idle: Duration,
}

/// A connection whose requests can be read.
#[derive(Debug)]
pub(super) enum Opened {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Https {
    /// Begins a connection.
    ///
    /// # Errors
    /// It is to be closed; the reason has been logged if it is of interest.
    pub(super) async fn begin(self, stream: TcpStream, from: SocketAddr) -> io::Result<Opened> {
        let optional = self.side.is_optional();
        let limit = if optional { self.idle } else { HANDSHAKE_LIMIT };
        let is_tls = timeout(limit, begins_with_tls(&stream)).await;
        let is_tls = is_tls.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))?;
        if !is_tls && optional {
            return Ok(Opened::Plain(stream));
        }
        if !is_tls {
            let _ = timeout(PLAIN_LIMIT, refuse_plain(stream)).await;
            let error = io::Error::other("client sent an HTTP request to an HTTPS server");
            self.side.refused(from, &error);
            return Err(error);
        }
        match self.side.accept(stream).await {
            Ok(stream) => {
                self.metrics.count(Counter::HttpTlsCertFetched);
                Ok(Opened::Tls(Box::new(stream)))
            }
            Err(error) => {
                self.side.refused(from, &error);
                Err(error)
            }
        }
    }
}

async fn refuse_plain(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(PLAIN).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(PLAIN_READ);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

impl AsyncRead for Opened {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Opened {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
