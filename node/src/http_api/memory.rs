//! The limit of memory for all request bodies together.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::error::Failure;

/// BodyMemory for all bodies: two of the largest size, or thousands of usual ones. While a request runs, its
/// body is in memory up to about four times (bytes, statements, log entry, frames to other nodes), so all of
/// them take at most some 300 MiB, which a small container has.
const ALL_BODIES_BYTES: usize = 64 << 20;
/// This much of each body is not counted. Nearly all bodies are smaller and need no permit; the number of
/// connections limits them.
const FREE_BYTES: usize = 16 << 10;
/// Unit of counting.
const STEP_BYTES: usize = 64 << 10;
/// Counted for a body without a declared length until it exceeds this; then the largest size is counted.
const UNKNOWN_BYTES: usize = 1 << 20;
/// How long a body waits for memory before it is refused. It is not read meanwhile, which slows its client
/// down.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// While other bodies wait for memory, a body that arrives more slowly than this is refused.
const MIN_BYTES_PER_SECOND: usize = 64 << 10;
/// A body is refused for its speed only after this time.
const MIN_TIME: Duration = Duration::from_secs(5);
/// Counted for an upload to disk: the data in hyper's buffer and in ours.
const UPLOAD_BYTES: usize = 512 << 10;

/// The memory budget, shared by all requests.
#[derive(Debug)]
pub(super) struct BodyMemory {
    steps: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// One body's part of the budget; returned when dropped.
#[derive(Debug, Default)]
pub(super) struct Reservation {
    permits: Option<OwnedSemaphorePermit>,
    counted_bytes: usize,
    since: Option<Instant>,
}

impl Default for BodyMemory {
    fn default() -> Self {
        Self {
            steps: Arc::new(Semaphore::new(ALL_BODIES_BYTES / STEP_BYTES)),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl BodyMemory {
    /// Reserves memory for a body of which `so_far` bytes have arrived and which will have at least
    /// `announced` bytes. The whole body is reserved at once, so that bodies with half of their reservation
    /// cannot wait for each other for ever.
    ///
    /// # Errors
    /// [`Failure::NoMemory`] if other bodies hold the memory for too long.
    pub(super) async fn grow(
        &self,
        reservation: &mut Reservation,
        so_far: usize,
        announced: usize,
        max_bytes: usize,
    ) -> Result<(), Failure> {
        if so_far.max(announced) <= FREE_BYTES || so_far <= reservation.counted_bytes {
            return Ok(());
        }
        let whole = if announced > so_far || reservation.counted_bytes > 0 {
            announced
        } else {
            UNKNOWN_BYTES
        };
        let whole = if whole > so_far { whole } else { max_bytes };
        self.take(reservation, whole.min(max_bytes).max(so_far))
            .await
    }

    /// Reserves memory for an upload to disk of any length.
    ///
    /// # Errors
    /// As for [`Self::grow`].
    pub(super) async fn for_upload(&self) -> Result<Reservation, Failure> {
        let mut reservation = Reservation::default();
        self.take(&mut reservation, UPLOAD_BYTES).await?;
        Ok(reservation)
    }

    async fn take(&self, reservation: &mut Reservation, bytes: usize) -> Result<(), Failure> {
        let steps = bytes
            .saturating_sub(reservation.counted_bytes)
            .div_ceil(STEP_BYTES);
        let permits = u32::try_from(steps).unwrap_or(u32::MAX);
        let taken = match Arc::clone(&self.steps).try_acquire_many_owned(permits) {
            Ok(taken) => taken,
            Err(_) => self.wait_for(permits).await?,
        };
        match &mut reservation.permits {
            Some(first) => first.merge(taken),
            None => reservation.permits = Some(taken),
        }
        reservation.counted_bytes += steps * STEP_BYTES;
        reservation.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    async fn wait_for(&self, steps: u32) -> Result<OwnedSemaphorePermit, Failure> {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        self.waiting.fetch_add(1, Relaxed);
        let _waiting = Waiting(&self.waiting);
        let taking = Arc::clone(&self.steps).acquire_many_owned(steps);
        match timeout(WAIT_LIMIT, taking).await {
            Ok(Ok(taken)) => Ok(taken),
            _ => Err(Failure::NoMemory),
        }
    }

    /// True if other bodies wait for memory while the body with this reservation, of which `so_far` bytes
    /// have arrived, is too slow.
    pub(super) fn is_too_slow(&self, reservation: &Reservation, so_far: usize) -> bool {
        let Some(held) = reservation.since.map(|since| since.elapsed()) else {
            return false;
        };
        let least = MIN_BYTES_PER_SECOND as f64 * held.as_secs_f64();
        self.waiting.load(Relaxed) > 0 && held > MIN_TIME && (so_far as f64) < least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 32 << 20;

    fn free(memory: &BodyMemory) -> usize {
        memory.steps.available_permits() * STEP_BYTES
    }

    #[tokio::test]
    async fn what_is_counted() {
        #[rustfmt::skip]
        let cases = [
            ("small", vec![(100, 100)], 0),
            ("small, in pieces", vec![(100, 0), (FREE_BYTES, 0)], 0),
            ("its length is known", vec![(8192, 10 << 20), (5 << 20, 10 << 20), (10 << 20, 10 << 20)], 10 << 20),
            ("its length is not", vec![(8192, 0), (20_000, 0), (1 << 20, 0)], 1 << 20),
            ("and it is long", vec![(8192, 0), (20_000, 0), (2 << 20, 0), (31 << 20, 0)], MAX),
        ];
        for (name, grows, expected) in cases {
            let memory = BodyMemory::default();
            let mut reservation = Reservation::default();
            for (so_far, announced) in grows {
                memory
                    .grow(&mut reservation, so_far, announced, MAX)
                    .await
                    .unwrap();
            }
            assert_eq!(ALL_BODIES_BYTES - free(&memory), expected, "{name}");
            drop(reservation);
            assert_eq!(free(&memory), ALL_BODIES_BYTES, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_ones_wait_for_each_other_and_slow_ones_give_way() {
        let memory = BodyMemory::default();
        let (mut first, mut second, mut third) = Default::default();
        memory.grow(&mut first, 8192, MAX, MAX).await.unwrap();
        memory.grow(&mut second, 8192, MAX, MAX).await.unwrap();
        memory.grow(&mut third, 8192, 8192, MAX).await.unwrap();
        let refused = memory.grow(&mut third, 8192, 1 << 20, MAX).await;
        assert!(matches!(refused, Err(Failure::NoMemory)));
        assert!(!memory.is_too_slow(&first, 8192), "no body waits");
        let waiting = memory.grow(&mut third, 8192, 1 << 20, MAX);
        let ending = async {
            tokio::time::sleep(WAIT_LIMIT / 2).await;
            assert!(memory.is_too_slow(&first, 8192));
            assert!(!memory.is_too_slow(&second, 31 << 20));
            drop(first);
        };
        let (grown, ()) = tokio::join!(waiting, ending);
        grown.unwrap();
        assert!(!memory.is_too_slow(&third, 8192));
        drop((second, third));
        assert_eq!(free(&memory), ALL_BODIES_BYTES);
    }
}
