//! The gate: permits for longer reads with a connection of their own, and the writer's calls that hold reads
//! back for a checkpoint or a new main file.
use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    control::{Control, StopReason, install_progress_handler},
    lanes::Lane,
    pending::Cancellation,
    state::{ActiveRead, Activity, Phase, REPEAT, Readers, State, lock, wait},
};

/// How long stopped reads may take to end before a checkpoint gives up.
const EVICT_LIMIT: Duration = Duration::from_millis(500);
/// How long closing waits for stopped reads. They check every 20 microseconds, unless the disk hangs.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

impl Readers {
    /// Acquires a permit for a longer read with its own connection, such as a backup. Blocks while reads are
    /// held back.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        what: &'static str,
        watched: &Cancellation,
    ) -> Result<ReadPermit, String> {
        self.acquire_for(Activity::Other(what), watched)
    }

    /// Like [`Readers::acquire`], for work that is ended where a checkpoint must be made.
    pub(crate) fn acquire_yielding(
        self: &Arc<Self>,
        what: &'static str,
        watched: &Cancellation,
    ) -> Result<ReadPermit, String> {
        self.acquire_for(Activity::Yielding(what), watched)
    }

    fn acquire_for(
        self: &Arc<Self>,
        what: Activity,
        watched: &Cancellation,
    ) -> Result<ReadPermit, String> {
        let mut state = lock(&self.state);
        while matches!(state.phase, Phase::Paused | Phase::Closing) {
            state = self
                .quiet
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.admit(state, what, watched)
            .ok_or_else(|| "the database is closed".to_owned())
    }

    /// Registers work on a separate copy: it can be listed and ended, and checkpoints do not wait for it.
    pub(crate) fn register_detached(
        self: &Arc<Self>,
        what: &'static str,
        watched: &Cancellation,
    ) -> ReadPermit {
        let id = lock(&self.state).enter(unscheduled(Activity::Other(what), watched, true));
        ReadPermit {
            readers: Arc::clone(self),
            id,
            control: Arc::clone(&watched.control),
        }
    }

    /// Acquires a permit for an unlisted read without blocking; `None` while reads are held back.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<ReadPermit> {
        self.admit(
            lock(&self.state),
            Activity::Unlisted,
            &Cancellation::default(),
        )
    }

    /// Like [`Readers::acquire`] without blocking; `None` while reads are held back.
    pub(crate) fn try_acquire_as(
        self: &Arc<Self>,
        what: &'static str,
        watched: &Cancellation,
    ) -> Option<ReadPermit> {
        self.admit(lock(&self.state), Activity::Other(what), watched)
    }

    fn admit(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        what: Activity,
        watched: &Cancellation,
    ) -> Option<ReadPermit> {
        if state.phase != Phase::Open {
            return None;
        }
        let id = state.enter(unscheduled(what, watched, false));
        Some(ReadPermit {
            readers: Arc::clone(self),
            id,
            control: Arc::clone(&watched.control),
        })
    }

    /// Holds back new reads and waits for the running ones. Returns `false`, with reads allowed again, if one
    /// still runs after `limit`; at once if one has already been running for longer.
    pub(crate) fn pause(&self, limit: Duration) -> bool {
        let mut state = lock(&self.state);
        if state.starts().any(|since| since.elapsed() > limit) {
            return false;
        }
        state.phase = Phase::Paused;
        let deadline = Instant::now() + limit;
        while !state.is_quiet() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.reopen(state);
                return false;
            }
            state = wait(&self.quiet, state, left);
        }
        true
    }

    /// Allows reads again after [`Readers::pause`] or [`Readers::close_connections`].
    pub(crate) fn resume(&self) {
        self.reopen(lock(&self.state));
    }

    fn reopen(&self, mut state: MutexGuard<'_, State>) {
        if state.phase != Phase::Stopped {
            state.phase = Phase::Open;
        }
        drop(state);
        self.work.notify_all();
        self.quiet.notify_all();
        self.dispatch(lock(&self.state));
    }

    /// Holds back new reads, gives running ones `grace` and stops the rest, except backups. Returns `false`,
    /// with reads allowed again, if some remain.
    pub(crate) fn end_reads(&self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        let mut state = lock(&self.state);
        state.phase = Phase::Paused;
        while !state.is_quiet() {
            let late = Instant::now().saturating_duration_since(deadline);
            if late > EVICT_LIMIT {
                self.reopen(state);
                return false;
            }
            if !late.is_zero() {
                self.stop_all(&state, |entry| {
                    matches!(entry.what, Activity::Read(_) | Activity::Yielding(_))
                });
            }
            state = wait(&self.quiet, state, REPEAT);
        }
        true
    }

    fn stop_all(&self, state: &State, ends: impl Fn(&ActiveRead) -> bool) {
        for entry in state.running.values().filter(|entry| ends(entry)) {
            entry.stop(StopReason::Writer);
        }
        for (since, (control, _)) in state.inline.iter().zip(&self.inline) {
            if since.is_some() {
                control.stop(StopReason::Writer);
            }
        }
    }

    /// Holds back new reads, gives running ones `grace`, stops the rest, and returns when no connection is
    /// left.
    pub(crate) fn close_connections(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let mut state = lock(&self.state);
        state.phase = Phase::Closing;
        self.work.notify_all();
        while state.connected > 0 || !state.is_quiet() {
            if Instant::now() >= deadline {
                self.stop_all(&state, |entry| !entry.detached);
            }
            state = wait(&self.quiet, state, REPEAT);
        }
        drop(state);
        for (_, slot) in &self.inline {
            *lock(slot) = None;
        }
    }

    /// Stops the running reads and the threads; queued reads do not run.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.state);
        state.phase = Phase::Stopped;
        state.jobs.clear();
        for entry in state.running.values() {
            entry.stop(StopReason::Closing);
        }
        drop(state);
        self.work.notify_all();
        self.quiet.notify_all();
    }

    /// Waits for the threads to end. Returns `false` if one does not, because the disk hangs.
    pub(crate) fn wait_for_end(&self) -> bool {
        let deadline = Instant::now() + CLOSE_LIMIT;
        let mut state = lock(&self.state);
        while state.threads > 0 && Instant::now() < deadline {
            state = wait(&self.quiet, state, REPEAT);
        }
        state.threads == 0
    }
}

