//! The writer thread: applies runs of log entries, makes checkpoints and replaces the database, one command
//! at a time.
mod batch;
mod checkpoint;
mod collected_load;
mod hashing;
mod in_progress;
pub(crate) mod load;
pub(crate) mod replace;
mod request;
mod transaction;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::Receiver,
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    content_hash::{Hashing, LastHashing},
    entry::{Entry, Outcome, Position, ReplyTo, Request, Work},
    files::{
        layout::Files,
        main_file::MainFile,
        space::{self, DiskWait},
        wal_file::FRAME_HEADER_BYTES,
    },
    readers::state::Readers,
    sqlite::{
        connection::{Meters, Session, WalMeter},
        meter,
    },
    types::{Checkpoint, Fatal, Urgency},
    writer::{batch::run_all, collected_load::CollectedLoad, in_progress::WriteInProgress},
};

/// How often the number of pages is read while runs are applied. Members exchange it once a second.
const PAGES_INTERVAL: Duration = Duration::from_millis(100);

/// A command for the writer thread.
pub(crate) enum Command {
    Apply {
        run: Vec<Entry>,
        reply: oneshot::Sender<Result<Vec<Vec<Outcome>>, Fatal>>,
    },
    Checkpoint {
        urgency: Urgency,
        reply: oneshot::Sender<Result<Checkpoint, Fatal>>,
    },
    Install {
        position: Position,
        meta: Bytes,
        reply: oneshot::Sender<Result<(), Fatal>>,
    },
    Close,
}

/// State of the writer that other threads may read.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    applied: Mutex<Option<Position>>,
    pub(crate) meters: Meters,
    page_bytes: AtomicU64,
    pages: AtomicU64,
    hashing: Mutex<LastHashing>,
    /// Grows while the writer works: see [`meter::count_work`].
    work: Arc<AtomicU64>,
    pub(crate) write: WriteInProgress,
}

impl Progress {
    /// The most recent hashing of the content.
    pub(crate) fn hashing(&self) -> LastHashing {
        let last = self.hashing.lock();
        last.clone()
    }

    /// Records the state of a hashing, unless a later one has been requested meanwhile.
    pub(crate) fn note_hashing(&self, position: Position, hashing: Hashing) {
        let mut last = self.hashing.lock();
        if last.as_ref().is_none_or(|(known, _)| *known <= position) {
            *last = Some((position, hashing));
        }
    }

    pub(crate) fn new(disk_wait: Arc<DiskWait>) -> Self {
        Self {
            meters: Meters {
                disk_wait,
                ..Meters::default()
            },
            ..Self::default()
        }
    }

    /// Number of pages of the database, and the page size in bytes.
    pub(crate) fn pages(&self) -> (u32, u32) {
        let number = |of: &AtomicU64| u32::try_from(of.load(Relaxed)).unwrap_or(u32::MAX);
        (number(&self.pages), number(&self.page_bytes))
    }

    pub(crate) fn applied(&self) -> Option<Position> {
        *self.applied.lock()
    }

    /// A number that grows while the writer works; it stands still while the writer is idle or stuck.
    pub(crate) fn work(&self) -> u64 {
        self.work.load(Relaxed)
    }

    /// Bytes in the WAL that a checkpoint would have to move.
    pub(crate) fn wal_bytes(&self) -> u64 {
        self.meters.wal.unmoved_frames() * (self.page_bytes.load(Relaxed) + FRAME_HEADER_BYTES)
    }
}

/// The writer's state, owned by its thread.
pub(crate) struct Writer {
    pub(crate) files: Files,
    foreign_keys: bool,
    /// `None` only while the main file is being replaced.
    session: Option<Session>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) main: Arc<MainFile>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) applied: Option<Position>,
    pub(crate) meta: Bytes,
    pub(crate) load: Option<CollectedLoad>,
    /// The main file as SQLite created or opened it, and the names of the main file and the WAL, have been
    /// synced.
    pub(crate) main_synced: bool,
    failed: Option<Fatal>,
    #[cfg(test)]
    pub(crate) crash_at: Option<&'static str>,
}

