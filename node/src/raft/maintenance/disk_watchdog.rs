//! The disk watchdog detects a disk that hangs without failing, by the age of the oldest pending write to the
//! log.
use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{disk::Disk, raft::consensus::Consensus};

/// A write older than this is not merely slow: far above the pause of a checkpoint, below the timeouts of
/// clients.
const HANGS_AFTER: Duration = Duration::from_secs(3);
/// How often the age is checked.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Runs until stopped. While the disk hangs, writes are refused with the reason, and a leader transfers its
/// leadership.
pub async fn watch_disk(consensus: Consensus, disk: Arc<Disk>, stop: CancellationToken) {
    let mut hanging = false;
    while stop
        .run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL))
        .await
        .is_some()
    {
        let age = consensus.log().oldest_write_age();
        let hangs = age.is_some_and(|age| age >= HANGS_AFTER);
        disk.set_hanging(hangs.then_some(age).flatten());
        if hangs == hanging {
            continue;
        }
        hanging = hangs;
        if !hangs {
            tracing::info!(target: "store", "the disk responds again");
            continue;
        }
        tracing::error!(
            target: "store",
            "the disk does not respond: a write to the log has been under way for {:.1} s; no write is accepted until it does",
            age.unwrap_or_default().as_secs_f64()
        );
        if consensus.is_mine() && consensus.leadership().voters > 1 {
            let consensus = consensus.clone();
            // Raft itself may be blocked on the disk; then its heartbeats have stopped, and the others elect
            // a leader without a transfer.
            tokio::spawn(async move {
                if let Err(e) = consensus.transfer_leadership(None).await {
                    tracing::warn!(target: "store", "transferring leadership: {e}");
                }
            });
        }
    }
}
