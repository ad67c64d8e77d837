//! The gate: longer reads with connections of their own, and the writer, who empties the room for a checkpoint or a new main file.
use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    asked::Cancellation,
    control::{Control, Reason},
    lanes::Lane,
    state::{Entry, Phase, REPEAT, Readers, State, What, lock, wait},
};

/// For reads to notice that they have to end for a checkpoint.
const EVICT_LIMIT: Duration = Duration::from_millis(500);
/// How long closing waits for reads to notice it. They look every 20 microseconds, unless the disk does not answer.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

impl Readers {
    /// Enters the room for a longer read with a connection of one's own, such as a backup. Blocks while it is closed.
    pub(crate) fn visit(
        self: &Arc<Self>,
        what: &'static str,
        watched: &Cancellation,
    ) -> Result<Visit, String> {
        let mut state = lock(&self.state);
        while matches!(state.phase, Phase::Paused | Phase::Closing) {
            state = self
                .quiet
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.admit(state, What::Other(what), watched)
            .ok_or_else(|| "the database is closed".to_owned())
    }

    /// Something long with a copy of its own: it can be listed and ended, and nobody waits for it.
    pub(crate) fn apart(self: &Arc<Self>, what: &'static str, watched: &Cancellation) -> Visit {
        let id = lock(&self.state).enter(beside(What::Other(what), watched, true));
        Visit {
            readers: Arc::clone(self),
            id,
            control: Arc::clone(&watched.control),
        }
    }

    /// The same without waiting: `None` while the room is closed.
    pub(crate) fn try_visit(self: &Arc<Self>) -> Option<Visit> {
        self.admit(lock(&self.state), What::Unlisted, &Cancellation::default())
    }

    /// As [`Readers::visit`], without waiting.
    pub(crate) fn try_visit_as(
        self: &Arc<Self>,
        what: &'static str,
        watched: &Cancellation,
    ) -> Option<Visit> {
        self.admit(lock(&self.state), What::Other(what), watched)
    }

    fn admit(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        what: What,
        watched: &Cancellation,
    ) -> Option<Visit> {
        if state.phase != Phase::Open {
            return None;
        }
        let id = state.enter(beside(what, watched, false));
        Some(Visit {
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
        self.see_to_jobs(lock(&self.state));
    }

    /// Stops new reads, gives running ones `grace` and ends the rest, but no backups. `false` (and the room open again) if some are left.
    pub(crate) fn evict(&self, grace: Duration) -> bool {
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
                self.stop_all(&state, |entry| matches!(entry.what, What::Read(_)));
            }
            state = wait(&self.quiet, state, REPEAT);
        }
        true
    }

    fn stop_all(&self, state: &State, ends: impl Fn(&Entry) -> bool) {
        for entry in state.running.values().filter(|entry| ends(entry)) {
            entry.stop(Reason::Writer);
        }
        for (since, (control, _)) in state.inline.iter().zip(&self.inline) {
            if since.is_some() {
                control.stop(Reason::Writer);
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
                self.stop_all(&state, |entry| !entry.apart);
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
            entry.stop(Reason::Closing);
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

fn beside(what: What, watched: &Cancellation, apart: bool) -> Entry {
    Entry {
        since: Instant::now(),
        control: Arc::clone(&watched.control),
        lane: Lane::Beside,
        what,
        origin: watched.origin.clone(),
        apart,
        interrupt: None,
    }
}

/// A longer read's place in the room.
pub(crate) struct Visit {
    readers: Arc<Readers>,
    id: u64,
    control: Arc<Control>,
}

impl Visit {
    /// Makes `conn` end its statement when the writer needs the room or nobody waits for the result.
    pub(crate) fn watch(&self, conn: &mut Connection) -> rusqlite::Result<()> {
        self.control.watch(conn)
    }

    /// Somebody ended it.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.control.is_stopped()
    }

    /// Who, for the client.
    pub(crate) fn reason(&self) -> Reason {
        self.control.reason()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.readers.finished(self.id);
    }
}
