//! Writes to the log that are not on disk yet, and what is known of the log without asking it.
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use crate::raft::codec::Id;

/// Writes to the log under way, oldest first, and what is known of the log without asking it: whoever asks may wait as long as the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingWrites(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    begun: Mutex<VecDeque<Instant>>,
    facts: Mutex<LogFacts>,
}

/// What was true of the log after the last change.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogFacts {
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Last entry, also if purged.
    pub last: Option<Id>,
}

impl PendingWrites {
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

    pub(super) fn note(&self, facts: LogFacts) {
        *self.0.facts.lock() = facts;
    }

    pub(super) fn facts(&self) -> LogFacts {
        *self.0.facts.lock()
    }

    fn begun(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.0.begun.lock()
    }
}
