//! A running Raft node: its parts, assembled, and the questions that the rest of the node asks it.
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::FutureExt;
use node_db::Database;
use openraft::{
    Instant as _, ServerState,
    errors::{InitializeError, RaftError},
    type_config::async_runtime::WatchReceiver,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    archive_hold::ArchiveHold,
    leader::{
        confirm::Confirmation,
        leadership::{self, Leadership},
        proposer::Proposer,
        read_index::{ReadIndex, ReadIndexError},
    },
    network::{client::Network, pipeline::Unsendable, server::Server},
    settings::Settings,
    storage::{
        log::Log,
        logged::Logged,
        state_machine::{Progress, Raft, StateMachine},
    },
    thread::Thread,
    types::{Member, Metrics, RaftId},
};
use crate::{
    disk::{Disk, DiskRefusal},
    local::Local,
    metrics::Counter,
};

/// How often to check whether openraft still runs.
const STOPPED_INTERVAL: Duration = Duration::from_millis(100);
/// Limit for the log's last sync at shutdown. It writes few bytes, so a disk that takes longer hangs.
const LAST_SYNC_LIMIT: Duration = Duration::from_secs(5);

/// A running Raft node over its log and database.
#[derive(Clone, Debug)]
pub struct Consensus {
    pub(super) raft: Raft,
    log: Log,
    db: Database,
    progress: Arc<Progress>,
    proposer: Proposer,
    read_index: ReadIndex,
    leadership: watch::Receiver<Leadership>,
    settings: Settings,
    local: Arc<Local>,
    /// Held during a membership change: openraft takes one at a time, in two steps.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// Time since the last contact with each other member, as the member maintenance last computed it.
    unreachable: Arc<Mutex<BTreeMap<RaftId, Duration>>>,
    /// Appends that are too large for their receiver.
    unsendable: Unsendable,
    disk: Arc<Disk>,
    /// What the log keeps for the archive; set where there is one.
    archive_hold: Arc<OnceLock<Arc<ArchiveHold>>>,
    /// The thread that runs all of this; the last clone keeps it alive.
    thread: Arc<Thread>,
}

impl Consensus {
    /// Starts Raft on an opened log and database.
    ///
    /// # Errors
    /// Stored state that openraft refuses, or an I/O error.
    pub async fn start(
        settings: Settings,
        local: Arc<Local>,
        log: Log,
        db: Database,
        recovered: &node_db::Recovered,
        disk: Arc<Disk>,
    ) -> io::Result<Self> {
        let progress = Arc::new(Progress::default());
        let machine = StateMachine::new(
            db.clone(),
            recovered,
            Arc::clone(&progress),
            Arc::clone(&local),
        )?;
        let config = settings.openraft().map_err(io::Error::other)?;
        let thread = Thread::start()?;
        let unsendable = Unsendable::default();
        let begin = {
            let (local, log, apply_timeout) =
                (Arc::clone(&local), log.clone(), settings.apply_timeout);
            let election_timeout = settings.election_timeout;
            let (disk, unsendable) = (Arc::clone(&disk), unsendable.clone());
            let db = db.clone();
            async move {
                let id = RaftId::from(local.raft_id());
                let network = Network::new(Arc::clone(&local), unsendable);
                let raft = Raft::new(id, config, network.clone(), log.clone(), machine)
                    .await
                    .map_err(io::Error::other)?;
                let leadership = leadership::watch(&raft, &local, election_timeout);
                let proposer = Proposer::start(
                    raft.clone(),
                    leadership.clone(),
                    (disk, db),
                    &local,
                    apply_timeout,
                );
                let confirmation = Confirmation::new(raft.clone(), log, network);
                let read_index = ReadIndex::start(raft.clone(), confirmation);
                io::Result::Ok((raft, leadership, proposer, read_index))
            }
        };
        let (raft, leadership, proposer, read_index) = thread.run(begin).await??;
        Ok(Self {
            disk,
            thread: Arc::new(thread),
            raft,
            log,
            db,
            progress,
            proposer,
            read_index,
            leadership,
            settings,
            local,
            changing: Arc::default(),
            unreachable: Arc::default(),
            unsendable,
            archive_hold: Arc::default(),
        })
    }

