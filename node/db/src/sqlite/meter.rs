//! What the running request has used of its bounds: instructions of SQLite's virtual machine, and bytes of
//! disk.
//!
//! All state is thread-local: SQLite calls the progress handler and the VFS on the thread that steps the
//! statement.
use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{entry::Bounds, files::wal_file::WAL_HEADER_BYTES};

/// Instructions between two calls of the progress handler: about 20 microseconds, so the calls cost nothing
/// measurable.
pub(crate) const STEPS_BETWEEN_CALLS: u32 = 1000;
/// Bytes that may be written between two checks of the free space.
const SPACE_CHECK_BYTES: u64 = 2 << 20;

/// The kind of a file that SQLite writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The database file.
    Main,
    /// The WAL.
    Wal,
    /// An unnamed file that is deleted when its statement ends.
    Temporary,
}

/// The write must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteRefused;

/// The bound that a request exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExceededBound {
    /// Instructions of the virtual machine.
    Steps,
    /// Bytes of disk.
    Disk,
}

impl ExceededBound {
    /// The error text for the client.
    pub(crate) fn text(self, bounds: Bounds) -> String {
        match self {
            Self::Steps => format!(
                "interrupted: the request takes more than {} steps of SQLite's virtual machine; give it more with db_timeout",
                bounds.vm_steps
            ),
            Self::Disk => format!(
                "database or disk is full: the request takes more than {} bytes of disk for its WAL, the checkpoint and temporary files",
                bounds.disk_bytes
            ),
        }
    }
}

/// What a request may use, counted from [`begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Instructions; `u64::MAX` means no limit.
    pub(crate) steps: u64,
    /// Bytes of temporary files plus twice the bytes in the WAL, because a checkpoint writes those once more.
    pub(crate) disk_bytes: u64,
}

impl Limits {
    pub(crate) const ANY: Self = Self {
        steps: u64::MAX,
        disk_bytes: u64::MAX,
    };

    /// Half of the limits. A request in a shared transaction stops there and is then run again alone.
    pub(crate) fn half(self) -> Self {
        let half = |of: u64| if of == u64::MAX { of } else { of / 2 };
        Self {
            steps: half(self.steps),
            disk_bytes: half(self.disk_bytes),
        }
    }
}

struct Meter {
    limits: Cell<Limits>,
    /// Calls of the progress handler since [`begin`].
    calls: Cell<u64>,
    /// Start and end of the open transaction's part of the WAL.
    wal: Cell<Option<(u64, u64)>>,
    /// Growth of temporary files since [`begin_transaction`].
    temporary_bytes: Cell<u64>,
    exceeded: Cell<Option<ExceededBound>>,
    /// The disk refused a write.
    full: Cell<bool>,
    /// The monitored directory, and the bytes that must stay free there.
    disk: RefCell<Option<(PathBuf, u64)>>,
    unchecked_bytes: Cell<u64>,
    /// Counts what this thread does, for other threads.
    work: RefCell<Option<Arc<AtomicU64>>>,
}

thread_local! {
    static METER: Meter = const {
        Meter {
            limits: Cell::new(Limits::ANY),
            calls: Cell::new(0),
            wal: Cell::new(None),
            temporary_bytes: Cell::new(0),
            exceeded: Cell::new(None),
            full: Cell::new(false),
            disk: RefCell::new(None),
            unchecked_bytes: Cell::new(0),
            work: RefCell::new(None),
        }
    };
}

/// From now on, counts this thread's work: instructions, and pages read and written. Whoever waits for the
/// thread can see that it is not stuck.
pub(crate) fn count_work(work: Arc<AtomicU64>) {
    METER.with(|meter| *meter.work.borrow_mut() = Some(work));
}

/// Records that the thread is not stuck.
pub(crate) fn note_work() {
    METER.with(Meter::note_work);
}

/// From now on, refuses this thread's writes as a full disk would, when fewer than `floor_bytes` are free in
/// `dir`. The rest is reserved for the log.
pub(crate) fn watch_disk(dir: &Path, floor_bytes: u64) {
    METER.with(|meter| *meter.disk.borrow_mut() = Some((dir.to_owned(), floor_bytes)));
}

