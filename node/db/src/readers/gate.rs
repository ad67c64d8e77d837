//! The gate: longer reads with connections of their own, and the writer, who empties the room for a checkpoint or a new main file.
use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    asked::Cancellation,
    control::{Control, StopReason},
    lanes::Lane,
    state::{ActiveRead, Activity, Phase, REPEAT, Readers, State, lock, wait},
};

/// For reads to notice that they have to end for a checkpoint.
const EVICT_LIMIT: Duration = Duration::from_millis(500);
/// How long closing waits for reads to notice it. They look every 20 microseconds, unless the disk does not answer.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

impl Readers {
    /// Enters the room for a longer read with a connection of one's own, such as a backup. Blocks while it is closed.
    pub(crate) fn permit(
        self: &Arc<Self>,
        what: &'static str,
        watched: &Cancellation,
    ) -> Result<ReadPermit, String> {
        let mut state = lock(&self.state);
        while matches!(state.phase, Phase::Paused | Phase::Closing) {
            state = self
                .quiet
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.admit(state, Activity::Other(what), watched)
            .ok_or_else(|| "the database is closed".to_owned())
    }

    /// Something long with a copy of its own: it can be listed and ended, and nobody waits for it.
    pub(crate) fn detached(
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

    /// The same without waiting: `None` while the room is closed.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<ReadPermit> {
        self.admit(
            lock(&self.state),
            Activity::Unlisted,
            &Cancellation::default(),
        )
    }

    /// As [`Readers::permit`], without waiting.
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

    /// Stops new reads and waits for the running ones. `false` (and the room open again) if one is still running after
    /// `limit`, at once if one has been running for longer than that already.
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

    /// Lets reads start again after [`Readers::pause`] or [`Readers::close_connections`].
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

    /// Stops new reads, gives running ones `grace` and ends the rest, but no backups. `false` (and the room open again) if some are left.
    pub(crate) fn drain_or_end(&self, grace: Duration) -> bool {
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
                self.stop_all(&state, |entry| matches!(entry.what, Activity::Read(_)));
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

    /// Stops new reads, gives running ones `grace`, ends the rest, and returns when no connection is left.
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

    /// Ends the running reads and the threads; what is queued does not run.
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

    /// Waits until the threads have ended; `false` if one of them does not, because the disk does not answer.
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

/// A longer read's place in the room.
pub(crate) struct ReadPermit {
    readers: Arc<Readers>,
    id: u64,
    control: Arc<Control>,
}

impl ReadPermit {
    /// Makes `conn` end its statement when the writer needs the room or nobody waits for the result.
    pub(crate) fn watch(&self, conn: &mut Connection) -> rusqlite::Result<()> {
        self.control.watch(conn)
    }

    /// Somebody ended it.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.control.is_stopped()
    }

    /// Who, for the client.
    pub(crate) fn reason(&self) -> StopReason {
        self.control.reason()
    }
}

impl Drop for ReadPermit {
    fn drop(&mut self) {
        self.readers.finished(self.id);
    }
}
