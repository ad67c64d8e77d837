//! A client's bytes on their way in and out: targets repaired, heads and replies that do not move ended.
//!
//! Nothing of this costs a usual request more than a look at its first line.
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
    crowd::{Place, USUAL_HEAD_BYTES},
    pace::Pace,
    target::Target,
};

/// How long a head may take from its first byte on. It fits into one packet usually.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the rest of a body that nobody wants is waited for, and how long its client may be silent.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
const LINGER_SILENCE: Duration = Duration::from_secs(3);
/// Of that rest, thrown away at a time.
const LINGER_BYTES: usize = 16 << 10;

/// hyper reads and writes through this.
pub(super) struct Doorway<S> {
    stream: S,
    place: Arc<Place>,
    /// Requests that had begun when the present head's first byte came.
    requests: u64,
    target: Target,
    head_bytes: usize,
    head_ends: Option<Pin<Box<Sleep>>>,
    large_head: Option<OwnedSemaphorePermit>,
    /// Repaired bytes that did not fit into hyper's buffer.
    rest: Bytes,
    writing: Pace,
    lingering: Lingering,
}

/// The end of a connection on which a body was not read to its end. Whoever closes at once takes the reply away from a client that still sends.
#[derive(Default)]
struct Lingering {
    ends: Option<Pin<Box<Sleep>>>,
    silent: Option<Pin<Box<Sleep>>>,
}

impl<S> Doorway<S> {
    pub(super) fn new(stream: S, place: Arc<Place>) -> Self {
        Self {
            requests: place.requests(),
            stream,
            place,
            target: Target::default(),
            head_bytes: 0,
            head_ends: None,
            large_head: None,
            rest: Bytes::new(),
            writing: Pace::default(),
            lingering: Lingering::default(),
        }
    }

    /// The bytes from `start` on belong to a head, unless a body's rest may still come.
    fn take_head(&mut self, buffer: &mut ReadBuf<'_>, start: usize) -> io::Result<()> {
        let bytes = buffer.filled().get(start..).unwrap_or_default();
        if !self.place.has_unread()
            && let Some(repaired) = self.target.repaired(bytes)
        {
            self.rest = repaired.into();
            buffer.set_filled(start);
            self.give_rest(buffer);
        }
        self.head_bytes += buffer.filled().len() - start + self.rest.len();
        if self.head_bytes > USUAL_HEAD_BYTES && self.large_head.is_none() {
            self.large_head = self.place.crowd().large_head();
            if self.large_head.is_none() {
                return Err(io::Error::other("too many large request heads at a time"));
            }
        }
        Ok(())
    }

    fn give_rest(&mut self, buffer: &mut ReadBuf<'_>) {
        let part = self.rest.split_to(self.rest.len().min(buffer.remaining()));
        buffer.put_slice(part.chunk());
    }

    /// A request has begun since: whatever comes next is its body, or another head.
    fn note_requests(&mut self) {
        let requests = self.place.requests();
        if requests != self.requests {
            self.requests = requests;
            self.target = Target::default();
            self.head_bytes = 0;
            self.head_ends = None;
            self.large_head = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Doorway<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            this.give_rest(buffer);
            return Poll::Ready(Ok(()));
        }
        let start = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if !this.place.is_idle() {
            return read;
        }
        this.note_requests();
        match read {
            Poll::Ready(Ok(())) => Poll::Ready(this.take_head(buffer, start)),
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

impl<S: AsyncWrite + Unpin> Doorway<S> {
    /// What became of a write, unless nothing has moved for too long.
    fn paced(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(written) => {
                let bytes = *written.as_ref().unwrap_or(&0) as u64;
                self.writing.moved(bytes);
                self.place.waits(false);
                self.place.moved(bytes);
            }
            Poll::Pending => {
                self.place.waits(true);
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

impl<S: AsyncRead + Unpin> Doorway<S> {
    /// Ready when the client has ended, is silent, or has sent for long enough.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Lingering { ends, silent } = &mut self.lingering;
        let ends = ends.get_or_insert_with(|| Box::pin(sleep(LINGER_TIMEOUT)));
        let mut piece = [0; LINGER_BYTES];
        while ends.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut piece);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => *silent = None,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    let silent = silent.get_or_insert_with(|| Box::pin(sleep(LINGER_SILENCE)));
                    return silent.as_mut().poll(context);
                }
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Doorway<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.paced(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.paced(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.writing.done();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = ready!(Pin::new(&mut self.stream).poll_shutdown(context));
        if shut.is_ok() && self.place.has_unread() {
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

    use super::{super::crowd::Crowd, *};

    fn doorway(room: usize) -> (Doorway<DuplexStream>, DuplexStream, Arc<Place>) {
        let (client, stream) = duplex(room);
        let place = Crowd::new(8).place();
        (Doorway::new(stream, Arc::clone(&place)), client, place)
    }

    #[tokio::test]
    async fn targets_are_repaired_and_bodies_are_not() {
        let (mut door, mut client, place) = doorway(1 << 20);
        let mut small = [0; 10];
        client
            .write_all(b"GET /?q=\"<>\" HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let got = door.read(&mut small).await.unwrap();
            seen.extend_from_slice(&small[..got]);
        }
        assert_eq!(seen, b"GET /?q=%22%3C%3E%22 HTTP/1.1\r\n\r\n");
        let turn = place.begin(false).unwrap();
        client.write_all(b"POST /\"body\"\n").await.unwrap();
        let mut body = [0; 13];
        door.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"POST /\"body\"\n");
        drop(turn);
        client.write_all(b"GET /< H").await.unwrap();
        let mut next = [0; 10];
        door.read_exact(&mut next).await.unwrap();
        assert_eq!(&next, b"GET /%3C H");
        // Where a body's rest may still come, bytes stay as they are.
        drop(place.begin(false).unwrap());
        place.leave_unread();
        client.write_all(b"GET /< H").await.unwrap();
        let mut rest = [0; 8];
        door.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"GET /< H");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_ends() {
        let (mut door, mut client, _) = doorway(1 << 20);
        let mut buffer = [0; 100];
        // Silence is somebody else's business.
        let silent = timeout(Duration::from_secs(100), door.read(&mut buffer)).await;
        assert!(silent.is_err());
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
                if let Err(error) = door.read(&mut buffer).await {
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
        let (mut door, mut client, place) = doorway(64 << 10);
        let reply = vec![1; 1 << 20];
        let begun = Instant::now();
        let slowly = async {
            let mut piece = [0; 4096];
            for _ in 0..(256 + 4) {
                sleep(Duration::from_secs(5)).await;
                client.read_exact(&mut piece).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(
            async {
                door.write_all(&reply).await.unwrap();
                door.flush().await.unwrap();
                door.write_all(&reply[..64 << 10]).await
            },
            slowly
        );
        written.unwrap();
        assert!(begun.elapsed() > Duration::from_secs(1200));
        let begun = Instant::now();
        let error = door.write_all(&reply).await.unwrap_err();
        assert_eq!(
            (error.kind(), begun.elapsed().as_secs()),
            (io::ErrorKind::TimedOut, 30)
        );
        assert!(place.seen_waiting());
    }
}
