//! `-auto-backup`: the leader uploads a copy of the database at an interval, if the database has changed. See
//! DESIGN.md beside this file.
//!
//! Reading order: `settings` (the configuration file) → `decide` (what to do at the end of an interval) →
//! `kept` (which copy is at the target) → `upload`.
mod decide;
mod kept;
pub mod settings;
pub mod upload;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use node_contract::{duration, status::AutoBackupsStatus};
use node_db::{BackupFormat, Origin};
use node_objects::ObjectError;
use parking_lot::Mutex;
use tempfile::TempPath;
use tokio_util::sync::CancellationToken;

use self::{
    decide::{Next, Seen, next, pause_after_failures},
    kept::{KeptCopy, id_key},
    settings::AutoBackupSettings,
    upload::{Packing, upload_file},
};
pub(crate) use self::{kept::name_at, settings::METADATA_FILE};
use crate::{
    clock::{NEVER, now, rfc3339},
    metrics::{Counter, Metrics},
    store::Store,
};

/// Attempts to make the copy, and the pause between them (rqlite's values).
const COPY_ATTEMPTS: u32 = 10;
const COPY_PAUSE: Duration = Duration::from_millis(500);

/// What this process has done so far.
#[derive(Debug, Default)]
struct Done {
    /// Index of the copy that was uploaded last by this process.
    index: Option<u64>,
    at: Option<SystemTime>,
    took: Duration,
    failures: u32,
    last_error: Option<String>,
}

/// The automatic backups of this node.
#[derive(Debug)]
pub struct AutoBackup {
    settings: AutoBackupSettings,
    kept: KeptCopy,
    done: Mutex<Done>,
}

impl AutoBackup {
    /// Reads the configuration. No request is sent: a server that is down now may work when it is needed.
    ///
    /// # Errors
    /// What is wrong with the file, as text for people.
    pub fn open(path: &Path) -> Result<Arc<Self>, String> {
        let settings = AutoBackupSettings::read(path)?;
        let kept =
            KeptCopy::open(&settings.target).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Arc::new(Self {
            settings,
            kept,
            done: Mutex::default(),
        }))
    }

    /// The section `auto_backups` of `/status`.
    pub fn status(&self) -> AutoBackupsStatus {
        let done = self.done.lock();
        AutoBackupsStatus {
            upload_destination: self.settings.target.to_string(),
            upload_interval: duration::format(self.settings.interval),
            last_upload_time: done.at.map_or_else(|| NEVER.to_owned(), rfc3339),
            last_upload_duration: duration::format(done.took),
            last_index: done.index.unwrap_or(0).to_string(),
            last_error: done.last_error.clone(),
        }
    }

    /// Uploads at the interval, until stopped.
    pub async fn run(
        self: Arc<Self>,
        store: Store,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) {
        tracing::info!(target: "uploader", "automatic backups to {} every {:?}", self.settings.target, self.settings.interval);
        let work = async {
            loop {
                let failures = self.done.lock().failures;
                let pause = pause_after_failures(self.settings.interval, failures);
                tokio::time::sleep(pause).await;
                self.tick(&store, &metrics).await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    async fn tick(&self, store: &Store, metrics: &Metrics) {
        let last = self.done.lock().index;
        let seen = Seen {
            leads: store.is_leader(),
            index: store.changed_index(),
            last,
        };
        match next(seen) {
            Next::Nothing => return,
            Next::Skip => return metrics.count(Counter::UploaderNumUploadsSkipped),
            Next::Compare => match self.kept.id(&self.settings).await {
                Ok(Some(id)) if id == seen.index.to_string() => {
                    self.note(|done| (done.failures, done.last_error) = (0, None));
                    return metrics.count(Counter::UploaderNumUploadsSkippedId);
                }
                Ok(_) => {}
                Err(e) => {
                    metrics.count(Counter::UploaderNumSumGetFail);
                    tracing::warn!(target: "uploader", "which copy is kept is not known: {e}");
                }
            },
            Next::Upload => {}
        }
        let started = Instant::now();
        match self.upload(store, seen.index).await {
            Ok(bytes) => {
                let (at, took) = (now(), started.elapsed());
                metrics.count(Counter::UploaderNumUploadsOk);
                metrics.set(Counter::UploaderLastUploadBytes, bytes);
                metrics.add(Counter::UploaderTotalUploadBytes, bytes);
                metrics.set_duration(Counter::AutoBackupLastUploadDuration, took);
                metrics.set(
                    Counter::AutoBackupLastUpload,
                    crate::clock::unix_micros() / 1_000_000,
                );
                tracing::info!(target: "uploader", "uploaded {bytes} bytes as of index {} in {took:.1?}", seen.index);
                self.note(|done| {
                    *done = Done {
                        index: Some(seen.index),
                        at: Some(at),
                        took,
                        failures: 0,
                        last_error: None,
                    };
                });
            }
            Err(why) => {
                metrics.count(Counter::UploaderNumUploadsFail);
                tracing::warn!(target: "uploader", "automatic backup failed: {why}");
                self.note(|done| {
                    done.failures = done.failures.saturating_add(1);
                    done.last_error = Some(why);
                });
            }
        }
    }

    fn note(&self, change: impl FnOnce(&mut Done)) {
        change(&mut self.done.lock());
    }

    /// Makes a copy and uploads it; returns the length of the object in bytes.
    async fn upload(&self, store: &Store, index: u64) -> Result<u64, String> {
        let copy = self.copy(store).await?;
        let at = now();
        let name = self.kept.name_at(&self.settings, at);
        let packing = match self.settings.no_compress {
            true => Packing::None,
            false => Packing::Gzip,
        };
        let said = |e: ObjectError| e.to_string();
        let metadata = [(id_key(&self.settings.target), index.to_string())].into();
        let sent = upload_file(self.kept.store(), &name, &metadata, &copy, packing).await?;
        self.kept.note(&name, index, at).await.map_err(said)?;
        Ok(sent.bytes)
    }

    async fn copy(&self, store: &Store) -> Result<TempPath, String> {
        let format = || match self.settings.vacuum {
            true => BackupFormat::Vacuumed,
            false => BackupFormat::Delete,
        };
        let mut attempt = 1;
        loop {
            match store.backup_here(format(), Origin::default()).await {
                Ok(copy) => return Ok(copy.path),
                Err(e) if attempt >= COPY_ATTEMPTS => return Err(format!("making the copy: {e}")),
                Err(_) => {}
            }
            attempt += 1;
            tokio::time::sleep(COPY_PAUSE).await;
        }
    }
}