fn unscheduled(what: Activity, watched: &Cancellation, detached: bool) -> ActiveRead {
    ActiveRead {
        since: Instant::now(),
        control: Arc::clone(&watched.control),
        lane: Lane::Unscheduled,
        what,
        origin: watched.origin.clone(),
        detached,
        interrupt: None,
    }
}

/// The right to read with a connection of one's own; the writer waits for its release.
pub(crate) struct ReadPermit {
    readers: Arc<Readers>,
    id: u64,
    control: Arc<Control>,
}

impl ReadPermit {
    /// Makes `conn` interrupt its statement when the writer needs the main file or the caller has cancelled.
    pub(crate) fn watch(&self, conn: &mut Connection) -> rusqlite::Result<()> {
        self.control.watch(conn)
    }

    /// Like [`ReadPermit::watch`]; `also` is called as often.
    pub(crate) fn watch_and(
        &self,
        conn: &mut Connection,
        mut also: impl FnMut() + Send + 'static,
    ) -> rusqlite::Result<()> {
        let control = Arc::clone(&self.control);
        install_progress_handler(conn, move || {
            also();
            control.must_stop()
        })
    }

    /// Stops the read after this time.
    pub(crate) fn limit(&self, limit: Duration) {
        self.control.arm(Instant::now().checked_add(limit), None);
    }

    /// Whether the read was stopped.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.control.is_stopped()
    }

    /// Why the read was stopped.
    pub(crate) fn reason(&self) -> StopReason {
        self.control.reason()
    }
}

impl Drop for ReadPermit {
    fn drop(&mut self) {
        self.readers.finished(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::state::Settings;

    #[test]
    fn a_checkpoint_that_must_be_made_ends_what_yields_and_no_backup() {
        let readers = Readers::new(Settings::few("unused".into()));
        let watched = Cancellation::default();
        let check = readers.acquire_yielding("(check)", &watched).unwrap();
        let writer = Arc::clone(&readers);
        let ends = std::thread::spawn(move || writer.end_reads(Duration::ZERO));
        while !check.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(check.reason(), StopReason::Writer);
        drop(check);
        assert!(ends.join().unwrap());
        readers.resume();
        let watched = Cancellation::default();
        let backup = readers.acquire("(backup)", &watched).unwrap();
        assert!(!readers.end_reads(Duration::ZERO) && !backup.is_cancelled());
    }
}
