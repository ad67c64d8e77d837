//! The replicated database as the edges see it: execute, query, request, load, backup, and what an administrator does.
//!
//! Each call decides first (`level.rs`: local, through the leader, refuse), then acts. A call that this node cannot serve goes to the
//! leader over the inter-node port, once, with the caller's credentials. DESIGN.md says what each consistency level promises.
mod admin;
mod backup;
pub mod compare;
mod leader;
pub mod level;
mod load;
mod parts;
pub mod queue;
mod read;
pub mod room;
pub mod running;
mod status;
pub mod upkeep;
mod write;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use node_db::{Database, Origin};
use serde::{Deserialize, Serialize};

pub use self::parts::{KEEPALIVE_INTERVAL, ReadResponse, Streamed};
use self::{compare::Compared, upkeep::Upkeep, write::Forwarder};
use crate::{
    internode::client::Peers,
    local::Local,
    raft::Consensus,
    store_types::{Credentials, Served, StoreError},
};

/// Who calls and how long they wait.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `None` for an anonymous caller.
    pub credentials: Option<Credentials>,
    /// Limit for talking to another node (default 30 s).
    pub timeout: Duration,
    /// Extra attempts when forwarding fails before anything was sent.
    pub retries: u32,
    /// Where the client is connected from, if it is one.
    pub client: Option<SocketAddr>,
}

impl Caller {
    /// For the list of what runs.
    fn origin(&self) -> Origin {
        let credentials = self.credentials.as_ref();
        Origin {
            client: self.client,
            user: credentials.map(|given| given.username.clone()),
            via: None,
        }
    }
}

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

/// What the node opened; set once.
#[derive(Debug)]
struct Opened {
    consensus: Consensus,
    db: Database,
    forwarder: Forwarder,
    /// Set where it is switched on.
    upkeep: OnceLock<Upkeep>,
}

#[derive(Debug)]
struct Inner {
    local: Arc<Local>,
    peers: Peers,
    /// Advertised HTTP address, shown as `X-RQLITE-SERVED-BY`.
    api_addr: String,
    /// Where uploads, backups and other temporary files go; on the database's own disk.
    scratch_dir: PathBuf,
    settings: StatusSettings,
    opened: OnceLock<Opened>,
    /// One load at a time: their chunks share one staging file.
    loading: tokio::sync::Mutex<()>,
    /// What is known of the copies of all members.
    compared: Compared,
}

/// Settings that `/status` repeats.
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
}

/// A handle to the node's replicated database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

impl Store {
    /// A store that is not open yet: it answers `store not open` until [`Store::opened`].
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
            compared: Compared::default(),
        }))
    }

    /// From now on the store serves.
    pub fn opened(&self, consensus: Consensus, db: Database) {
        let forwarder =
            Forwarder::start(self.0.peers.clone(), Arc::clone(&self.0.local), &consensus);
        // A second opening cannot happen: the composition root calls this once.
        let _ = self.0.opened.set(Opened {
            consensus,
            db,
            forwarder,
            upkeep: OnceLock::new(),
        });
    }

    /// The database and the log are open.
    pub fn is_open(&self) -> bool {
        self.0.opened.get().is_some()
    }

    fn open(&self) -> Result<&Opened, StoreError> {
        self.0.opened.get().ok_or(StoreError::NotOpen)
    }

    /// This node's name.
    pub fn name(&self) -> &str {
        self.0.local.name()
    }

    /// This node leads and still hears from a quorum.
    pub fn is_leader(&self) -> bool {
        self.0.opened.get().is_some_and(|o| o.consensus.leads())
    }

    /// The leader as this node knows it.
    pub fn leader(&self) -> Option<Leader> {
        let consensus = &self.0.opened.get()?.consensus;
        let leadership = consensus.leadership();
        if leadership.mine && !consensus.leads() {
            // Cut off from its quorum, or not yet in office: nobody is known to lead.
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

    /// Where calls that need the leader go: its Raft address, unless this node is it or nobody is.
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

/// What `/readyz` reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Serves.
    Ready,
    /// No leader known, or not open.
    NoLeader,
    /// The leader does not answer; why.
    LeaderNotContactable(String),
    /// Leader fine, but not ready.
    NotReady,
    /// Behind; why.
    SyncFailed(String),
    /// The local database does not answer; why.
    DatabaseFailed(String),
}
