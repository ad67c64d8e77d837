//! Waiting for room on this machine's disk, and the wish to stop: what the writer looks at while it cannot, or must not, go on.
use std::{
    path::{Path, PathBuf},
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::types::Fatal;

/// How often the file system is asked for what is free.
const POLL_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });
/// After so long what failed is tried again in any case: others may use the same disk, and a quota is not seen as free bytes.
const RETRY_LIMIT: Duration = Duration::from_secs(60);
/// Beside what the failed transaction took, so much must be free before it is tried again.
const MARGIN_BYTES: u64 = 4 << 20;
/// The database leaves so many bytes of the disk to the log, or a thirty-second part of a small disk.
const FLOOR_BYTES: u64 = 8 << 20;

/// Bytes below which the database takes no more of the disk of `dir`.
pub(crate) fn floor_bytes(dir: &Path) -> u64 {
    let total = fs4::total_space(dir).unwrap_or(u64::MAX);
    FLOOR_BYTES.min(total / 32)
}

/// Whether so much is free. A file system that does not say is not known to be full.
pub(crate) fn has(dir: &Path, bytes: u64) -> bool {
    fs4::available_space(dir).unwrap_or(u64::MAX) >= bytes
}

/// Shared by the writer and whoever asks or stops it.
#[derive(Debug, Default)]
pub(crate) struct DiskWait {
    dir: PathBuf,
    /// Why nothing is applied now.
    waiting: Mutex<Option<String>>,
    changed: Condvar,
    /// The node is stopping: nothing is waited for any more.
    stopping: AtomicBool,
    /// The node cannot wait: a running statement ends, whatever it is.
    interrupted: AtomicBool,
}

impl DiskWait {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            ..Self::default()
        }
    }

    /// Why nothing is applied now, if so.
    pub(crate) fn waiting(&self) -> Option<String> {
        let waiting = self.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends waits.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.changed.notify_all();
    }

    /// Ends waits and running statements.
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

    /// What failed for want of room has been done.
    pub(crate) fn found(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.take().is_some() {
            tracing::info!("there is room on the disk again, entries are applied");
        }
    }

    /// Returns when it is worth another try. The transaction that took `taken_bytes` before the disk was full has been
    /// rolled back.
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
            tracing::error!("{text}; waiting for room");
        }
        *waiting = Some(text);
        let started = Instant::now();
        loop {
            if self.is_stopping() {
                return Err(Fatal(
                    "the node stops while it waits for room on its disk".to_owned(),
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
