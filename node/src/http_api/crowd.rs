//! All connections together: who is being served, who waits for its client, and who makes room when there is none.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places that only probes may take once all others are busy: kubelets, load balancers and an administrator who looks what is the matter.
const FOR_PROBES: usize = 64;
/// One in so many connections makes room at a time, so that the search for them is not made for each new one.
const BATCH: usize = 64;
/// A probe that takes longer than this is none, and makes room too.
const LONG_PROBE_MILLIS: u64 = 10_000;
/// A client that is waited for makes room only after so long: whoever is just sending or reading is left alone.
const LONG_WAIT_MILLIS: u64 = 1000;
/// Heads that are larger than this are few, and only [`LARGE_HEADS`] of them may be in memory.
pub(super) const USUAL_HEAD_BYTES: usize = 16 << 10;
/// Times hyper's buffer: 32 MiB at most.
const LARGE_HEADS: usize = 128;

const IDLE: u8 = 0;
const BUSY: u8 = 1;
const PROBE: u8 = 2;
const SENT_AWAY: u8 = 3;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Crowd {
    started: Instant,
    max: usize,
    busy: AtomicUsize,
    large_heads: Arc<Semaphore>,
}

/// One connection, as far as others have to know.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    state: AtomicU8,
    /// When it came into this state: milliseconds since the crowd began.
    since: AtomicU64,
    /// Requests that have begun.
    requests: AtomicU64,
    /// Bytes of this request's body and reply that its client has moved.
    moved: AtomicU64,
    /// Its client is waited for: its body, or room for the reply.
    waits: AtomicBool,
    /// A body was not read to its end, so that its rest may still come.
    unread: AtomicBool,
}

/// A request being served; its end is when this is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Place>);

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// Too many are.
    Crowded,
    /// Its connection has been given away.
    SentAway,
}

/// One connection as the decision sees it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    state: u8,
    for_millis: u64,
    moved: u64,
    waits: bool,
}

impl Crowd {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            max: max.max(1),
            busy: AtomicUsize::new(0),
            large_heads: Arc::new(Semaphore::new(LARGE_HEADS)),
        })
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn place(self: &Arc<Self>) -> Arc<Place> {
        Arc::new(Place {
            crowd: Arc::clone(self),
            state: AtomicU8::new(IDLE),
            since: AtomicU64::new(self.now()),
            requests: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            unread: AtomicBool::new(false),
        })
    }

    /// Room in memory for a head of unusual size, if there is any.
    pub(super) fn large_head(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.large_heads).try_acquire_owned().ok()
    }

    /// Requests of no importance find no place when this is true.
    pub(super) fn is_crowded(&self) -> bool {
        let for_probes = FOR_PROBES.min(self.max / 4);
        self.busy.load(Relaxed) >= self.max - for_probes
    }

    /// Sends some away, so that others find a place. Where they stand among `places`; none if all are being served.
    pub(super) fn make_room<'a>(&self, places: impl Iterator<Item = &'a Place>) -> Vec<usize> {
        let now = self.now();
        let places: Vec<&Place> = places.collect();
        let seen: Vec<Seen> = places.iter().map(|place| place.seen(now)).collect();
        let chosen = who_makes_room(&seen, (self.max / BATCH).max(1));
        let leave = |at: &usize| {
            let place = places.get(*at);
            place.is_some_and(|place| place.send_away())
        };
        chosen.into_iter().filter(leave).collect()
    }
}

