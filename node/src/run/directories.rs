//! The node's directories, before anything is opened in them.
use std::{
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::Context;
use node_db::durable;

use crate::{
    config::Config,
    data_dir, recovery,
    rejoin::{self, Rejoin},
};

/// What was found in the data directory.
pub(super) struct Found {
    /// `<data>/raft`.
    pub(super) raft_dir: PathBuf,
    /// Locks the data directory for this process.
    pub(super) lock: File,
    /// What is left to do of leaving a wrong copy behind.
    pub(super) rejoin: Option<Rejoin>,
    /// There was a `peers.json`.
    pub(super) asked_to_recover: bool,
    /// There is a log.
    pub(super) log_exists: bool,
}

/// Creates and locks the data directory, and carries out what was asked of it while the node was stopped.
pub(super) fn open_data_dir(config: &Config) -> anyhow::Result<Found> {
    let data_dir = &config.data_dir;
    let raft_dir = data_dir.join("raft");
    durable::create_dir_all(data_dir)
        .and_then(|()| durable::create_dir_all(&raft_dir))
        .and_then(|()| durable::sync(&raft_dir))
        .with_context(|| format!("failed to create {}", raft_dir.display()))?;
    let lock = data_dir::lock(data_dir)?;
    let rejoin = rejoin::carry_out(data_dir, config.node_id()).context("failed to open store")?;
    let asked_to_recover = raft_dir.join(recovery::PEERS_FILE).exists();
    recovery::skip::refuse_if_interrupted(data_dir).context("failed to open store")?;
    recovery::recover_from_peers_file(data_dir, config.node_id(), config.raft_adv())
        .context("failed to open store")?;
    let log_exists = has_log(&raft_dir);
    if log_exists {
        tracing::info!(target: "store", "preexisting node state detected in {}", data_dir.display());
    } else {
        tracing::info!(target: "store", "no preexisting node state detected in {}, node may be bootstrapping", data_dir.display());
    }
    Ok(Found {
        raft_dir,
        lock,
        rejoin,
        asked_to_recover,
        log_exists,
    })
}

fn has_log(raft_dir: &Path) -> bool {
    std::fs::read_dir(raft_dir.join("log")).is_ok_and(|mut entries| entries.next().is_some())
}

pub(super) fn clear_directory(dir: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("clearing {}", dir.display())),
    }
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))
}
