//! Backups: a consistent copy, made beside the database and streamed from there.
use node_db::{BackupFormat, Cancellation, Origin};
use tempfile::TempPath;

use super::{Caller, Store};
use crate::{internode::messages::PeerRequest, metrics::Counter, store_types::StoreError};

impl Store {
    /// Writes a backup to a temporary file; the caller streams it, and dropping the path deletes it. Made by
    /// the leader unless `local`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn backup(
        &self,
        format: BackupFormat,
        local: bool,
        caller: &Caller,
    ) -> Result<TempPath, StoreError> {
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
        self.0
            .peers
            .fetch_backup(&address, &request, &path, caller.timeout)
            .await?;
        Ok(path)
    }

    /// A backup of this node's own database. Dropping the future ends it.
    ///
    /// # Errors
    /// The store is not open, or an I/O error.
    pub async fn backup_here(
        &self,
        format: BackupFormat,
        origin: Origin,
    ) -> Result<TempPath, StoreError> {
        let db = self.open()?.db.clone();
        let path = self.scratch()?;
        self.0.local.metrics.count(Counter::StoreNumBackups);
        let (guard, cancellation) = Cancellation::new(origin);
        let made = tokio::task::spawn_blocking(move || {
            db.backup_cancellable(&format, &path, &cancellation)
                .map(|()| path)
        })
        .await;
        drop(guard);
        made.map_err(|e| StoreError::Refused(e.to_string()))?
            .map_err(StoreError::Refused)
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
