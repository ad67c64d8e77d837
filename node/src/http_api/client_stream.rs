//! The byte stream of a client below hyper: escapes request targets, limits slow heads and replies, and
//! discards unread bodies.
//!
//! A usual request costs no more than a scan of its first line.
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};

use super::{
    connections::{ClientConnection, USUAL_HEAD_BYTES},
    progress::ProgressTimer,
    target::Target,
};

/// Time limit for a head from its first byte on. Usually it fits into one packet.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the rest of an unread body is discarded, and how long its client may send nothing meanwhile.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
const LINGER_IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Size of the buffer for discarding.
const LINGER_BYTES: usize = 16 << 10;

/// The stream that hyper reads from and writes to.
pub(super) struct ClientStream<S> {
    stream: S,
    connection: Arc<ClientConnection>,
    /// Number of requests that had begun when the current head began.
    requests: u64,
    target: Target,
    head_bytes: usize,
    head_ends: Option<Pin<Box<Sleep>>>,
    large_head: Option<OwnedSemaphorePermit>,
    /// Escaped bytes that did not fit into hyper's buffer.
    rest: Bytes,
    writing: ProgressTimer,
    lingering: Lingering,
}

/// The end of a connection on which a body was not read to its end. Closing at once would reset the
/// connection, and a client that still sends would lose the reply.
#[derive(Default)]
struct Lingering {
    ends: Option<Pin<Box<Sleep>>>,
    idle: Option<Pin<Box<Sleep>>>,
}

impl<S> ClientStream<S> {
    pub(super) fn new(stream: S, connection: Arc<ClientConnection>) -> Self {
        Self {
            requests: connection.requests(),
            stream,
            connection,
            target: Target::default(),
            head_bytes: 0,
            head_ends: None,
            large_head: None,
            rest: Bytes::new(),
            writing: ProgressTimer::default(),
            lingering: Lingering::default(),
        }
    }

    /// Handles bytes of a head, from `start` on. They may also be the rest of an unread body, which is not
    /// changed.
    fn receive_head(&mut self, buffer: &mut ReadBuf<'_>, start: usize) -> io::Result<()> {
        let bytes = buffer.filled().get(start..).unwrap_or_default();
        if !self.connection.has_unread_body()
            && let Some(escaped) = self.target.escaped(bytes)
        {
            self.rest = escaped.into();
            buffer.set_filled(start);
            self.deliver_rest(buffer);
        }
        self.head_bytes += buffer.filled().len() - start + self.rest.len();
        if self.head_bytes > USUAL_HEAD_BYTES && self.large_head.is_none() {
            self.large_head = self.connection.connections().large_head();
            if self.large_head.is_none() {
                return Err(io::Error::other("too many large request heads at a time"));
            }
        }
        Ok(())
    }

    fn deliver_rest(&mut self, buffer: &mut ReadBuf<'_>) {
        let part = self.rest.split_to(self.rest.len().min(buffer.remaining()));
        buffer.put_slice(part.chunk());
    }

