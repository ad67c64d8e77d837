//! The handle: queues work for the writer and the readers, and answers what needs no thread.
mod backup;
mod inner;
mod status;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::Ordering::Relaxed, mpsc::sync_channel},
};

use bytes::Bytes;
use node_values::Statement;
use tokio::sync::oneshot;

use crate::{
    content_hash::Hashing,
    database::inner::Inner,
    entry::{Entry, Outcome, Position},
    files::{
        layout::Files,
        main_file::{MainFile, Pinned},
        space::DiskWait,
    },
    readers::{
        self,
        asked::{Cancellation, PendingOutcome, PendingRead},
        state::Readers,
    },
    recovery::recover::recover,
    sql::classify::{self, Access},
    sqlite::{connection, error::message},
    types::{
        BackupFormat, Checkpoint, Fatal, Maintenance, OpenError, Options, Origin, Read, Recovered,
        RunningRead, Urgency,
    },
    writer::{
        Command, Progress, Writer, load,
        replace::{self, CheckDepth},
    },
};

/// Commands that may wait for the writer. A caller that is further ahead waits.
const COMMANDS: usize = 256;

/// A handle to the open database; cheap to clone. Dropping the last one stops the threads (without a checkpoint).
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
    /// Opens or creates the database, deleting what was not checkpointed (the caller's log replays it).
    ///
    /// # Errors
    /// A damaged sidecar or main file, or a disk that refuses.
    pub fn open(options: Options) -> Result<(Self, Recovered), OpenError> {
        Self::open_beside(options, &|_| false)
    }

    /// Like [`Database::open`] beside a log: `log_holds_all` says whether it holds every entry from its beginning up to and with a
    /// position. A main file in doubt is then no error: it is thrown away, and the log makes it anew from the first entry on.
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
        // From here on an error drops `database`, which ends the threads that were started.
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
        // Without a writer the command is dropped, and with it the reply: the caller sees a closed channel.
        let _ = self.0.commands.send(command);
    }

    /// Applies a run of entries in one transaction; the outcomes come after COMMIT, one `Vec` per entry
    /// (empty for entries without requests; a finished load gives one outcome).
    ///
    /// Blocks while 256 commands wait. The channel closes without a value after [`Database::close`].
    #[must_use]
    pub fn apply(&self, run: Vec<Entry>) -> oneshot::Receiver<Result<Vec<Vec<Outcome>>, Fatal>> {
        let (reply, receiver) = oneshot::channel();
        self.send(Command::Apply { run, reply });
        receiver
    }

    /// Runs a read on a reader thread; its results are held in memory, and refused above 48 MiB. Dropping what it returns ends the read.
    #[must_use]
    pub fn read(&self, read: Read) -> PendingOutcome {
        self.read_for(read, Origin::default())
    }

    /// The same for a client, who is named in lists and in the log.
    #[must_use]
    pub fn read_for(&self, read: Read, origin: Origin) -> PendingOutcome {
        self.0.readers.read(read, origin)
    }

    /// The same, with large results piece by piece.
    #[must_use]
    pub fn read_streamed(&self, read: Read, origin: Origin) -> PendingRead {
        self.0.readers.submit(read, origin, true)
    }

    /// Runs a read of one statement on the calling thread, if it takes no more than about `vm_steps` instructions of
    /// SQLite's virtual machine (a look-up by key takes about 20, a scan 5 and more per row). `None`: it takes longer, or
    /// no connection is free; use [`Database::read`]. The read's timeout is ignored.
    #[must_use]
    pub fn read_inline(&self, read: &Read, vm_steps: u32) -> Option<Outcome> {
        self.0.readers.read_inline(read, vm_steps)
    }

    /// For each statement: is the first statement in its text read-only? A statement that cannot be prepared is not.
    /// Decided from the first keyword where that is certain, otherwise by preparing on a reader.
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

    /// Position of the last applied entry, its index cheap to read.
    #[must_use]
    pub fn applied(&self) -> Option<Position> {
        self.0.progress.applied()
    }

    /// Bytes in the WAL that a checkpoint would move now.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        self.0.progress.wal_bytes()
    }

    /// Statements of applied requests that gave an error, since it was opened.
    #[must_use]
    pub fn failed_statements(&self) -> u64 {
        self.0.progress.meters.failed.load(Relaxed)
    }

    /// Pages in the WAL that a checkpoint would move now.
    #[must_use]
    pub fn wal_frames(&self) -> u64 {
        self.0.progress.meters.wal.unmoved_frames()
    }

    /// When the database was last kept up.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance {
        self.0.progress.meters.maintenance.read()
    }

    /// Moves the WAL into the main file and makes both the file and the sidecar durable.
    #[must_use]
    pub fn checkpoint(&self) -> oneshot::Receiver<Result<Checkpoint, Fatal>> {
        self.checkpoint_with(Urgency::Polite)
    }

    /// The same, where it has been put off.
    #[must_use]
    pub fn checkpoint_with(
        &self,
        urgency: Urgency,
    ) -> oneshot::Receiver<Result<Checkpoint, Fatal>> {
        let (reply, receiver) = oneshot::channel();
        self.send(Command::Checkpoint { urgency, reply });
        receiver
    }

    /// The last [`crate::Work::HashContent`] that was applied since the start, and what came of it.
    #[must_use]
    pub fn hashing(&self) -> Option<(Position, Hashing)> {
        self.0.progress.hashing()
    }

    /// Holds the main file still at the last checkpoint; `None` before the first. Waits out a checkpoint under way.
    #[must_use]
    pub fn pin(&self) -> Option<Pinned> {
        self.0.main.pin(&self.0.files.main)
    }

    /// The lowest position of a pin that lives: whoever reads that snapshot will need the log from there on.
    #[must_use]
    pub fn oldest_pin(&self) -> Option<Position> {
        self.0.main.oldest_pin()
    }

    /// Bytes that copies may take on the database's disk, beside what the log needs to go on.
    #[must_use]
    pub fn spare_bytes(&self) -> u64 {
        crate::files::layout::spare_bytes(&self.0.files.dir)
    }

    /// Where a received snapshot is to be written before [`Database::install`]; removed at open.
    #[must_use]
    pub fn incoming_path(&self) -> PathBuf {
        self.0.files.snapshot.clone()
    }

    /// Replaces the database by the file at [`Database::incoming_path`], which equals `position`. Durable when it returns.
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

    /// Why no entry is applied now, although nothing has failed for good: the disk is full. It goes on by itself when there is
    /// room.
    #[must_use]
    pub fn waiting(&self) -> Option<String> {
        self.0.progress.meters.disk_wait.waiting()
    }

    /// Ends whatever runs on the writer's thread, as far as SQLite can be stopped. What was being applied is undone and gives
    /// [`Fatal`]; the caller's log brings it again. Only before [`Database::close`].
    pub fn interrupt(&self) {
        self.0.progress.meters.disk_wait.interrupt();
    }

    /// Pages of the database after the last applied run, and the size of a page.
    #[must_use]
    pub fn pages(&self) -> (u32, u32) {
        self.0.progress.pages()
    }

    /// Checks that a file is a sound SQLite database that [`crate::LoadContent::File`] may carry: header, opens,
    /// `integrity_check`. An index that does not fit its table would otherwise fail statements later.
    ///
    /// # Errors
    /// Says what is wrong with it. Blocks for about as long as it takes to read the file once for each of its indexes: call it from a
    /// blocking thread.
    pub fn validate_file(path: &Path) -> Result<(), String> {
        replace::validate(path, CheckDepth::Buffered).map_err(replace::InvalidFile::text)
    }

    /// Checks that a file is a script that [`crate::LoadContent::Script`] may carry: every node holds one statement of it in memory.
    ///
    /// # Errors
    /// Says what is wrong with it. Blocks: call it from a blocking thread.
    pub fn validate_script(path: &Path) -> Result<(), String> {
        load::validate_script(path)
    }

    /// Writes a consistent copy of the current database to `to` (created, not synced). Blocks.
    ///
    /// # Errors
    /// Text for the client.
    pub fn backup(&self, format: &BackupFormat, to: &Path) -> Result<(), String> {
        self.backup_cancellable(format, to, &Cancellation::default())
    }

    /// The same, ended when whoever waits for it goes away, or by [`Database::kill`].
    ///
    /// # Errors
    /// Text for the client.
    pub fn backup_cancellable(
        &self,
        format: &BackupFormat,
        to: &Path,
        watched: &Cancellation,
    ) -> Result<(), String> {
        backup::write(&self.0, format, to, watched)
    }

    /// Reads and backups that are running, the oldest first, at most `limit`. Those on their callers' threads are too short to be listed.
    #[must_use]
    pub fn running(&self, limit: usize) -> Vec<RunningRead> {
        self.0.readers.running(limit)
    }

    /// Ends one of [`Database::running`]; `false` if it is not running any more.
    #[must_use]
    pub fn kill(&self, id: u64) -> bool {
        self.0.readers.kill(id)
    }

    /// SQLite's part of `/status` (`store.sqlite3`), as JSON. Blocks for about a millisecond.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        status::status(&self.0)
    }

    /// Stops the threads after the work they hold; no checkpoint. Waits for them.
    pub fn close(&self) {
        self.0.close();
    }
}
