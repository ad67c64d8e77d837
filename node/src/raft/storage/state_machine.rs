//! The state machine: openraft's trait over `node-db`, without policy. A run of committed entries becomes one
//! call and one transaction; the snapshot is the database's main file, pinned while it is sent.
use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use node_db::{Checkpoint, Database, Entry as DbEntry, Kind, Pinned, ReplyTo, Request, Work};
use openraft::{
    EntryPayload, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    command::{Asked, may_change},
    internode::wire::unstated_is_one,
    local::Local,
    metrics::Counter,
    raft::{
        codec::MembershipRecord,
        types::{
            Applied, CommittedLeaderId, LogId, Member, RaftId, StoredMembership, Types, log_id_of,
            position,
        },
    },
    version,
};

/// openraft's handle.
pub type Raft = openraft::Raft<Types, StateMachine>;

/// openraft's snapshot with our data.
pub type Snapshot = openraft::storage::Snapshot<CommittedLeaderId, RaftId, Member, SnapshotData>;
/// openraft's snapshot description.
pub type SnapshotMeta = openraft::storage::SnapshotMeta<CommittedLeaderId, RaftId, Member>;

/// Entries applied in one transaction. A run of this length takes some milliseconds; a longer one would only
/// delay the first response.
const MAX_RUN: usize = 64;

/// What a snapshot is made of.
#[derive(Debug)]
pub enum SnapshotData {
    /// A local snapshot to send: the pinned main file.
    Pinned(Pinned),
    /// A received snapshot, complete and synced at the database's incoming path.
    Incoming {
        /// The format version in effect at its position.
        format_version: u16,
    },
}

/// Progress of the state machine, readable without a request to openraft.
#[derive(Debug, Default)]
pub struct Progress {
    /// Index of the last applied entry that carried client requests.
    pub command_index: AtomicU64,
    /// Index of the last applied entry that may have changed the database; 0 if none has.
    pub changed_index: AtomicU64,
    /// When that entry was applied here, microseconds since the Unix epoch.
    pub applied_unix_micros: AtomicU64,
    /// The leader's timestamp in that entry, microseconds since the Unix epoch.
    pub stamped_unix_micros: AtomicU64,
    /// Index of the last applied entry that completed a load.
    pub load_index: AtomicU64,
    /// The newest committed membership that this node knows.
    membership: Mutex<StoredMembership>,
}

impl Progress {
    /// The newest committed membership that this node knows.
    pub fn membership(&self) -> StoredMembership {
        self.membership.lock().clone()
    }

    /// Whether data of clients, or a whole load, was applied since the start.
    pub fn has_data(&self) -> bool {
        self.command_index.load(Ordering::Acquire) > 0
            || self.load_index.load(Ordering::Acquire) > 0
    }

    fn note_membership(&self, membership: &StoredMembership) {
        *self.membership.lock() = membership.clone();
    }
}

/// The state machine.
#[derive(Debug)]
pub struct StateMachine {
    db: Database,
    membership: StoredMembership,
    /// The last applied entry.
    applied: Option<LogId>,
    progress: Arc<Progress>,
    local: Arc<Local>,
}

impl StateMachine {
    /// Creates the state machine over an open database, at the position that was recovered with it.
    ///
    /// # Errors
    /// Metadata that is not a membership.
    pub fn new(
        db: Database,
        recovered: &node_db::Recovered,
        progress: Arc<Progress>,
        local: Arc<Local>,
    ) -> io::Result<Self> {
        let membership = decode_meta(&recovered.meta)?;
        progress.note_membership(&membership);
        local.set_format_version(known_version(format_version_of(&recovered.meta))?);
        Ok(Self {
            db,
            membership,
            applied: recovered.position.map(log_id_of),
            progress,
            local,
        })
    }

    fn meta(&self) -> io::Result<Bytes> {
        encode_meta(&self.membership, self.local.format_version())
    }

