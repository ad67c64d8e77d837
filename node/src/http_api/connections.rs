//! Connection limits: which connections are in use, which of them wait for their client, and which are closed
//! when the limit is reached.
use std::{
    cmp::Reverse,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections reserved for probes once all others are in use: for kubelets, load balancers, and
/// administrators who look for the cause.
const RESERVED_FOR_PROBES: usize = 64;
/// One in this many connections is closed at a time, so that not every new connection needs a search for one
/// to close.
const CLOSE_ONE_IN: usize = 64;
/// A probe that takes longer than this may be closed too.
const LONG_PROBE_MILLIS: u64 = 10_000;
/// A connection that waits for its client may be closed only after this long; a shorter wait is normal.
const LONG_WAIT_MILLIS: u64 = 1000;
/// Few heads are larger than this; only [`MAX_LARGE_HEADS`] of them may be in memory at a time.
pub(super) const USUAL_HEAD_BYTES: usize = 16 << 10;
/// Times the size of hyper's buffer: 32 MiB at most.
const MAX_LARGE_HEADS: usize = 128;

/// The handshake of a good client takes less.
const LONG_OPENING_MILLIS: u64 = 1000;

const IDLE: u8 = 0;
const BUSY: u8 = 1;
const PROBE: u8 = 2;
const CLOSING: u8 = 3;
/// It has not been proven yet that its client speaks TLS.
const OPENING: u8 = 4;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Connections {
    started: Instant,
    max: usize,
    busy: AtomicUsize,
    large_heads: Arc<Semaphore>,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct ClientConnection {
    connections: Arc<Connections>,
    state: AtomicU8,
    /// When it entered this state, in milliseconds since [`Connections::started`].
    since: AtomicU64,
    /// Requests that have begun.
    requests: AtomicU64,
    /// Bytes of this request's body and reply that have been transferred.
    transferred: AtomicU64,
    /// It waits for its client to send the body or to read the reply.
    waiting: AtomicBool,
    /// A body was not read to its end, so that its rest may still arrive.
    unread_body: AtomicBool,
}

/// A request in progress; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct ActiveRequest(Arc<ClientConnection>);

/// Why a request is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Too many requests are in progress.
    Overloaded,
    /// The connection is being closed.
    Closing,
}

/// The values of one connection on which the decision is based.
#[derive(Clone, Copy, Debug)]
struct Snapshot {
    state: u8,
    for_millis: u64,
    transferred: u64,
    waiting: bool,
}

impl Connections {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            max: max.max(1),
            busy: AtomicUsize::new(0),
            large_heads: Arc::new(Semaphore::new(MAX_LARGE_HEADS)),
        })
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Adds a connection, which is being opened.
    pub(super) fn add(self: &Arc<Self>) -> Arc<ClientConnection> {
        Arc::new(ClientConnection {
            connections: Arc::clone(self),
            state: AtomicU8::new(OPENING),
            since: AtomicU64::new(self.now()),
            requests: AtomicU64::new(0),
            transferred: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            unread_body: AtomicBool::new(false),
        })
    }

    /// A permit for a head of unusual size; `None` if too many are in memory.
    pub(super) fn large_head(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.large_heads).try_acquire_owned().ok()
    }

    /// Only the connections reserved for probes are left.
    pub(super) fn is_overloaded(&self) -> bool {
        let for_probes = RESERVED_FOR_PROBES.min(self.max / 4);
        self.busy.load(Relaxed) >= self.max - for_probes
    }

    /// Marks some connections as closing. Returns their positions in `open`; empty if all are in use.
    pub(super) fn close_some<'a>(
        &self,
        open: impl Iterator<Item = &'a ClientConnection>,
    ) -> Vec<usize> {
        let now = self.now();
        let open: Vec<&ClientConnection> = open.collect();
        let seen: Vec<Snapshot> = open.iter().map(|one| one.snapshot(now)).collect();
        let chosen = choose_to_close(&seen, (self.max / CLOSE_ONE_IN).max(1));
        let close = |at: &usize| {
            let connection = open.get(*at);
            connection.is_some_and(|connection| connection.close())
        };
        chosen.into_iter().filter(close).collect()
    }
}

