//! The Raft log on disk: openraft's storage trait over the `raft-log` crate, without policy.
//!
//! All writes pass one mutex in openraft's order, so a vote and the entries after it reach the disk in that
//! order. An entry is reported as flushed only from the callback after fdatasync. Any I/O error goes to
//! openraft, which stops, and the process ends with it: an fsync that has failed once proves nothing when it
//! succeeds later.
mod integrity;
mod last_change;
mod record;
mod synced;

use std::{
    fmt::Debug,
    fs::File,
    io::{self, Read, Write},
    ops::{Bound, RangeBounds},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use node_db::durable;
use openraft::{
    EntryPayload, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use parking_lot::{Mutex, MutexGuard};
use raft_log::{
    ChunkId, RaftLog,
    api::raft_log_writer::RaftLogWriter,
    chunked_wal::Config,
    codeq::{Decode, Encode, OffsetSize},
};
use tokio::sync::oneshot;

use self::{
    integrity::{Sound, classify},
    synced::Synced,
};
use super::pending_writes::{LogFacts, PendingWrites};
use crate::raft::{
    codec::{Id, PayloadRecord, VoteRecord, from_id, id},
    types::{Entry, LogId, Payload, Types, Vote},
};

/// Size of one chunk file. Purging deletes whole chunks; a restart reads all of them.
const CHUNK_MAX_BYTES: usize = 4 << 20;
/// Cache of payloads beyond the open chunk, for followers that are nearly caught up.
const CACHE_MAX_BYTES: usize = 4 << 20;
/// Replay buffer; the crate's default of 64 MiB would be most of this process's memory.
const READ_BUFFER_BYTES: usize = 1 << 20;
/// Limit in bytes of the entries in one append to a follower; there is no other.
const READ_MAX_BYTES: usize = 4 << 20;
/// Limit in entries of one append to a follower; each packs up to 512 requests.
const READ_MAX_ENTRIES: u64 = 64;

/// Type parameters of the log crate.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LogTypes;

impl raft_log::Types for LogTypes {
    type LogId = Id;
    type LogPayload = StoredPayload;
    type Vote = StoredVote;
    type Callback = SyncCallback;
    type UserData = String;

    fn log_index(log_id: &Id) -> u64 {
        log_id.1
    }

    fn payload_size(payload: &StoredPayload) -> u64 {
        match &payload.0 {
            EntryPayload::Normal(command) => command.bytes().len() as u64 + 64,
            EntryPayload::Blank | EntryPayload::Membership(_) => 256,
        }
    }
}

/// A payload in the log's framing: length, then postcard. In memory it keeps the decoded command until it is
/// applied, so that the node that encoded an entry applies it without decoding.
#[derive(Clone, Debug)]
pub struct StoredPayload(pub(super) Payload);

/// A vote in the log's framing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVote(pub(super) VoteRecord);

impl PartialOrd for StoredVote {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.0.partial_cmp(&other.0)
    }
}

fn encode_sized<T: serde::Serialize, W: Write>(value: &T, mut writer: W) -> io::Result<usize> {
    let bytes = postcard::to_stdvec(value).map_err(invalid)?;
    let length = u32::try_from(bytes.len()).map_err(invalid)?;
    writer.write_all(&length.to_be_bytes())?;
    writer.write_all(&bytes)?;
    Ok(4 + bytes.len())
}

fn decode_sized<T: serde::de::DeserializeOwned, R: Read>(mut reader: R) -> io::Result<T> {
    let mut length = [0; 4];
    reader.read_exact(&mut length)?;
    let length = u64::from(u32::from_be_bytes(length));
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    postcard::from_bytes(&bytes).map_err(invalid)
}

fn invalid<E: std::error::Error + Send + Sync + 'static>(e: E) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

impl Encode for StoredPayload {
    fn encode<W: Write>(&self, writer: W) -> io::Result<usize> {
        encode_sized(&PayloadRecord::from(&self.0), writer)
    }
}

impl Decode for StoredPayload {
    fn decode<R: Read>(reader: R) -> io::Result<Self> {
        let record: PayloadRecord = decode_sized(reader)?;
        record.payload().map(Self).map_err(invalid)
    }
}

impl Encode for StoredVote {
    fn encode<W: Write>(&self, writer: W) -> io::Result<usize> {
        encode_sized(&self.0, writer)
    }
}

impl Decode for StoredVote {
    fn decode<R: Read>(reader: R) -> io::Result<Self> {
        decode_sized(reader).map(Self)
    }
}

/// Who waits for a sync of the log.
enum Waiter {
    /// openraft, about appended entries.
    Entries(IOFlushed<Types>, PendingWrites),
    /// A waiting caller.
    Caller(oneshot::Sender<io::Result<()>>, PendingWrites),
    /// A waiting thread, where no runtime exists yet.
    Thread(mpsc::SyncSender<io::Result<()>>),
}

/// The callback at the end of a sync of the log.
pub struct SyncCallback {
    waiter: Waiter,
    /// The end of the synced log, and the mark in which it is noted.
    end: u64,
    synced: Synced,
}

impl raft_log::Callback for SyncCallback {
    fn send(self, result: io::Result<()>) {
        let is_synced = result.is_ok();
        match self.waiter {
            Waiter::Entries(flushed, writes) => {
                writes.end();
                flushed.io_completed(result);
            }
            Waiter::Caller(caller, writes) => {
                writes.end();
                let _ = caller.send(result);
            }
            Waiter::Thread(thread) => raft_log::Callback::send(thread, result),
        }
        // Written after the waiter was notified: the mark is evidence for the next start, and
        // acknowledgements do not depend on it.
        if is_synced {
            self.synced.note(self.end);
        }
    }
}

/// The log; cheap to clone, and all clones are the same log.
#[derive(Clone, Debug)]
pub struct Log {
    log: Arc<Mutex<RaftLog<LogTypes>>>,
    writes: PendingWrites,
    synced: Synced,
}

/// Why a log cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An I/O error, or another process holds the log.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A part that had been synced is damaged, so acknowledged entries may be missing.
    #[error(
        "the Raft log is damaged: {}, at offset {offset}: {what}; acknowledged writes may be in what is damaged, so nothing is dropped and nothing was changed. \
         Restore the file from a copy; or, if the cluster's other nodes hold the data, give this node an empty data directory and let it join again \
         (remove it from the cluster first if it is to come back under another name); or restore a backup into an empty data directory", file.display()
    )]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// The offset in it.
        offset: u64,
        /// The kind of damage.
        what: String,
    },
}

