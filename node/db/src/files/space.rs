//! Waiting for free disk space, and the signals that stop the writer.
use std::{
    path::{Path, PathBuf},
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::types::Fatal;

/// Interval between checks of the free space.
const POLL_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });
/// After this time the failed operation is repeated in any case: others may use the same disk, and free space
/// does not show quotas.
const RETRY_LIMIT: Duration = Duration::from_secs(60);
/// Free space required for a retry, beyond what the failed transaction used and the floor.
const MARGIN_BYTES: u64 = 4 << 20;
/// Space that the database leaves to the log; a thirty-second part of a small disk.
const FLOOR_BYTES: u64 = 8 << 20;

/// Free space below which the database uses no more of the disk of `dir`.
pub(crate) fn floor_bytes(dir: &Path) -> u64 {
    let total = fs4::total_space(dir).unwrap_or(u64::MAX);
    FLOOR_BYTES.min(total / 32)
}

/// Whether this much is free. A file system that reports nothing counts as not full.
pub(crate) fn has(dir: &Path, bytes: u64) -> bool {
    fs4::available_space(dir).unwrap_or(u64::MAX) >= bytes
}

/// Shared by the writer and by threads that query or stop it.
#[derive(Debug, Default)]
pub(crate) struct DiskWait {
    dir: PathBuf,
    /// Why no entry is being applied; `None` if the writer is not waiting.
    waiting: Mutex<Option<String>>,
    changed: Condvar,
    /// The node is stopping: do not wait any more.
    stopping: AtomicBool,
    /// The node cannot wait: interrupt the running statement, too.
    interrupted: AtomicBool,
}

impl DiskWait {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            ..Self::default()
        }
    }

    /// Why no entry is being applied; `None` if the writer is not waiting.
    pub(crate) fn waiting(&self) -> Option<String> {
        let waiting = self.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends waits.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.changed.notify_all();
    }

    /// Ends waits and interrupts running statements.
    pub(crate) fn interrupt(&self) {
        self.interrupted.store(true, Relaxed);
        self.stop();
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Relaxed)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// The operation that had failed for lack of space has succeeded.
    pub(crate) fn found(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.take().is_some() {
            tracing::info!("the disk has space again, entries are applied");
        }
    }

    /// Waits until a retry is worthwhile. The transaction that used `taken_bytes` before the disk was full
    /// has been rolled back.
    pub(crate) fn wait(&self, taken_bytes: u64) -> Result<(), Fatal> {
        let needed = taken_bytes
            .saturating_add(floor_bytes(&self.dir))
            .saturating_add(MARGIN_BYTES);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!(
            "no entry is applied: the disk under {} is full; about {needed} bytes must be free",
            self.dir.display()
        );
        if waiting.is_none() {
            tracing::error!("{text}; waiting for space");
        }
        *waiting = Some(text);
        let started = Instant::now();
        loop {
            if self.is_stopping() {
                return Err(Fatal(
                    "the node stops while it waits for space on its disk".to_owned(),
                ));
            }
            #[cfg(test)]
            crate::disk_faults::end_full();
            waiting = self
                .changed
                .wait_timeout(waiting, POLL_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if has(&self.dir, needed) || started.elapsed() > RETRY_LIMIT {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn a_wait_ends_with_room_or_with_the_node() {
        let dir = tempfile::TempDir::new().unwrap();
        let room = Arc::new(DiskWait::new(dir.path()));
        assert!(room.wait(0).is_ok(), "there is room");
        assert!(room.waiting().unwrap().contains("is full"));
        room.found();
        assert_eq!(room.waiting(), None);
        let waiting = Arc::clone(&room);
        let thread = thread::spawn(move || waiting.wait(u64::MAX / 2));
        while room.waiting().is_none() {
            thread::yield_now();
        }
        room.stop();
        let ended = thread.join().unwrap();
        assert!(ended.unwrap_err().0.contains("stops"));
        assert!(!room.is_interrupted());
    }
}
