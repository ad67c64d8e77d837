//! How slow a client may be: any amount may take any time, as long as something moves.
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// How long a client may keep the node waiting for the least amount. Above what a lost network packet, a pause of a garbage collector
/// or a full disk of the client's take.
pub(super) const WINDOW: Duration = Duration::from_secs(30);
/// The least amount in that time: far below the slowest line, above what drips.
const LEAST_BYTES: u64 = 1024;

/// Watches one direction of one connection. While nothing has to be waited for, it costs nothing.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waiting: Option<(Pin<Box<Sleep>>, u64)>,
}

impl Pace {
    /// So much has moved.
    pub(super) fn moved(&mut self, bytes: u64) {
        if let Some((_, so_far)) = &mut self.waiting {
            *so_far += bytes;
            if *so_far >= LEAST_BYTES {
                self.waiting = None;
            }
        }
    }

    /// Nothing is waited for any longer.
    pub(super) fn done(&mut self) {
        self.waiting = None;
    }

    /// Nothing moves now; ready when that has lasted too long.
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

    /// Moves `bytes` every `pause` and waits in between; how long that went well, at most an hour.
    async fn endured(bytes: u64, pause: Duration) -> Duration {
        let begun = Instant::now();
        let mut pace = Pace::default();
        while begun.elapsed() < Duration::from_secs(3600) {
            let stalled = poll_fn(|context| pace.poll_stalled(context));
            if timeout(pause, stalled).await.is_ok() {
                break;
            }
            pace.moved(bytes);
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_drops_end_and_slow_lines_do_not() {
        let second = Duration::from_secs(1);
        assert_eq!(endured(0, 1000 * second).await.as_secs(), 30);
        assert_eq!(endured(1, second).await.as_secs(), 30);
        assert_eq!(endured(200, second).await.as_secs(), 3600);
        assert_eq!(endured(1024, 29 * second).await.as_secs(), 3625);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_is_not_counted() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            let stalled = poll_fn(|context| pace.poll_stalled(context));
            assert!(timeout(Duration::from_secs(20), stalled).await.is_err());
            pace.done();
        }
    }
}