/// Starts counting for a request.
pub(crate) fn begin(limits: Limits) {
    METER.with(|meter| {
        meter.limits.set(limits);
        meter.calls.set(0);
        meter.exceeded.set(None);
    });
}

/// Stops counting: what follows belongs to no request.
pub(crate) fn end() {
    METER.with(|meter| {
        meter.limits.set(Limits::ANY);
        meter.exceeded.set(None);
    });
}

/// Starts a transaction, which has written nothing yet.
pub(crate) fn begin_transaction() {
    METER.with(|meter| {
        meter.wal.set(None);
        meter.temporary_bytes.set(0);
    });
}

/// Called regularly by SQLite; `true` interrupts the statement.
pub(crate) fn is_out_of_steps() -> bool {
    METER.with(|meter| {
        meter.note_work();
        let calls = meter.calls.get() + 1;
        meter.calls.set(calls);
        let steps = calls.saturating_mul(u64::from(STEPS_BETWEEN_CALLS));
        let out = steps > meter.limits.get().steps;
        if out {
            meter.exceeded.set(Some(ExceededBound::Steps));
        }
        out
    })
}

/// The bound that was exceeded since the last call, if any.
pub(crate) fn take_exceeded() -> Option<ExceededBound> {
    METER.with(|meter| meter.exceeded.take())
}

/// Instructions since [`begin`], in whole calls of the progress handler.
pub(crate) fn steps() -> u64 {
    METER.with(|meter| {
        meter
            .calls
            .get()
            .saturating_mul(u64::from(STEPS_BETWEEN_CALLS))
    })
}

/// Records that the disk refused a write.
pub(crate) fn note_full() {
    METER.with(|meter| meter.full.set(true));
}

/// Whether the disk refused a write of this thread since the last call. SQLite also reports "database or disk
/// is full" when an AUTOINCREMENT column has used its last number; every node gets that error.
pub(crate) fn take_full() -> bool {
    METER.with(|meter| meter.full.replace(false))
}

/// Bytes of disk that the open transaction has used so far.
pub(crate) fn taken_bytes() -> u64 {
    METER.with(Meter::taken_bytes)
}

/// Checks a write that ends at `end` and extends its file by up to `grows_by` bytes.
pub(crate) fn before_write(target: Target, end: u64, grows_by: u64) -> Result<(), WriteRefused> {
    METER.with(|meter| meter.before_write(target, end, grows_by))
}

impl Meter {
    fn note_work(&self) {
        if let Some(work) = self.work.borrow().as_ref() {
            work.fetch_add(1, Relaxed);
        }
    }

    fn taken_bytes(&self) -> u64 {
        let wal = self.wal.get().map_or(0, |(from, to)| to - from);
        wal + self.temporary_bytes.get()
    }

    fn before_write(&self, target: Target, end: u64, grows_by: u64) -> Result<(), WriteRefused> {
        self.note_work();
        self.check_free_space(grows_by)?;
        match target {
            // Only a checkpoint or an install writes to it.
            Target::Main => return Ok(()),
            // The WAL's header is written only when the WAL restarts, which differs from node to node.
            Target::Wal if end <= WAL_HEADER_BYTES => return Ok(()),
            Target::Wal => {
                let start = end.saturating_sub(grows_by);
                let (from, to) = self.wal.get().unwrap_or((start, start));
                // A frame may be overwritten.
                self.wal.set(Some((from.min(start), to.max(end))));
            }
            Target::Temporary => {
                self.temporary_bytes
                    .set(self.temporary_bytes.get() + grows_by);
            }
        }
        let wal = self.wal.get().map_or(0, |(from, to)| to - from);
        let used = wal
            .saturating_mul(2)
            .saturating_add(self.temporary_bytes.get());
        if used > self.limits.get().disk_bytes {
            self.exceeded.set(Some(ExceededBound::Disk));
            return Err(WriteRefused);
        }
        Ok(())
    }

