//! The bytes of a connection between nodes: plain TCP, or TLS over it.
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use super::links::Link;

/// A connection between nodes.
#[derive(Debug)]
pub enum Stream {
    /// Without encryption.
    Plain(TcpStream),
    /// Encrypted; the handshake is over.
    Tls(Box<Encrypted>),
}

/// An encrypted connection.
#[derive(Debug)]
pub struct Encrypted {
    tls: TlsStream<Socket>,
    link: Arc<Link>,
}

/// The TCP connection below TLS. It can be registered at another runtime while TLS keeps its state.
#[derive(Debug)]
pub(super) struct Socket(Option<TcpStream>);

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Some(stream))
    }

    fn get(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.0.as_mut().map(Pin::new);
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn move_here(&mut self) -> io::Result<()> {
        let stream = self.0.take().ok_or(io::ErrorKind::NotConnected)?;
        self.0 = Some(moved(stream)?);
        Ok(())
    }
}

fn moved(stream: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(stream.into_std()?)
}

impl Stream {
    pub(super) fn encrypted(tls: TlsStream<Socket>, link: Arc<Link>) -> Self {
        Self::Tls(Box::new(Encrypted { tls, link }))
    }

    /// Moves the connection to the runtime that runs the caller. No byte is lost: what has been received and
    /// not read yet is in the kernel or in TLS's own buffers, and both are kept.
    ///
    /// # Errors
    /// The system's.
    pub fn moved_here(self) -> io::Result<Self> {
        Ok(match self {
            Self::Plain(stream) => Self::Plain(moved(stream)?),
            Self::Tls(mut stream) => {
                stream.tls.get_mut().0.move_here()?;
                Self::Tls(stream)
            }
        })
    }

    /// The trust in the other side, of an encrypted connection.
    pub fn link(&self) -> Option<Arc<Link>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(Arc::clone(&stream.link)),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => {
                stream.link.check()?;
                let read = Pin::new(&mut stream.tls).poll_read(cx, buf);
                if read.is_pending() {
                    stream.link.wake_when_cut(cx.waker());
                    stream.link.check()?;
                }
                read
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => {
                stream.link.check()?;
                Pin::new(&mut stream.tls).poll_write(cx, buf)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut stream.tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut stream.tls).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => {
                stream.link.check()?;
                Pin::new(&mut stream.tls).poll_write_vectored(cx, bufs)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.tls.is_write_vectored(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().get()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().get()?.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().get()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.get_mut().get()?.poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().get()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.as_ref().is_some_and(TcpStream::is_write_vectored)
    }
}
