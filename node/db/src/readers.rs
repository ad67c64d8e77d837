//! Reading: threads with a connection each, spare connections for short reads on the caller's thread, and the gate that
//! lets the writer empty the room for a checkpoint or a new main file.
use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use node_api::{Statement, StatementResult};
use rusqlite::{Batch, Connection, ErrorCode, fallible_iterator::FallibleIterator as _};
use tokio::sync::oneshot;

use crate::{
    Outcome, Read,
    connection::{internal, open_reader},
    control::Control,
    fault::message,
    guard::Guard,
    query::{self, Arguments, Failure, Rules},
    sql,
};

/// Reads that may wait for a thread. Above, a client is better told at once than kept waiting.
const QUEUE: usize = 16 * 1024;
/// How often the writer repeats a request to end that a reader may have missed between two statements.
const REPEAT: Duration = Duration::from_millis(20);
/// A read on its caller's thread takes microseconds. One that is under way for so long waits for the disk, and the next would too.
const STUCK: Duration = Duration::from_millis(50);

/// A read-only connection and what controls it.
struct Reader {
    conn: Connection,
    guard: Arc<Guard>,
}

impl Reader {
    fn open(settings: &Settings, control: &Arc<Control>) -> rusqlite::Result<Self> {
        let (mut conn, guard) = open_reader(&settings.path, settings.foreign_keys)?;
        control.watch(&mut conn)?;
        Ok(Self { conn, guard })
    }
}

#[derive(Clone, Debug)]
struct Settings {
    path: PathBuf,
    foreign_keys: bool,
}

enum Job {
    Read {
        read: Read,
        since: Instant,
        reply: oneshot::Sender<Outcome>,
    },
    Classify {
        sql: String,
        reply: oneshot::Sender<bool>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// No read starts; connections stay.
    Paused,
    /// No read starts; connections go.
    Closing,
    /// What is queued still runs, then the threads end.
    Stopped,
}

struct State {
    phase: Phase,
    jobs: VecDeque<Job>,
    /// One per place: when its current read began.
    active: Vec<Option<Instant>>,
    controls: Vec<Arc<Control>>,
    /// Threads that hold a connection.
    connected: usize,
}

/// All readers of one database.
pub(crate) struct Readers {
    settings: Settings,
    threads: usize,
    state: Mutex<State>,
    /// Signals the threads: a job, or another phase.
    work: Condvar,
    /// Signals whoever waits for reads to end or for the gate to open.
    quiet: Condvar,
    /// Connections for reads on the caller's thread; their places in `State` follow those of the threads.
    inline: Vec<Mutex<Option<Reader>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The state is consistent at every await-free step, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    /// Nothing is opened yet; the threads are started by the caller, each with [`Readers::serve`].
    pub(crate) fn new(path: PathBuf, foreign_keys: bool, threads: usize) -> Arc<Self> {
        let inline = threads.max(2);
        let places = threads + inline;
        Arc::new(Self {
            settings: Settings { path, foreign_keys },
            threads,
            state: Mutex::new(State {
                phase: Phase::Open,
                jobs: VecDeque::new(),
                active: vec![None; places],
                controls: (0..places).map(|_| Control::new()).collect(),
                connected: 0,
            }),
            work: Condvar::new(),
            quiet: Condvar::new(),
            inline: (0..inline).map(|_| Mutex::new(None)).collect(),
        })
    }