/// The idle ones that have been so for longest; without any, the slowest of those whose client is waited for; then probes that are none.
fn who_makes_room(seen: &[Seen], count: usize) -> Vec<usize> {
    let all = || seen.iter().enumerate();
    let mut idle: Vec<(u64, usize)> = all()
        .filter(|(_, one)| one.state == IDLE)
        .map(|(at, one)| (one.for_millis, at))
        .collect();
    if !idle.is_empty() {
        idle.sort_unstable_by_key(|(millis, _)| std::cmp::Reverse(*millis));
        return idle.into_iter().take(count).map(|(_, at)| at).collect();
    }
    let mut slow: Vec<(u64, usize)> = all()
        .filter(|(_, one)| one.state != SENT_AWAY && one.waits && one.for_millis > LONG_WAIT_MILLIS)
        .map(|(at, one)| (one.moved.saturating_mul(1000) / one.for_millis.max(1), at))
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

impl Place {
    fn seen(&self, now: u64) -> Seen {
        Seen {
            state: self.state.load(Relaxed),
            for_millis: now.saturating_sub(self.since.load(Relaxed)),
            moved: self.moved.load(Relaxed),
            waits: self.waits.load(Relaxed),
        }
    }

    /// False if it has just been given something to do, unless its client is waited for.
    fn send_away(&self) -> bool {
        let idle = self
            .state
            .compare_exchange(IDLE, SENT_AWAY, Relaxed, Relaxed);
        match idle {
            Ok(_) => true,
            Err(SENT_AWAY) => false,
            Err(state) if state == PROBE || self.waits.load(Relaxed) => {
                self.state.store(SENT_AWAY, Relaxed);
                true
            }
            Err(_) => false,
        }
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>, is_probe: bool) -> Result<Turn, NoTurn> {
        if !is_probe && self.crowd.is_crowded() {
            return Err(NoTurn::Crowded);
        }
        let state = if is_probe { PROBE } else { BUSY };
        self.state
            .compare_exchange(IDLE, state, Relaxed, Relaxed)
            .map_err(|_| NoTurn::SentAway)?;
        self.crowd.busy.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        self.moved.store(0, Relaxed);
        self.since.store(self.crowd.now(), Relaxed);
        Ok(Turn(Arc::clone(self)))
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state.load(Relaxed) == IDLE
    }

    /// It has been told to end, and has not yet.
    pub(super) fn is_leaving(&self) -> bool {
        self.state.load(Relaxed) == SENT_AWAY
    }

    pub(super) fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    /// Its client is waited for, or no longer.
    pub(super) fn waits(&self, waits: bool) {
        if self.waits.load(Relaxed) != waits {
            self.waits.store(waits, Relaxed);
        }
    }

    /// Its client has moved so much.
    pub(super) fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Relaxed);
    }

    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Relaxed);
    }

    pub(super) fn has_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    #[cfg(test)]
    pub(super) fn seen_waiting(&self) -> bool {
        self.waits.load(Relaxed)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let place = &self.0;
        place.crowd.busy.fetch_sub(1, Relaxed);
        place.since.store(place.crowd.now(), Relaxed);
        // Unless it has been sent away meanwhile.
        let ended = |state| (state != SENT_AWAY).then_some(IDLE);
        let _ = place.state.fetch_update(Relaxed, Relaxed, ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: u8, for_millis: u64, moved: u64, waits: bool) -> Seen {
        Seen {
            state,
            for_millis,
            moved,
            waits,
        }
    }

    #[test]
    fn idle_ones_first_then_the_slowest_then_long_probes() {
        let (idle, old) = (seen(IDLE, 10, 0, false), seen(IDLE, 9000, 0, false));
        let (works, away) = (
            seen(BUSY, 60_000, 0, false),
            seen(SENT_AWAY, 60_000, 0, true),
        );
        let (drips, sends) = (
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
            ("the oldest idle one", vec![works, idle, drips, old], 1, vec![3]),
            ("several, the oldest first", vec![idle, old, works, idle], 2, vec![1, 0]),
            ("who drips, before who sends", vec![works, sends, drips, begins, away], 1, vec![2]),
            ("then who sends", vec![works, sends, begins], 5, vec![1]),
            ("a probe that lasts", vec![works, probe, long], 5, vec![2]),
            ("nobody", vec![works, probe, begins, away], 5, vec![]),
        ];
        for (name, seen, count, expected) in cases {
            assert_eq!(who_makes_room(&seen, count), expected, "{name}");
        }
    }

    #[test]
    fn the_last_places_are_for_probes() {
        let crowd = Crowd::new(8);
        let places: Vec<_> = (0..8).map(|_| crowd.place()).collect();
        let turns: Vec<_> = places.iter().map(|place| place.begin(false)).collect();
        let served = turns.iter().filter(|turn| turn.is_ok()).count();
        assert_eq!(served, 6);
        assert!(matches!(turns[7], Err(NoTurn::Crowded)));
        let probe = places[7].begin(true);
        assert!(probe.is_ok());
        drop(turns);
        assert!(!crowd.is_crowded() && places[0].is_idle() && !places[7].is_idle());
        drop(probe);
        assert!(places.iter().all(|place| place.is_idle()));
    }

    #[test]
    fn who_is_sent_away_begins_nothing() {
        let crowd = Crowd::new(2);
        let (busy, idle) = (crowd.place(), crowd.place());
        let turn = busy.begin(true).unwrap();
        let both = || [&busy, &idle].into_iter().map(|place| &**place);
        assert_eq!(crowd.make_room(both()), [1]);
        assert!(matches!(idle.begin(true), Err(NoTurn::SentAway)));
        assert!(crowd.make_room(both()).is_empty());
        drop(turn);
        assert_eq!(crowd.make_room(both()), [0]);
        assert!(busy.is_leaving() && idle.is_leaving());
        let third = crowd.place();
        assert!(third.begin(false).is_ok());
    }

    #[test]
    fn large_heads_are_counted() {
        let crowd = Crowd::new(2);
        let held: Vec<_> = (0..LARGE_HEADS)
            .map(|_| crowd.large_head().unwrap())
            .collect();
        assert!(crowd.large_head().is_none());
        drop(held);
        assert!(crowd.large_head().is_some());
    }
}
