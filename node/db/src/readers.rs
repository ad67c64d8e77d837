//! Reading: threads with a connection each, spare connections for short reads on the caller's thread, and the gate that
//! lets the writer empty the room for a checkpoint or a new main file.
use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, InterruptHandle};
use tokio::sync::oneshot;

use crate::{
    Answer, Origin, Outcome, Read, Running, STACK_BYTES,
    readers::control::{Control, Reason, ask},
    sql::classify,
    sqlite::{authorizer::Guard, connection::open_reader, error::message},
};

use lanes::{Lane, Lanes, Next, SHORT, TURN};
use run::{refusal, run_job, run_read};
use sink::Whole;

mod asked;
pub(crate) mod control;
mod gate;
mod lanes;
pub(crate) mod parts;
mod run;
mod sink;
mod turns;

pub(crate) use asked::EndsWithDrop;
pub use asked::{Asked, Reading, Waiter, Watched};
pub(crate) use gate::Visit;

/// Reads that may wait for a thread. Above, a client is better told at once than kept waiting.
const QUEUE: usize = 16 * 1024;
/// How often the writer repeats a request to end that a reader may have missed between two statements, and a read that waits for
/// its turn looks at its deadline.
const REPEAT: Duration = Duration::from_millis(20);
/// A read on its caller's thread takes microseconds. One that is under way for so long waits for the disk, and the next would too.
const STUCK: Duration = Duration::from_millis(50);
/// A thread beyond one a core ends after so long without work, and with it its connection.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// For reads to notice that they have to end for a checkpoint.
const EVICT_LIMIT: Duration = Duration::from_millis(500);
/// How long closing waits for reads to notice it. They look every 20 microseconds, unless the disk does not answer.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// A read-only connection and what controls it.
struct Reader {
    conn: Connection,
    guard: Arc<Guard>,
}

impl Reader {
    fn open(settings: &Settings) -> rusqlite::Result<Self> {
        let (conn, guard) = open_reader(&settings.path, settings.foreign_keys)?;
        Ok(Self { conn, guard })
    }

