//! The load generator: one thread, raw non-blocking sockets, one request in flight on each connection.
use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use memchr::memmem;
use mio::{Events, Interest, Poll, Token, event::Event};
use rustls::ClientConfig;

use crate::bench::stream::Stream;

/// Share of the span before the measurement starts, in which connections open and caches fill.
const WARM_UP: f64 = 0.2;
/// The measurement fails if no reply at all arrives for this long.
const REPLY_LIMIT: Duration = Duration::from_secs(20);
/// Read buffer in bytes: larger than any reply to a point request.
const READ_BUFFER: usize = 64 * 1024;

/// Result of a load.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Replies in the measured part of the span.
    pub replies: usize,
    /// Replies with a status other than 200 or with an error.
    pub errors: usize,
    /// One such reply.
    pub sample_error: Option<String>,
    /// Length of the measured part in seconds.
    pub seconds: f64,
    /// Latency of every measured request in microseconds, sorted.
    pub(super) micros: Vec<u32>,
}

impl Load {
    /// Replies per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 {
            self.replies as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// Adds another load of the same kind to this one.
    pub fn add(&mut self, other: Self) {
        self.replies += other.replies;
        self.errors += other.errors;
        self.sample_error = self.sample_error.take().or(other.sample_error);
        self.seconds += other.seconds;
        self.micros.extend(other.micros);
        self.micros.sort_unstable();
    }

    /// Latency percentile in microseconds; `share` is between 0 and 1.
    #[must_use]
    pub fn percentile(&self, share: f64) -> u32 {
        if self.micros.is_empty() {
            return 0;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a small count"
        )]
        let index = ((self.micros.len() - 1) as f64 * share.clamp(0.0, 1.0)).round() as usize;
        self.micros[index]
    }
}

/// What is put under load.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `host:port`.
    pub addr: &'a str,
    /// How to speak TLS with it; None: without.
    pub tls: Option<&'a Arc<ClientConfig>>,
}

impl<'a> Target<'a> {
    /// A server without TLS.
    #[must_use]
    pub fn plain(addr: &'a str) -> Self {
        Self { addr, tls: None }
    }
}

/// One connection and the request in flight on it.
struct Connection {
    stream: Stream,
    request: usize,
    /// Bytes of the request that the kernel has accepted.
    sent: usize,
    started: Instant,
    reply: Vec<u8>,
}

/// Sends `requests` in turn over `connections` keep-alive connections for `span`.
///
/// # Errors
/// If a connection fails or replies stop arriving.
pub fn run(
    target: &Target<'_>,
    connections: usize,
    span: Duration,
    requests: &[Vec<u8>],
) -> Result<Load> {
    let mut poll = Poll::new().context("poll")?;
    let mut open = connect_all(target, connections, requests.len(), &poll)?;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; READ_BUFFER];
    let start = Instant::now();
    let measured_from = start + span.mul_f64(WARM_UP);
    let end = start + span;
    let mut load = Load::default();
    let mut last_reply = start;
    loop {
        poll.poll(&mut events, Some(Duration::from_millis(200)))
            .or_else(ignore_interrupt)
            .context("poll")?;
        let mut now = Instant::now();
        for event in &events {
            let connection = &mut open[event.token().0];
            if connection
                .drive(event, &mut buffer, requests)
                .context("a connection under load")?
            {
                now = Instant::now();
                last_reply = now;
                connection.count(&mut load, now, measured_from);
                connection
                    .next(now, requests)
                    .context("a connection under load")?;
            }
        }
        if now >= end {
            break;
        }
        if now.duration_since(last_reply) > REPLY_LIMIT {
            bail!("no reply for {} s", REPLY_LIMIT.as_secs());
        }
    }
    load.seconds = Instant::now().duration_since(measured_from).as_secs_f64();
    load.micros.sort_unstable();
    Ok(load)
}

fn ignore_interrupt(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted {
        Ok(())
    } else {
        Err(error)
    }
}

