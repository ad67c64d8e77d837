//! Being told to stop: while waiting, and the end that comes in any case. Knows nothing of who waits for what.
use std::{thread, time::Duration};

use tokio_util::sync::CancellationToken;

/// After a signal to stop: when running statements are ended, and when the process ends in any case. Ten seconds are promised.
const HURRY_AFTER: Duration = Duration::from_secs(2);
const END_AFTER: Duration = Duration::from_secs(8);

/// Waits for `pause`, or returns true at once when stopped.
pub async fn stopped_within(stop: &CancellationToken, pause: Duration) -> bool {
    tokio::time::timeout(pause, stop.cancelled()).await.is_ok()
}

/// The end that was asked for comes, whatever runs: a load balancer's or Kubernetes' patience is shorter than a statement can be. What is
/// acknowledged is on disk, and what was being applied is in the log.
pub fn end_in_time(hurry: impl FnOnce() + Send + 'static) {
    let watch = move || {
        thread::sleep(HURRY_AFTER);
        hurry();
        thread::sleep(END_AFTER - HURRY_AFTER);
        tracing::warn!(target: "rqlited", "something does not end; stopping without it");
        #[expect(
            clippy::exit,
            reason = "a thread inside SQLite cannot be ended otherwise"
        )]
        std::process::exit(0);
    };
    let started = thread::Builder::new()
        .name("stop-watchdog".to_owned())
        .spawn(watch);
    if let Err(e) = started {
        tracing::warn!(target: "rqlited", "no watchdog for the stop: {e}");
    }
}
