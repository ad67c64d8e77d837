//! A disk that hangs without failing: noticed by the age of the oldest write to the log that is not on disk yet.
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{Consensus, codec::Id};
use crate::{disk::Disk, stop::stopped_within};

/// A write this old is not merely slow. Far above any checkpoint's pause, below the patience of clients.
const HANGS_AFTER: Duration = Duration::from_secs(3);
/// How often the age is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Writes to the log under way, oldest first, and what is known of the log without asking it: whoever asks may wait as long as the disk.
#[derive(Clone, Debug, Default)]
pub struct Writes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    begun: Mutex<VecDeque<Instant>>,
    facts: Mutex<Facts>,
}

/// What was true of the log after the last change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Last entry, also if purged.
    pub last: Option<Id>,
}

impl Writes {
    /// Before the first byte, as that may hang already.
    pub(super) fn begin(&self) {
        self.begun().push_back(Instant::now());
    }

    /// The oldest one is on disk, or has failed: they end in the order in which they began.
    pub(super) fn end(&self) {
        self.begun().pop_front();
    }

    pub(super) fn oldest_age(&self) -> Option<Duration> {
        self.begun().front().map(Instant::elapsed)
    }

    pub(super) fn note(&self, facts: Facts) {
        *self.0.facts.lock().unwrap_or_else(PoisonError::into_inner) = facts;
    }

    pub(super) fn facts(&self) -> Facts {
        *self.0.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.0.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
