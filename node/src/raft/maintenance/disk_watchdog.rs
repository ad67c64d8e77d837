//! The disk watchdog: a disk that hangs without failing is noticed by the age of the oldest write to the log that is not on disk yet.
use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{disk::Disk, raft::consensus::Consensus, stop::stopped_within};

/// A write this old is not merely slow. Far above any checkpoint's pause, below the patience of clients.
const HANGS_AFTER: Duration = Duration::from_secs(3);
/// How often the age is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Watches until stopped. While the disk hangs, writes are refused in words, and a leader with others to lead hands over.
pub async fn watch_disk(consensus: Consensus, disk: Arc<Disk>, stop: CancellationToken) {
    let mut hanging = false;
    while !stopped_within(&stop, LOOK_INTERVAL).await {
        let age = consensus.log().oldest_write_age();
        let hangs = age.is_some_and(|age| age >= HANGS_AFTER);
        disk.set_hanging(hangs.then_some(age).flatten());
        if hangs == hanging {
            continue;
        }
        hanging = hangs;
        if !hangs {
            tracing::info!(target: "store", "the disk answers again");
            continue;
        }
        tracing::error!(
            target: "store",
            "the disk does not answer: a write to the log has been under way for {:.1} s; no write is accepted until it does",
            age.unwrap_or_default().as_secs_f64()
        );
        if consensus.is_mine() && consensus.leadership().voters > 1 {
            let consensus = consensus.clone();
            // Raft itself may wait for the disk; then its heartbeats have ended, and the others elect without being told.
            tokio::spawn(async move {
                if let Err(e) = consensus.hand_over(None).await {
                    tracing::warn!(target: "store", "handing leadership over: {e}");
                }
            });
        }
    }
}