impl Writer {
    /// Opens the main file, whose content `main` describes.
    pub(crate) fn new(
        files: Files,
        foreign_keys: bool,
        readers: Arc<Readers>,
        main: Arc<MainFile>,
        progress: Arc<Progress>,
    ) -> Result<Self, rusqlite::Error> {
        let base = main.base();
        let mut writer = Self {
            files,
            foreign_keys,
            session: None,
            readers,
            main,
            progress,
            applied: None,
            meta: base.meta.into(),
            load: None,
            main_synced: false,
            failed: None,
            #[cfg(test)]
            crash_at: None,
        };
        writer.open_session()?;
        if let Some(position) = base.position {
            writer.set_applied(position);
        }
        Ok(writer)
    }

    /// The thread's main loop.
    pub(crate) fn serve(mut self, commands: &Receiver<Command>) {
        meter::watch_disk(&self.files.dir, space::floor_bytes(&self.files.dir));
        meter::count_work(Arc::clone(&self.progress.work));
        let mut pages_noted = Instant::now();
        while let Ok(command) = commands.recv() {
            match command {
                Command::Apply { run, reply } => {
                    let mut result = self.unless_failed(|writer| writer.apply(&run));
                    if let Ok(outcomes) = &mut result {
                        deliver(run, outcomes);
                    }
                    let _ = reply.send(result);
                    // After the reply, because this compiles a PRAGMA and opens a read transaction.
                    if pages_noted.elapsed() >= PAGES_INTERVAL {
                        self.note_pages();
                        pages_noted = Instant::now();
                    }
                }
                Command::Checkpoint { urgency, reply } => {
                    let result = self.unless_failed(|writer| writer.checkpoint_with(urgency));
                    let _ = reply.send(result);
                }
                Command::Install {
                    position,
                    meta,
                    reply,
                } => {
                    let result = self.unless_failed(|writer| writer.install(position, meta));
                    let _ = reply.send(result);
                }
                Command::Close => return,
            }
        }
    }

