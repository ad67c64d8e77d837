//! Assembly of a node: the only module that uses all others. Starts them in order, waits, and stops them in
//! order.
mod archive;
mod directories;
mod leave;
mod restore;
mod settings;
mod signals;
mod tls;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, bail};
use node_db::Database;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::{
    directories::{clear_directory, open_data_dir},
    settings::{
        SCRATCH_DIR, auth_settings, http_settings, max_readers, open_discovery, raft_settings,
        snapshot_entries, status_settings,
    },
    signals::Signals,
};
use crate::{
    archive::{Archive, Parts},
    audit::Audit,
    auth::{Auth, OwnUser},
    auto_backup::AutoBackup,
    bind::bind,
    cluster::{
        AddressSource, BootstrapOptions, Bootstrapper, ClusterError, callers::Callers,
        register::keep_leader_key,
    },
    config::{Config, split_host_port, unsupported},
    descriptors,
    discovery::Discovery,
    disk::Disk,
    health::{About, Health},
    http_api::HttpServices,
    identity::Identity,
    internode::client::Peers,
    internode_server::{admission::ConnectionSlots, listener, requests::RequestServer},
    local::Local,
    metrics::{Counter, Metrics},
    raft::{
        Consensus,
        maintenance::{
            disk_watchdog::watch_disk,
            members::{Reaping, maintain_members},
            storage::{Thresholds, maintain_storage},
        },
        network::server::Server as RaftServer,
        storage::log::Log,
    },
    rejoin::{self, Rejoin},
    stop::end_in_time,
    store::{
        Store,
        auto_maintenance::{Intervals, run_auto_maintenance},
        compare::watch_copies,
        free_space::watch_free_space,
        queue::{Queue, QueueSettings},
    },
    tls::Sides,
};

/// How often a node whose disk is full at the start checks it again.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(2);
/// Least number of reader threads.
const MIN_READERS: usize = 2;

/// How a run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was stopped.
    Stopped,
    /// It is to drop its copy of the database and rejoin (`rejoin.rs`): the program must be started again
    /// with the same command line.
    StartAgain,
}

/// Runs a node until it is stopped or fails.
///
/// # Errors
/// Why the node failed, as a text for people.
pub async fn run(config: Config) -> anyhow::Result<End> {
    let missing = unsupported(&config);
    if !missing.is_empty() {
        bail!("{}", missing.join("\n"));
    }
    let signals = Signals::listen()?;
    let shares = descriptors::raise_and_share();
    let raft_listener = bind(&config.raft_addr)
        .await
        .with_context(|| format!("failed to listen on Raft address {}", config.raft_addr))?;
    let health = health(&config).await?;
    let node = Node::prepare(&config, shares.http)?;
    if let Some(health) = &health {
        health.opened(node.about());
    }
    tls::watch(&node.tls, &node.local.transport, &node.stop_internode);
    let http = node.serve_http(&config, shares.http).await?;
    let internode = tokio::spawn(listener::serve(
        raft_listener,
        ConnectionSlots::new(shares.members, shares.non_members),
        node.request_server(&config),
        Arc::clone(&node.raft_server),
        node.stop_internode.clone(),
    ));
    let ended = node.run(&config, signals).await;
    node.stop_http.cancel();
    let _ = http.await;
    node.queue_stop.cancel();
    let left = match (&ended, node.consensus.get()) {
        (Ok(End::Stopped), Some(consensus)) => node.leave(&config, consensus).await,
        _ => Ok(()),
    };
    node.stop_internode.cancel();
    let _ = internode.await;
    if let Some(consensus) = node.consensus.get() {
        consensus.shutdown().await;
    }
    if let Some(db) = node.db.get() {
        db.close();
    }
    node.audit.iter().for_each(Audit::flush);
    match (ended, left) {
        (Ok(_), Err(e)) => Err(e),
        (ended, _) => ended,
    }
}

/// The parts of a node that exist as long as the process.
struct Node {
    local: Arc<Local>,
    auth: Arc<Auth>,
    audit: Option<Audit>,
    archive: Option<Archive>,
    metrics: Arc<Metrics>,
    tls: Sides,
    peers: Peers,
    store: Store,
    disk: Arc<Disk>,
    discovery: Option<Arc<Discovery>>,
    auto_backup: Option<Arc<AutoBackup>>,
    raft_dir: PathBuf,
    consensus: Arc<OnceLock<Consensus>>,
    raft_server: Arc<OnceLock<RaftServer>>,
    db: Arc<OnceLock<Database>>,
    callers: Arc<Callers>,
    stop_http: CancellationToken,
    stop_internode: CancellationToken,
    queue_stop: CancellationToken,
    background_stop: CancellationToken,
    /// This node has dropped its copy and must rejoin first.
    rejoin: Option<Rejoin>,
    /// Locks the data directory for this process.
    _lock: std::fs::File,
}

