//! The continuous archive: opened from its configuration, and kept while the node runs.
use std::{sync::Arc, time::Duration};

use node_objects::{Config as ObjectsConfig, Use};
use tokio_util::sync::CancellationToken;

use crate::{
    archive::{
        self, Archive, Parts, Settings,
        settings::{Keywords, read_keys},
    },
    config::Config,
    metrics::Metrics,
    raft::Consensus,
};

/// How long a leader that is stopped may take to archive what it has applied: half of what a stop may take
/// (`stop.rs`). What is left over, the next leader archives.
const SEAL_LIMIT: Duration = Duration::from_secs(4);

/// The archive that the flags name, if any. Opens nothing and asks no server: a store that is down or wrong
/// must not keep a node from starting.
pub(super) fn open(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Option<Archive>> {
    let Some(path) = &config.archive else {
        return Ok(None);
    };
    let wrong = |e: &dyn std::fmt::Display| anyhow::anyhow!("-archive {}: {e}", path.display());
    let read = ObjectsConfig::<Keywords>::read(path, Use::Prefix);
    let read = read.map_err(|e| anyhow::anyhow!("-archive {e}"))?;
    let settings = Settings::new(&read.rest).map_err(|e| wrong(&e))?;
    let keys = match &config.archive_key_file {
        None => None,
        Some(file) => {
            let keys = read_keys(file);
            Some(keys.map_err(|e| anyhow::anyhow!("-archive-key-file {e}"))?)
        }
    };
    Ok(Some(Archive::new(
        settings,
        read.target,
        keys,
        Arc::clone(metrics),
    )))
}

/// Before a node that leads stops or gives up leadership: the last entries are archived, since there may be
/// no other leader for long.
pub(super) async fn finish(archive: &Archive, consensus: &Consensus) {
    if !consensus.leads() {
        return;
    }
    let last = consensus.applied_index();
    let archived = archive.seal(last, SEAL_LIMIT).await;
    if archived.is_none_or(|archived| archived < last) {
        tracing::warn!(
            target: "archive",
            "stopped before the entries up to {last} were archived ({}); the next leader archives them",
            archived.map_or_else(|| "none is so far".to_owned(), |index| format!("so far up to {index}"))
        );
    }
}

/// From now on the log keeps what is not archived, and the leader archives it.
pub(super) fn keep(archive: &Archive, parts: Parts, stop: CancellationToken) {
    parts.consensus.hold_log(Arc::clone(archive.hold()));
    tokio::spawn(archive::run(archive.clone(), parts, stop));
}
