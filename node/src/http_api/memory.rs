//! The memory that all request bodies may take together.
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

/// Two bodies of the largest size, or thousands of usual ones. While a request runs, its body is in memory up to about four times (bytes,
/// statements, log entry, frames to other nodes): together some 300 MiB at worst, which a small container has.
const ALL_BODIES_BYTES: usize = 64 << 20;
/// Not counted of each body: nearly all bodies are smaller, so that they need no place here. Times the number of connections this is bounded too.
const FREE_BYTES: usize = 16 << 10;
/// What is counted at a time.
const STEP_BYTES: usize = 64 << 10;
/// Counted for a body that does not say its length, until it is longer; then it counts as the largest.
const UNKNOWN_BYTES: usize = 1 << 20;
/// How long a body waits for others to end before it is refused. It is not read meanwhile, so its client is slowed down.
const PATIENCE: Duration = Duration::from_secs(10);
/// Whoever brings less than this while others wait for the memory gives way to them.
const LEAST_BYTES_A_SECOND: usize = 64 << 10;
/// But not before this.
const LEAST_TIME: Duration = Duration::from_secs(5);
/// Counted for an upload to disk: pieces on their way, in hyper's buffer and in ours.
const UPLOAD_BYTES: usize = 512 << 10;

/// Shared by all requests.
#[derive(Debug)]
pub(super) struct Memory {
    steps: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// What one body has taken of it; given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Share {
    permits: Option<OwnedSemaphorePermit>,
    counted_bytes: usize,
    since: Option<Instant>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            steps: Arc::new(Semaphore::new(ALL_BODIES_BYTES / STEP_BYTES)),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl Memory {
    /// Takes what a body needs of which `so_far` has come and `announced` at least will come in all: all at once, so that bodies that have
    /// half of what they need do not wait for each other.
    ///
    /// # Errors
    /// Other bodies have taken it all.
    pub(super) async fn grow(
        &self,
        share: &mut Share,
        so_far: usize,
        announced: usize,
        max_bytes: usize,
    ) -> Result<(), Failure> {
        if so_far.max(announced) <= FREE_BYTES || so_far <= share.counted_bytes {
            return Ok(());
        }
        let whole = if announced > so_far || share.counted_bytes > 0 {
            announced
        } else {
            UNKNOWN_BYTES
        };
        let whole = if whole > so_far { whole } else { max_bytes };
        self.take(share, whole.min(max_bytes).max(so_far)).await
    }

    /// Takes what an upload to disk needs, whatever its length.
    ///
    /// # Errors
    /// As for [`Self::grow`].
    pub(super) async fn for_upload(&self) -> Result<Share, Failure> {
        let mut share = Share::default();
        self.take(&mut share, UPLOAD_BYTES).await?;
        Ok(share)
    }

    async fn take(&self, share: &mut Share, bytes: usize) -> Result<(), Failure> {
        let steps = bytes
            .saturating_sub(share.counted_bytes)
            .div_ceil(STEP_BYTES);
        let wanted = u32::try_from(steps).unwrap_or(u32::MAX);
        let taken = match Arc::clone(&self.steps).try_acquire_many_owned(wanted) {
            Ok(taken) => taken,
            Err(_) => self.wait_for(wanted).await?,
        };
        match &mut share.permits {
            Some(first) => first.merge(taken),
            None => share.permits = Some(taken),
        }
        share.counted_bytes += steps * STEP_BYTES;
        share.since.get_or_insert_with(Instant::now);
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
        match timeout(PATIENCE, taking).await {
            Ok(Ok(taken)) => Ok(taken),
            _ => Err(Failure::NoMemory),
        }
    }

    /// Others wait, and the body that holds this share has brought only so much.
    pub(super) fn must_give_way(&self, share: &Share, so_far: usize) -> bool {
        let Some(held) = share.since.map(|since| since.elapsed()) else {
            return false;
        };
        let least = LEAST_BYTES_A_SECOND as f64 * held.as_secs_f64();
        self.waiting.load(Relaxed) > 0 && held > LEAST_TIME && (so_far as f64) < least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 32 << 20;

    fn free(memory: &Memory) -> usize {
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
            let memory = Memory::default();
            let mut share = Share::default();
            for (so_far, announced) in grows {
                memory
                    .grow(&mut share, so_far, announced, MAX)
                    .await
                    .unwrap();
            }
            assert_eq!(ALL_BODIES_BYTES - free(&memory), expected, "{name}");
            drop(share);
            assert_eq!(free(&memory), ALL_BODIES_BYTES, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_ones_wait_for_each_other_and_slow_ones_give_way() {
        let memory = Memory::default();
        let (mut first, mut second, mut third) = Default::default();
        memory.grow(&mut first, 8192, MAX, MAX).await.unwrap();
        memory.grow(&mut second, 8192, MAX, MAX).await.unwrap();
        memory.grow(&mut third, 8192, 8192, MAX).await.unwrap();
        let refused = memory.grow(&mut third, 8192, 1 << 20, MAX).await;
        assert!(matches!(refused, Err(Failure::NoMemory)));
        assert!(!memory.must_give_way(&first, 8192), "nobody waits");
        let waiting = memory.grow(&mut third, 8192, 1 << 20, MAX);
        let ending = async {
            tokio::time::sleep(PATIENCE / 2).await;
            assert!(memory.must_give_way(&first, 8192));
            assert!(!memory.must_give_way(&second, 31 << 20));
            drop(first);
        };
        let (grown, ()) = tokio::join!(waiting, ending);
        grown.unwrap();
        assert!(!memory.must_give_way(&third, 8192));
        drop((second, third));
        assert_eq!(free(&memory), ALL_BODIES_BYTES);
    }
}
