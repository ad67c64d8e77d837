//! A proxy in front of a DNS server that misbehaves on demand: it delays, drops, fails or truncates
//! responses.
//!
//! Queries that it passes on are answered by the real server, over UDP and TCP alike.
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

use crate::{
    link::{Link, Mode},
    wait,
};

/// How often the proxy's threads check whether to stop.
const CHECK_PERIOD: Duration = Duration::from_millis(50);
/// Timeout of the real server.
const UPSTREAM_LIMIT: Duration = Duration::from_secs(3);
/// Maximum number of queries that wait for a response; more are dropped, as a busy server does.
const MAX_WAITING: usize = 64;
/// Attempts to find a port that is free for both UDP and TCP.
const PORT_TRIES: usize = 20;
/// Length of a DNS header. Its third byte contains QR (0x80) and TC (0x02), its fourth RA (0x80) and the
/// response code.
const HEADER: usize = 12;
/// Response code `SERVFAIL`.
const SERVFAIL: u8 = 2;

/// What the proxy does with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsMode {
    /// Passes it on.
    Open,
    /// Passes it on and delays the response (over TCP: each piece of data, in each direction).
    Slow(Duration),
    /// Never responds.
    Dropping,
    /// Responds with SERVFAIL over UDP; closes the connection over TCP.
    Failing,
    /// Responds over UDP without records and with the TC flag; over TCP it responds in full.
    Truncating,
}

/// The proxy; stopped when the value is dropped.
#[derive(Debug)]
pub struct DnsProxy {
    addr: SocketAddr,
    mode: Arc<Mutex<DnsMode>>,
    queries: Arc<AtomicU64>,
    closing: Arc<AtomicBool>,
    tcp: Link,
    threads: Vec<JoinHandle<()>>,
}

impl DnsProxy {
    /// Listens on a free port, UDP and TCP, in front of `server`.
    ///
    /// # Errors
    /// If no port is available.
    pub fn to(server: SocketAddr) -> Result<Self> {
        let (tcp, socket) = ports_of_one_number(server)?;
        socket.set_read_timeout(Some(CHECK_PERIOD))?;
        let addr = socket.local_addr()?;
        let mode = Arc::new(Mutex::new(DnsMode::Open));
        let (queries, closing) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let socket = Arc::new(socket);
        let (waiting, received) = mpsc::sync_channel(MAX_WAITING);
        let received = Arc::new(Mutex::new(received));
        let mut threads = Vec::new();
        threads.push(thread::spawn({
            let (socket, mode) = (Arc::clone(&socket), Arc::clone(&mode));
            let (queries, closing) = (Arc::clone(&queries), Arc::clone(&closing));
            move || receive(&socket, &mode, &queries, &closing, &waiting)
        }));
        // Several threads, so that a delayed response does not delay the next query.
        for _ in 0..MAX_WAITING / 8 {
            let (socket, received) = (Arc::clone(&socket), Arc::clone(&received));
            threads.push(thread::spawn(move || serve(&socket, server, &received)));
        }
        Ok(Self {
            addr,
            mode,
            queries,
            closing,
            tcp,
            threads,
        })
    }

    /// Where it listens, UDP and TCP.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sets the mode for all further queries.
    pub fn set(&self, mode: DnsMode) {
        *self.mode.lock() = mode;
        self.tcp.slow(match mode {
            DnsMode::Slow(delay) => delay,
            _ => Duration::ZERO,
        });
        self.tcp.set(match mode {
            DnsMode::Open | DnsMode::Slow(_) | DnsMode::Truncating => Mode::Open,
            DnsMode::Dropping => Mode::Blackhole,
            DnsMode::Failing => Mode::Cut,
        });
    }

    /// Number of queries received over UDP.
    #[must_use]
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }
}

impl Drop for DnsProxy {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A received query with the mode that applies to it.
struct Query {
    from: SocketAddr,
    bytes: Vec<u8>,
    mode: DnsMode,
}

fn ports_of_one_number(server: SocketAddr) -> Result<(Link, UdpSocket)> {
    for _ in 0..PORT_TRIES {
        let tcp = Link::to(&server.to_string())?;
        let addr: SocketAddr = tcp.addr.parse().context("the link's address")?;
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, addr.port())) {
            return Ok((tcp, socket));
        }
    }
    bail!("no port is free for both UDP and TCP")
}

/// Receives queries until the proxy closes. The channel then closes, which stops the threads that serve it.
fn receive(
    socket: &UdpSocket,
    mode: &Mutex<DnsMode>,
    queries: &AtomicU64,
    closing: &AtomicBool,
    waiting: &mpsc::SyncSender<Query>,
) {
    let mut buffer = [0; 4096];
    while !closing.load(Ordering::Acquire) {
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            // The error concerns an earlier client that has gone; the next query is unaffected.
            Err(_) => continue,
        };
        if length < HEADER {
            continue;
        }
        queries.fetch_add(1, Ordering::Relaxed);
        let mode = *mode.lock();
        let bytes = buffer[..length].to_vec();
        let _ = waiting.try_send(Query { from, bytes, mode });
    }
}

fn serve(socket: &UdpSocket, server: SocketAddr, received: &Mutex<mpsc::Receiver<Query>>) {
    loop {
        let next = received.lock().recv();
        let Ok(query) = next else { return };
        let answer = match query.mode {
            DnsMode::Dropping => None,
            DnsMode::Failing => Some(refusal(&query.bytes, 0, SERVFAIL)),
            DnsMode::Truncating => Some(refusal(&query.bytes, 0x02, 0)),
            DnsMode::Open => forward(server, &query.bytes),
            DnsMode::Slow(delay) => {
                let answer = forward(server, &query.bytes);
                wait::sleep(delay);
                answer
            }
        };
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, query.from);
        }
    }
}

fn forward(server: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    socket.set_read_timeout(Some(UPSTREAM_LIMIT)).ok()?;
    socket.connect(server).ok()?;
    socket.send(query).ok()?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    Some(buffer[..length].to_vec())
}

/// Turns a query into a response without records: changes the flags and keeps its sections. An additional
/// record (EDNS) of the query stays in place, as servers echo it.
fn refusal(query: &[u8], flag: u8, code: u8) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80 | flag;
    answer[3] = 0x80 | code;
    answer
}