impl From<OpenError> for io::Error {
    fn from(e: OpenError) -> Self {
        match e {
            OpenError::Io(e) => e,
            OpenError::Damaged { .. } => Self::new(io::ErrorKind::InvalidData, e),
        }
    }
}

/// Describes what the next opening drops: a write that a crash cut short before it was acknowledged. `None`
/// for a log with an intact end.
///
/// # Errors
/// Damage, or an I/O error.
pub fn torn_tail(dir: &Path) -> Result<Option<String>, OpenError> {
    Ok(describe_cut(dir, &classify_dir(dir)?))
}

impl Log {
    /// Opens or creates the log in `dir`. The remains of a write whose sync never ended are cut off (it was
    /// never acknowledged); damage anywhere else is an error (`integrity.rs`).
    ///
    /// # Errors
    /// Damage, a lock held by another process, or an I/O error.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with_files_of(dir, CHUNK_MAX_BYTES)
    }

    fn open_with_files_of(dir: &Path, max_bytes: usize) -> Result<Self, OpenError> {
        durable::create_dir_all(dir)?;
        let sound = classify_dir(dir)?;
        repair(dir, &sound)?;
        let mut config = raft_log::Config::new(dir.display());
        config.wal.chunk_max_size = Some(max_bytes);
        config.wal.read_buffer_size = Some(READ_BUFFER_BYTES);
        // The crate treats every record that reaches past the end as torn, even one with a damaged length.
        config.wal.truncate_incomplete_record = Some(false);
        // The proposer batches; a timer here would only add latency.
        config.wal.flush_batch_wait = Some(Duration::ZERO);
        config.log_cache_capacity = Some(CACHE_MAX_BYTES);
        let log = RaftLog::open(Arc::new(config))?;
        check_for_holes(dir, &log)?;
        let writes = PendingWrites::default();
        writes.note(facts(&log));
        Ok(Self {
            log: Arc::new(Mutex::new(log)),
            writes,
            synced: Synced::begin(dir, sound.end)?,
        })
    }

    /// Passes buffered writes (commit marks) to the operating system without syncing: they survive this
    /// process, but not a power cut.
    ///
    /// # Errors
    /// The disk refused.
    pub fn hand_to_system(&self) -> io::Result<()> {
        self.lock().flush(false, None)
    }

    /// Checks that the log begins at or before the position of the database; otherwise one of the two is of
    /// another time. `database` is the position of the database's main file.
    ///
    /// # Errors
    /// Says what is wrong and what to do.
    pub fn check_continuity(&self, database: Option<node_db::Position>) -> Result<(), String> {
        let at = database.map_or(0, |p| p.index);
        if at > 0 && self.vote().is_none() {
            return Err(format!(
                "the database is at index {at} but the Raft log holds no vote: the log was lost or cut, and with it possibly acknowledged writes; \
                 restore the log's files, or give this node an empty data directory and let it join again"
            ));
        }
        match self.purged() {
            Some(purged) if purged.1 > at => Err(format!(
                "the database is at index {at} but the Raft log begins after {}: the database files are older than the log; \
                 restore both together, or give this node an empty data directory and let it join again",
                purged.1
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the log holds every entry from its beginning up to and including this one, so that the
    /// database can be recreated from it.
    pub fn holds_all_to(&self, position: node_db::Position) -> bool {
        let log = self.lock();
        if log.log_state().purged().is_some() {
            return false;
        }
        let at = log.read(position.index, position.index + 1).next();
        at.is_some_and(|entry| entry.is_ok_and(|(id, _)| id.0 == position.term))
    }

    /// The log's own state is a plain map that each call leaves consistent, and a panic in the middle of a
    /// write ends openraft's core.
    pub(super) fn lock(&self) -> MutexGuard<'_, RaftLog<LogTypes>> {
        self.log.lock()
    }

    /// Size and end of the log; never blocks on the disk.
    pub fn facts(&self) -> LogFacts {
        self.writes.facts()
    }

    /// Age of the oldest write that is not on disk yet.
    pub fn oldest_write_age(&self) -> Option<Duration> {
        self.writes.oldest_age()
    }

    /// First and last index present; `None` if the log is empty.
    pub fn range(&self) -> Option<(u64, u64)> {
        let log = self.lock();
        let last = log.log_state().last()?.1;
        let first = log.log_state().purged().map_or(0, |purged| purged.1 + 1);
        (first <= last).then_some((first, last))
    }

    /// Last purged entry.
    pub fn purged(&self) -> Option<Id> {
        self.lock().log_state().purged().copied()
    }

    /// Last entry, even if it is purged.
    pub fn last(&self) -> Option<Id> {
        self.lock().log_state().last().copied()
    }

    /// Last entry that this node knows to be committed.
    pub fn committed(&self) -> Option<Id> {
        self.lock().log_state().committed().copied()
    }

    /// The vote of this node.
    pub fn vote(&self) -> Option<VoteRecord> {
        self.lock().log_state().vote().map(|vote| vote.0.clone())
    }

    /// Waits until everything written so far, including commit marks, is on disk.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.writes.begin();
        self.flush(
            &mut self.lock(),
            Waiter::Caller(sender, self.writes.clone()),
        )?;
        receiver
            .await
            .map_err(|_| io::Error::other("the log's flush thread has ended"))?
    }

    /// Blocks the thread until everything written so far is on disk.
    pub(super) fn sync_here(&self) -> io::Result<()> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.flush(&mut self.lock(), Waiter::Thread(sender))?;
        receiver
            .recv()
            .map_err(|_| io::Error::other("the log's flush thread has ended"))?
    }

    /// Syncs what has been written. Entries are written and synced under one lock, so no other write comes
    /// between: `integrity.rs` relies on that.
    fn flush(&self, log: &mut RaftLog<LogTypes>, waiter: Waiter) -> io::Result<()> {
        self.writes.note(facts(log));
        // Appending nothing returns the end of the log.
        let end = log.append([])?.end().0;
        let flushed = SyncCallback {
            waiter,
            end,
            synced: self.synced.clone(),
        };
        log.flush(true, Some(flushed))
    }

    pub(super) fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let log = self.lock();
        let mut bytes = 0;
        let mut entries = Vec::new();
        for item in log.read(from, to) {
            let (entry_id, StoredPayload(payload)) = item?;
            if let EntryPayload::Normal(command) = &payload {
                bytes += command.bytes().len();
            }
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(Entry {
                log_id: from_id(entry_id),
                payload,
            });
        }
        Ok(entries)
    }
}

