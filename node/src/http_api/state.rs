//! What all requests share: the services behind the API, its settings, and values that are prepared once.
use std::{path::PathBuf, sync::Arc, time::SystemTime};

use hyper::header::InvalidHeaderValue;
use parking_lot::Mutex;

use super::{memory::BodyMemory, reply::Replies};
use crate::{
    archive::Archive,
    audit::Audit,
    auth::Auth,
    auto_backup::AutoBackup,
    config::NodeTlsStage,
    discovery::Discovery,
    metrics::Metrics,
    restore::in_place::InPlace,
    store::{Store, queue::Queue},
    tls::Sides,
};

/// Settings of the HTTP API.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Value of `Access-Control-Allow-Origin`; `None` leaves the header out.
    pub allow_origin: Option<String>,
    /// Advertised HTTP address, `host:port`.
    pub api_addr: String,
    /// The same as a URL, for example `http://host:4001`.
    pub api_url: String,
    /// Address that the HTTP listener is bound to.
    pub bind_addr: String,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// Directory for uploads while they are received; on the disk of the database.
    pub scratch_dir: PathBuf,
    /// Most connections at a time.
    pub max_connections: usize,
    /// The stage of TLS between nodes; `None` without a certificate for them.
    pub node_tls_stage: Option<NodeTlsStage>,
    /// When this process started.
    pub start_time: SystemTime,
    /// Program and arguments, shown by `/debug/vars`.
    pub command_line: Vec<String>,
}

/// What the HTTP API serves: the store and the other parts of the node.
#[derive(Clone, Debug)]
pub struct HttpServices {
    /// The database.
    pub store: Store,
    /// Users and their permissions.
    pub auth: Arc<Auth>,
    /// The audit log, if there is one.
    pub audit: Option<Audit>,
    /// The archive, if there is one.
    pub archive: Option<Archive>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Queued writes.
    pub queue: Queue,
    /// Settings.
    pub settings: HttpSettings,
    /// Automatic backups, if configured; for `/status`.
    pub auto_backup: Option<Arc<AutoBackup>>,
    /// How the node finds other nodes, if discovery is configured; for `/status`.
    pub discovery: Option<Arc<Discovery>>,
    /// Certificates of both ports; for `/status`.
    pub tls: Sides,
    /// Restores in place.
    pub restores: InPlace,
}

/// What all requests share: [`HttpServices`], and values that are prepared once.
#[derive(Debug)]
pub(super) struct HttpState {
    pub(super) store: Store,
    pub(super) auth: Arc<Auth>,
    pub(super) audit: Option<Audit>,
    pub(super) archive: Option<Archive>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) queue: Queue,
    pub(super) settings: HttpSettings,
    pub(super) auto_backup: Option<Arc<AutoBackup>>,
    pub(super) discovery: Option<Arc<Discovery>>,
    pub(super) tls: Sides,
    pub(super) restores: InPlace,
    pub(super) replies: Replies,
    pub(super) memory: BodyMemory,
    last_backup: Mutex<Option<SystemTime>>,
}

impl HttpState {
    /// # Errors
    /// A setting holds characters that no header may hold.
    pub(super) fn new(services: HttpServices) -> Result<Self, InvalidHeaderValue> {
        let HttpServices {
            store,
            auth,
            audit,
            archive,
            metrics,
            queue,
            settings,
            auto_backup,
            discovery,
            tls,
            restores,
        } = services;
        let replies = Replies::new(
            settings.allow_origin.as_deref(),
            &settings.api_addr,
            auth.enabled(),
        )?;
        Ok(Self {
            auto_backup,
            discovery,
            tls,
            restores,
            store,
            audit,
            archive,
            auth,
            metrics,
            queue,
            settings,
            replies,
            memory: BodyMemory::default(),
            last_backup: Mutex::new(None),
        })
    }

    pub(super) fn note_backup(&self, at: SystemTime) {
        *self.last_backup.lock() = Some(at);
    }

    pub(super) fn last_backup(&self) -> Option<SystemTime> {
        *self.last_backup.lock()
    }

    /// The address of the node that serves what only the leader can: this node's HTTP address if it leads,
    /// else the leader's Raft address.
    pub(super) fn leader_address(&self) -> String {
        match self.store.leader() {
            Some(leader) if !self.store.is_leader() => leader.raft_addr,
            _ => self.settings.api_addr.clone(),
        }
    }
}
