//! The state shared by all readers of a database: connections, queued and running reads, the phase that the
//! writer sets.
use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use rusqlite::{Connection, InterruptHandle};
use tokio::sync::oneshot;

use crate::{
    readers::{
        control::{Control, StopReads, StopReason},
        lanes::{Lane, Lanes, TURN},
        parts::ReadOutput,
    },
    sql::slow_log,
    sqlite::{authorizer::AuthorizerState, connection::open_reader},
    types::{Origin, Read, RunningStatement},
};

/// Interval at which the writer repeats a request to stop that a reader may have missed between two
/// statements, and at which a read that waits for its turn checks its deadline.
pub(super) const REPEAT: Duration = Duration::from_millis(20);

/// A read-only connection and its authorizer.
pub(super) struct Reader {
    pub(super) conn: Connection,
    pub(super) authorizer: Arc<AuthorizerState>,
}

impl Reader {
    pub(super) fn open(settings: &Settings) -> rusqlite::Result<Self> {
        let (conn, authorizer) = open_reader(&settings.path, settings.foreign_keys)?;
        Ok(Self { conn, authorizer })
    }

    /// Replaces the connection if the PRAGMAs of the last read have changed it.
    pub(super) fn renew(&mut self, settings: &Settings) -> rusqlite::Result<()> {
        if self.authorizer.is_dirty() {
            *self = Self::open(settings)?;
        }
        Ok(())
    }
}

/// Settings of all readers of a database.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) foreign_keys: bool,
    /// Reads that may compute at the same time: this many short ones and this many long ones.
    pub(crate) slots: usize,
    /// Limit of threads, and thus of connections; some are reserved for short reads.
    pub(crate) max_threads: usize,
    /// Statements that take longer are logged.
    pub(crate) slow: Option<Duration>,
}

#[cfg(test)]
impl Settings {
    /// A small number of readers, for tests.
    pub(crate) fn few(path: PathBuf) -> Self {
        Self {
            path,
            foreign_keys: false,
            slots: 2,
            max_threads: 8,
            slow: None,
        }
    }
}

impl Settings {
    pub(super) fn most_threads(&self) -> usize {
        self.max_threads.max(self.slots + 1)
    }
}

pub(super) enum Job {
    Read(Box<ReadJob>),
    Classify {
        sql: String,
        reply: oneshot::Sender<bool>,
    },
}

pub(super) struct ReadJob {
    pub(super) read: Arc<Read>,
    pub(super) origin: Origin,
    pub(super) since: Instant,
    pub(super) control: Arc<Control>,
    pub(super) reply: oneshot::Sender<ReadOutput>,
    /// Large results are streamed.
    pub(super) streams: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// No read starts; connections stay open.
    Paused,
    /// No read starts; connections are being closed.
    Closing,
    /// Running reads are stopped, no read starts, and the threads end.
    Stopped,
}

/// What is running, for the list of running reads.
pub(super) enum Activity {
    Read(Arc<Read>),
    Other(&'static str),
    /// Longer work that can be repeated, and that ends where a checkpoint must be made.
    Yielding(&'static str),
    /// Short internal work that is not listed.
    Unlisted,
}

/// A running read.
pub(super) struct ActiveRead {
    pub(super) since: Instant,
    pub(super) control: Arc<Control>,
    pub(super) lane: Lane,
    pub(super) what: Activity,
    pub(super) origin: Origin,
    /// It works on a separate copy; checkpoints do not wait for it.
    pub(super) detached: bool,
    /// For statements that compute long within one instruction (`count(*)`), where the progress handler is
    /// not called.
    pub(super) interrupt: Option<InterruptHandle>,
}

impl ActiveRead {
    pub(super) fn stop(&self, reason: StopReason) {
        self.control.stop(reason);
        self.control.turn.notify_all();
        if let Some(interrupt) = &self.interrupt {
            interrupt.interrupt();
        }
    }
}

pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) jobs: VecDeque<Job>,
    /// Per spare connection: when its current read began.
    pub(super) inline: Vec<Option<Instant>>,
    /// All other reads, by an id that is not reused.
    pub(super) running: BTreeMap<u64, ActiveRead>,
    pub(super) last_id: u64,
    pub(super) lanes: Lanes,
    pub(super) threads: usize,
    /// Threads that wait for a job.
    pub(super) idle: usize,
    /// Threads that hold a connection.
    pub(super) connected: usize,
}

impl State {
    pub(super) fn is_quiet(&self) -> bool {
        self.running.values().all(|entry| entry.detached) && self.inline.iter().all(Option::is_none)
    }

