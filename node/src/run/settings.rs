//! Settings of the parts of a node, from the command line.
use std::sync::Arc;

use anyhow::Context as _;

use super::tls::stage;
use crate::{
    auth::AuthSettings,
    config::{Config, split_host_port},
    discovery::Discovery,
    http_api::HttpSettings,
    metrics::Metrics,
    raft::Settings,
    store::StatusSettings,
};

/// Directory for uploads and backups in progress, inside the data directory. It is emptied at each start.
pub(super) const SCRATCH_DIR: &str = "scratch";
/// Entries after which a checkpoint is due if `-raft-snap` is 0.
const DEFAULT_SNAPSHOT_ENTRIES: u64 = 8192;
/// Most reader threads if `-db-max-ro-conns` sets no limit. Each takes up to 2 MiB for SQLite's cache.
const MAX_READERS: usize = 1024;
/// One in this many connections may wait for its password to be checked.
const WAITING_LOGINS_PER_CONNECTION: usize = 8;

pub(super) fn raft_settings(config: &Config) -> Settings {
    Settings::new(
        config.raft_heartbeat_timeout,
        config.raft_election_timeout,
        config.raft_apply_timeout,
    )
}

pub(super) fn snapshot_entries(config: &Config) -> u64 {
    if config.raft_snap == 0 {
        DEFAULT_SNAPSHOT_ENTRIES
    } else {
        config.raft_snap
    }
}

pub(super) fn max_readers(config: &Config) -> usize {
    match config.db_max_ro_conns {
        0 => MAX_READERS,
        most => (most as usize).min(MAX_READERS),
    }
}

pub(super) fn http_settings(config: &Config, max_connections: usize) -> HttpSettings {
    HttpSettings {
        max_connections,
        node_tls_stage: stage(config),
        allow_origin: (!config.http_allow_origin.is_empty())
            .then(|| config.http_allow_origin.clone()),
        api_addr: config.http_adv().to_owned(),
        api_url: config.http_url(),
        bind_addr: config.http_addr.clone(),
        raft_addr: config.raft_adv().to_owned(),
        scratch_dir: config.data_dir.join(SCRATCH_DIR),
        start_time: crate::clock::now(),
        command_line: std::env::args().collect(),
    }
}

pub(super) fn status_settings(config: &Config) -> StatusSettings {
    StatusSettings {
        data_dir: config.data_dir.clone(),
        foreign_keys: config.fk,
        voter: !config.raft_non_voter,
        apply_timeout: config.raft_apply_timeout,
        heartbeat_timeout: config.raft_heartbeat_timeout,
        election_timeout: config.raft_election_timeout,
        commit_timeout: config.raft_commit_timeout,
        lease_timeout: config.leader_lease_timeout(),
        snapshot_threshold: snapshot_entries(config),
        snapshot_interval: config.raft_snap_int,
        reap_timeout: config.raft_reap_node_timeout.unwrap_or_default(),
        reap_read_only_timeout: config.raft_reap_read_only_node_timeout.unwrap_or_default(),
        log_level: config.raft_log_level.clone(),
        parked: config.parked_policy(),
    }
}

pub(super) fn auth_settings(
    config: &Config,
    max_connections: usize,
    metrics: &Arc<Metrics>,
) -> AuthSettings {
    AuthSettings {
        own_user: config.join_as.clone(),
        max_waiting: max_connections / WAITING_LOGINS_PER_CONNECTION,
        metrics: Arc::clone(metrics),
    }
}

pub(super) fn open_discovery(config: &Config) -> anyhow::Result<Option<Discovery>> {
    let Some(mode) = config.disco_mode() else {
        return Ok(None);
    };
    // Nodes discovered by name are assumed to listen on this node's port.
    let raft_port = split_host_port(&config.raft_addr)
        .and_then(|(_, port)| port.parse().ok())
        .with_context(|| format!("no port in {}", config.raft_addr))?;
    let discovery = Discovery::open(mode, &config.disco_config, &config.disco_key, raft_port)
        .map_err(|e| anyhow::anyhow!("clustering failure: {e}"))?;
    Ok(Some(discovery))
}