/// Chooses at most `count` connections to close: those that have been opening for long; if there are none,
/// those idle for longest; then any that are opening; if there are none, the slowest of
/// those that wait for their client; then probes that take too long.
fn choose_to_close(seen: &[Snapshot], count: usize) -> Vec<usize> {
    let all = || seen.iter().enumerate();
    let oldest = |is: &dyn Fn(&Snapshot) -> bool| -> Vec<usize> {
        let found = all().filter(|(_, one)| is(one));
        let mut found: Vec<(u64, usize)> = found.map(|(at, one)| (one.for_millis, at)).collect();
        found.sort_unstable_by_key(|(millis, _)| Reverse(*millis));
        found.into_iter().take(count).map(|(_, at)| at).collect()
    };
    let kinds: [&dyn Fn(&Snapshot) -> bool; 3] = [
        &|one| one.state == OPENING && one.for_millis > LONG_OPENING_MILLIS,
        &|one| one.state == IDLE,
        &|one| one.state == OPENING,
    ];
    let unused = kinds.into_iter().map(oldest);
    if let Some(found) = unused.into_iter().find(|found| !found.is_empty()) {
        return found;
    }
    let mut slow: Vec<(u64, usize)> = all()
        .filter(|(_, one)| one.state != CLOSING && one.waiting && one.for_millis > LONG_WAIT_MILLIS)
        .map(|(at, one)| {
            let bytes_per_second = one.transferred.saturating_mul(1000) / one.for_millis.max(1);
            (bytes_per_second, at)
        })
        .collect();
    if !slow.is_empty() {
        slow.sort_unstable();
        return slow.into_iter().take(count).map(|(_, at)| at).collect();
    }
    all()
        .filter(|(_, one)| one.state == PROBE && one.for_millis > LONG_PROBE_MILLIS)
        .map(|(at, _)| at)
        .take(count)
        .collect()
}

impl ClientConnection {
    fn snapshot(&self, now: u64) -> Snapshot {
        Snapshot {
            state: self.state.load(Relaxed),
            for_millis: now.saturating_sub(self.since.load(Relaxed)),
            transferred: self.transferred.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
        }
    }

    /// Requests can be read.
    pub(super) fn opened(&self) {
        self.since.store(self.connections.now(), Relaxed);
        let _ = self.state.compare_exchange(OPENING, IDLE, Relaxed, Relaxed);
    }

    /// Marks the connection as closing. False if it has become busy meanwhile, unless it waits for its
    /// client.
    fn close(&self) -> bool {
        let unused = |state| matches!(state, IDLE | OPENING).then_some(CLOSING);
        match self.state.fetch_update(Relaxed, Relaxed, unused) {
            Ok(_) => true,
            Err(CLOSING) => false,
            Err(state) if state == PROBE || self.waiting.load(Relaxed) => {
                self.state.store(CLOSING, Relaxed);
                true
            }
            Err(_) => false,
        }
    }

    /// Begins a request.
    pub(super) fn begin(self: &Arc<Self>, is_probe: bool) -> Result<ActiveRequest, Rejection> {
        if !is_probe && self.connections.is_overloaded() {
            return Err(Rejection::Overloaded);
        }
        let state = if is_probe { PROBE } else { BUSY };
        self.state
            .compare_exchange(IDLE, state, Relaxed, Relaxed)
            .map_err(|_| Rejection::Closing)?;
        self.connections.busy.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        self.transferred.store(0, Relaxed);
        self.since.store(self.connections.now(), Relaxed);
        Ok(ActiveRequest(Arc::clone(self)))
    }

