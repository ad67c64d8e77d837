//! Replays committed entries on a base by the same `node-db` that applies them in a node, so that the result
//! is the database as it was after the last of them.
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use node_db::{
    Checkpoint, ContentHash, Database, Entry, Hashing, Outcome, Position, ReplyTo, Urgency, Work,
    offline,
};
use tempfile::TempDir;

use crate::{
    command::{Asked, Command, Encoded},
    version,
};

/// Entries applied in one transaction, as in a node.
const MAX_RUN: usize = 64;
/// Bytes of entries collected before they are applied. A load has entries of 1 MiB.
const MAX_RUN_BYTES: usize = 8 << 20;
/// Size of the WAL from which a checkpoint is made.
const WAL_BYTES: u64 = 64 << 20;
/// Interval of checking a checkpoint or hash that is running.
const POLL: Duration = Duration::from_millis(50);
/// Attempts of the last checkpoint. Nothing reads the database, so the first should succeed.
const CHECKPOINT_ATTEMPTS: u32 = 200;

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// An entry cannot be applied by this program.
    #[error("entry {index}: {why}")]
    Entry {
        /// Its index.
        index: u64,
        /// The reason, as text for people.
        why: String,
    },
    /// The scratch directory or the database failed.
    #[error("{0}")]
    Machine(String),
}

impl ReplayError {
    fn io(doing: &str, dir: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{doing} {}", dir.display());
        move |error| Self::Machine(format!("{what}: {error}"))
    }
}

/// A scratch database on which entries are replayed. Its directory is deleted when this is dropped.
#[derive(Debug)]
pub struct Replay {
    db: Database,
    dir: TempDir,
    run: Vec<Entry>,
    run_bytes: usize,
    last: Option<Position>,
    /// The load whose pieces came last.
    load: Option<u64>,
    format_version: u16,
}

impl Replay {
    /// Creates an empty scratch database in a new directory inside `parent`, which should be on the disk of
    /// the result.
    ///
    /// # Errors
    /// The file system's or SQLite's error.
    pub fn begin(parent: &Path, foreign_keys: bool) -> Result<Self, ReplayError> {
        let dir = tempfile::Builder::new()
            .prefix(".rqlited-restore-")
            .tempdir_in(parent)
            .map_err(ReplayError::io("creating a directory in", parent))?;
        let options = node_db::Options {
            dir: dir.path().to_owned(),
            foreign_keys,
            readers: 1,
            max_readers: 1,
            slow_statement: None,
        };
        let (db, _) = Database::open(options).map_err(|e| ReplayError::Machine(e.to_string()))?;
        Ok(Self {
            db,
            dir,
            run: Vec::new(),
            run_bytes: 0,
            last: None,
            load: None,
            format_version: version::OLDEST,
        })
    }

    /// Where to write the base's database file before [`Self::install`].
    pub fn base_path(&self) -> PathBuf {
        self.db.incoming_path()
    }

    /// Begins with the file at [`Self::base_path`], which is the database as of `position`.
    ///
    /// # Errors
    /// The file is not a database, or has a newer format version; or the file system's error.
    pub async fn install(
        &mut self,
        position: Position,
        format_version: u16,
    ) -> Result<(), ReplayError> {
        self.take_version(position.index, format_version)?;
        match self.db.install(position, Bytes::new()).await {
            Ok(Ok(())) => {}
            Ok(Err(fatal)) => {
                return Err(ReplayError::Entry {
                    index: position.index,
                    why: fatal.to_string(),
                });
            }
            Err(_) => return Err(ended()),
        }
        self.last = Some(position);
        Ok(())
    }

    /// The last entry that was passed to [`Self::apply`], or the base's.
    pub fn position(&self) -> Option<Position> {
        self.last
    }

