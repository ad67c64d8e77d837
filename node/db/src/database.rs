//! The database handle: sends work to the writer and the readers, and answers simple questions itself.
mod backup;
pub(crate) mod check;
mod inner;
mod status;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed, mpsc::sync_channel},
    time::Duration,
};

use bytes::Bytes;
use node_values::Statement;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    content_hash::Hashing,
    database::{
        check::{CheckEnd, CheckProgress},
        inner::Inner,
    },
    entry::{Entry, Outcome, Position},
    files::{
        layout::Files,
        main_file::{MainFile, Pinned},
        space::DiskWait,
    },
    readers::{
        self,
        pending::{Cancellation, PendingOutcome, PendingRead},
        state::Readers,
    },
    recovery::recover::recover,
    sql::classify::{self, Access},
    sqlite::{connection, error::message},
    types::{
        BackupFormat, Checkpoint, Fatal, Maintenance, OpenError, Options, Origin, Read, Recovered,
        RunningStatement, Urgency,
    },
    writer::{
        Command, Progress, Writer, load,
        replace::{self, CheckDepth},
    },
};

/// Commands that may be queued for the writer. A sender blocks while the queue is full.
const COMMANDS: usize = 256;

/// A handle to the open database; cheap to clone. Dropping the last one stops the threads without a
/// checkpoint.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("dir", &self.0.files.dir)
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Opens or creates the database. What was not checkpointed is deleted; the caller's log replays it.
    ///
    /// # Errors
    /// A damaged sidecar or main file, or a failing disk.
    pub fn open(options: Options) -> Result<(Self, Recovered), OpenError> {
        Self::open_beside(options, &|_| false)
    }

    /// Like [`Database::open`], for a caller that has a log. `log_holds_all(position)` tells whether the log
    /// holds every entry from the first one up to and including `position`. If it does, a main file of
    /// uncertain content is no error: it is deleted and rebuilt from the log.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open_beside(
        options: Options,
        log_holds_all: &dyn Fn(Position) -> bool,
    ) -> Result<(Self, Recovered), OpenError> {
        let dir = std::path::absolute(&options.dir).map_err(|source| OpenError::Io {
            context: "find the database's directory".to_owned(),
            source,
        })?;
        let files = Files::new(&dir);
        let base = recover(&files, log_holds_all)?;
        let recovered = Recovered {
            position: base.position,
            meta: base.meta.clone().into(),
        };
        connection::keep_temporary_files_in(&files.dir)
            .map_err(|error| OpenError::Sqlite(message(&error)))?;
        let main = MainFile::new(base);
        let disk_wait = Arc::new(DiskWait::new(&files.dir));
        let mut progress = Progress::new(Arc::clone(&disk_wait));
        progress.meters.slow = options.slow_statement;
        let progress = Arc::new(progress);
        let slots = options.readers.max(1);
        let readers = Readers::new(readers::state::Settings {
            path: files.main.clone(),
            foreign_keys: options.foreign_keys,
            slots,
            max_threads: options.max_readers.max(slots),
            slow: options.slow_statement,
        });
        let writer = Writer::new(
            files.clone(),
            options.foreign_keys,
            Arc::clone(&readers),
            Arc::clone(&main),
            Arc::clone(&progress),
        )
        .map_err(|error| OpenError::Sqlite(message(&error)))?;
        let (commands, queue) = sync_channel(COMMANDS);
        let database = Self(Arc::new(Inner {
            files,
            options,
            commands,
            readers,
            main,
            progress,
            threads: Mutex::new(Vec::new()),
        }));
        // From here on an error drops `database`, which stops the threads that were started.
        database
            .0
            .spawn("db-writer".to_owned(), move || writer.serve(&queue))?;
        database.0.readers.start().map_err(|source| OpenError::Io {
            context: "start a database thread".to_owned(),
            source,
        })?;
        Ok((database, recovered))
    }

    fn send(&self, command: Command) {
        // If the writer has ended, the command is dropped together with its reply channel, and the caller
        // sees a closed channel.
        let _ = self.0.commands.send(command);
    }

    /// Applies a run of entries in one transaction. The outcomes arrive after COMMIT, one `Vec` per entry. It
    /// is empty for entries without requests; the last chunk of a load has one outcome.
    ///
    /// Blocks while 256 commands are queued. After [`Database::close`] the channel closes without a value.
    #[must_use]
    pub fn apply(&self, run: Vec<Entry>) -> oneshot::Receiver<Result<Vec<Vec<Outcome>>, Fatal>> {
        let (reply, receiver) = oneshot::channel();
        self.send(Command::Apply { run, reply });
        receiver
    }

    /// Runs a read on a reader thread. All results are held in memory; more than 48 MiB is refused. Dropping
    /// the returned future cancels the read.
    #[must_use]
    pub fn read(&self, read: Read) -> PendingOutcome {
        self.read_for(read, Origin::default())
    }

    /// Like [`Database::read`], with an origin for the list of running reads and the slow-statement log.
    #[must_use]
    pub fn read_for(&self, read: Read, origin: Origin) -> PendingOutcome {
        self.0.readers.read(read, origin)
    }

    /// Like [`Database::read_for`], but large results are streamed in pieces.
    #[must_use]
    pub fn read_streamed(&self, read: Read, origin: Origin) -> PendingRead {
        self.0.readers.submit(read, origin, true)
    }

    /// Runs a read of one statement on the calling thread, if it takes no more than about `vm_steps`
    /// instructions of SQLite's virtual machine (a lookup by key takes about 20, a scan 5 or more per row).
    /// Returns `None` if it takes longer or no connection is free; use [`Database::read`] then. The read's
    /// timeout is ignored.
    #[must_use]
    pub fn read_inline(&self, read: &Read, vm_steps: u32) -> Option<Outcome> {
        self.0.readers.read_inline(read, vm_steps)
    }

    /// For each statement: whether the first statement in its text is read-only. A statement that cannot be
    /// prepared counts as a write. The first keyword decides where it can; otherwise a reader prepares the
    /// statement.
    pub async fn read_only(&self, statements: &[Statement]) -> Vec<bool> {
        let mut answers = Vec::with_capacity(statements.len());
        for statement in statements {
            answers.push(match classify::access(&statement.sql) {
                Access::Read => true,
                Access::Write => false,
                Access::Unknown => self
                    .0
                    .readers
                    .classify(&statement.sql)
                    .await
                    .unwrap_or(false),
            });
        }
        answers
    }

    /// Position of the last applied entry.
    #[must_use]
    pub fn applied(&self) -> Option<Position> {
        self.0.progress.applied()
    }

    /// A number that grows while the writer works: instructions, pages read or written, entries applied. It
    /// stands still while the writer is idle, waits for space on its disk, or hangs with it.
    #[must_use]
    pub fn work(&self) -> u64 {
        self.0.progress.work()
    }

    /// Bytes in the WAL that a checkpoint would move now.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        self.0.progress.wal_bytes()
    }

    /// Number of statements in applied requests that returned an error since the database was opened.
    #[must_use]
    pub fn failed_statements(&self) -> u64 {
        self.0.progress.meters.failed.load(Relaxed)
    }

    /// Pages in the WAL that a checkpoint would move now.
    #[must_use]
    pub fn wal_frames(&self) -> u64 {
        self.0.progress.meters.wal.unmoved_frames()
    }

    /// When the database was last vacuumed and optimized.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance {
        self.0.progress.meters.maintenance.read()
    }

    /// Moves the WAL into the main file and makes the file and the sidecar durable.
    #[must_use]
    pub fn checkpoint(&self) -> oneshot::Receiver<Result<Checkpoint, Fatal>> {
        self.checkpoint_with(Urgency::Polite)
    }

    /// Like [`Database::checkpoint`], with a choice of how long reads and writes may be delayed.
    #[must_use]
    pub fn checkpoint_with(
        &self,
        urgency: Urgency,
    ) -> oneshot::Receiver<Result<Checkpoint, Fatal>> {
        let (reply, receiver) = oneshot::channel();
        self.send(Command::Checkpoint { urgency, reply });
        receiver
    }

    /// The last [`crate::Work::HashContent`] entry applied since the start, and the state or result of its
    /// hashing.
    #[must_use]
    pub fn hashing(&self) -> Option<(Position, Hashing)> {
        self.0.progress.hashing()
    }

    /// Pins the main file as of the last checkpoint, so that it can be sent; `None` before the first
    /// checkpoint. Blocks while a checkpoint is running.
    #[must_use]
    pub fn pin(&self) -> Option<Pinned> {
        self.0.main.pin(&self.0.files.main)
    }

    /// The lowest position of all pins. The receiver of that snapshot will need the log from there on.
    #[must_use]
    pub fn oldest_pin(&self) -> Option<Position> {
        self.0.main.oldest_pin()
    }

    /// Bytes that copies may use on the database's disk, after a reserve for the log.
    #[must_use]
    pub fn spare_bytes(&self) -> u64 {
        crate::files::layout::spare_bytes(&self.0.files.dir)
    }

    /// Where to write a received snapshot before [`Database::install`]. The file is deleted when the database
    /// is opened.
    #[must_use]
    pub fn incoming_path(&self) -> PathBuf {
        self.0.files.snapshot.clone()
    }

    /// Replaces the database by the file at [`Database::incoming_path`], whose content equals `position`.
    /// Durable when it completes.
    #[must_use]
    pub fn install(&self, position: Position, meta: Bytes) -> oneshot::Receiver<Result<(), Fatal>> {
        let (reply, receiver) = oneshot::channel();
        self.send(Command::Install {
            position,
            meta,
            reply,
        });
        receiver
    }

    /// Why no entry is being applied although nothing has failed permanently: the disk is full. Applying
    /// resumes by itself when there is space.
    #[must_use]
    pub fn waiting(&self) -> Option<String> {
        self.0.progress.meters.disk_wait.waiting()
    }

    /// Interrupts whatever runs on the writer thread, as far as SQLite can be interrupted. The entries being
    /// applied are rolled back and give [`Fatal`]; the caller's log replays them. Only before
    /// [`Database::close`].
    pub fn interrupt(&self) {
        self.0.progress.meters.disk_wait.interrupt();
    }

    /// Number of pages of the database after the last applied run, and the page size in bytes.
    #[must_use]
    pub fn pages(&self) -> (u32, u32) {
        self.0.progress.pages()
    }

    /// Checks that a file is a sound SQLite database that [`crate::LoadContent::File`] may carry: its header,
    /// that it opens, and `integrity_check`. An index that does not match its table would otherwise fail
    /// statements later.
    ///
    /// # Errors
    /// Why the file is unsuitable. Blocks for about as long as reading the file once per index takes; call it
    /// from a blocking thread.
    pub fn validate_file(path: &Path) -> Result<(), String> {
        replace::validate(path, CheckDepth::Full).map_err(replace::InvalidFile::text)
    }

    /// Checks that a file is a script that [`crate::LoadContent::Script`] may carry: no statement may be so
    /// long that a node cannot hold it in memory.
    ///
    /// # Errors
    /// Why the file is unsuitable. Blocks; call it from a blocking thread.
    pub fn validate_script(path: &Path) -> Result<(), String> {
        load::validate_script(path)
    }

    /// Writes a consistent copy of the current database to `to`, which is created but not synced. Blocks.
    ///
    /// # Errors
    /// A text for the client.
    pub fn backup(&self, format: &BackupFormat, to: &Path) -> Result<(), String> {
        self.backup_cancellable(format, to, &Cancellation::default())
    }

    /// Like [`Database::backup`]. Dropping the guard of `cancellation`, or [`Database::kill`], ends it.
    ///
    /// # Errors
    /// A text for the client.
    pub fn backup_cancellable(
        &self,
        format: &BackupFormat,
        to: &Path,
        watched: &Cancellation,
    ) -> Result<(), String> {
        backup::write(&self.0, format, to, watched)
    }

    /// Checks the database by `PRAGMA quick_check` for at most `limit`, and notes how far it is. Blocks for
    /// as long as reading the file twice takes; give it a thread of its own. Dropping the guard of `watched`,
    /// or [`Database::kill`], ends it.
    #[must_use]
    pub fn check(
        &self,
        limit: Duration,
        watched: &Cancellation,
        progress: &Arc<CheckProgress>,
    ) -> CheckEnd {
        check::run(&self.0, limit, watched, progress)
    }

    /// The write that is being applied for a while, then reads and backups that are running, the oldest
    /// first; at most `limit`. Reads on their callers' threads are too short to be listed.
    #[must_use]
    pub fn running(&self, limit: usize) -> Vec<RunningStatement> {
        let write = self.0.progress.write.listed();
        let reads = self.0.readers.running(limit);
        write.into_iter().chain(reads).take(limit).collect()
    }

    /// Ends one of [`Database::running`]. Returns `false` if it no longer runs.
    #[must_use]
    pub fn kill(&self, id: u64) -> bool {
        self.0.readers.kill(id)
    }

    /// Facts about the database for people, as JSON in rqlite's shape. Blocks for about a millisecond.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        status::status(&self.0)
    }

    /// Stops the threads after their current work and waits for them. Makes no checkpoint.
    pub fn close(&self) {
        self.0.close();
    }
}
