//! Stopping a running read: deadline, step budget on the caller's thread, end of a turn, and requests to stop
//! from other threads.
use std::{
    sync::{
        Arc, Condvar, Weak,
        atomic::{AtomicI64, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;

/// Instructions between two calls of the progress handler, about 20 microseconds.
const STEPS_BETWEEN_CHECKS: u32 = 1000;

/// Why a read was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StopReason {
    /// It was not stopped.
    None = 0,
    /// Its deadline has passed.
    Timeout,
    /// It exceeds the step budget of a read on its caller's thread.
    InlineBudget,
    /// The writer needs the main file without readers.
    Writer,
    /// The caller has dropped the read.
    ClientGone,
    /// An administrator ended it.
    Killed,
    /// The database is being closed.
    Closing,
    /// Too many long reads are running.
    TooManyLongReads,
    /// The client has not taken any part of the result for too long.
    Stalled,
}

impl StopReason {
    fn of(number: u8) -> Self {
        [
            Self::None,
            Self::Timeout,
            Self::InlineBudget,
            Self::Writer,
            Self::ClientGone,
            Self::Killed,
            Self::Closing,
            Self::TooManyLongReads,
            Self::Stalled,
        ]
        .into_iter()
        .find(|reason| *reason as u8 == number)
        .unwrap_or(Self::None)
    }

    /// The error text for the client.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Writer => "query interrupted to free the database file",
            Self::ClientGone => "query ended because its client went away",
            Self::Killed => "query ended by an administrator",
            Self::Closing => "query ended because the node is stopping",
            Self::TooManyLongReads => {
                "too many long reads are running; try again later, or raise -db-max-ro-conns"
            }
            Self::Stalled => "query ended because its client took nothing of the result for 30s",
            Self::None | Self::Timeout | Self::InlineBudget => "query timeout",
        }
    }
}

/// State that a reader's progress handler checks.
#[derive(Debug)]
pub(crate) struct Control {
    epoch: Instant,
    /// Nanoseconds after `epoch`; `i64::MAX` means never.
    deadline: AtomicI64,
    /// End of the current turn on the processor, in the same unit.
    turn_ends: AtomicI64,
    stop: AtomicU8,
    /// Calls of the progress handler left for an inline read; `u32::MAX` means no limit.
    checks: AtomicU32,
    /// Index of the running statement in the read, from 0.
    statement: AtomicU32,
    /// Notified, with the lock of the readers' state, when the read has its turn or was stopped.
    pub(crate) turn: Condvar,
}

const NEVER: i64 = i64::MAX;

