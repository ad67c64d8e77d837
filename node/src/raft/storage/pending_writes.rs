//! Writes to the log that are not on disk yet, and the log's size and end, readable without the log's lock.
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use crate::raft::codec::Id;

/// Pending writes to the log, oldest first, with the facts that must be readable while the disk hangs: the
/// log's own lock may be held for as long as the disk takes.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingWrites(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    begun: Mutex<VecDeque<Instant>>,
    facts: Mutex<LogFacts>,
}

/// Size and end of the log after the last change.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogFacts {
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Last entry, even if it is purged.
    pub last: Option<Id>,
}

impl PendingWrites {
    /// Called before the first byte is written, which may already hang.
    pub(super) fn begin(&self) {
        self.begun().push_back(Instant::now());
    }

    /// The oldest write is on disk or has failed: writes end in the order in which they began.
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
