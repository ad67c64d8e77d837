//! The replicated database as the HTTP API and other nodes use it: execute, query, request, load, backup, and
//! administration.
//!
//! Each call first decides how to serve it (`level.rs`: here, through the leader, not at all), then acts. A
//! call that this node cannot serve is forwarded to the leader over the inter-node port, once, with the
//! caller's credentials. DESIGN.md says what each consistency level promises.
mod admin;
pub mod auto_maintenance;
mod backup;
mod caller;
pub mod check;
pub mod compare;
mod forwarder;
pub mod free_space;
mod leader;
pub mod level;
mod load;
mod parts;
pub mod queue;
mod read;
pub mod running;
mod status;
mod write;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use node_contract::{parked::ParkedPolicy, status::AutoRestoreStatus};
use node_db::Database;
use serde::{Deserialize, Serialize};

pub use self::backup::Copy;
pub use self::caller::Caller;
pub use self::parts::{KEEPALIVE_INTERVAL, ReadResponse, Streamed};
use self::{
    auto_maintenance::MaintenanceTimes, check::run::DatabaseChecks,
    compare::state::ComparisonState, forwarder::Forwarder,
};
use crate::{
    internode::client::Peers,
    local::Local,
    raft::Consensus,
    store_types::{Served, StoreError},
};

/// A file or script to load.
#[derive(Clone, Debug)]
pub struct LoadSource {
    /// A complete, closed temporary file with the uploaded bytes.
    pub path: PathBuf,
}

/// Where the leader is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Node name.
    pub name: String,
    /// Advertised Raft address.
    pub raft_addr: String,
}

/// The opened node; set once.
#[derive(Debug)]
struct Opened {
    consensus: Consensus,
    db: Database,
    forwarder: Forwarder,
    /// Set where automatic maintenance is enabled.
    maintenance_times: OnceLock<MaintenanceTimes>,
}

#[derive(Debug)]
struct Inner {
    local: Arc<Local>,
    peers: Peers,
    /// Advertised HTTP address, shown as `X-RQLITE-SERVED-BY`.
    api_addr: String,
    /// Directory of uploads, backups and other temporary files; on the database's own disk.
    scratch_dir: PathBuf,
    settings: StatusSettings,
    opened: OnceLock<Opened>,
    /// Held during a load: the chunks of all loads share one staging file.
    loading: tokio::sync::Mutex<()>,
    /// A restore is to fill this node's cluster before clients may write.
    restoring: std::sync::atomic::AtomicBool,
    /// What `/status` says of it.
    auto_restore: std::sync::Mutex<Option<AutoRestoreStatus>>,
    /// Comparisons of the members' copies.
    comparison: ComparisonState,
    /// The check of the database.
    checks: DatabaseChecks,
}

/// Settings that `/status` shows.
#[derive(Clone, Debug)]
pub struct StatusSettings {
    /// Absolute data directory.
    pub data_dir: PathBuf,
    /// `-fk`.
    pub foreign_keys: bool,
    /// This node's role.
    pub voter: bool,
    /// `-raft-apply-timeout`.
    pub apply_timeout: Duration,
    /// `-raft-heartbeat-timeout`.
    pub heartbeat_timeout: Duration,
    /// `-raft-election-timeout`.
    pub election_timeout: Duration,
    /// `-raft-commit-timeout`.
    pub commit_timeout: Duration,
    /// `-raft-leader-lease-timeout`.
    pub lease_timeout: Duration,
    /// `-raft-snap`.
    pub snapshot_threshold: u64,
    /// `-raft-snap-int`.
    pub snapshot_interval: Duration,
    /// `-raft-reap-node-timeout`.
    pub reap_timeout: Duration,
    /// `-raft-reap-read-only-node-timeout`.
    pub reap_read_only_timeout: Duration,
    /// `-raft-log-level`.
    pub log_level: String,
    /// `-parked-keep` and `-parked-max-age`.
    pub parked: ParkedPolicy,
}

/// A handle to the node's replicated database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

impl Store {
    /// A store that is not open yet: it returns `store not open` until [`Store::opened`].
    pub fn new(
        local: Arc<Local>,
        peers: Peers,
        api_addr: String,
        scratch_dir: PathBuf,
        settings: StatusSettings,
    ) -> Self {
        Self(Arc::new(Inner {
            local,
            peers,
            api_addr,
            scratch_dir,
            settings,
            opened: OnceLock::new(),
            loading: tokio::sync::Mutex::default(),
            restoring: std::sync::atomic::AtomicBool::new(false),
            auto_restore: std::sync::Mutex::default(),
            comparison: ComparisonState::default(),
            checks: DatabaseChecks::default(),
        }))
    }

