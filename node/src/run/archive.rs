//! The continuous archive: opened from its configuration, and kept while the node runs.
use std::sync::Arc;

use node_objects::{Config as ObjectsConfig, Use};
use tokio_util::sync::CancellationToken;

use crate::{
    archive::{
        self, Archive, Parts, Settings,
        settings::{Keywords, read_keys},
    },
    config::Config,
    metrics::Metrics,
};

/// The archive that the flags name, if any. Asks no server: a store that is down must not keep a node from
/// starting.
pub(super) fn open(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Option<Archive>> {
    let Some(path) = &config.archive else {
        return Ok(None);
    };
    let wrong = |e: &dyn std::fmt::Display| anyhow::anyhow!("-archive {}: {e}", path.display());
    let read = ObjectsConfig::<Keywords>::read(path, Use::Prefix);
    let read = read.map_err(|e| anyhow::anyhow!("-archive {e}"))?;
    let settings = Settings::new(&read.rest).map_err(|e| wrong(&e))?;
    let store = read.target.open().map_err(|e| wrong(&e))?;
    let keys = match &config.archive_key_file {
        None => None,
        Some(file) => {
            let keys = read_keys(file);
            Some(keys.map_err(|e| anyhow::anyhow!("-archive-key-file {e}"))?)
        }
    };
    Ok(Some(Archive::new(
        settings,
        store,
        keys,
        Arc::clone(metrics),
    )))
}

/// From now on the log keeps what is not archived, and the leader archives it.
pub(super) fn keep(archive: &Archive, parts: Parts, stop: CancellationToken) {
    parts.consensus.hold_log(Arc::clone(archive.hold()));
    tokio::spawn(archive::run(archive.clone(), parts, stop));
}
