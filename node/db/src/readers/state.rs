//! The state shared by all readers of a database: connections, queued and running reads, the phase that the writer sets.
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
    types::{Origin, Read, RunningRead},
};

/// How often the writer repeats a request to end that a reader may have missed between two statements, and a read that waits for
/// its turn looks at its deadline.
pub(super) const REPEAT: Duration = Duration::from_millis(20);

/// A read-only connection and what controls it.
pub(super) struct Reader {
    pub(super) conn: Connection,
    pub(super) authorizer: Arc<AuthorizerState>,
}

impl Reader {
    pub(super) fn open(settings: &Settings) -> rusqlite::Result<Self> {
        let (conn, authorizer) = open_reader(&settings.path, settings.foreign_keys)?;
        Ok(Self { conn, authorizer })
    }

    /// After a read whose PRAGMAs changed the connection: the next read gets a new one.
    pub(super) fn renew(&mut self, settings: &Settings) -> rusqlite::Result<()> {
        if self.authorizer.is_dirty() {
            *self = Self::open(settings)?;
        }
        Ok(())
    }
}

/// How the readers of a database work.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) foreign_keys: bool,
    /// Reads that compute at a time, short ones and long ones each.
    pub(crate) slots: usize,
    /// Threads, and with them connections; some are kept for short reads.
    pub(crate) max_threads: usize,
    /// Statements that take longer are logged.
    pub(crate) slow: Option<Duration>,
}

#[cfg(test)]
impl Settings {
    /// For tests that need a few readers and nothing special.
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
    /// Large results go piece by piece.
    pub(super) streams: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// No read starts; connections stay.
    Paused,
    /// No read starts; connections go.
    Closing,
    /// Running reads are ended, nothing starts, and the threads end.
    Stopped,
}

/// What is running, for lists.
pub(super) enum Activity {
    Read(Arc<Read>),
    Other(&'static str),
    /// Short, and nobody's but this node's.
    Unlisted,
}

/// A read under way.
pub(super) struct ActiveRead {
    pub(super) since: Instant,
    pub(super) control: Arc<Control>,
    pub(super) lane: Lane,
    pub(super) what: Activity,
    pub(super) origin: Origin,
    /// It works on a copy of its own, and hinders nobody.
    pub(super) detached: bool,
    /// For statements that compute long within one instruction (`count(*)`).
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
    /// One per spare connection: when its current read began.
    pub(super) inline: Vec<Option<Instant>>,
    /// All other reads, by a number that never comes again.
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

    /// Gives turns that have become free to those who wait for one.
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

/// All readers of one database.
pub(crate) struct Readers {
    pub(super) own: Weak<Self>,
    pub(super) settings: Settings,
    pub(super) state: Mutex<State>,
    /// Signals the threads: a job, or another phase.
    pub(super) work: Condvar,
    /// Signals whoever waits for reads to end, for the gate to open, or for threads to end.
    pub(super) quiet: Condvar,
    /// Connections for reads on the caller's thread, and their controls.
    pub(super) inline: Vec<(Arc<Control>, Mutex<Option<Reader>>)>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The state is consistent at every await-free step, so a panic elsewhere does not spoil it.
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
    /// Nothing is opened yet, and no thread is started; see [`Readers::start`].
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        let inline = settings.slots.max(2);
        // Threads that long reads cannot take, so that a short one always finds one.
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

    /// Ends read number `id`; `false` if there is none.
    pub(crate) fn kill(&self, id: u64) -> bool {
        let state = lock(&self.state);
        let found = state.running.get(&id);
        if let Some(entry) = found {
            entry.stop(StopReason::Killed);
        }
        found.is_some()
    }

    /// What is running, the oldest first, at most `limit` of it.
    pub(crate) fn running(&self, limit: usize) -> Vec<RunningRead> {
        let state = lock(&self.state);
        let listed = state.running.iter().filter_map(|(id, entry)| {
            let text = match &entry.what {
                Activity::Read(read) => shown(read, entry.control.statement()),
                Activity::Other(what) => (*what).to_owned(),
                Activity::Unlisted => return None,
            };
            Some(RunningRead {
                id: *id,
                age: entry.since.elapsed(),
                text,
                origin: entry.origin.clone(),
                waiting: entry.lane == Lane::Waiting,
            })
        });
        listed.take(limit).collect()
    }

    /// Reads that run and reads that wait.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.starts().count(), state.jobs.len())
    }
}

impl StopReads for Readers {
    /// Ends the read that `control` belongs to, if it is running.
    fn stop_read(&self, control: &Arc<Control>, reason: StopReason) {
        let state = lock(&self.state);
        let mut entries = state.running.values();
        if let Some(entry) = entries.find(|entry| Arc::ptr_eq(&entry.control, control)) {
            entry.stop(reason);
        }
    }
}

/// Statement number `at` of a read, for lists.
pub(super) fn shown(read: &Read, at: usize) -> String {
    let text = read.statements.get(at).map_or("", |one| one.sql.as_str());
    slow_log::shortened(text)
}
