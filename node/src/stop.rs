//! Being told to stop while waiting. Knows nothing of who waits for what.
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Waits for `pause`, or returns true at once when stopped.
pub async fn stopped_within(stop: &CancellationToken, pause: Duration) -> bool {
    tokio::time::timeout(pause, stop.cancelled()).await.is_ok()
}