    /// Applies the collected entries and responds.
    async fn apply_run(
        &mut self,
        run: Vec<DbEntry>,
        responders: &mut VecDeque<Option<ApplyResponder<Types>>>,
    ) -> io::Result<()> {
        let first = run.first().map(|e| e.position);
        let last = run.last().map(|e| e.position);
        self.note_progress(&run);
        let (changed, loaded) = (last_change(&run), last_load(&run));
        let failed_before = self.db.failed_statements();
        let outcomes = match self.db.apply(run).await {
            Ok(Ok(outcomes)) => outcomes,
            // The index is the argument of `rqlited inspect --entry` and `skip-entry`.
            Ok(Err(fatal)) => {
                return Err(io::Error::other(format!(
                    "applying the entries from index {} to {}: {fatal}",
                    first.map_or(0, |p| p.index),
                    last.map_or(0, |p| p.index)
                )));
            }
            Err(_) => return Err(io::Error::other("the database's writer thread has ended")),
        };
        let failed = self.db.failed_statements() - failed_before;
        self.local.metrics.add(Counter::DbExecutionErrors, failed);
        if let Some(last) = last {
            self.applied = Some(log_id_of(last));
        }
        // Only now: whoever copies the database after reading them must find these entries in the copy.
        if let Some(index) = changed {
            let changed_index = &self.progress.changed_index;
            changed_index.store(index, Ordering::Release);
        }
        if let Some(index) = loaded {
            self.progress.load_index.store(index, Ordering::Release);
        }
        for (outcome, responder) in outcomes.into_iter().zip(responders.drain(..)) {
            if let Some(responder) = responder {
                responder.send(Applied(outcome));
            }
        }
        Ok(())
    }

    fn note_progress(&self, run: &[DbEntry]) {
        for entry in run {
            if let Work::Requests(requests) = &entry.work {
                requests.iter().for_each(|request| self.count(request));
            }
        }
        for entry in run.iter().rev() {
            if let Work::Requests(requests) = &entry.work {
                let stamped = requests.first().map_or(0, |r| r.stamp.unix_micros);
                self.progress
                    .stamped_unix_micros
                    .store(u64::try_from(stamped).unwrap_or(0), Ordering::Relaxed);
                self.progress
                    .applied_unix_micros
                    .store(crate::clock::unix_micros(), Ordering::Relaxed);
                self.progress
                    .command_index
                    .store(entry.position.index, Ordering::Release);
                return;
            }
        }
    }
}

/// Index of the last entry that may change the database.
fn last_change(run: &[DbEntry]) -> Option<u64> {
    let last = run.iter().rev().find(|entry| may_change(&entry.work));
    last.map(|entry| entry.position.index)
}

/// Index of the last entry that completes a load.
fn last_load(run: &[DbEntry]) -> Option<u64> {
    let completes =
        |entry: &&DbEntry| matches!(&entry.work, Work::Load(chunk) if chunk.finish.is_some());
    let last = run.iter().rev().find(completes);
    last.map(|entry| entry.position.index)
}

impl StateMachine {
    /// Pins on a thread that may wait for a checkpoint to end; the current thread also sends heartbeats.
    async fn pin(&self) -> Option<Pinned> {
        let db = self.db.clone();
        let pinned = tokio::task::spawn_blocking(move || db.pin()).await;
        pinned.ok().flatten()
    }

    fn count(&self, request: &Request) {
        let statements = request.statements.len() as u64;
        let (done, transactions) = match request.kind {
            Kind::Execute | Kind::ExecutePlain => {
                (Counter::DbExecutions, Counter::DbExecuteTransactions)
            }
            Kind::Query => (Counter::DbQueries, Counter::DbQueryTransactions),
            Kind::Unified | Kind::UnifiedPlain => {
                (Counter::DbExecutions, Counter::DbRequestTransactions)
            }
        };
        self.local.metrics.add(done, statements);
        if matches!(request.kind, Kind::Unified | Kind::UnifiedPlain) {
            self.local.metrics.add(Counter::DbRequests, statements);
        }
        if request.transaction {
            self.local.metrics.count(transactions);
        }
    }
}

/// What the database stores for Raft besides its position, as bytes: a membership, then the format version in
/// effect. Nodes of version 1 write and read only the membership.
#[derive(Serialize, Deserialize)]
struct Meta {
    membership: MembershipRecord,
    #[serde(deserialize_with = "unstated_is_one")]
    format_version: u16,
}

/// Encodes the database's metadata.
///
/// # Errors
/// Only if serialization itself fails, which the types exclude.
pub fn encode_meta(membership: &StoredMembership, format_version: u16) -> io::Result<Bytes> {
    let meta = Meta {
        membership: MembershipRecord::new(membership.membership(), membership.log_id().as_ref()),
        format_version,
    };
    postcard::to_stdvec(&meta)
        .map(Bytes::from)
        .map_err(io::Error::other)
}

/// The format version in effect, from the database's metadata.
pub fn format_version_of(meta: &[u8]) -> u16 {
    postcard::from_bytes(meta).map_or(version::OLDEST, |meta: Meta| meta.format_version)
}

/// `version`, if this program supports it.
fn known_version(version: u16) -> io::Result<u16> {
    if version <= version::NEWEST {
        return Ok(version);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the cluster uses format version {version}, this rqlited speaks up to {}: run a newer one",
            version::NEWEST
        ),
    ))
}