    /// After a read whose PRAGMAs changed the connection: the next read gets a new one.
    fn renew(&mut self, settings: &Settings) -> rusqlite::Result<()> {
        if self.guard.is_dirty() {
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
    fn most_threads(&self) -> usize {
        self.max_threads.max(self.slots + 1)
    }
}

enum Job {
    Read(Box<ReadJob>),
    Classify {
        sql: String,
        reply: oneshot::Sender<bool>,
    },
}

struct ReadJob {
    read: Arc<Read>,
    origin: Origin,
    since: Instant,
    control: Arc<Control>,
    reply: oneshot::Sender<Answer>,
    /// Large results go piece by piece.
    flows: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// No read starts; connections stay.
    Paused,
    /// No read starts; connections go.
    Closing,
    /// Running reads are ended, nothing starts, and the threads end.
    Stopped,
}

/// What is running, for lists.
enum What {
    Read(Arc<Read>),
    Other(&'static str),
    /// Short, and nobody's but this node's.
    Unlisted,
}

/// A read under way.
struct Entry {
    since: Instant,
    control: Arc<Control>,
    lane: Lane,
    what: What,
    origin: Origin,
    /// It works on a copy of its own, and hinders nobody.
    apart: bool,
    /// For statements that compute long within one instruction (`count(*)`).
    interrupt: Option<InterruptHandle>,
}

impl Entry {
    fn stop(&self, reason: Reason) {
        self.control.stop(reason);
        self.control.turn.notify_all();
        if let Some(interrupt) = &self.interrupt {
            interrupt.interrupt();
        }
    }
}

struct State {
    phase: Phase,
    jobs: VecDeque<Job>,
    /// One per spare connection: when its current read began.
    inline: Vec<Option<Instant>>,
    /// All other reads, by a number that never comes again.
    running: BTreeMap<u64, Entry>,
    last_id: u64,
    lanes: Lanes,
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
    /// Threads that hold a connection.
    connected: usize,
}

impl State {
    fn is_quiet(&self) -> bool {
        self.running.values().all(|entry| entry.apart) && self.inline.iter().all(Option::is_none)
    }

    fn starts(&self) -> impl Iterator<Item = Instant> + '_ {
        let running = self.running.values().filter(|entry| !entry.apart);
        let running = running.map(|entry| entry.since);
        running.chain(self.inline.iter().flatten().copied())
    }

    fn enter(&mut self, entry: Entry) -> u64 {
        self.last_id += 1;
        self.running.insert(self.last_id, entry);
        self.last_id
    }

    /// Gives turns that have become free to those who wait for one.
    fn call_next(&mut self) {
        while let Some(next) = self.lanes.call_next() {
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
    own: Weak<Self>,
    settings: Settings,
    state: Mutex<State>,
    /// Signals the threads: a job, or another phase.
    work: Condvar,
    /// Signals whoever waits for reads to end, for the gate to open, or for threads to end.
    quiet: Condvar,
    /// Connections for reads on the caller's thread, and their controls.
    inline: Vec<(Arc<Control>, Mutex<Option<Reader>>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The state is consistent at every await-free step, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>, limit: Duration) -> MutexGuard<'a, T> {
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

    /// Starts the threads that stay.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(&self) -> std::io::Result<()> {
        for _ in 0..self.settings.slots {
            lock(&self.state).threads += 1;
            self.spawn()?;
        }
        Ok(())
    }

    /// Starts a thread that is counted already.
    fn spawn(&self) -> std::io::Result<()> {
        let started = match self.own.upgrade() {
            Some(readers) => thread::Builder::new()
                .name("db-reader".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || readers.serve())
                .map(drop),
            None => Ok(()),
        };
        if started.is_err() {
            lock(&self.state).threads -= 1;
        }
        started
    }

    /// Queues a read whose outcome comes in one go.
    pub(crate) fn read(&self, read: Read, origin: Origin) -> Reading {
        Reading(self.ask(read, origin, false))
    }

    /// Queues a read.
    pub(crate) fn ask(&self, read: Read, origin: Origin, flows: bool) -> Asked {
        let (reply, receiver) = oneshot::channel();
        let control = Control::new();
        let job = ReadJob {
            read: Arc::new(read),
            origin,
            since: Instant::now(),
            control: Arc::clone(&control),
            reply,
            flows,
        };
        if let Err(Job::Read(job)) = self.push(Job::Read(Box::new(job))) {
            let refused = refusal("too many reads are waiting");
            let _ = job.reply.send(Answer::Whole(refused));
        }
        let ends = EndsWithDrop(Some((control, Weak::clone(&self.own))));
        Asked {
            receiver,
            ends: Some(ends),
        }
    }

    /// Whether SQLite calls the first statement of `sql` read-only.
    pub(crate) fn classify(&self, sql: &str) -> oneshot::Receiver<bool> {
        let (reply, receiver) = oneshot::channel();
        if let Err(Job::Classify { reply, .. }) = self.push(Job::Classify {
            sql: sql.to_owned(),
            reply,
        }) {
            let _ = reply.send(false);
        }
        receiver
    }

    fn push(&self, job: Job) -> Result<(), Job> {
        let mut state = lock(&self.state);
        if state.jobs.len() >= QUEUE || state.phase == Phase::Stopped {
            return Err(job);
        }
        state.jobs.push_back(job);
        self.see_to_jobs(state);
        Ok(())
    }

    /// Wakes a thread for a waiting job that may begin, or starts one.
    fn see_to_jobs(&self, mut state: MutexGuard<'_, State>) {
        let may_begin = state.jobs.len().min(state.lanes.room());
        if may_begin == 0 || state.phase != Phase::Open {
            return;
        }
        // A thread that was woken counts as idle until it runs.
        let starts = state.idle < may_begin && state.threads < self.settings.most_threads();
        state.threads += usize::from(starts);
        drop(state);
        self.work.notify_one();
        if starts && let Err(error) = self.spawn() {
            tracing::warn!(%error, "cannot start another thread for reads");
        }
    }

    /// The body of a reader thread.
    fn serve(self: Arc<Self>) {
        let mut reader: Option<Reader> = None;
        while let Some((job, id)) = self.next_job(&mut reader) {
            if reader.is_none() {
                match Reader::open(&self.settings) {
                    Ok(opened) => reader = Some(opened),
                    Err(error) => {
                        tracing::error!(error = %message(&error), "cannot open the database for reading")
                    }
                }
            }
            let usable = match &mut reader {
                Some(held) => held.renew(&self.settings).is_ok(),
                None => false,
            };
            self.run(job, id, reader.as_mut().filter(|_| usable));
            self.finished(id);
        }
    }

    fn run(self: &Arc<Self>, job: Job, id: u64, reader: Option<&mut Reader>) {
        if let (Job::Read(job), Some(reader)) = (&job, &reader) {
            let interrupt = reader.conn.get_interrupt_handle();
            let mut state = lock(&self.state);
            if let Some(entry) = state.running.get_mut(&id) {
                entry.interrupt = Some(interrupt);
            }
            drop(state);
            job.control.begin_turn(SHORT);
        }
        let watched = match (&job, reader) {
            (Job::Read(job), Some(reader)) => self.watch(reader, id, &job.control).map(|()| reader),
            (Job::Classify { .. }, Some(reader)) => Some(reader),
            (_, None) => None,
        };
        run_job(self, id, job, watched.as_deref());
    }

    /// Makes a thread's connection look at the control of its next read.
    fn watch(self: &Arc<Self>, reader: &mut Reader, id: u64, control: &Arc<Control>) -> Option<()> {
        let (readers, control) = (Arc::downgrade(self), Arc::clone(control));
        let must_stop = move || {
            control.must_stop()
                || (control.turn_is_over()
                    && readers
                        .upgrade()
                        .is_none_or(|readers| !readers.turn_over(id, &control)))
        };
        ask(&mut reader.conn, must_stop).ok()
    }

    fn next_job(&self, reader: &mut Option<Reader>) -> Option<(Job, u64)> {
        let mut state = lock(&self.state);
        loop {
            let mut limit = Duration::MAX;
            match state.phase {
                Phase::Stopped => return self.leave(state, reader),
                Phase::Open => {
                    if state.lanes.room() > 0
                        && let Some(job) = state.jobs.pop_front()
                    {
                        if reader.is_none() {
                            state.connected += 1;
                        }
                        let lane = state.lanes.begin();
                        let id = state.enter(entry(&job, lane));
                        return Some((job, id));
                    }
                    if state.threads > self.settings.slots {
                        limit = IDLE_LIMIT;
                    }
                }
                Phase::Closing if reader.take().is_some() => {
                    state.connected -= 1;
                    self.quiet.notify_all();
                }
                Phase::Paused | Phase::Closing => {}
            }
            state.idle += 1;
            let timed_out;
            (state, timed_out) = if limit == Duration::MAX {
                let state = self.work.wait(state);
                (state.unwrap_or_else(PoisonError::into_inner), false)
            } else {
                let waited = self.work.wait_timeout(state, limit);
                let (state, result) = waited.unwrap_or_else(PoisonError::into_inner);
                (state, result.timed_out())
            };
            state.idle -= 1;
            if timed_out && state.jobs.is_empty() && state.threads > self.settings.slots {
                return self.leave(state, reader);
            }
        }
    }

    /// A thread ends.
    fn leave(
        &self,
        mut state: MutexGuard<'_, State>,
        reader: &mut Option<Reader>,
    ) -> Option<(Job, u64)> {
        if reader.take().is_some() {
            state.connected -= 1;
        }
        state.threads -= 1;
        drop(state);
        self.quiet.notify_all();
        None
    }

    fn finished(&self, id: u64) {
        let mut state = lock(&self.state);
        if let Some(entry) = state.running.remove(&id) {
            state.lanes.end(id, entry.lane);
            state.call_next();
        }
        if state.phase != Phase::Open {
            self.quiet.notify_all();
        }
    }

    /// Runs a short read on this thread, or gives up: when it takes more than about `vm_steps` instructions, is more than
    /// one statement, or no spare connection is free.
    pub(crate) fn read_inline(&self, read: &Read, vm_steps: u32) -> Option<Outcome> {
        let [statement] = read.statements.as_slice() else {
            return None;
        };
        if !classify::is_plain_single(&statement.sql) {
            return None;
        }
        let place = {
            let mut state = lock(&self.state);
            if state.phase != Phase::Open {
                return None;
            }
            let inline = &state.inline;
            if inline.iter().flatten().any(|since| since.elapsed() > STUCK) {
                return None;
            }
            let place = inline.iter().position(Option::is_none)?;
            state.inline[place] = Some(Instant::now());
            place
        };
        let outcome = self.run_inline(place, read, vm_steps);
        let mut state = lock(&self.state);
        state.inline[place] = None;
        self.inline[place].0.clear();
        if state.phase != Phase::Open {
            self.quiet.notify_all();
        }
        outcome
    }

    fn run_inline(&self, place: usize, read: &Read, vm_steps: u32) -> Option<Outcome> {
        let (control, slot) = &self.inline[place];
        let mut slot = lock(slot);
        if slot.as_ref().is_none_or(|held| held.guard.is_dirty()) {
            let mut reader = Reader::open(&self.settings).ok()?;
            control.watch(&mut reader.conn).ok()?;
            *slot = Some(reader);
        }
        let reader = slot.as_ref()?;
        control.arm(None, Some(vm_steps));
        let mut whole = Whole::inline(control);
        let error = run_read(reader, control, read, &mut whole, None);
        let results = whole.results;
        (!control.is_stopped()).then_some(Outcome { results, error })
    }

    /// Ends the read that `control` belongs to, if it is running.
    fn stop_read(&self, control: &Arc<Control>, reason: Reason) {
        let state = lock(&self.state);
        let mut entries = state.running.values();
        if let Some(entry) = entries.find(|entry| Arc::ptr_eq(&entry.control, control)) {
            entry.stop(reason);
        }
    }

    /// Ends read number `id`; `false` if there is none.
    pub(crate) fn kill(&self, id: u64) -> bool {
        let state = lock(&self.state);
        let found = state.running.get(&id);
        if let Some(entry) = found {
            entry.stop(Reason::Killed);
        }
        found.is_some()
    }

    /// What is running, the oldest first, at most `limit` of it.
    pub(crate) fn running(&self, limit: usize) -> Vec<Running> {
        let state = lock(&self.state);
        let listed = state.running.iter().filter_map(|(id, entry)| {
            let text = match &entry.what {
                What::Read(read) => run::shown(read, entry.control.statement()),
                What::Other(what) => (*what).to_owned(),
                What::Unlisted => return None,
            };
            Some(Running {
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

fn entry(job: &Job, lane: Lane) -> Entry {
    let (what, origin, control) = match job {
        Job::Read(job) => (
            What::Read(Arc::clone(&job.read)),
            job.origin.clone(),
            Arc::clone(&job.control),
        ),
        Job::Classify { .. } => (What::Unlisted, Origin::default(), Control::new()),
    };
    Entry {
        since: Instant::now(),
        control,
        lane,
        what,
        origin,
        apart: false,
        interrupt: None,
    }
}

#[cfg(test)]
mod tests;