    /// Opens the store.
    pub fn opened(&self, consensus: Consensus, db: Database) {
        let forwarder =
            Forwarder::start(self.0.peers.clone(), Arc::clone(&self.0.local), &consensus);
        // A second opening cannot happen: `run.rs` calls this once.
        let _ = self.0.opened.set(Opened {
            consensus,
            db,
            forwarder,
            maintenance_times: OnceLock::new(),
        });
    }

    /// Whether the database and the log are open.
    pub fn is_open(&self) -> bool {
        self.0.opened.get().is_some()
    }

    fn open(&self) -> Result<&Opened, StoreError> {
        self.0.opened.get().ok_or(StoreError::NotOpen)
    }

    /// The cluster that this node belongs to.
    pub fn cluster(&self) -> Option<crate::identity::Cluster> {
        self.0.local.cluster()
    }

    /// Whether an automatic restore is to come before anything else: then the node is not ready, and takes no
    /// writes.
    pub fn is_restoring(&self) -> bool {
        self.0.restoring.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Sets [`Self::is_restoring`].
    pub fn set_restoring(&self, restoring: bool) {
        let now = &self.0.restoring;
        now.store(restoring, std::sync::atomic::Ordering::Release);
    }

    /// The automatic restore, for `/status`; None without the flag.
    pub fn auto_restore(&self) -> Option<AutoRestoreStatus> {
        self.auto_restore_lock().clone()
    }

    /// Changes what [`Self::auto_restore`] says.
    pub fn note_auto_restore(&self, change: impl FnOnce(&mut AutoRestoreStatus)) {
        change(self.auto_restore_lock().get_or_insert_default());
    }

    fn auto_restore_lock(&self) -> std::sync::MutexGuard<'_, Option<AutoRestoreStatus>> {
        let lock = self.0.auto_restore.lock();
        lock.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// This node's name.
    pub fn name(&self) -> &str {
        self.0.local.name()
    }

    /// Whether this node leads and still hears from a quorum.
    pub fn is_leader(&self) -> bool {
        self.0.opened.get().is_some_and(|o| o.consensus.leads())
    }

    /// Index of the last applied entry that may have changed the database; 0 if none has.
    pub fn changed_index(&self) -> u64 {
        self.0.opened.get().map_or(0, |opened| {
            let progress = opened.consensus.progress();
            progress
                .changed_index
                .load(std::sync::atomic::Ordering::Acquire)
        })
    }

    /// The first entry after `after` that may have changed the database, in what was proposed here until now.
    ///
    /// # Errors
    /// The log does not reach back so far, or no entry can be committed.
    pub async fn change_after(&self, after: u64) -> Result<Option<u64>, StoreError> {
        let consensus = self.open()?.consensus.clone();
        // An entry without effect: what was proposed before it is applied when it is. No load has this id.
        consensus.proposer().load_abort(rand::random()).await?;
        let found = tokio::task::spawn_blocking(move || consensus.change_after(after)).await;
        let found = found.map_err(|e| StoreError::Refused(e.to_string()))?;
        found.map_err(|e| StoreError::Refused(e.to_string()))
    }

    /// The leader as this node knows it.
    pub fn leader(&self) -> Option<Leader> {
        let consensus = &self.0.opened.get()?.consensus;
        let leadership = consensus.leadership();
        if leadership.mine && !consensus.leads() {
            // This node has no quorum, or has not yet applied an entry of its own term: no leader is known.
            return None;
        }
        match (leadership.leader, leadership.addr) {
            (Some(id), Some(raft_addr)) => Some(Leader {
                name: id.name().to_owned(),
                raft_addr,
            }),
            _ => None,
        }
    }

    /// The leader's Raft address if calls that need the leader must be forwarded; `None` if this node leads
    /// or no leader is known.
    fn elsewhere(opened: &Opened) -> Option<String> {
        if opened.consensus.is_mine() {
            None
        } else {
            opened.consensus.leadership().addr
        }
    }

    fn served(&self, outcome: node_db::Outcome, raft_index: Option<u64>) -> Served {
        Served {
            results: outcome.results,
            error: outcome.error,
            raft_index,
            served_by: self.0.api_addr.clone(),
        }
    }
}

/// The result of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The node serves.
    Ready,
    /// No leader is known, or the store is not open.
    NoLeader,
    /// The leader does not respond, with the reason.
    LeaderNotContactable(String),
    /// The leader responds, but this node is not ready.
    NotReady,
    /// This node is behind, with the reason.
    SyncFailed(String),
    /// The local database does not respond, with the reason.
    DatabaseFailed(String),
}