    /// Finds in the log which entry up to `position` was the last to change the database, for
    /// [`Progress::changed_index`]. Reads the log backwards, perhaps far: only where that index is needed.
    pub fn recall_last_change(&self, position: node_db::Position) {
        let changed = self.log.last_change(position.index);
        self.progress
            .changed_index
            .fetch_max(changed, std::sync::atomic::Ordering::AcqRel);
    }

    /// From now on the log keeps what is not archived. Called once, before the first checkpoint.
    pub fn hold_log(&self, hold: Arc<ArchiveHold>) {
        let _ = self.archive_hold.set(hold);
    }

    pub(super) fn archive_hold(&self) -> Option<&Arc<ArchiveHold>> {
        self.archive_hold.get()
    }

    /// Applied entries from `from` on, as many as fit in `max_bytes` but at least one. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn applied_entries(&self, from: u64, max_bytes: usize) -> io::Result<Logged> {
        self.log.logged(from, self.applied_index(), max_bytes)
    }

    /// The first applied entry after `after` that may have changed the database. Blocks on the disk.
    ///
    /// # Errors
    /// The log does not reach back so far, or the disk's.
    pub fn change_after(&self, after: u64) -> io::Result<Option<u64>> {
        self.log.change_after(after, self.applied_index())
    }

    /// Packs and proposes commands.
    pub fn proposer(&self) -> &Proposer {
        &self.proposer
    }

    /// Whether the disk responds. Does not ask Raft, which may be blocked on the disk itself.
    ///
    /// # Errors
    /// The disk hangs.
    pub fn disk_responds(&self) -> Result<(), DiskRefusal> {
        self.disk.responds()
    }

    /// The disk's free space and health.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// The current leader, as this node knows it.
    pub fn leadership(&self) -> Leadership {
        self.leadership.borrow().clone()
    }

    /// Whether this node leads, even if no quorum has confirmed it lately.
    pub fn is_mine(&self) -> bool {
        self.leadership.borrow().mine
    }

    /// Notifies of changes of leadership.
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Whether this node leads, has applied an entry of its own term (so its database holds everything
    /// acknowledged before), and a quorum has acknowledged it within the lease (one election timeout). Needs
    /// no round trip.
    pub fn leads(&self) -> bool {
        let (mine, voters, term) = {
            let l = self.leadership.borrow();
            (l.mine, l.voters, l.term)
        };
        if !mine {
            return false;
        }
        let data = self.raft.data_metrics();
        let data = data.borrow_watched();
        let applied_own = data
            .last_applied
            .is_some_and(|id| id.leader_id.term >= term);
        let lease = self.settings.election_timeout;
        let acked = data.last_quorum_acked.map(|at| at.into_inner().elapsed());
        applied_own && (voters <= 1 || acked.is_some_and(|since| since < lease))
    }

    /// A copy of openraft's metrics; its guard must never be held across an await.
    pub fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Raft's state as rqlite names it. There a leader steps down when its lease is over and stands for
    /// election; here it stays openraft's leader, but must not look like one.
    pub fn state_name(&self) -> &'static str {
        match self.metrics().state {
            ServerState::Leader if self.leads() => "Leader",
            ServerState::Leader | ServerState::Candidate => "Candidate",
            // A learner is a follower: rqlite has no other state for it.
            ServerState::Follower | ServerState::Learner => "Follower",
            ServerState::Shutdown => "Shutdown",
        }
    }

    /// Progress of the state machine.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Raft's timing.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Serves the connections of other members; snapshots are received into the file `incoming`.
    pub fn server(&self, incoming: PathBuf) -> Server {
        Server {
            raft: self.raft.clone(),
            log: self.log.clone(),
            local: Arc::clone(&self.local),
            thread: Arc::clone(&self.thread),
            disk: Arc::clone(&self.disk),
            incoming: Arc::new(tokio::sync::Mutex::new(incoming)),
        }
    }

    pub(super) fn changing(&self) -> &tokio::sync::Mutex<()> {
        &self.changing
    }

    pub(crate) fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// Confirms leadership with a quorum and waits until everything committed before is applied.
    ///
    /// # Errors
    /// See [`ReadIndexError`].
    pub async fn read_index(&self, limit: Duration) -> Result<(), ReadIndexError> {
        let metrics = &self.local.metrics;
        metrics.count(Counter::StoreNumVerifyLeader);
        let confirmed = match tokio::time::timeout(limit, self.read_index.confirm()).await {
            Ok(result) => result,
            Err(_) => Err(ReadIndexError::Timeout(self.commit_index())),
        };
        if confirmed.is_err() {
            metrics.count(Counter::StoreNumVerifyLeaderFailed);
        }
        confirmed
    }

    /// Index of the last applied entry; 0 before the first. The database's own: openraft's metrics follow
    /// some time after the caller of a write has its result.
    pub fn applied_index(&self) -> u64 {
        self.db.applied().map_or(0, |position| position.index)
    }

    /// Highest index that this node knows to be committed.
    pub fn commit_index(&self) -> u64 {
        self.metrics()
            .local_committed
            .map_or(0, |id| id.index)
            .max(self.applied_index())
    }

    /// Whether this node has a log or a membership.
    ///
    /// # Errors
    /// Raft has stopped.
    pub async fn is_initialized(&self) -> io::Result<bool> {
        self.raft.is_initialized().await.map_err(io::Error::other)
    }

    /// Starts a cluster's log with these voters (Raft id to address). A node that already has a log keeps it.
    ///
    /// # Errors
    /// This node is not among them, or Raft has stopped.
    pub async fn initialize(&self, members: &BTreeMap<String, String>) -> io::Result<()> {
        let members: BTreeMap<RaftId, Member> = members
            .iter()
            .map(|(id, addr)| {
                (
                    id.as_str().into(),
                    Member {
                        raft_addr: addr.clone(),
                        wants_vote: true,
                    },
                )
            })
            .collect();
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(e) => Err(io::Error::other(e)),
        }
    }

    /// The members in the newest membership of this node's log: Raft id, record, whether it votes.
    pub fn members(&self) -> Vec<(RaftId, Member, bool)> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let voters: std::collections::BTreeSet<_> = membership.voter_ids().collect();
        membership
            .nodes()
            .map(|(id, member)| (id.clone(), member.clone(), voters.contains(id)))
            .collect()
    }

    /// The index and the members of the newest committed membership that this node knows. Unlike
    /// [`Self::members`] it can no longer be undone.
    pub fn committed_members(&self) -> (u64, Vec<(RaftId, Member, bool)>) {
        let stored = self.progress.membership();
        let voters: std::collections::BTreeSet<_> = stored.membership().voter_ids().collect();
        let nodes = stored.membership().nodes();
        let members = nodes
            .map(|(id, member)| (id.clone(), member.clone(), voters.contains(id)))
            .collect();
        (stored.log_id().map_or(0, |id| id.index), members)
    }

    /// Time since this leader last heard from each other member. Empty unless this node leads with a quorum:
    /// a leader that is cut off knows nothing about the others.
    pub fn unreachable(&self) -> BTreeMap<RaftId, Duration> {
        if !self.leads() {
            return BTreeMap::new();
        }
        self.unreachable.lock().clone()
    }

    /// Members whose next append is too large for them, with the reason.
    pub fn unsendable(&self) -> BTreeMap<RaftId, String> {
        self.unsendable.all()
    }

    pub(super) fn note_unreachable(&self, unreachable: BTreeMap<RaftId, Duration>) {
        *self.unreachable.lock() = unreachable;
    }

    /// Resolves with the reason when openraft has stopped by itself; the process must end then. Polls,
    /// because openraft's watch fires for every entry and heartbeat and would wake a thread each time.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = metrics.borrow_watched().running_state.clone() {
                return fatal.to_string();
            }
            // openraft's core ended without an error, as after a panic.
            if let Some(Err(_)) = metrics.changed().now_or_never() {
                return "Raft has stopped".into();
            }
            tokio::time::sleep(STOPPED_INTERVAL).await;
        }
    }

    /// Stops Raft; nothing is proposed or applied afterwards. Then syncs the log, so that a node that was
    /// shut down cleanly restarts with everything that it had served, even if no other node does.
    pub async fn shutdown(&self) {
        if let Err(e) = self.raft.shutdown().await {
            tracing::error!(target: "raft", "stopping Raft: {e}");
        }
        if self.disk_responds().is_err() {
            return;
        }
        match tokio::time::timeout(LAST_SYNC_LIMIT, self.log.sync()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(target: "raft", "syncing the log at shutdown: {e}"),
            Err(_) => tracing::error!(target: "raft", "syncing the log at shutdown takes too long"),
        }
    }
}