impl Control {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            epoch: Instant::now(),
            deadline: AtomicI64::new(NEVER),
            turn_ends: AtomicI64::new(NEVER),
            stop: AtomicU8::new(StopReason::None as u8),
            checks: AtomicU32::new(u32::MAX),
            statement: AtomicU32::new(0),
            turn: Condvar::new(),
        })
    }

    fn nanos(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(NEVER)
    }

    fn has_passed(&self, mark: &AtomicI64) -> bool {
        let mark = mark.load(Relaxed);
        mark != NEVER && self.epoch.elapsed().as_nanos() >= u128::from(mark.unsigned_abs())
    }

    /// Sets the limits of the next read: a deadline, and a number of instructions of SQLite's virtual
    /// machine.
    pub(crate) fn arm(&self, deadline: Option<Instant>, vm_steps: Option<u32>) {
        let checks = vm_steps.map_or(u32::MAX, |steps| steps / STEPS_BETWEEN_CHECKS + 1);
        let nanos = deadline.map_or(NEVER, |at| self.nanos(at));
        self.deadline.store(nanos, Relaxed);
        self.checks.store(checks, Relaxed);
    }

    /// Starts a turn of this length, after which the read must ask for another.
    pub(crate) fn begin_turn(&self, length: Duration) {
        self.turn_ends
            .store(self.nanos(Instant::now() + length), Relaxed);
    }

    /// Called regularly by SQLite; `true` interrupts the statement.
    pub(crate) fn must_stop(&self) -> bool {
        if self.is_stopped() {
            return true;
        }
        let checks = self.checks.load(Relaxed);
        if checks != u32::MAX {
            if checks == 0 {
                self.stop(StopReason::InlineBudget);
                return true;
            }
            self.checks.store(checks - 1, Relaxed);
        }
        self.is_late()
    }

    /// Whether the current turn has ended.
    pub(crate) fn turn_is_over(&self) -> bool {
        self.has_passed(&self.turn_ends)
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_late(&self) -> bool {
        let late = self.has_passed(&self.deadline);
        if late {
            // An earlier reason takes precedence.
            let (none, timeout) = (StopReason::None as u8, StopReason::Timeout as u8);
            let _ = self.stop.compare_exchange(none, timeout, Relaxed, Relaxed);
        }
        late
    }

    /// Stops the read at its next check.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.stop.store(reason as u8, Relaxed);
    }

    /// Resets the reason for the next read.
    pub(crate) fn clear(&self) {
        self.stop.store(StopReason::None as u8, Relaxed);
    }

    /// Why the read was stopped.
    pub(crate) fn reason(&self) -> StopReason {
        StopReason::of(self.stop.load(Relaxed))
    }

    /// Whether the read was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed) != StopReason::None as u8
    }

    /// The error text for the client.
    pub(crate) fn stopped_text(&self) -> String {
        self.reason().text().to_owned()
    }

    /// Records which statement of the read runs.
    pub(crate) fn set_statement(&self, number: usize) {
        self.statement
            .store(u32::try_from(number).unwrap_or(u32::MAX), Relaxed);
    }

    /// Index of the running statement in the read, from 0.
    pub(crate) fn statement(&self) -> usize {
        self.statement.load(Relaxed) as usize
    }

    /// Makes `conn` check this control regularly.
    pub(crate) fn watch(self: &Arc<Self>, conn: &mut Connection) -> rusqlite::Result<()> {
        let control = Arc::clone(self);
        install_progress_handler(conn, move || control.must_stop())
    }
}

/// Makes `conn` call `must_stop` regularly; `true` interrupts the running statement.
pub(crate) fn install_progress_handler(
    conn: &mut Connection,
    must_stop: impl FnMut() -> bool + Send + 'static,
) -> rusqlite::Result<()> {
    conn.progress_handler(STEPS_BETWEEN_CHECKS.cast_signed(), Some(must_stop))
}

/// Stops running reads. A trait, so that this file does not depend on the readers.
pub(crate) trait StopReads: Send + Sync {
    /// Stops the read that `control` belongs to, if it is running.
    fn stop_read(&self, control: &Arc<Control>, reason: StopReason);
}

/// Stops a read if it is dropped before the read has ended.
pub(crate) struct StopOnDrop(Option<(Arc<Control>, Weak<dyn StopReads>)>);

impl StopOnDrop {
    pub(crate) fn new(control: Arc<Control>, readers: Weak<dyn StopReads>) -> Self {
        Self(Some((control, readers)))
    }

    /// The read has ended and need not be stopped.
    pub(crate) fn forget(mut self) {
        self.0 = None;
    }
}

impl std::fmt::Debug for StopOnDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndsWithDrop")
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some((control, readers)) = self.0.take() {
            control.stop(StopReason::ClientGone);
            if let Some(readers) = readers.upgrade() {
                readers.stop_read(&control, StopReason::ClientGone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_its_number() {
        for reason in [
            StopReason::None,
            StopReason::Timeout,
            StopReason::InlineBudget,
            StopReason::Writer,
            StopReason::ClientGone,
            StopReason::Killed,
            StopReason::Closing,
            StopReason::TooManyLongReads,
            StopReason::Stalled,
        ] {
            assert_eq!(StopReason::of(reason as u8), reason);
        }
    }

    #[test]
    fn a_deadline_does_not_hide_a_stronger_reason() {
        let control = Control::new();
        control.arm(Some(Instant::now()), None);
        control.stop(StopReason::Writer);
        assert!(control.is_late());
        assert_eq!(control.reason(), StopReason::Writer);
        control.clear();
        assert!(control.must_stop());
        assert_eq!(control.reason(), StopReason::Timeout);
    }
}
