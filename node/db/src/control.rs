//! Ending a read that runs: its deadline, its budget on the caller's thread, the writer's wish.
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    time::Instant,
};

use rusqlite::Connection;

/// SQLite asks whether to go on after so many instructions, about 20 microseconds.
const STEPS_BETWEEN_CHECKS: u32 = 1000;

/// What a reader's progress handler looks at.
#[derive(Debug)]
pub(crate) struct Control {
    epoch: Instant,
    /// Nanoseconds after `epoch`; `i64::MAX` is never.
    deadline: AtomicI64,
    stop: AtomicU8,
    /// Checks left before an inline read is given up; `u32::MAX` is without limit.
    checks: AtomicU32,
}

const RUN_ON: u8 = 0;
const STOP_TIMEOUT: u8 = 1;
const STOP_BUDGET: u8 = 2;
const STOP_WRITER: u8 = 3;

impl Control {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            epoch: Instant::now(),
            deadline: AtomicI64::new(i64::MAX),
            stop: AtomicU8::new(RUN_ON),
            checks: AtomicU32::new(u32::MAX),
        })
    }

    /// Sets the limits of the next read: a deadline, and instructions of SQLite's virtual machine.
    pub(crate) fn arm(&self, deadline: Option<Instant>, vm_steps: Option<u32>) {
        let checks = vm_steps.map_or(u32::MAX, |steps| steps / STEPS_BETWEEN_CHECKS + 1);
        let nanos = deadline.map_or(i64::MAX, |at| {
            i64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(i64::MAX)
        });
        self.deadline.store(nanos, Relaxed);
        self.checks.store(checks, Relaxed);
    }

    /// Called by SQLite now and then; true ends the statement.
    fn must_stop(&self) -> bool {
        if self.stop.load(Relaxed) != RUN_ON {
            return true;
        }
        let checks = self.checks.load(Relaxed);
        if checks != u32::MAX {
            if checks == 0 {
                self.stop.store(STOP_BUDGET, Relaxed);
                return true;
            }
            self.checks.store(checks - 1, Relaxed);
        }
        self.is_late()
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_late(&self) -> bool {
        let deadline = self.deadline.load(Relaxed);
        if deadline == i64::MAX
            || self.epoch.elapsed().as_nanos() < u128::from(deadline.unsigned_abs())
        {
            return false;
        }
        // A stop by the writer is the stronger reason and stays.
        let _ = self
            .stop
            .compare_exchange(RUN_ON, STOP_TIMEOUT, Relaxed, Relaxed);
        true
    }

    /// Ends the running read because the writer needs the room.
    pub(crate) fn stop_for_writer(&self) {
        self.stop.store(STOP_WRITER, Relaxed);
    }

    /// The read is over; the next one begins afresh.
    pub(crate) fn clear(&self) {
        self.stop.store(RUN_ON, Relaxed);
    }

    /// Whether anything ended the read.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed) != RUN_ON
    }

    /// Why, for the client.
    pub(crate) fn stopped_text(&self) -> String {
        match self.stop.load(Relaxed) {
            STOP_WRITER => "query interrupted to free the database file".to_owned(),
            _ => "query timeout".to_owned(),
        }
    }

    /// Makes `conn` ask this control now and then.
    pub(crate) fn watch(self: &Arc<Self>, conn: &mut Connection) -> rusqlite::Result<()> {
        let control = Arc::clone(self);
        conn.progress_handler(
            STEPS_BETWEEN_CHECKS.cast_signed(),
            Some(move || control.must_stop()),
        )
    }
}