    /// Requests that have begun.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state.load(Relaxed) == IDLE
    }

    /// It is being closed and has not ended yet.
    pub(super) fn is_closing(&self) -> bool {
        self.state.load(Relaxed) == CLOSING
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Notes whether the connection waits for its client.
    pub(super) fn set_waiting(&self, waiting: bool) {
        if self.waiting.load(Relaxed) != waiting {
            self.waiting.store(waiting, Relaxed);
        }
    }

    /// Counts transferred bytes of the body or the reply.
    pub(super) fn add_transferred(&self, bytes: u64) {
        self.transferred.fetch_add(bytes, Relaxed);
    }

    /// Notes that a body was not read to its end.
    pub(super) fn set_unread_body(&self) {
        self.unread_body.store(true, Relaxed);
    }

    pub(super) fn has_unread_body(&self) -> bool {
        self.unread_body.load(Relaxed)
    }

    #[cfg(test)]
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Relaxed)
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let connection = &self.0;
        connection.connections.busy.fetch_sub(1, Relaxed);
        connection
            .since
            .store(connection.connections.now(), Relaxed);
        // Unless it has been marked as closing meanwhile.
        let ended = |state| (state != CLOSING).then_some(IDLE);
        let _ = connection.state.fetch_update(Relaxed, Relaxed, ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: u8, for_millis: u64, transferred: u64, waiting: bool) -> Snapshot {
        Snapshot {
            state,
            for_millis,
            transferred,
            waiting,
        }
    }

    fn added(connections: &Arc<Connections>) -> Arc<ClientConnection> {
        let connection = connections.add();
        connection.opened();
        connection
    }

    #[test]
    fn idle_ones_first_then_the_slowest_then_long_probes() {
        let (idle, old) = (seen(IDLE, 10, 0, false), seen(IDLE, 9000, 0, false));
        let (handshake, stuck) = (seen(OPENING, 90, 0, false), seen(OPENING, 3000, 0, false));
        let (works, closing) = (seen(BUSY, 60_000, 0, false), seen(CLOSING, 60_000, 0, true));
        let (trickles, sends) = (
            seen(BUSY, 60_000, 60, true),
            seen(BUSY, 60_000, 1 << 20, true),
        );
        let (begins, probe, long) = (
            seen(BUSY, 500, 0, true),
            seen(PROBE, 50, 0, false),
            seen(PROBE, 11_000, 0, false),
        );
        #[rustfmt::skip]
        let cases = [
            ("the oldest idle one", vec![works, idle, trickles, old], 1, vec![3]),
            ("several, the oldest first", vec![idle, old, works, idle], 2, vec![1, 0]),
            ("the slowest client", vec![works, sends, trickles, begins, closing], 1, vec![2]),
            ("a client that sends at all", vec![works, sends, begins], 5, vec![1]),
            ("a long probe", vec![works, probe, long], 5, vec![2]),
            ("none", vec![works, probe, begins, closing], 5, vec![]),
            ("a slow handshake", vec![idle, old, handshake, stuck], 2, vec![3]),
            ("an idle one before a handshake", vec![handshake, idle], 1, vec![1]),
            ("a handshake before a request", vec![trickles, handshake], 1, vec![1]),
        ];
        for (name, seen, count, expected) in cases {
            assert_eq!(choose_to_close(&seen, count), expected, "{name}");
        }
    }

    #[test]
    fn the_last_places_are_for_probes() {
        let connections = Connections::new(8);
        let open: Vec<_> = (0..8).map(|_| added(&connections)).collect();
        let requests: Vec<_> = open.iter().map(|one| one.begin(false)).collect();
        let served = requests.iter().filter(|request| request.is_ok()).count();
        assert_eq!(served, 6);
        assert!(matches!(requests[7], Err(Rejection::Overloaded)));
        let probe = open[7].begin(true);
        assert!(probe.is_ok());
        drop(requests);
        assert!(!connections.is_overloaded() && open[0].is_idle() && !open[7].is_idle());
        drop(probe);
        assert!(open.iter().all(|one| one.is_idle()));
    }

    #[test]
    fn who_is_sent_away_begins_nothing() {
        let connections = Connections::new(2);
        let (busy, idle) = (added(&connections), added(&connections));
        let request = busy.begin(true).unwrap();
        let both = || [&busy, &idle].into_iter().map(|one| &**one);
        assert_eq!(connections.close_some(both()), [1]);
        assert!(matches!(idle.begin(true), Err(Rejection::Closing)));
        assert!(connections.close_some(both()).is_empty());
        drop(request);
        assert_eq!(connections.close_some(both()), [0]);
        assert!(busy.is_closing() && idle.is_closing());
        let third = added(&connections);
        assert!(third.begin(false).is_ok());
    }

    #[test]
    fn large_heads_are_counted() {
        let connections = Connections::new(2);
        let held: Vec<_> = (0..MAX_LARGE_HEADS)
            .map(|_| connections.large_head().unwrap())
            .collect();
        assert!(connections.large_head().is_none());
        drop(held);
        assert!(connections.large_head().is_some());
    }
}