    /// Applies the next entry, now or together with later ones. Without a command it only advances the
    /// position.
    ///
    /// # Errors
    /// The entry is out of order or of a newer format version; or the file system's error.
    pub async fn apply(
        &mut self,
        position: Position,
        command: Option<Bytes>,
    ) -> Result<(), ReplayError> {
        self.push(position, command, ReplyTo::Nobody)?;
        if self.run.len() >= MAX_RUN || self.run_bytes >= MAX_RUN_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Applies the next entry at once and returns its outcomes.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub async fn apply_and_report(
        &mut self,
        position: Position,
        command: Option<Bytes>,
    ) -> Result<Vec<Outcome>, ReplayError> {
        self.flush().await?;
        self.push(position, command, ReplyTo::Caller)?;
        let outcomes = self.flush().await?;
        Ok(outcomes.into_iter().next().unwrap_or_default())
    }

    fn push(
        &mut self,
        position: Position,
        command: Option<Bytes>,
        reply_to: ReplyTo,
    ) -> Result<(), ReplayError> {
        let refuse = |why: String| ReplayError::Entry {
            index: position.index,
            why,
        };
        if let Some(last) = self.last
            && (position.index != last.index.saturating_add(1) || position.term < last.term)
        {
            return Err(refuse(format!(
                "it cannot follow entry {} of term {}",
                last.index, last.term
            )));
        }
        let bytes = command.as_ref().map_or(0, Bytes::len);
        let work = match command {
            None => Work::Nothing,
            Some(bytes) => {
                let command = Encoded::from_bytes(bytes).take_command();
                self.work(position.index, command.map_err(|e| refuse(e.to_string()))?)?
            }
        };
        self.run.push(Entry {
            position,
            work,
            reply_to,
        });
        self.run_bytes = self.run_bytes.saturating_add(bytes);
        self.last = Some(position);
        Ok(())
    }

    fn work(&mut self, index: u64, command: Command) -> Result<Work, ReplayError> {
        Ok(match command.asks() {
            Asked::Version(version) => {
                self.take_version(index, version)?;
                Work::Nothing
            }
            // Hashing changes nothing. If a hash is to be compared, `content_hash` computes it.
            Asked::Work(Work::HashContent) => Work::Nothing,
            Asked::Work(work) => {
                if let Work::Load(chunk) = &work {
                    self.load = chunk.finish.is_none().then_some(chunk.load_id);
                }
                work
            }
        })
    }

    fn take_version(&mut self, index: u64, version: u16) -> Result<(), ReplayError> {
        if version > version::NEWEST {
            return Err(ReplayError::Entry {
                index,
                why: format!(
                    "it is of format version {version}, this rqlited knows up to {}: use a newer rqlited",
                    version::NEWEST
                ),
            });
        }
        self.format_version = self.format_version.max(version);
        Ok(())
    }

    /// Applies the collected entries.
    async fn flush(&mut self) -> Result<Vec<Vec<Outcome>>, ReplayError> {
        let run = std::mem::take(&mut self.run);
        self.run_bytes = 0;
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(Vec::new());
        };
        let (first, last) = (first.position.index, last.position.index);
        let mut applied = self.db.apply(run);
        let applied = loop {
            if let Ok(applied) = tokio::time::timeout(POLL, &mut applied).await {
                break applied;
            }
            // If the disk is full, a node waits for space. A restore fails instead, because nothing depends
            // on it yet.
            if let Some(why) = self.db.waiting() {
                self.db.interrupt();
                return Err(ReplayError::Machine(format!(
                    "replaying entries {first} to {last}: {why}"
                )));
            }
        };
        let outcomes = match applied {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(fatal)) => {
                return Err(ReplayError::Machine(format!(
                    "replaying entries {first} to {last}: {fatal}"
                )));
            }
            Err(_) => return Err(ended()),
        };
        if self.db.wal_bytes() >= WAL_BYTES {
            // While the pieces of a load are collected there is no checkpoint; they do not go through the
            // WAL.
            self.checkpoint().await?;
        }
        Ok(outcomes)
    }

    async fn checkpoint(&self) -> Result<Checkpoint, ReplayError> {
        match self.db.checkpoint_with(Urgency::Must).await {
            Ok(Ok(checkpoint)) => Ok(checkpoint),
            Ok(Err(fatal)) => Err(ReplayError::Machine(fatal.to_string())),
            Err(_) => Err(ended()),
        }
    }

    /// The hash of the content after the last entry.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub async fn content_hash(&mut self) -> Result<ContentHash, ReplayError> {
        self.flush().await?;
        let Some(position) = self.last else {
            return Err(ReplayError::Machine("there is no database yet".into()));
        };
        let hash = Entry {
            position,
            work: Work::HashContent,
            reply_to: ReplyTo::Nobody,
        };
        match self.db.apply(vec![hash]).await {
            Ok(Ok(_)) => {}
            Ok(Err(fatal)) => return Err(ReplayError::Machine(fatal.to_string())),
            Err(_) => return Err(ended()),
        }
        loop {
            match self.db.hashing() {
                Some((_, Hashing::Done(hash))) => return Ok(hash),
                Some((_, Hashing::Failed(why))) => {
                    return Err(ReplayError::Machine(format!("hashing the content: {why}")));
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Ends the replay. The result is one SQLite file in DELETE journal mode, durable and checked by
    /// `integrity_check`, in the scratch directory, which exists as long as the returned value.
    ///
    /// # Errors
    /// As [`Self::apply`], or the check finds damage.
    pub async fn finish(mut self) -> Result<Restored, ReplayError> {
        self.flush().await?;
        if let (Some(load), Some(position)) = (self.load, self.last) {
            // The point is between the pieces of a load, which takes effect with its last piece: abort the
            // load.
            let abort = Entry {
                position,
                work: Work::LoadAbort(load),
                reply_to: ReplyTo::Nobody,
            };
            match self.db.apply(vec![abort]).await {
                Ok(Ok(_)) => {}
                Ok(Err(fatal)) => return Err(ReplayError::Machine(fatal.to_string())),
                Err(_) => return Err(ended()),
            }
        }
        let mut attempts = 0;
        while let Checkpoint::Busy(why) = self.checkpoint().await? {
            attempts += 1;
            if attempts >= CHECKPOINT_ATTEMPTS {
                return Err(ReplayError::Machine(format!(
                    "finishing the database: {why}"
                )));
            }
            tokio::time::sleep(POLL).await;
        }
        let Self { db, dir, last, .. } = self;
        let released = tokio::task::spawn_blocking(move || {
            db.close();
            drop(db);
            let path = offline::release(dir.path()).map_err(|e| e.to_string())?;
            Database::validate_file(&path)
                .map_err(|why| format!("the restored database is damaged: {why}"))?;
            let bytes = File::open(&path).and_then(|file| file.metadata());
            let bytes = bytes.map_err(|e| e.to_string())?.len();
            Ok((path, dir, bytes))
        });
        let released = released.await.unwrap_or_else(|e| Err(e.to_string()));
        let (path, dir, bytes) = released.map_err(ReplayError::Machine)?;
        Ok(Restored {
            path,
            bytes,
            position: last.unwrap_or_default(),
            _dir: dir,
        })
    }
}

/// A restored database file in its scratch directory.
#[derive(Debug)]
pub struct Restored {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// The last entry that it contains.
    pub position: Position,
    _dir: TempDir,
}

fn ended() -> ReplayError {
    ReplayError::Machine("the scratch database's thread has ended".into())
}

#[cfg(test)]
mod tests;