fn connect_all(
    target: &Target<'_>,
    connections: usize,
    variants: usize,
    poll: &Poll,
) -> Result<Vec<Connection>> {
    let address = target.addr;
    let addr: SocketAddr = address
        .parse()
        .with_context(|| format!("address {address}"))?;
    (0..connections)
        .map(|number| {
            // Blocking connects: the clock starts only afterwards.
            let mut stream =
                Stream::connect(addr, target.tls).with_context(|| format!("connect to {addr}"))?;
            poll.registry().register(
                stream.socket(),
                Token(number),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            // Far apart, so that of many variants no two connections send the same soon after each other.
            let request = number * (variants / connections).max(37) % variants.max(1);
            Ok(Connection {
                stream,
                request,
                sent: 0,
                started: Instant::now(),
                reply: Vec::with_capacity(1024),
            })
        })
        .collect()
}

impl Connection {
    /// Continues sending and reading; returns true once the whole reply has arrived.
    fn drive(
        &mut self,
        event: &Event,
        buffer: &mut [u8],
        requests: &[Vec<u8>],
    ) -> io::Result<bool> {
        if event.is_writable() {
            self.stream.flush()?;
            self.send(requests)?;
        }
        if !event.is_readable() {
            return Ok(false);
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.reply.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            // With TLS more of it may have arrived already, of which there will be no event.
            if is_whole(&self.reply)? {
                return Ok(true);
            }
        }
    }

    fn send(&mut self, requests: &[Vec<u8>]) -> io::Result<()> {
        let request = &requests[self.request];
        while self.sent < request.len() {
            match self.stream.write(&request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn count(&mut self, load: &mut Load, now: Instant, measured_from: Instant) {
        if self.started >= measured_from {
            load.replies += 1;
            load.micros.push(
                u32::try_from(now.duration_since(self.started).as_micros()).unwrap_or(u32::MAX),
            );
        }
        if !is_good(&self.reply) {
            load.errors += 1;
            load.sample_error
                .get_or_insert_with(|| String::from_utf8_lossy(&self.reply).into_owned());
        }
    }

    fn next(&mut self, now: Instant, requests: &[Vec<u8>]) -> io::Result<()> {
        self.request = (self.request + 1) % requests.len();
        self.sent = 0;
        self.reply.clear();
        self.started = now;
        self.send(requests)
    }
}

/// Whether head and body are complete.
fn is_whole(reply: &[u8]) -> io::Result<bool> {
    let Some(head) = memmem::find(reply, b"\r\n\r\n") else {
        return Ok(false);
    };
    let length = content_length(&reply[..head]).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "a reply without Content-Length")
    })?;
    Ok(reply.len() >= head + 4 + length)
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    head.split(|&byte| byte == b'\n').find_map(|line| {
        let value = line.get(NAME.len()..)?;
        if !line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            return None;
        }
        std::str::from_utf8(value).ok()?.trim().parse().ok()
    })
}

fn is_good(reply: &[u8]) -> bool {
    reply.starts_with(b"HTTP/1.1 200") && memmem::find(reply, b"\"error\"").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_whole_when_their_body_is() {
        let cases: [(&[u8], bool); 4] = [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", true),
            (
                b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length:2\r\n\r\na",
                false,
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", false),
            (b"", false),
        ];
        for (reply, whole) in cases {
            assert_eq!(
                is_whole(reply).unwrap(),
                whole,
                "{}",
                String::from_utf8_lossy(reply)
            );
        }
        assert!(is_whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn percentiles_of_known_numbers() {
        let load = Load {
            replies: 101,
            seconds: 2.0,
            micros: (0..=100).collect(),
            ..Load::default()
        };
        assert_eq!(
            (
                load.percentile(0.5),
                load.percentile(0.99),
                load.percentile(1.0)
            ),
            (50, 99, 100)
        );
        assert!((load.rate() - 50.5).abs() < 1e-9);
        assert_eq!(Load::default().percentile(0.5), 0);
    }

    #[test]
    fn counts_the_replies_of_a_real_server() {
        let (addr, _server) = crate::bench::ceiling::spawn_thread().unwrap();
        let requests = crate::bench::requests::inserts();
        let load = run(
            &Target::plain(&addr),
            4,
            Duration::from_millis(300),
            &requests,
        )
        .unwrap();
        assert!(load.replies > 10, "{load:?}");
        assert_eq!(load.errors, 0, "{:?}", load.sample_error);
    }
}