impl Node {
    /// Prepares the data directory, the identity, and the parts that need no open database.
    fn prepare(config: &Config, max_connections: usize) -> anyhow::Result<Self> {
        let found = open_data_dir(config)?;
        let (data_dir, raft_dir) = (&config.data_dir, found.raft_dir);
        let identity = Identity::load_or_create(&raft_dir, config.node_id(), found.log_exists)?;
        tracing::info!(target: "store", "opening store with node ID {}, listening on {}", identity.name, config.raft_addr);
        let settings = raft_settings(config);
        let local = Local::new(
            raft_dir.clone(),
            identity,
            config.raft_adv().to_owned(),
            config.http_url(),
            settings.election_timeout / 2,
        );
        let tls = tls::open(config, &local.metrics)?;
        let local = Arc::new(local.with_transport(tls::transport(config, &tls)));
        if found.asked_to_recover {
            local.metrics.count(Counter::StoreNumRecoveries);
        }
        let peers = Peers::new(Arc::clone(&local), config.cluster_connect_timeout);
        let scratch = data_dir.join(SCRATCH_DIR);
        clear_directory(&scratch)?;
        let store = Store::new(
            Arc::clone(&local),
            peers.clone(),
            config.http_adv().to_owned(),
            scratch,
            status_settings(config),
        );
        store.set_restoring(config.auto_restore.is_some());
        let settings = auth_settings(config, max_connections, &local.metrics);
        let auth = Auth::open(config.auth.as_deref(), settings).map_err(anyhow::Error::msg)?;
        let discovery = open_discovery(config)?.map(Arc::new);
        Ok(Self {
            auto_backup: open_auto_backup(config)?,
            discovery,
            disk: Arc::new(Disk::new(data_dir)),
            auth: Arc::new(auth),
            audit: open_audit(config, &local.metrics)?,
            archive: archive::open(config, &local.metrics)?,
            metrics: Arc::clone(&local.metrics),
            local,
            tls,
            peers,
            store,
            raft_dir,
            consensus: Arc::default(),
            raft_server: Arc::default(),
            db: Arc::default(),
            callers: Arc::default(),
            stop_http: CancellationToken::new(),
            stop_internode: CancellationToken::new(),
            queue_stop: CancellationToken::new(),
            background_stop: CancellationToken::new(),
            rejoin: found.rejoin,
            _lock: found.lock,
        })
    }

    /// Starts the HTTP API, which also responds before the store is open.
    async fn serve_http(
        &self,
        config: &Config,
        max_connections: usize,
    ) -> anyhow::Result<JoinHandle<()>> {
        let listener = bind(&config.http_addr)
            .await
            .with_context(|| format!("failed to listen on HTTP address {}", config.http_addr))?;
        let queue_settings = QueueSettings {
            capacity: config.write_queue_capacity as usize,
            batch_size: config.write_queue_batch_size as usize,
            timeout: config.write_queue_timeout,
            transaction: config.write_queue_tx,
        };
        let (queue, _) = Queue::start(
            self.store.clone(),
            queue_settings,
            Arc::clone(&self.metrics),
            self.queue_stop.clone(),
        );
        tokio::spawn(Arc::clone(&self.auth).watch(self.stop_internode.clone()));
        let services = HttpServices {
            store: self.store.clone(),
            auth: Arc::clone(&self.auth),
            audit: self.audit.clone(),
            archive: self.archive.clone(),
            metrics: Arc::clone(&self.metrics),
            queue,
            settings: http_settings(config, max_connections),
            auto_backup: self.auto_backup.clone(),
            discovery: self.discovery.clone(),
            tls: self.tls.clone(),
            restores: restore::in_place(config, &self.store, self.archive.as_ref()),
        };
        tracing::info!(target: "http", "node HTTP API available at {}", config.http_url());
        if let Some((host, port)) = split_host_port(config.http_adv()) {
            let scheme = if config.http_url().starts_with("https") {
                "-s https "
            } else {
                ""
            };
            tracing::info!(target: "http", "connect using the command-line tool via 'rqlite {scheme}-H {host} -p {port}'");
        }
        let stop = self.stop_http.clone();
        Ok(tokio::spawn(async move {
            if let Err(e) = crate::http_api::serve(listener, services, stop).await {
                tracing::error!(target: "http", "{e}");
            }
        }))
    }

    fn about(&self) -> About {
        About {
            store: self.store.clone(),
            metrics: Arc::clone(&self.metrics),
            stopping: self.stop_http.clone(),
        }
    }

