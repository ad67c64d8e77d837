//! A front for a DNS server that behaves badly on demand: slow, silent, failing or cutting answers short.
//!
//! The questions that it lets through are answered by the real server, over UDP and TCP alike.
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    link::{Link, Mode},
    wait,
};

/// How often the front looks whether it is to end.
const CHECK_PERIOD: Duration = Duration::from_millis(50);
/// How long the real server may take.
const UPSTREAM_LIMIT: Duration = Duration::from_secs(3);
/// Questions that wait for their answer at the same time; more are dropped, as a busy server does.
const MAX_WAITING: usize = 64;
/// Tries to have a UDP port of the number that TCP already has.
const PORT_TRIES: usize = 20;
/// Length of a DNS header; its third byte has QR (0x80) and TC (0x02), its fourth RA (0x80) and the response code.
const HEADER: usize = 12;
/// Response code `SERVFAIL`.
const SERVFAIL: u8 = 2;

/// What the front does with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Passes it on.
    Open,
    /// Passes it on and holds the answer back for so long (over TCP: each piece of data, in each direction).
    Slow(Duration),
    /// Never answers.
    Silent,
    /// Answers SERVFAIL over UDP; over TCP the connection is closed.
    Failing,
    /// Answers over UDP without any record and says that it was cut short; over TCP it answers in full.
    Truncating,
}

/// The front; it ends with the value.
#[derive(Debug)]
pub struct DnsFront {
    addr: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<AtomicU64>,
    closing: Arc<AtomicBool>,
    tcp: Link,
    threads: Vec<JoinHandle<()>>,
}

impl DnsFront {
    /// Listens on a free port, UDP and TCP, in front of `server`.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn to(server: SocketAddr) -> Result<Self> {
        let (tcp, socket) = ports_of_one_number(server)?;
        socket.set_read_timeout(Some(CHECK_PERIOD))?;
        let addr = socket.local_addr()?;
        let manner = Arc::new(Mutex::new(Manner::Open));
        let (asked, closing) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let socket = Arc::new(socket);
        let (waiting, questions) = mpsc::sync_channel(MAX_WAITING);
        let questions = Arc::new(Mutex::new(questions));
        let mut threads = Vec::new();
        threads.push(thread::spawn({
            let (socket, manner) = (Arc::clone(&socket), Arc::clone(&manner));
            let (asked, closing) = (Arc::clone(&asked), Arc::clone(&closing));
            move || receive(&socket, &manner, &asked, &closing, &waiting)
        }));
        // Several, so that a slow answer does not hold up the next question.
        for _ in 0..MAX_WAITING / 8 {
            let (socket, questions) = (Arc::clone(&socket), Arc::clone(&questions));
            threads.push(thread::spawn(move || serve(&socket, server, &questions)));
        }
        Ok(Self {
            addr,
            manner,
            asked,
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

    /// Changes its manner, for questions from now on.
    pub fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
        self.tcp.slow(match manner {
            Manner::Slow(delay) => delay,
            _ => Duration::ZERO,
        });
        self.tcp.set(match manner {
            Manner::Open | Manner::Slow(_) | Manner::Truncating => Mode::Open,
            Manner::Silent => Mode::Blackhole,
            Manner::Failing => Mode::Cut,
        });
    }

    /// How many questions have come over UDP.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for DnsFront {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A question on its way, and what is to happen to it.
struct Question {
    from: SocketAddr,
    bytes: Vec<u8>,
    manner: Manner,
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

/// Takes questions until the front closes; then the channel closes with it and the servers end.
fn receive(
    socket: &UdpSocket,
    manner: &Mutex<Manner>,
    asked: &AtomicU64,
    closing: &AtomicBool,
    waiting: &mpsc::SyncSender<Question>,
) {
    let mut buffer = [0; 4096];
    while !closing.load(Ordering::Acquire) {
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            // A client that has gone away since; the next question is not concerned.
            Err(_) => continue,
        };
        if length < HEADER {
            continue;
        }
        asked.fetch_add(1, Ordering::Relaxed);
        let manner = *manner.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = buffer[..length].to_vec();
        let _ = waiting.try_send(Question {
            from,
            bytes,
            manner,
        });
    }
}

fn serve(socket: &UdpSocket, server: SocketAddr, questions: &Mutex<mpsc::Receiver<Question>>) {
    loop {
        let next = questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(question) = next else { return };
        let answer = match question.manner {
            Manner::Silent => None,
            Manner::Failing => Some(refusal(&question.bytes, 0, SERVFAIL)),
            Manner::Truncating => Some(refusal(&question.bytes, 0x02, 0)),
            Manner::Open => forward(server, &question.bytes),
            Manner::Slow(delay) => {
                let answer = forward(server, &question.bytes);
                wait::pace(delay);
                answer
            }
        };
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, question.from);
        }
    }
}

fn forward(server: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    socket.set_read_timeout(Some(UPSTREAM_LIMIT)).ok()?;
    socket.connect(server).ok()?;
    socket.send(question).ok()?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    Some(buffer[..length].to_vec())
}

/// The question turned into an answer without records: the header's flags changed, its question kept. An additional
/// record (EDNS) that the question had is left in place, as servers echo it.
fn refusal(question: &[u8], flag: u8, code: u8) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80 | flag;
    answer[3] = 0x80 | code;
    answer
}