    /// Queues a read.
    pub(crate) fn read(&self, read: Read) -> oneshot::Receiver<Outcome> {
        let (reply, receiver) = oneshot::channel();
        if let Err(Job::Read { reply, .. }) = self.push(Job::Read {
            read,
            since: Instant::now(),
            reply,
        }) {
            let _ = reply.send(refusal("too many reads are waiting"));
        }
        receiver
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
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// The body of reader thread number `place`.
    pub(crate) fn serve(&self, place: usize) {
        let mut reader: Option<Reader> = None;
        let control = Arc::clone(&lock(&self.state).controls[place]);
        while let Some(job) = self.next_job(place, &mut reader) {
            if reader.is_none() {
                match Reader::open(&self.settings, &control) {
                    Ok(opened) => reader = Some(opened),
                    Err(error) => {
                        tracing::error!(error = %message(&error), "cannot open the database for reading")
                    }
                }
            }
            run_job(job, reader.as_ref(), &control);
            self.finished(place);
        }
    }

    fn next_job(&self, place: usize, reader: &mut Option<Reader>) -> Option<Job> {
        let mut state = lock(&self.state);
        loop {
            match state.phase {
                Phase::Open | Phase::Stopped => {
                    if let Some(job) = state.jobs.pop_front() {
                        state.active[place] = Some(Instant::now());
                        if reader.is_none() {
                            state.connected += 1;
                        }
                        return Some(job);
                    }
                    if state.phase == Phase::Stopped {
                        return None;
                    }
                }
                Phase::Closing if reader.take().is_some() => {
                    state.connected -= 1;
                    self.quiet.notify_all();
                }
                Phase::Paused | Phase::Closing => {}
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finished(&self, place: usize) {
        let mut state = lock(&self.state);
        state.active[place] = None;
        state.controls[place].clear();
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
        if !sql::is_plain_single(&statement.sql) {
            return None;
        }
        let (place, control) = {
            let mut state = lock(&self.state);
            if state.phase != Phase::Open {
                return None;
            }
            let inline = &state.active[self.threads..][..self.inline.len()];
            if inline.iter().flatten().any(|since| since.elapsed() > STUCK) {
                return None;
            }
            let free = inline.iter().position(Option::is_none)?;
            let place = self.threads + free;
            state.active[place] = Some(Instant::now());
            (place, Arc::clone(&state.controls[place]))
        };
        let outcome = self.run_inline(place, &control, read, vm_steps);
        self.finished(place);
        outcome
    }

    fn run_inline(
        &self,
        place: usize,
        control: &Arc<Control>,
        read: &Read,
        vm_steps: u32,
    ) -> Option<Outcome> {
        let mut slot = lock(&self.inline[place - self.threads]);
        if slot.is_none() {
            *slot = Reader::open(&self.settings, control).ok();
        }
        let reader = slot.as_ref()?;
        control.arm(None, Some(vm_steps));
        let outcome = run_read(reader, control, read);
        (!control.is_stopped()).then_some(outcome)
    }

    /// Enters the room for a longer read with a connection of one's own, such as a backup. Blocks while it is closed.
    pub(crate) fn visit(self: &Arc<Self>) -> Result<Visit, String> {
        let mut state = lock(&self.state);
        while matches!(state.phase, Phase::Paused | Phase::Closing) {
            state = self
                .quiet
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.admit(state)
            .ok_or_else(|| "the database is closed".to_owned())
    }

    /// The same without waiting: `None` while the room is closed.
    pub(crate) fn try_visit(self: &Arc<Self>) -> Option<Visit> {
        self.admit(lock(&self.state))
    }

    fn admit(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> Option<Visit> {
        if state.phase != Phase::Open {
            return None;
        }
        let first = self.threads + self.inline.len();
        let free = state.active[first..]
            .iter()
            .position(Option::is_none)
            .map(|at| first + at);
        let place = free.unwrap_or_else(|| {
            state.active.push(None);
            state.controls.push(Control::new());
            state.active.len() - 1
        });
        state.active[place] = Some(Instant::now());
        let control = Arc::clone(&state.controls[place]);
        control.arm(None, None);
        drop(state);
        Some(Visit {
            readers: Arc::clone(self),
            place,
            control,
        })
    }

    /// Stops new reads and waits for the running ones. `false` (and the room open again) if one is still running after
    /// `limit`, at once if one has been running for longer than that already.
    pub(crate) fn pause(&self, limit: Duration) -> bool {
        let mut state = lock(&self.state);
        if state
            .active
            .iter()
            .flatten()
            .any(|since| since.elapsed() > limit)
        {
            return false;
        }
        state.phase = Phase::Paused;
        let deadline = Instant::now() + limit;
        while state.active.iter().any(Option::is_some) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.reopen(state);
                return false;
            }
            state = self
                .quiet
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
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
    }

    /// Ends reads that have been running for longer than `age`.
    pub(crate) fn interrupt_older(&self, age: Duration) {
        let state = lock(&self.state);
        for (since, control) in state.active.iter().zip(&state.controls) {
            if since.is_some_and(|since| since.elapsed() > age) {
                control.stop_for_writer();
            }
        }
    }

    /// Stops new reads, gives running ones `grace`, ends the rest, and returns when no connection is left.
    pub(crate) fn close_connections(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let mut state = lock(&self.state);
        state.phase = Phase::Closing;
        self.work.notify_all();
        while state.connected > 0 || state.active.iter().any(Option::is_some) {
            if Instant::now() >= deadline {
                for (since, control) in state.active.iter().zip(&state.controls) {
                    if since.is_some() {
                        control.stop_for_writer();
                    }
                }
            }
            state = self
                .quiet
                .wait_timeout(state, REPEAT)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(state);
        for slot in &self.inline {
            *lock(slot) = None;
        }
    }

    /// Ends the threads when the queue is empty.
    pub(crate) fn stop(&self) {
        lock(&self.state).phase = Phase::Stopped;
        self.work.notify_all();
        self.quiet.notify_all();
    }

    /// Reads that run and reads that wait.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.active.iter().flatten().count(), state.jobs.len())
    }
}

/// A longer read's place in the room.
pub(crate) struct Visit {
    readers: Arc<Readers>,
    place: usize,
    control: Arc<Control>,
}

impl Visit {
    /// Makes `conn` end its statement when the writer needs the room.
    pub(crate) fn watch(&self, conn: &mut Connection) -> rusqlite::Result<()> {
        self.control.watch(conn)
    }

    /// The writer needs the room.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.control.is_stopped()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.readers.finished(self.place);
    }
}

fn refusal(text: &str) -> Outcome {
    Outcome {
        results: Vec::new(),
        error: Some(text.to_owned()),
    }
}

fn run_job(job: Job, reader: Option<&Reader>, control: &Control) {
    match (job, reader) {
        // A reply that nobody waits for any more is not worth the work.
        (Job::Read { reply, .. }, _) if reply.is_closed() => {}
        (Job::Read { reply, .. }, None) => {
            let _ = reply.send(refusal("unable to open the database for reading"));
        }
        (Job::Read { read, since, reply }, Some(reader)) => {
            let deadline = read.timeout.and_then(|timeout| since.checked_add(timeout));
            let outcome = if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                refusal("context deadline exceeded")
            } else {
                control.arm(deadline, None);
                run_read(reader, control, &read)
            };
            let _ = reply.send(outcome);
        }
        (Job::Classify { sql, reply }, reader) => {
            let read_only = reader.is_some_and(|reader| {
                let prepared = Batch::new(&reader.conn, &sql).next();
                let _ = reader.guard.take_refusal();
                matches!(prepared, Ok(Some(statement)) if statement.readonly())
            });
            let _ = reply.send(read_only);
        }
    }
}

fn run_read(reader: &Reader, control: &Control, read: &Read) -> Outcome {
    if read
        .statements
        .iter()
        .any(|statement| sql::disallowed_pragma(&statement.sql))
    {
        return refusal("disallowed pragma");
    }
    let rules = Rules {
        kind: read.kind,
        qualify_columns: read.qualify_columns,
        wanted: true,
        counters: false,
    };
    // One statement is a read transaction of its own.
    let transaction = read.transaction && read.statements.len() > 1;
    if transaction && let Err(error) = internal(&reader.conn, &reader.guard, "BEGIN") {
        return refusal(&message(&error));
    }
    let results = read
        .statements
        .iter()
        .filter(|statement| !statement.sql.is_empty())
        .map(|statement| run_statement(reader, control, statement, rules))
        .collect();
    if transaction && let Err(error) = internal(&reader.conn, &reader.guard, "ROLLBACK") {
        return refusal(&message(&error));
    }
    Outcome {
        results,
        error: None,
    }
}

fn run_statement(
    reader: &Reader,
    control: &Control,
    statement: &Statement,
    rules: Rules,
) -> StatementResult {
    if control.is_late() {
        return StatementResult::Error(control.stopped_text());
    }
    let mut arguments = Arguments::new(&statement.parameters);
    let result = if sql::is_plain_single(&statement.sql) {
        reader
            .conn
            .prepare_cached(&statement.sql)
            .map_err(Failure::Sqlite)
            .and_then(|mut prepared| query::run(&reader.conn, &mut prepared, &mut arguments, rules))
    } else {
        run_several(reader, &statement.sql, &mut arguments, rules)
    };
    let refusal = reader.guard.take_refusal();
    match result {
        Ok(result) => result,
        Err(Failure::Refused(text)) => StatementResult::Error(text),
        Err(Failure::Sqlite(error))
            if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) =>
        {
            StatementResult::Error(control.stopped_text())
        }
        Err(Failure::Sqlite(error)) => StatementResult::Error(
            refusal
                .text()
                .map_or_else(|| message(&error), str::to_owned),
        ),
    }
}

fn run_several(
    reader: &Reader,
    sql: &str,
    arguments: &mut Arguments<'_>,
    rules: Rules,
) -> Result<StatementResult, Failure> {
    let mut batch = Batch::new(&reader.conn, sql);
    let mut last = StatementResult::Write(node_api::WriteResult::default());
    while let Some(mut statement) = batch.next()? {
        last = query::run(&reader.conn, &mut statement, arguments, rules)?;
    }
    Ok(last)
}

#[cfg(test)]
mod tests;