    fn check_free_space(&self, grows_by: u64) -> Result<(), WriteRefused> {
        let unchecked = self.unchecked_bytes.get() + grows_by;
        self.unchecked_bytes.set(unchecked);
        if unchecked < SPACE_CHECK_BYTES {
            return Ok(());
        }
        let disk = self.disk.borrow();
        let Some((dir, floor_bytes)) = disk.as_ref() else {
            return Ok(());
        };
        // A file system that reports no free space counts as not full; the write will show.
        let free = fs4::available_space(dir).unwrap_or(u64::MAX);
        if free < *floor_bytes {
            // Checked again at the next write.
            self.full.set(true);
            return Err(WriteRefused);
        }
        self.unchecked_bytes.set(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn steps_are_counted_from_the_request_on() {
        begin(Limits {
            steps: 3_500,
            ..Limits::ANY
        });
        let calls: Vec<bool> = (0..4).map(|_| is_out_of_steps()).collect();
        assert_eq!(calls, [false, false, false, true]);
        assert_eq!(steps(), 4_000);
        assert_eq!(take_exceeded(), Some(ExceededBound::Steps));
        begin(Limits::ANY);
        assert_eq!(take_exceeded(), None);
        assert!((0..100_000).all(|_| !is_out_of_steps()));
        end();
    }

    #[test]
    fn disk_is_counted_by_what_a_checkpoint_needs() {
        begin_transaction();
        begin(Limits {
            disk_bytes: 10 * MIB,
            ..Limits::ANY
        });
        let wal = |from: u64| before_write(Target::Wal, from + MIB, MIB);
        let temporary = || before_write(Target::Temporary, 0, MIB);
        // Somewhere in the WAL; the third write overwrites the first.
        assert_eq!(wal(5 * MIB), Ok(()));
        assert_eq!(wal(6 * MIB), Ok(()));
        assert_eq!(wal(5 * MIB), Ok(()));
        assert_eq!(taken_bytes(), 2 * MIB);
        for _ in 0..6 {
            assert_eq!(temporary(), Ok(()));
        }
        assert_eq!(take_exceeded(), None);
        assert_eq!(temporary(), Err(WriteRefused));
        assert_eq!(take_exceeded(), Some(ExceededBound::Disk));
        assert!(!take_full(), "not this machine's disk");
        begin_transaction();
        begin(Limits::ANY);
        assert_eq!(wal(0), Ok(()));
        assert_eq!(taken_bytes(), MIB);
        end();
    }

    #[test]
    fn the_last_bytes_of_the_disk_are_not_taken() {
        let dir = tempfile::TempDir::new().unwrap();
        watch_disk(dir.path(), u64::MAX);
        begin_transaction();
        assert_eq!(before_write(Target::Wal, 4096, 4096), Ok(()), "no look yet");
        assert_eq!(
            before_write(Target::Wal, 4 * MIB, 4 * MIB),
            Err(WriteRefused)
        );
        assert!(take_full());
        watch_disk(dir.path(), 0);
        assert_eq!(before_write(Target::Wal, 4 * MIB, 4 * MIB), Ok(()));
        assert!(!take_full());
    }

    #[test]
    fn work_is_counted_for_others() {
        let work = Arc::new(AtomicU64::new(0));
        count_work(Arc::clone(&work));
        let grows_by = |act: &dyn Fn()| {
            let before = work.load(Relaxed);
            act();
            work.load(Relaxed) - before
        };
        assert_eq!(grows_by(&|| _ = is_out_of_steps()), 1);
        assert_eq!(grows_by(&note_work), 1);
        assert_eq!(grows_by(&|| _ = before_write(Target::Main, 4096, 4096)), 1);
        let elsewhere = || std::thread::spawn(note_work).join().unwrap();
        assert_eq!(grows_by(&elsewhere), 0, "another thread");
    }

    #[test]
    fn half_of_anything() {
        assert_eq!(Limits::ANY.half(), Limits::ANY);
        let some = Limits {
            steps: 10,
            disk_bytes: 4,
        };
        assert_eq!((some.half().steps, some.half().disk_bytes), (5, 2));
    }
}
