//! The limit for slow clients: a transfer may take any time as long as a minimum of bytes moves in each
//! window.
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// How long the node waits for a client to transfer the minimum: longer than a lost network packet, a garbage
/// collector's pause or a full disk of the client take.
pub(super) const WINDOW: Duration = Duration::from_secs(30);
/// The minimum in that time: far below the slowest line, above a client that sends single bytes.
const MIN_BYTES: u64 = 1024;

/// Watches one direction of one connection. It costs nothing while the node does not wait for the client.
#[derive(Debug, Default)]
pub(super) struct ProgressTimer {
    waiting: Option<(Pin<Box<Sleep>>, u64)>,
}

impl ProgressTimer {
    /// Counts transferred bytes.
    pub(super) fn add(&mut self, bytes: u64) {
        if let Some((_, so_far)) = &mut self.waiting {
            *so_far += bytes;
            if *so_far >= MIN_BYTES {
                self.waiting = None;
            }
        }
    }

    /// Ends the wait: the transfer is complete.
    pub(super) fn reset(&mut self) {
        self.waiting = None;
    }

    /// To be polled while the node waits for the client. Ready when too little has moved for too long.
    pub(super) fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (end, _) = self
            .waiting
            .get_or_insert_with(|| (Box::pin(sleep(WINDOW)), 0));
        end.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{Instant, timeout};

    use super::*;

    /// Transfers `bytes` every `pause` and waits in between. Returns how long that was accepted, at most an
    /// hour.
    async fn accepted_for(bytes: u64, pause: Duration) -> Duration {
        let begun = Instant::now();
        let mut progress = ProgressTimer::default();
        while begun.elapsed() < Duration::from_secs(3600) {
            let stalled = poll_fn(|context| progress.poll_stalled(context));
            if timeout(pause, stalled).await.is_ok() {
                break;
            }
            progress.add(bytes);
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_drops_end_and_slow_lines_do_not() {
        let second = Duration::from_secs(1);
        assert_eq!(accepted_for(0, 1000 * second).await.as_secs(), 30);
        assert_eq!(accepted_for(1, second).await.as_secs(), 30);
        assert_eq!(accepted_for(200, second).await.as_secs(), 3600);
        assert_eq!(accepted_for(1024, 29 * second).await.as_secs(), 3625);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_is_not_counted() {
        let mut progress = ProgressTimer::default();
        for _ in 0..100 {
            let stalled = poll_fn(|context| progress.poll_stalled(context));
            assert!(timeout(Duration::from_secs(20), stalled).await.is_err());
            progress.reset();
        }
    }
}