    fn request_server(&self, config: &Config) -> RequestServer {
        RequestServer {
            local: Arc::clone(&self.local),
            auth: Arc::clone(&self.auth),
            audit: self.audit.clone(),
            store: self.store.clone(),
            consensus: Arc::clone(&self.consensus),
            archive: self.archive.clone(),
            voter: !config.raft_non_voter,
            forms: config.bootstrap_expect > 0,
            callers: Arc::clone(&self.callers),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Opens the store, joins or forms a cluster, and waits for the end.
    async fn run(&self, config: &Config, mut signals: Signals) -> anyhow::Result<End> {
        let stop = CancellationToken::new();
        let opening = async {
            self.wait_for_room(&stop).await;
            let consensus = self.open(config).await.context("failed to open store")?;
            let fetched = restore::fetch(config, &self.store, &consensus, &stop).await?;
            if let Some(Discovery::LeaderKey(key)) = self.discovery.as_deref() {
                let report =
                    keep_leader_key(key.clone(), consensus.clone(), self.background_stop.clone());
                tokio::spawn(report);
            }
            let bootstrapper = self.bootstrapper(config, &consensus);
            tokio::select! {
                formed = bootstrapper.run(&stop) => {
                    formed.context("clustering failure")?;
                }
                reason = consensus.stopped() => bail!("the node cannot go on: {reason}"),
            }
            restore::load(&self.store, &consensus, fetched, &stop).await?;
            anyhow::Ok(consensus)
        };
        tokio::pin!(opening);
        let consensus = tokio::select! {
            result = &mut opening => result?,
            name = signals.received() => {
                tracing::info!(target: "rqlited", "received signal {name:?}");
                self.limit_stop();
                stop.cancel();
                return match opening.await {
                    // The stop interrupts the replay of the log; that is not a failure.
                    Err(e) if !e.is::<ClusterError>() => {
                        tracing::warn!(target: "rqlited", "stopped before the store was open: {e:#}");
                        Ok(End::Stopped)
                    }
                    opened => opened.map(|_| End::Stopped),
                };
            }
        };
        if self.rejoin.is_some() {
            rejoin::finished(&config.data_dir).context("failed to open store")?;
        }
        tokio::select! {
            name = signals.received() => {
                tracing::info!(target: "rqlited", "received signal {name:?}");
                self.limit_stop();
                Ok(End::Stopped)
            }
            () = self.store.parks_copy() => Ok(End::StartAgain),
            reason = consensus.stopped() => bail!("the node cannot go on: {reason}"),
        }
    }

    fn limit_stop(&self) {
        let db = Arc::clone(&self.db);
        end_in_time(move || db.get().into_iter().for_each(Database::interrupt));
    }

    /// A node on a full disk logs that and waits: it must not fail while it opens its log.
    async fn wait_for_room(&self, stop: &CancellationToken) {
        let mut logged = false;
        while let Err(full) = self.disk.check() {
            if !logged {
                tracing::error!(target: "store", "{full}; waiting for space before opening the store");
                logged = true;
            }
            if stop
                .run_until_cancelled(tokio::time::sleep(FULL_DISK_PAUSE))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    async fn open(&self, config: &Config) -> anyhow::Result<Consensus> {
        let log_dir = self.raft_dir.join("log");
        let log = Log::open(&log_dir)
            .with_context(|| format!("the Raft log in {} cannot be opened", log_dir.display()))?;
        let readers =
            std::thread::available_parallelism().map_or(MIN_READERS, |n| n.get().max(MIN_READERS));
        let options = node_db::Options {
            dir: config.data_dir.clone(),
            foreign_keys: config.fk,
            readers,
            max_readers: max_readers(config),
            slow_statement: (!config.db_slow_statement.is_zero())
                .then_some(config.db_slow_statement),
        };
        let (db, recovered) = Database::open_beside(options, &|at| log.holds_all_to(at))?;
        log.check_continuity(recovered.position)
            .map_err(anyhow::Error::msg)?;
        if recovered.position.is_some() {
            // The database file is the snapshot, so nothing is restored at the start.
            self.metrics.count(Counter::StoreNumRestoresStartSkipped);
        }
        let _ = self.db.set(db.clone());
        let settings = raft_settings(config);
        let consensus = Consensus::start(
            settings,
            Arc::clone(&self.local),
            log,
            db.clone(),
            &recovered,
            Arc::clone(&self.disk),
        )
        .await?;
        if let (Some(_), Some(position)) = (&self.auto_backup, recovered.position) {
            consensus.recall_last_change(position);
        }
        if let Some(archive) = &self.archive {
            let parts = Parts {
                consensus: consensus.clone(),
                db: db.clone(),
                peers: self.peers.clone(),
                local: Arc::clone(&self.local),
                raft_dir: self.raft_dir.clone(),
                foreign_keys: config.fk,
            };
            archive::keep(archive, parts, self.background_stop.clone());
        }
        self.store.opened(consensus.clone(), db.clone());
        let _ = self.consensus.set(consensus.clone());
        let _ = self.raft_server.set(consensus.server(db.incoming_path()));
        self.start_background_tasks(config, &consensus, db);
        Ok(consensus)
    }

    fn start_background_tasks(&self, config: &Config, consensus: &Consensus, db: Database) {
        let reaping = Reaping {
            voters_after: config.raft_reap_node_timeout,
            non_voters_after: config.raft_reap_read_only_node_timeout,
        };
        let thresholds = Thresholds {
            entries: snapshot_entries(config),
            wal_bytes: config.raft_snap_wal_size,
            interval: config.raft_snap_int,
        };
        tokio::spawn(maintain_members(
            consensus.clone(),
            reaping,
            self.background_stop.clone(),
        ));
        tokio::spawn(run_auto_maintenance(
            self.store.clone(),
            Intervals {
                vacuum: config.auto_vacuum_int,
                optimize: config.auto_optimize_int,
            },
            self.background_stop.clone(),
        ));
        if let Some(backup) = &self.auto_backup {
            let (metrics, stop) = (Arc::clone(&self.metrics), self.background_stop.clone());
            tokio::spawn(Arc::clone(backup).run(self.store.clone(), metrics, stop));
        }
        tokio::spawn(watch_copies(
            self.store.clone(),
            config.auto_compare_int,
            self.background_stop.clone(),
        ));
        tokio::spawn(watch_free_space(
            self.store.clone(),
            self.background_stop.clone(),
        ));
        tokio::spawn(watch_disk(
            consensus.clone(),
            Arc::clone(&self.disk),
            self.background_stop.clone(),
        ));
        tokio::spawn(maintain_storage(
            consensus.clone(),
            db,
            thresholds,
            self.background_stop.clone(),
        ));
    }

    fn bootstrapper(&self, config: &Config, consensus: &Consensus) -> Bootstrapper {
        Bootstrapper {
            local: Arc::clone(&self.local),
            peers: self.peers.clone(),
            consensus: consensus.clone(),
            callers: Arc::clone(&self.callers),
            options: Arc::new(BootstrapOptions {
                source: self.source(config),
                attempts: self
                    .rejoin
                    .as_ref()
                    .map_or(config.join_attempts, |_| u32::MAX),
                interval: config.join_interval,
                expect: match self.rejoin {
                    Some(_) => 0,
                    None => config.bootstrap_expect as usize,
                },
                expect_timeout: config.bootstrap_expect_timeout,
                voter: !config.raft_non_voter,
                own_user: OwnUser::of(&self.auth),
            }),
        }
    }

    fn source(&self, config: &Config) -> AddressSource {
        if let Some(rejoin) = &self.rejoin {
            let listed = config.join().into_iter().map(ToOwned::to_owned);
            let own = config.raft_adv();
            let known = rejoin.addresses.iter().cloned().chain(listed);
            return AddressSource::Static(known.filter(|address| address != own).collect());
        }
        match self.discovery.as_deref() {
            Some(Discovery::Addresses(lookup)) => AddressSource::Lookup(lookup.clone()),
            Some(Discovery::LeaderKey(key)) => AddressSource::LeaderKey(key.clone()),
            None => match config.join() {
                none if none.is_empty() => AddressSource::None,
                listed => {
                    AddressSource::Static(listed.into_iter().map(ToOwned::to_owned).collect())
                }
            },
        }
    }
}

fn open_auto_backup(config: &Config) -> anyhow::Result<Option<Arc<AutoBackup>>> {
    let path = config.auto_backup.as_deref();
    path.map(AutoBackup::open)
        .transpose()
        .map_err(|why| anyhow::anyhow!("failed to start auto-backups: {why}"))
}

fn open_audit(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Option<Audit>> {
    let Some(target) = &config.audit_log else {
        return Ok(None);
    };
    let audit = Audit::open(target, config.node_id(), Arc::clone(metrics))
        .with_context(|| format!("failed to open the audit log {}", target.display()))?;
    Ok(Some(audit))
}

/// Starts the health listener, if there is to be one.
async fn health(config: &Config) -> anyhow::Result<Option<Health>> {
    let address = config.health_addr.as_str();
    if address.is_empty() {
        return Ok(None);
    }
    let started = Health::start(address).await;
    started
        .map(Some)
        .with_context(|| format!("failed to listen on health address {address}"))
}