/// Decodes the membership in the database's metadata; empty metadata means no membership.
pub fn decode_meta(meta: &[u8]) -> io::Result<StoredMembership> {
    if meta.is_empty() {
        return Ok(StoredMembership::default());
    }
    let record: MembershipRecord =
        postcard::from_bytes(meta).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    record
        .stored()
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        let mut run = Vec::new();
        let mut responders = VecDeque::new();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let mut reply_to = if responder.is_some() {
                ReplyTo::Caller
            } else {
                ReplyTo::Nobody
            };
            let work = match &entry.payload {
                EntryPayload::Blank => Work::Nothing,
                EntryPayload::Membership(m) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), m.clone());
                    self.progress.note_membership(&self.membership);
                    Work::Meta(self.meta()?)
                }
                EntryPayload::Normal(command) => {
                    if let Some(deliver) = command.take_deliver() {
                        let index = entry.log_id.index;
                        reply_to =
                            ReplyTo::Deliver(Box::new(move |outcomes| deliver(outcomes, index)));
                    } else {
                        // The entry came from the log or from another node, as bytes.
                        self.local.metrics.count(Counter::ProtoNumRequestsDecoded);
                    }
                    match command.take_command().map_err(io::Error::other)?.asks() {
                        Asked::Work(work) => work,
                        Asked::Version(version) => {
                            // Set at once: the entry is committed, and its proposer continues when it is
                            // applied.
                            let version = known_version(version)?;
                            let raised = version.max(self.local.format_version());
                            self.local.set_format_version(raised);
                            tracing::info!(target: "store", "the cluster uses format version {raised}");
                            Work::Meta(self.meta()?)
                        }
                    }
                }
            };
            run.push(DbEntry {
                position: position(&entry.log_id),
                work,
                reply_to,
            });
            responders.push_back(responder);
            if run.len() >= MAX_RUN {
                self.apply_run(std::mem::take(&mut run), &mut responders)
                    .await?;
            }
        }
        if !run.is_empty() {
            self.apply_run(run, &mut responders).await?;
        }
        Ok(())
    }

    /// Checkpoints here, between two runs, so that a database that cannot do so now (a transfer, a load, a
    /// long read) defers the snapshot instead of failing it: a builder that fails ends the node.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        match self.db.checkpoint().await {
            Ok(Ok(Checkpoint::Done(_) | Checkpoint::Unchanged(_))) => {}
            Ok(Ok(Checkpoint::Busy(why))) => {
                tracing::debug!(target: "store", "checkpoint deferred: {why}")
            }
            // The next `apply` reports the error and ends the node.
            Ok(Err(fatal)) => tracing::error!(target: "store", "checkpoint: {fatal}"),
            Err(_) => tracing::error!(target: "store", "the database's writer thread has ended"),
        }
        let pinned = self.pin().await;
        (force || pinned.is_some()).then_some(Builder { pinned })
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            pinned: self.pin().await,
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let SnapshotData::Incoming { format_version } = snapshot else {
            // openraft calls this at start if the snapshot is newer than the state machine; here both are the
            // same file.
            return Ok(());
        };
        let Some(last) = meta.last_log_id else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "snapshot without a position",
            ));
        };
        let format_version = known_version(format_version)?;
        let encoded = encode_meta(&meta.last_membership, format_version)?;
        let started = Instant::now();
        let installed = match self.db.install(position(&last), encoded).await {
            Ok(result) => result.map_err(io::Error::other),
            Err(_) => Err(io::Error::other("the database's writer thread has ended")),
        };
        if installed.is_err() {
            self.local.metrics.count(Counter::StoreNumRestoresFailed);
        }
        installed?;
        self.local.metrics.count(Counter::StoreNumRestores);
        self.local.metrics.count(Counter::SnapshotSinkFull);
        self.local
            .metrics
            .set_duration(Counter::StoreRestoreDuration, started.elapsed());
        self.local.set_format_version(format_version);
        self.membership = meta.last_membership.clone();
        self.progress.note_membership(&self.membership);
        self.progress
            .changed_index
            .store(last.index, Ordering::Release);
        self.applied = Some(last);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.pin().await.map(snapshot_of).transpose()
    }
}

fn snapshot_of(pinned: Pinned) -> io::Result<Snapshot> {
    let meta = SnapshotMeta {
        last_log_id: Some(log_id_of(pinned.position)),
        last_membership: decode_meta(&pinned.meta)?,
    };
    Ok(Snapshot {
        meta,
        snapshot: SnapshotData::Pinned(pinned),
    })
}

/// A snapshot that already exists: a pinned checkpoint.
#[derive(Debug)]
pub struct Builder {
    pinned: Option<Pinned>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let pinned = self
            .pinned
            .take()
            .ok_or_else(|| io::Error::other("no checkpoint to make a snapshot of"))?;
        snapshot_of(pinned)
    }
}
