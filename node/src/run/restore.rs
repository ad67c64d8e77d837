//! `-auto-restore` at the start: fetch while the node has nothing, load once it leads, and be ready only
//! then.
use std::{path::PathBuf, time::Duration};

use anyhow::bail;
use node_contract::status::AutoRestoreStatus;
use tempfile::TempPath;
use tokio_util::sync::CancellationToken;

use super::settings::SCRATCH_DIR;
use crate::{
    archive::Archive,
    config::Config,
    raft::Consensus,
    restore::{
        auto::{self, AutoRestore, End, decide},
        in_place::{InPlace, Settings},
    },
    store::Store,
};

/// How long a follower keeps its file for a leader that applies nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// A file that waits for this node to lead.
pub(super) struct Fetched {
    file: TempPath,
    config: AutoRestore,
}

/// Fetches what is to be restored, if this node has no data.
pub(super) async fn fetch(
    config: &Config,
    store: &Store,
    consensus: &Consensus,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Fetched>> {
    let Some(path) = &config.auto_restore else {
        return Ok(None);
    };
    let has_snapshot = consensus.metrics().snapshot.is_some();
    let has_commands = has_snapshot || consensus.log().holds_client_data()?;
    if decide::has_data(has_snapshot, has_commands) {
        tracing::info!(target: "rqlited", "auto-restore requested, but data already exists in {}, skipping", config.data_dir.display());
        ended(store, AutoRestoreStatus::SKIPPED, "there was data already");
        return Ok(None);
    }
    let restore = AutoRestore::read(path).map_err(anyhow::Error::msg)?;
    store.note_auto_restore(|now| {
        now.state = AutoRestoreStatus::FETCHING.to_owned();
        now.source = Some(restore.source());
    });
    let scratch: PathBuf = config.data_dir.join(SCRATCH_DIR);
    let fetched = restore.fetch(&scratch, config.fk);
    match stop.run_until_cancelled(fetched).await {
        None => Ok(None),
        Some(Ok((file, point))) => {
            let bytes = std::fs::metadata(&file).ok().map(|file| file.len());
            store.note_auto_restore(|now| {
                now.state = AutoRestoreStatus::LOADING.to_owned();
                now.bytes = bytes;
                if let Some(point) = point {
                    now.lineage = Some(point.lineage.id);
                    now.index = Some(point.index);
                    now.time = Some(point.time.to_string());
                }
            });
            Ok(Some(Fetched {
                file,
                config: restore,
            }))
        }
        Some(Err(why)) if restore.continue_on_failure => {
            tracing::error!(target: "rqlited", "auto-restore failed, and the node starts without it as configured: {why}");
            ended(store, AutoRestoreStatus::FAILED, &why);
            Ok(None)
        }
        Some(Err(why)) => bail!("auto-restore failed: {why}"),
    }
}

/// Loads the file if this node leads first. The store is ready afterwards.
pub(super) async fn load(
    store: &Store,
    consensus: &Consensus,
    fetched: Option<Fetched>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(Fetched { file, config }) = fetched else {
        return Ok(());
    };
    let loaded = tokio::select! {
        loaded = auto::carry_out(store, consensus, &file, PATIENCE, stop) => loaded,
        reason = consensus.stopped() => bail!("the node cannot go on: {reason}"),
    };
    match loaded {
        Ok(End::Stopped) => return Ok(()),
        Ok(End::Loaded(index)) => {
            store.note_auto_restore(|now| now.loaded_at_index = Some(index));
            ended(store, AutoRestoreStatus::RESTORED, "");
        }
        Ok(End::Dropped) => ended(
            store,
            AutoRestoreStatus::SKIPPED,
            "another node leads or the cluster has data",
        ),
        Err(why) if config.continue_on_failure => {
            tracing::error!(target: "rqlited", "{why}; the node goes on without it as configured");
            ended(store, AutoRestoreStatus::FAILED, &why);
        }
        Err(why) => bail!("{why}"),
    }
    Ok(())
}

/// Nothing is restored any more: the node may be ready.
fn ended(store: &Store, state: &str, message: &str) {
    store.note_auto_restore(|now| {
        now.state = state.to_owned();
        now.message = (!message.is_empty()).then(|| message.to_owned());
    });
    store.set_restoring(false);
}

/// Restores in place, from the archive that this node keeps.
pub(super) fn in_place(config: &Config, store: &Store, kept: Option<&Archive>) -> InPlace {
    let settings = Settings {
        archive: config.archive.clone(),
        kept: kept.cloned(),
        key_file: config.archive_key_file.clone(),
        foreign_keys: config.fk,
        scratch: config.data_dir.join(SCRATCH_DIR),
    };
    InPlace::new(store.clone(), settings)
}