fn facts(log: &RaftLog<LogTypes>) -> LogFacts {
    LogFacts {
        disk_bytes: log.on_disk_size(),
        last: log.log_state().last().copied(),
    }
}

/// The start offsets of the log's files, sorted.
fn files(dir: &Path) -> io::Result<Vec<u64>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        files.extend(Config::parse_chunk_file_name(&name.to_string_lossy()));
    }
    files.sort_unstable();
    Ok(files)
}

fn path_of(dir: &Path, file: u64) -> PathBuf {
    dir.join(Config::chunk_file_name(ChunkId(file)))
}

/// Reads and classifies the whole log. Changes nothing.
fn classify_dir(dir: &Path) -> Result<Sound, OpenError> {
    let synced = synced::read(dir)?;
    let load = |file| std::fs::read(path_of(dir, file));
    classify(&files(dir)?, synced, load)?.map_err(|damage| OpenError::Damaged {
        file: damage
            .file
            .map_or_else(|| dir.to_owned(), |file| path_of(dir, file)),
        offset: damage.offset,
        what: damage.what.to_owned(),
    })
}

/// Cuts off what a crash left of a torn write, and syncs the rest: after the end of a process it may be in
/// the page cache only, and Raft counts it as flushed from now on.
fn repair(dir: &Path, sound: &Sound) -> io::Result<()> {
    if let Some(description) = describe_cut(dir, sound) {
        tracing::warn!(target: "store", "dropped {description}");
    }
    // The newest first, so that a crash in between leaves no gap.
    for file in &sound.remove {
        std::fs::remove_file(path_of(dir, *file))?;
    }
    let Some(newest) = files(dir)?.pop() else {
        return File::open(dir)?.sync_all();
    };
    let file = File::options().write(true).open(path_of(dir, newest))?;
    if let Some((_, length)) = sound.cut {
        file.set_len(length)?;
    }
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

/// Describes the cut, for the log.
fn describe_cut(dir: &Path, sound: &Sound) -> Option<String> {
    let (file, length) = sound
        .cut
        .or_else(|| sound.remove.last().map(|file| (*file, 0)))?;
    (sound.dropped > 0).then(|| {
        format!(
            "{} bytes of a torn record at the end of {}, at offset {length}: a write that a crash cut short before it was acknowledged",
            sound.dropped,
            path_of(dir, file).display()
        )
    })
}

/// Every file states which entries come before it, so a log whose oldest file was lost would seem to hold
/// them.
fn check_for_holes(dir: &Path, log: &RaftLog<LogTypes>) -> Result<(), OpenError> {
    let state = log.log_state();
    let first = state.purged().map_or(0, |purged| purged.1 + 1);
    let Some(last) = state.last().filter(|last| last.1 >= first) else {
        return Ok(());
    };
    match log.read(first, first + 1).next().transpose()? {
        Some(_) => Ok(()),
        None => Err(OpenError::Damaged {
            file: dir.to_owned(),
            offset: 0,
            what: format!(
                "the entries from {first} to {} should be there, but the first of them are not: a file is missing",
                last.1
            ),
        }),
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        if from >= to {
            return Ok(Vec::new());
        }
        self.read(from, to, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.vote().map(Vote::from))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(
            start,
            end.min(start.saturating_add(READ_MAX_ENTRIES)),
            READ_MAX_BYTES,
        )
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let log = self.lock();
        let state = log.log_state();
        Ok(LogState {
            last_purged_log_id: state.purged().copied().map(from_id),
            last_log_id: state.last().copied().map(from_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.lock().save_vote(StoredVote(vote.into()))?;
        self.sync().await
    }

    /// Saved without a flush of its own: the next append carries it. If it is lost, a restarted node only
    /// waits a moment longer for the leader's commit index.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.lock().commit(id(&committed))?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.lock().log_state().committed().copied().map(from_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let records = entries
            .into_iter()
            .map(|e| (id(&e.log_id), StoredPayload(e.payload)));
        self.writes.begin();
        let mut log = self.lock();
        log.append(records)?;
        self.flush(&mut log, Waiter::Entries(callback, self.writes.clone()))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.lock()
            .truncate(last.map_or(0, |last| last.index + 1))?;
        self.sync().await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.lock().purge(id(&upto))?;
        self.sync().await
    }
}
