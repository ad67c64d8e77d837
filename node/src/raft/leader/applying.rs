//! Waiting for something that comes after entries which this node applies. An entry may take as long as its
//! statements need (an index over gigabytes, a VACUUM): nothing ends before it does, but a database that
//! makes no progress must not keep anybody waiting for ever.
use std::{future::Future, pin::pin, time::Duration};

use tokio::time::{Instant, timeout};

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until then in any case.
    pub(super) until: Instant,
    /// From then on, while the database has made progress within this time.
    pub(super) idle: Duration,
}

impl Patience {
    /// For `limit`, and then while the database has made progress within `limit`.
    pub(super) fn of(limit: Duration) -> Self {
        Self {
            until: Instant::now() + limit,
            idle: limit,
        }
    }
}

/// Waits for `result`. Once `patience.until` has passed, only while `is_behind()` says that nothing but the
/// database is missing, and while that makes progress. `None` if the waiting was given up.
/// `work` is a number that grows while the database works.
pub(super) async fn wait<T>(
    work: impl Fn() -> u64,
    patience: Patience,
    result: impl Future<Output = T>,
    mut is_behind: impl FnMut() -> bool,
) -> Option<T> {
    let mut result = pin!(result);
    let mut progress = Progress::new(work());
    loop {
        let now = Instant::now();
        progress.note(work(), now);
        let left = patience.until.saturating_duration_since(now);
        if left.is_zero() && !(is_behind() && progress.age(now) < patience.idle) {
            // Polled once more: it may have come at the same moment.
            return timeout(Duration::ZERO, result).await.ok();
        }
        let look = patience.idle / 4;
        let pause = if left.is_zero() { look } else { left.min(look) };
        if let Ok(done) = timeout(pause, &mut result).await {
            return Some(done);
        }
    }
}

/// When a number last changed.
struct Progress {
    seen: u64,
    at: Instant,
}

impl Progress {
    fn new(seen: u64) -> Self {
        Self {
            seen,
            at: Instant::now(),
        }
    }

    fn note(&mut self, seen: u64, now: Instant) {
        if self.seen != seen {
            *self = Self { seen, at: now };
        }
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Whether a result after `takes` seconds is awaited, and when the waiting ended. The database works for
    /// `works` seconds.
    async fn waited(takes: u64, works: u64, is_behind: bool) -> (bool, u64) {
        let began = Instant::now();
        let work = AtomicU64::new(0);
        let works = async {
            for _ in 0..works {
                sleep(Duration::from_secs(1)).await;
                work.fetch_add(1, Relaxed);
            }
        };
        let result = sleep(Duration::from_secs(takes));
        let waiting = wait(
            || work.load(Relaxed),
            Patience::of(LIMIT),
            result,
            || is_behind,
        );
        let ended = async {
            let came = waiting.await.is_some();
            (came, began.elapsed().as_secs())
        };
        futures_util::future::join(ended, works).await.0
    }

    #[tokio::test(start_paused = true)]
    async fn as_long_as_entries_are_applied() {
        for (takes, works, is_behind, wanted) in [
            (1, 0, false, (true, 1)),
            (11, 0, true, (false, 10)),
            (11, 11, false, (false, 10)),
            (11, 11, true, (true, 11)),
            (3600, 3600, true, (true, 3600)),
            // It works for an hour, then it hangs.
            (7200, 3600, true, (false, 3610)),
        ] {
            let (came, after) = waited(takes, works, is_behind).await;
            // It looks every quarter of the limit.
            let in_time = (wanted.1..=wanted.1 + 3).contains(&after);
            assert!(
                came == wanted.0 && in_time,
                "{takes} {works} {is_behind}: {came} after {after} s"
            );
        }
    }
}