    /// Resets the state of the head if a request has begun since: what follows is its body, or the next head.
    fn note_requests(&mut self) {
        let requests = self.connection.requests();
        if requests != self.requests {
            self.requests = requests;
            self.target = Target::default();
            self.head_bytes = 0;
            self.head_ends = None;
            self.large_head = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            this.deliver_rest(buffer);
            return Poll::Ready(Ok(()));
        }
        let start = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if !this.connection.is_idle() {
            return read;
        }
        this.note_requests();
        match read {
            Poll::Ready(Ok(())) => Poll::Ready(this.receive_head(buffer, start)),
            Poll::Pending if this.head_bytes > 0 => {
                let ends = this
                    .head_ends
                    .get_or_insert_with(|| Box::pin(sleep(HEAD_TIMEOUT)));
                ready!(ends.as_mut().poll(context));
                Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the request's head did not end",
                )))
            }
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> ClientStream<S> {
    /// Passes on the result of a write, or fails if the client has read too little for too long.
    fn check_progress(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(written) => {
                let bytes = *written.as_ref().unwrap_or(&0) as u64;
                self.writing.add(bytes);
                self.connection.set_waiting(false);
                self.connection.add_transferred(bytes);
            }
            Poll::Pending => {
                self.connection.set_waiting(true);
                ready!(self.writing.poll_stalled(context));
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client does not read its reply",
                )));
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin> ClientStream<S> {
    /// Discards received bytes. Ready when the client has closed, sends nothing, or has sent for too long.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Lingering { ends, idle } = &mut self.lingering;
        let ends = ends.get_or_insert_with(|| Box::pin(sleep(LINGER_TIMEOUT)));
        let mut discarded = [0; LINGER_BYTES];
        while ends.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut discarded);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => *idle = None,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    let idle = idle.get_or_insert_with(|| Box::pin(sleep(LINGER_IDLE_TIMEOUT)));
                    return idle.as_mut().poll(context);
                }
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check_progress(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.check_progress(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.writing.reset();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = ready!(Pin::new(&mut self.stream).poll_shutdown(context));
        if shut.is_ok() && self.connection.has_unread_body() {
            ready!(self.poll_discard(context));
        }
        Poll::Ready(shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::{Instant, timeout},
    };

    use super::{super::connections::Connections, *};

    fn client_stream(
        room: usize,
    ) -> (
        ClientStream<DuplexStream>,
        DuplexStream,
        Arc<ClientConnection>,
    ) {
        let (client, server) = duplex(room);
        let connection = Connections::new(8).add();
        connection.opened();
        (
            ClientStream::new(server, Arc::clone(&connection)),
            client,
            connection,
        )
    }

    #[tokio::test]
    async fn targets_are_escaped_and_bodies_are_not() {
        let (mut stream, mut client, connection) = client_stream(1 << 20);
        let mut small = [0; 10];
        client
            .write_all(b"GET /?q=\"<>\" HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let got = stream.read(&mut small).await.unwrap();
            seen.extend_from_slice(&small[..got]);
        }
        assert_eq!(seen, b"GET /?q=%22%3C%3E%22 HTTP/1.1\r\n\r\n");
        let turn = connection.begin(false).unwrap();
        client.write_all(b"POST /\"body\"\n").await.unwrap();
        let mut body = [0; 13];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"POST /\"body\"\n");
        drop(turn);
        client.write_all(b"GET /< H").await.unwrap();
        let mut next = [0; 10];
        stream.read_exact(&mut next).await.unwrap();
        assert_eq!(&next, b"GET /%3C H");
        // Bytes that may be the rest of a body are not changed.
        drop(connection.begin(false).unwrap());
        connection.set_unread_body();
        client.write_all(b"GET /< H").await.unwrap();
        let mut rest = [0; 8];
        stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"GET /< H");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_ends() {
        let (mut stream, mut client, _) = client_stream(1 << 20);
        let mut buffer = [0; 100];
        // An idle connection is limited by `HEADER_READ_TIMEOUT`.
        let idle = timeout(Duration::from_secs(100), stream.read(&mut buffer)).await;
        assert!(idle.is_err());
        let begun = Instant::now();
        let drip = async {
            loop {
                if client.write_all(b"a").await.is_err() {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        };
        let reading = async {
            loop {
                if let Err(error) = stream.read(&mut buffer).await {
                    return error.kind();
                }
            }
        };
        let kind = tokio::select! { kind = reading => kind, () = drip => unreachable!() };
        assert_eq!(
            (kind, begun.elapsed().as_secs()),
            (io::ErrorKind::TimedOut, 20)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_is_not_read_ends() {
        let (mut stream, mut client, connection) = client_stream(64 << 10);
        let reply = vec![1; 1 << 20];
        let begun = Instant::now();
        let slowly = async {
            let mut buffer = [0; 4096];
            for _ in 0..(256 + 4) {
                sleep(Duration::from_secs(5)).await;
                client.read_exact(&mut buffer).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(
            async {
                stream.write_all(&reply).await.unwrap();
                stream.flush().await.unwrap();
                stream.write_all(&reply[..64 << 10]).await
            },
            slowly
        );
        written.unwrap();
        assert!(begun.elapsed() > Duration::from_secs(1200));
        let begun = Instant::now();
        let error = stream.write_all(&reply).await.unwrap_err();
        assert_eq!(
            (error.kind(), begun.elapsed().as_secs()),
            (io::ErrorKind::TimedOut, 30)
        );
        assert!(connection.is_waiting());
    }
}
