//! Backups: a consistent copy, made beside the database and streamed from there.
use node_db::{BackupFormat, Cancellation, Origin};
use tempfile::TempPath;

use super::{Caller, Store};
use crate::{internode::messages::PeerRequest, metrics::Counter, store_types::StoreError};

/// A backup in a temporary file, which is deleted when this is dropped.
#[derive(Debug)]
pub struct Copy {
    /// The file.
    pub path: TempPath,
    /// Index of an entry that it holds, with all before it: the last one that was applied when the copy was
    /// begun. `None` from a leader of an older version.
    pub index: Option<u64>,
}

impl Store {
    /// Writes a backup to a temporary file, from which the caller streams it. Made by the leader unless
    /// `local`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn backup(
        &self,
        format: BackupFormat,
        local: bool,
        caller: &Caller,
    ) -> Result<Copy, StoreError> {
        let opened = self.open()?;
        if local || opened.consensus.leads() {
            return self.backup_here(format, caller.origin()).await;
        }
        let Some(address) = Self::elsewhere(opened) else {
            return Err(StoreError::LeaderNotFound);
        };
        let path = self.scratch()?;
        let request = PeerRequest::Backup {
            format,
            credentials: caller.credentials.clone(),
        };
        let index = self
            .0
            .peers
            .fetch_backup(&address, &request, &path, caller.timeout)
            .await?;
        Ok(Copy { path, index })
    }

    /// A backup of this node's own database. Dropping the future ends it.
    ///
    /// # Errors
    /// The store is not open, or an I/O error.
    pub async fn backup_here(
        &self,
        format: BackupFormat,
        origin: Origin,
    ) -> Result<Copy, StoreError> {
        let opened = self.open()?;
        let index = opened.consensus.applied_index();
        let db = opened.db.clone();
        let path = self.scratch()?;
        self.0.local.metrics.count(Counter::StoreNumBackups);
        let (guard, cancellation) = Cancellation::new(origin);
        let made = tokio::task::spawn_blocking(move || {
            db.backup_cancellable(&format, &path, &cancellation)
                .map(|()| path)
        })
        .await;
        drop(guard);
        let path = made
            .map_err(|e| StoreError::Refused(e.to_string()))?
            .map_err(StoreError::Refused)?;
        Ok(Copy {
            path,
            index: Some(index),
        })
    }

    /// A name for a temporary file on the database's disk.
    ///
    /// # Errors
    /// An I/O error.
    pub fn scratch(&self) -> Result<TempPath, StoreError> {
        let file = tempfile::Builder::new()
            .prefix("scratch-")
            .tempfile_in(&self.0.scratch_dir);
        file.map(tempfile::NamedTempFile::into_temp_path)
            .map_err(|e| StoreError::Refused(e.to_string()))
    }
}
