//! A TCP proxy in front of a node's Raft port, with which traffic to the node can be cut, held back and
//! delayed.
//!
//! Pass the proxy's address to a node as `-raft-adv-addr`: the other nodes then reach it through the proxy.
//! Cutting the proxy cuts all connections to the node, while the node's own connections go through the other
//! nodes' proxies: an asymmetric partition. Cut both to isolate the node. For cuts between chosen pairs see
//! [`crate::netns`].
use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use parking_lot::Mutex;

use crate::{ports, wait};

/// How soon a held-back direction notices that it is open again.
const CHECK_PERIOD: Duration = Duration::from_millis(20);
/// Timeout for connecting to the node.
const DIAL_LIMIT: Duration = Duration::from_secs(2);

/// What the link does with traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// All traffic passes.
    Open = 0,
    /// Existing connections are closed and new ones are closed at once, like a refused port.
    Cut = 1,
    /// Connections stay open but nothing passes in either direction, like packet loss.
    Blackhole = 2,
    /// Data towards the node is held back; data from it passes.
    HoldRequests = 3,
    /// Data towards the node passes; data from it is held back.
    HoldResponses = 4,
}

impl Mode {
    fn holds(self, direction: Direction) -> bool {
        match self {
            Self::Open | Self::Cut => false,
            Self::Blackhole => true,
            Self::HoldRequests => direction == Direction::Request,
            Self::HoldResponses => direction == Direction::Response,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

#[derive(Debug)]
struct Shared {
    mode: AtomicU8,
    delay_micros: AtomicU64,
    closing: AtomicBool,
    /// Both ends of every connection that is carried now.
    open: Mutex<HashMap<u64, [TcpStream; 2]>>,
    next_id: AtomicU64,
}

impl Shared {
    fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            1 => Mode::Cut,
            2 => Mode::Blackhole,
            3 => Mode::HoldRequests,
            4 => Mode::HoldResponses,
            _ => Mode::Open,
        }
    }

    fn keep(&self, ends: [TcpStream; 2]) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(id, ends);
        id
    }

    fn forget(&self, id: u64) {
        self.open.lock().remove(&id);
    }

    fn close_all(&self) {
        for (_, ends) in self.open.lock().drain() {
            for end in ends {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }
}

/// The proxy; closed when the value is dropped.
#[derive(Debug)]
pub struct Link {
    /// `host:port` to advertise.
    pub addr: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Link {
    /// Listens on a free port and forwards connections to `target` (`host:port`).
    ///
    /// # Errors
    /// If no port is available.
    pub fn to(target: &str) -> Result<Self> {
        let addr = format!("127.0.0.1:{}", ports::reserve()?);
        let listener = TcpListener::bind(&addr).with_context(|| format!("bind {addr}"))?;
        let shared = Arc::new(Shared {
            mode: AtomicU8::new(Mode::Open as u8),
            delay_micros: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            open: Mutex::new(HashMap::new()),
            next_id: AtomicU64::new(0),
        });
        let acceptor = thread::spawn({
            let (shared, target) = (Arc::clone(&shared), target.to_owned());
            move || accept(&listener, &target, &shared)
        });
        Ok(Self {
            addr,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Sets the mode, for existing connections too.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.store(mode as u8, Ordering::Release);
        if mode == Mode::Cut {
            self.shared.close_all();
        }
    }

    /// Delays every piece of data by `delay`, in each direction.
    pub fn slow(&self, delay: Duration) {
        self.shared.delay_micros.store(
            u64::try_from(delay.as_micros()).unwrap_or(u64::MAX),
            Ordering::Release,
        );
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.close_all();
        // Wakes the acceptor thread.
        let _ = TcpStream::connect(&self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.shared.close_all();
    }
}

fn accept(listener: &TcpListener, target: &str, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.closing.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        // One thread for each connection: a slow dial must not delay the others.
        let (shared, target) = (Arc::clone(shared), target.to_owned());
        thread::spawn(move || carry(stream, &target, &shared));
    }
}

fn carry(near: TcpStream, target: &str, shared: &Arc<Shared>) {
    while shared.mode() == Mode::Blackhole && !shared.closing.load(Ordering::Acquire) {
        wait::sleep(CHECK_PERIOD);
    }
    let Ok(addr) = target.parse() else { return };
    if shared.mode() == Mode::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect_timeout(&addr, DIAL_LIMIT) else {
        return;
    };
    let _ = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
    let (Ok(near_read), Ok(far_read)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    let (Ok(near_end), Ok(far_end)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    let id = shared.keep([near_end, far_end]);
    if shared.mode() == Mode::Cut || shared.closing.load(Ordering::Acquire) {
        shared.close_all();
    }
    let requests = thread::spawn({
        let shared = Arc::clone(shared);
        move || pump(near_read, far, Direction::Request, &shared)
    });
    pump(far_read, near, Direction::Response, shared);
    let _ = requests.join();
    shared.forget(id);
}

/// Copies until one side closes; then closes both.
fn pump(mut from: TcpStream, mut to: TcpStream, direction: Direction, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let delay = shared.delay_micros.load(Ordering::Acquire);
        if delay > 0 {
            wait::sleep(Duration::from_micros(delay));
        }
        while shared.mode().holds(direction) && !shared.closing.load(Ordering::Acquire) {
            wait::sleep(CHECK_PERIOD);
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const BRIEF: Duration = Duration::from_millis(120);

    /// A server that echoes every byte, and a link in front of it.
    fn echo() -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut writer = stream.try_clone().unwrap();
                    std::io::copy(&mut stream, &mut writer)
                });
            }
        });
        Link::to(&target).unwrap()
    }

    fn dial(link: &Link) -> TcpStream {
        let stream = TcpStream::connect(&link.addr).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn round_trip(stream: &mut TcpStream, limit: Duration) -> std::io::Result<[u8; 2]> {
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"hi")?;
        let mut back = [0; 2];
        stream.read_exact(&mut back).map(|()| back)
    }

    #[test]
    fn an_open_link_passes_and_a_cut_one_closes() {
        let link = echo();
        let mut stream = dial(&link);
        assert_eq!(&round_trip(&mut stream, LIMIT).unwrap(), b"hi");
        link.set(Mode::Cut);
        assert!(round_trip(&mut stream, LIMIT).is_err());
        assert!(round_trip(&mut dial(&link), LIMIT).is_err());
        link.set(Mode::Open);
        assert_eq!(&round_trip(&mut dial(&link), LIMIT).unwrap(), b"hi");
    }

    #[test]
    fn held_traffic_arrives_after_healing() {
        for mode in [Mode::Blackhole, Mode::HoldRequests, Mode::HoldResponses] {
            let link = echo();
            let mut stream = dial(&link);
            round_trip(&mut stream, LIMIT).unwrap();
            link.set(mode);
            assert!(round_trip(&mut stream, BRIEF).is_err(), "{mode:?}");
            link.set(Mode::Open);
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let mut late = [0; 2];
            stream.read_exact(&mut late).unwrap();
            assert_eq!(&late, b"hi", "{mode:?}");
        }
    }

    #[test]
    fn a_slow_link_is_slow() {
        let link = echo();
        link.slow(BRIEF);
        let start = Instant::now();
        round_trip(&mut dial(&link), LIMIT).unwrap();
        assert!(start.elapsed() >= 2 * BRIEF);
    }
}
