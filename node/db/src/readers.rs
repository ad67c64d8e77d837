//! Reading: threads with a connection each, spare connections for short reads on the caller's thread, and the gate that
//! lets the writer empty the room for a checkpoint or a new main file.
use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, InterruptHandle};
use tokio::sync::oneshot;

use crate::{
    Origin, Outcome, Read, Running, STACK_BYTES,
    connection::open_reader,
    control::{Control, Reason, ask},
    fault::message,
    guard::Guard,
    sql,
};

use lanes::{Lane, Lanes, Next, SHORT, TURN};
use run::{refusal, run_job, run_read};

mod lanes;
mod run;

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
    Read(ReadJob),
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
    reply: oneshot::Sender<Outcome>,
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

/// A read that was asked for; gives its outcome. Dropping it ends the read.
#[derive(Debug)]
pub struct Reading {
    receiver: oneshot::Receiver<Outcome>,
    ends: EndsWithDrop,
}

impl Reading {
    /// Waits on a thread without a runtime.
    ///
    /// # Errors
    /// The database was closed.
    pub fn blocking_recv(mut self) -> Result<Outcome, oneshot::error::RecvError> {
        // Moved out, because the blocking call takes it by value.
        let (_, nobody) = oneshot::channel();
        let receiver = std::mem::replace(&mut self.receiver, nobody);
        let outcome = receiver.blocking_recv();
        self.ends.0 = None;
        outcome
    }
}

impl Future for Reading {
    type Output = Result<Outcome, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.receiver).poll(context);
        if polled.is_ready() {
            self.ends.0 = None;
        }
        polled
    }
}

/// Whoever waits for something longer, such as a backup. Dropping it ends what it waits for.
#[derive(Debug)]
pub struct Waiter(Arc<Control>);

/// What somebody may be waiting for.
#[derive(Clone, Debug)]
pub struct Watched {
    control: Arc<Control>,
    origin: Origin,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            control: Control::new(),
            origin: Origin::default(),
        }
    }
}

impl Watched {
    /// Something that `origin` asked for, and whoever waits for it.
    pub fn new(origin: Origin) -> (Waiter, Self) {
        let control = Control::new();
        (Waiter(Arc::clone(&control)), Self { control, origin })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.stop(Reason::Gone);
    }
}

/// Ends a read when it is dropped before the read has ended.
struct EndsWithDrop(Option<(Arc<Control>, Weak<Readers>)>);

impl std::fmt::Debug for EndsWithDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EndsWithDrop")
            .field(&self.0.is_some())
            .finish()
    }
}

impl Drop for EndsWithDrop {
    fn drop(&mut self) {
        if let Some((control, readers)) = self.0.take() {
            control.stop(Reason::Gone);
            if let Some(readers) = readers.upgrade() {
                readers.stop_read(&control, Reason::Gone);
            }
        }
    }
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

    /// Queues a read.
    pub(crate) fn read(&self, read: Read, origin: Origin) -> Reading {
        let (reply, receiver) = oneshot::channel();
        let control = Control::new();
        let job = ReadJob {
            read: Arc::new(read),
            origin,
            since: Instant::now(),
            control: Arc::clone(&control),
            reply,
        };
        if let Err(Job::Read(job)) = self.push(Job::Read(job)) {
            let _ = job.reply.send(refusal("too many reads are waiting"));
        }
        Reading {
            receiver,
            ends: EndsWithDrop(Some((control, Weak::clone(&self.own)))),
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
        run_job(job, watched.as_deref(), self.settings.slow);
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

    /// A read has computed for as long as it may; waits until it may go on. `false`: it has to end.
    fn turn_over(&self, id: u64, control: &Control) -> bool {
        let mut state = lock(&self.state);
        let Some(lane) = state.running.get(&id).map(|entry| entry.lane) else {
            return true;
        };
        let (now, next) = state.lanes.turn_over(id, lane);
        self.follow(state, id, control, now, next)
    }

    fn follow(
        &self,
        mut state: MutexGuard<'_, State>,
        id: u64,
        control: &Control,
        now: Lane,
        next: Next,
    ) -> bool {
        if let Some(entry) = state.running.get_mut(&id) {
            entry.lane = now;
        }
        state.call_next();
        match next {
            Next::Refused => {
                control.stop(Reason::Crowded);
                return false;
            }
            Next::GoOn => control.begin_turn(TURN),
            Next::Wait => {}
        }
        // It may have left the short lane, which has room for the next job.
        self.see_to_jobs(state);
        next == Next::GoOn || self.wait_for_turn(id, control)
    }

    fn wait_for_turn(&self, id: u64, control: &Control) -> bool {
        let mut state = lock(&self.state);
        let lane = |state: &State| state.running.get(&id).map(|entry| entry.lane);
        while lane(&state) == Some(Lane::Waiting) {
            if control.must_stop() {
                return false;
            }
            state = wait(&control.turn, state, REPEAT);
        }
        !control.is_stopped()
    }

    /// Runs a short read on this thread, or gives up: when it takes more than about `vm_steps` instructions, is more than
    /// one statement, or no spare connection is free.
    pub(crate) fn read_inline(&self, read: &Read, vm_steps: u32) -> Option<Outcome> {
        let [statement] = read.statements.as_slice() else {
            return None;
        };
        if !sql::is_plain_single(&statement.sql) {
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
        let outcome = run_read(reader, control, read, None);
        (!control.is_stopped()).then_some(outcome)
    }

    /// Enters the room for a longer read with a connection of one's own, such as a backup. Blocks while it is closed.
    pub(crate) fn visit(
        self: &Arc<Self>,
        what: &'static str,
        watched: &Watched,
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
    pub(crate) fn apart(self: &Arc<Self>, what: &'static str, watched: &Watched) -> Visit {
        let id = lock(&self.state).enter(beside(What::Other(what), watched, true));
        Visit {
            readers: Arc::clone(self),
            id,
            control: Arc::clone(&watched.control),
        }
    }

    /// The same without waiting: `None` while the room is closed.
    pub(crate) fn try_visit(self: &Arc<Self>) -> Option<Visit> {
        self.admit(lock(&self.state), What::Unlisted, &Watched::default())
    }

    /// As [`Readers::visit`], without waiting.
    pub(crate) fn try_visit_as(
        self: &Arc<Self>,
        what: &'static str,
        watched: &Watched,
    ) -> Option<Visit> {
        self.admit(lock(&self.state), What::Other(what), watched)
    }

    fn admit(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        what: What,
        watched: &Watched,
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

fn beside(what: What, watched: &Watched, apart: bool) -> Entry {
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

#[cfg(test)]
mod tests;