    /// Runs `act`, unless an earlier command failed. After a failure every command is refused: the content of
    /// the files is uncertain until the next start.
    fn unless_failed<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, Fatal>,
    ) -> Result<T, Fatal> {
        if let Some(fatal) = &self.failed {
            return Err(fatal.clone());
        }
        let result = act(self);
        if let Err(fatal) = &result {
            if self.progress.meters.disk_wait.is_stopping() {
                tracing::info!("applying was interrupted, the log replays it: {fatal}");
            } else {
                tracing::error!(error = %fatal, "the database failed");
            }
            self.failed = Some(fatal.clone());
            // Threads that wait for a change of the main file must not wait for one that will never end.
            self.main.mark_failed();
            self.readers.resume();
        }
        result
    }

    /// Applies the entries in as few transactions as possible.
    pub(crate) fn apply(&mut self, run: &[Entry]) -> Result<Vec<Vec<Outcome>>, Fatal> {
        let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); run.len()];
        let mut from = 0;
        while from < run.len() {
            let requests = self.end_of_batch(run, from);
            if requests > from {
                self.apply_requests(&run[from..requests], &mut outcomes[from..requests])?;
            }
            if let Some(entry) = run.get(requests) {
                outcomes[requests] = self.apply_other(entry)?;
                self.set_applied(entry.position);
            }
            from = requests + 1;
        }
        Ok(outcomes)
    }

    /// End (exclusive) of the entries, starting at `from`, that can share a transaction.
    fn end_of_batch(&self, run: &[Entry], from: usize) -> usize {
        let ends = |entry: &Entry| {
            !matches!(entry.work, Work::Requests(_) | Work::Nothing) || self.load.is_some()
        };
        run[from..]
            .iter()
            .position(ends)
            .map_or(run.len(), |at| from + at)
    }

    fn apply_requests(
        &mut self,
        run: &[Entry],
        outcomes: &mut [Vec<Outcome>],
    ) -> Result<(), Fatal> {
        let requests = |entry: &Entry| match &entry.work {
            Work::Requests(requests) => Arc::clone(requests),
            _ => Arc::default(),
        };
        let held: Vec<(Arc<Vec<Request>>, bool)> = run
            .iter()
            .map(|entry| (requests(entry), entry.reply_to.is_somebody()))
            .collect();
        let flat: Vec<(&Request, bool)> = held
            .iter()
            .flat_map(|(requests, wanted)| requests.iter().map(|request| (request, *wanted)))
            .collect();
        if !flat.is_empty() {
            let progress = Arc::clone(&self.progress);
            progress
                .write
                .begin_requests(held.iter().map(|(requests, _)| Arc::clone(requests)));
            let results = run_all(self.session_mut()?, &flat, &progress.write);
            progress.write.end();
            let mut results = results?.into_iter();
            for ((requests, _), outcomes) in held.iter().zip(outcomes) {
                outcomes.extend(results.by_ref().take(requests.len()));
            }
        }
        if let Some(last) = run.last() {
            self.set_applied(last.position);
        }
        Ok(())
    }

    fn apply_other(&mut self, entry: &Entry) -> Result<Vec<Outcome>, Fatal> {
        self.drop_load_before(entry.position.term)?;
        match &entry.work {
            Work::Nothing => {}
            Work::Meta(meta) => self.meta = meta.clone(),
            Work::Requests(_) => {
                let mut outcomes = [Vec::new()];
                self.apply_requests(std::slice::from_ref(entry), &mut outcomes)?;
                let [outcomes] = outcomes;
                return Ok(outcomes);
            }
            Work::Load(chunk) => {
                self.progress.write.begin_load();
                let taken = self.take_chunk(entry.position, chunk);
                self.progress.write.end();
                return Ok(taken?.into_iter().collect());
            }
            Work::LoadAbort(id) => self.abort_load(*id)?,
            Work::HashContent => self.begin_hashing(entry.position)?,
        }
        Ok(Vec::new())
    }

    pub(crate) fn set_applied(&mut self, position: Position) {
        self.progress.work.fetch_add(1, Relaxed);
        self.applied = Some(position);
        *self.progress.applied.lock() = Some(position);
    }

    pub(crate) fn pages(&self) -> (u32, u32) {
        self.progress.pages()
    }

    fn note_pages(&self) {
        if let Some(session) = &self.session
            && let Ok(pages) = session.number("page_count")
        {
            self.progress.pages.store(pages, Relaxed);
        }
    }

    pub(crate) fn session(&self) -> Result<&Session, Fatal> {
        self.session
            .as_ref()
            .ok_or_else(|| Fatal("the database is not open".to_owned()))
    }

    pub(crate) fn session_mut(&mut self) -> Result<&mut Session, Fatal> {
        self.session
            .as_mut()
            .ok_or_else(|| Fatal("the database is not open".to_owned()))
    }

    pub(crate) fn open_session(&mut self) -> Result<(), rusqlite::Error> {
        let meters = self.progress.meters.clone();
        self.main_synced = false;
        let session = Session::open(&self.files.main, self.foreign_keys, meters)?;
        let page_bytes: i64 = session
            .conn
            .pragma_query_value(None, "page_size", |row| row.get(0))?;
        self.progress
            .page_bytes
            .store(page_bytes.unsigned_abs(), Relaxed);
        self.session = Some(session);
        self.note_pages();
        Ok(())
    }

    pub(crate) fn close_session(&mut self) {
        self.session = None;
        self.progress.meters.wal.emptied();
    }

    pub(crate) fn wal(&self) -> &WalMeter {
        &self.progress.meters.wal
    }

    /// A point at which a test can make the writer fail as in a crash.
    #[cfg(test)]
    pub(crate) fn failpoint(&self, name: &'static str) -> Result<(), Fatal> {
        if self.crash_at == Some(name) {
            Err(Fatal(format!("crash at {name}")))
        } else {
            Ok(())
        }
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "only tests crash here"
    )]
    pub(crate) fn failpoint(&self, _name: &'static str) -> Result<(), Fatal> {
        Ok(())
    }
}

/// Hands the outcomes directly to their receivers after COMMIT.
fn deliver(run: Vec<Entry>, outcomes: &mut [Vec<Outcome>]) {
    for (entry, outcomes) in run.into_iter().zip(outcomes) {
        if let ReplyTo::Deliver(deliver) = entry.reply_to {
            deliver(std::mem::take(outcomes));
        }
    }
}

#[cfg(test)]
mod tests;