    pub(super) fn starts(&self) -> impl Iterator<Item = Instant> + '_ {
        let running = self.running.values().filter(|entry| !entry.detached);
        let running = running.map(|entry| entry.since);
        running.chain(self.inline.iter().flatten().copied())
    }

    pub(super) fn enter(&mut self, entry: ActiveRead) -> u64 {
        self.last_id += 1;
        self.running.insert(self.last_id, entry);
        self.last_id
    }

    /// Grants free turns to waiting reads.
    pub(super) fn grant_turns(&mut self) {
        while let Some(next) = self.lanes.next_turn() {
            if let Some(entry) = self.running.get_mut(&next) {
                entry.lane = Lane::Long;
                entry.control.begin_turn(TURN);
                entry.control.turn.notify_all();
            }
        }
    }
}

/// The readers of one database.
pub(crate) struct Readers {
    pub(super) own: Weak<Self>,
    pub(super) settings: Settings,
    pub(super) state: Mutex<State>,
    /// Notifies the threads of a job or another phase.
    pub(super) work: Condvar,
    /// Notifies threads that wait for reads to end, for the gate to open, or for reader threads to end.
    pub(super) quiet: Condvar,
    /// Connections for reads on the caller's thread, with their controls.
    pub(super) inline: Vec<(Arc<Control>, Mutex<Option<Reader>>)>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The state is consistent whenever the lock is released, so a poisoned lock can be used.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn wait<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: Duration,
) -> MutexGuard<'a, T> {
    condvar
        .wait_timeout(guard, limit)
        .unwrap_or_else(PoisonError::into_inner)
        .0
}

impl Readers {
    /// Opens no connection and starts no thread; see [`Readers::start`].
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        let inline = settings.slots.max(2);
        // Long reads never occupy all threads, so that a short one always finds one.
        let max_long = settings.most_threads() - settings.slots;
        Arc::new_cyclic(|own| Self {
            own: Weak::clone(own),
            state: Mutex::new(State {
                phase: Phase::Open,
                jobs: VecDeque::new(),
                inline: vec![None; inline],
                running: BTreeMap::new(),
                last_id: 0,
                lanes: Lanes::new(settings.slots, max_long),
                threads: 0,
                idle: 0,
                connected: 0,
            }),
            settings,
            work: Condvar::new(),
            quiet: Condvar::new(),
            inline: (0..inline)
                .map(|_| (Control::new(), Mutex::new(None)))
                .collect(),
        })
    }

    pub(super) fn finished(&self, id: u64) {
        let mut state = lock(&self.state);
        if let Some(entry) = state.running.remove(&id) {
            state.lanes.end(id, entry.lane);
            state.grant_turns();
        }
        if state.phase != Phase::Open {
            self.quiet.notify_all();
        }
    }

    /// Stops read `id`. Returns `false` if it does not run.
    pub(crate) fn kill(&self, id: u64) -> bool {
        let state = lock(&self.state);
        let found = state.running.get(&id);
        if let Some(entry) = found {
            entry.stop(StopReason::Killed);
        }
        found.is_some()
    }

    /// What is running, the oldest first, at most `limit` of it.
    pub(crate) fn running(&self, limit: usize) -> Vec<RunningStatement> {
        let state = lock(&self.state);
        let listed = state.running.iter().filter_map(|(id, entry)| {
            let text = match &entry.what {
                Activity::Read(read) => shown(read, entry.control.statement()),
                Activity::Other(what) | Activity::Yielding(what) => (*what).to_owned(),
                Activity::Unlisted => return None,
            };
            Some(RunningStatement {
                id: *id,
                age: entry.since.elapsed(),
                text,
                origin: entry.origin.clone(),
                waiting: entry.lane == Lane::Waiting,
                writes: false,
            })
        });
        listed.take(limit).collect()
    }

    /// Numbers of running and of queued reads.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.starts().count(), state.jobs.len())
    }
}

impl StopReads for Readers {
    fn stop_read(&self, control: &Arc<Control>, reason: StopReason) {
        let state = lock(&self.state);
        let mut entries = state.running.values();
        if let Some(entry) = entries.find(|entry| Arc::ptr_eq(&entry.control, control)) {
            entry.stop(reason);
        }
    }
}

/// The shortened text of statement number `at`, for lists and the log.
pub(super) fn shown(read: &Read, at: usize) -> String {
    let text = read.statements.get(at).map_or("", |one| one.sql.as_str());
    slow_log::shortened(text)
}
