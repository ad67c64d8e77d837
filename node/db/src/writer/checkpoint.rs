//! Moving the WAL into the main file, so that a crash at any step leaves either the old or the new position.
//!
//! 1. once after each opening: fsync the main file as SQLite made it, and the directory that names both files,
//! 2. fsync the WAL,
//! 3. sidecar with the intent, which describes the WAL down to its last checksum,
//! 4. SQLite copies the WAL's pages,
//! 5. fsync the main file,
//! 6. sidecar with the new position,
//! 7. empty the WAL.
//!
//! A crash before 3 loses the WAL, which the log replays; between 3 and 6 the next start repeats 4 to 6 from the durable WAL;
//! after 6 the WAL is deleted as at every start.
use std::time::Duration;

use rusqlite::wal::CheckpointMode;

use crate::{
    entry::Position,
    files::{
        layout, pin_copy,
        sidecar::{self, Base, Intent, Sidecar},
        space, wal_file,
    },
    sqlite::error::{fatal, fatal_io},
    types::{Checkpoint, Fatal, Urgency},
    writer::Writer,
};

/// How long writes and new reads wait for running reads to end. Reads take microseconds; one that takes longer makes the checkpoint wait.
const READ_WAIT: Duration = Duration::from_millis(20);
/// The same for a checkpoint that is overdue: reads that follow each other without a gap are let through for so long, and then one by one.
const LONG_READ_WAIT: Duration = Duration::from_millis(500);
/// The same where that has not helped: on a busy machine reads of 200 ms take longer.
const LONGEST_READ_WAIT: Duration = Duration::from_millis(1500);
/// How long reads may still go on where the checkpoint must come. Then they end.
const GRACE: Duration = Duration::from_secs(1);
/// Beside what the main file grows by: the sidecar, and what others write meanwhile.
const MARGIN_BYTES: u64 = 1 << 20;

impl Writer {
    #[cfg(test)]
    pub(crate) fn checkpoint(&mut self) -> Result<Checkpoint, Fatal> {
        self.checkpoint_with(Urgency::Polite)
    }

    /// See [`crate::Database::checkpoint`].
    pub(crate) fn checkpoint_with(&mut self, urgency: Urgency) -> Result<Checkpoint, Fatal> {
        let base = self.main.base();
        let Some(position) = self.applied else {
            return Ok(Checkpoint::Unchanged(None));
        };
        if base.position == Some(position) {
            return Ok(Checkpoint::Unchanged(base.position));
        }
        if self.load.is_some() {
            return Ok(Checkpoint::Busy("a load is under way"));
        }
        if !self.has_room()? {
            return Ok(Checkpoint::Busy("the disk has no room for it"));
        }
        if !self.main.begin_change() {
            if urgency >= Urgency::Overdue {
                let files = &self.files;
                pin_copy::move_pins(
                    &self.main,
                    &files.main,
                    files.pin_copy.clone(),
                    files.dir.clone(),
                );
            }
            return Ok(Checkpoint::Busy(
                "the database file is being sent or copied",
            ));
        }
        let quiet = match urgency {
            Urgency::Polite => self.readers.pause(READ_WAIT),
            Urgency::Overdue => self.readers.pause(LONG_READ_WAIT),
            Urgency::Pressing => self.readers.pause(LONGEST_READ_WAIT),
            Urgency::Must => self.readers.drain_or_end(GRACE),
        };
        if !quiet {
            self.main.end_change(None);
            return Ok(Checkpoint::Busy("a long read is under way"));
        }
        // Reads that start now see the newest state, which does not hinder the copying. But while one of them follows the other, the WAL
        // is never without a reader and cannot begin anew, however often it is copied.
        let stays_closed = urgency > Urgency::Polite || self.wal().is_overgrown();
        if !stays_closed {
            self.readers.resume();
        }
        let base = self.move_wal(position)?;
        self.main.end_change(Some(base));
        self.empty_wal(stays_closed);
        Ok(Checkpoint::Done(position))
    }

    /// Whether the main file may become as long as the WAL wants it.
    fn has_room(&self) -> Result<bool, Fatal> {
        let (pages, page_bytes) = self.pages();
        let main_len = layout::len(&self.files.main)
            .map_err(|error| fatal_io("measure the main file", &error))?;
        let growth = (u64::from(pages) * u64::from(page_bytes)).saturating_sub(main_len);
        Ok(growth == 0 || space::has(&self.files.dir, growth + MARGIN_BYTES))
    }

    fn move_wal(&mut self, position: Position) -> Result<Base, Fatal> {
        self.sync_new_main()?;
        if self.wal().is_dirty() {
            layout::sync(&self.files.wal).map_err(|error| fatal_io("fsync the WAL", &error))?;
            self.failpoint("wal synced")?;
            self.write_sidecar(&self.intended(position)?)?;
            self.failpoint("intent written")?;
            self.copy_pages()?;
            self.failpoint("pages copied")?;
            layout::sync(&self.files.main)
                .map_err(|error| fatal_io("fsync the main file", &error))?;
            self.failpoint("main synced")?;
        }
        let main_len = layout::len(&self.files.main)
            .map_err(|error| fatal_io("measure the main file", &error))?;
        let base = Base {
            position: Some(position),
            meta: self.meta.to_vec(),
            main_len,
        };
        self.write_sidecar(&Sidecar::at_rest(base.clone()))?;
        self.failpoint("state written")?;
        Ok(base)
    }

    /// SQLite made the main file and the WAL without syncing anything; a sidecar that speaks of them must not be all that is left.
    fn sync_new_main(&mut self) -> Result<(), Fatal> {
        if !self.main_synced {
            layout::sync(&self.files.main)
                .and_then(|()| self.files.sync_dir())
                .map_err(|error| fatal_io("fsync the new main file", &error))?;
            self.main_synced = true;
            self.failpoint("main file synced")?;
        }
        Ok(())
    }

    fn intended(&self, position: Position) -> Result<Sidecar, Fatal> {
        let io = |error| fatal_io("read the WAL", &error);
        let wal_frames = u32::try_from(self.wal().frames())
            .map_err(|_| Fatal("the WAL is too long".to_owned()))?;
        let intent = Intent::Checkpoint {
            position,
            meta: self.meta.to_vec(),
            wal_salts: wal_file::salts(&self.files.wal).map_err(io)?,
            wal_frames,
        };
        Ok(Sidecar {
            base: self.main.base(),
            intent: Some(intent),
            wal_end: Some(wal_file::end_at(&self.files.wal, wal_frames).map_err(io)?),
        })
    }

    fn copy_pages(&self) -> Result<(), Fatal> {
        let conn = &self.session()?.conn;
        let (frames, copied) = conn
            .wal_checkpoint_v2(Some("main"), CheckpointMode::PASSIVE)
            .map_err(|error| fatal("checkpoint", &error))?;
        if frames != copied || frames < 0 {
            // Cannot happen: no reader of an older state is left, and nobody else writes.
            return Err(Fatal(format!(
                "checkpoint copied {copied} of {frames} frames"
            )));
        }
        Ok(())
    }

    /// Truncates the copied WAL. If a read that began meanwhile still uses it, the next commit or checkpoint starts it anew.
    fn empty_wal(&self, nobody_reads: bool) {
        self.wal().moved();
        if nobody_reads || self.readers.pause(READ_WAIT) {
            let emptied = self.session().is_ok_and(|session| {
                session
                    .conn
                    .wal_checkpoint_v2(Some("main"), CheckpointMode::TRUNCATE)
                    .is_ok()
            });
            self.readers.resume();
            if emptied {
                self.wal().emptied();
            }
        }
    }

    pub(crate) fn write_sidecar(&self, sidecar: &Sidecar) -> Result<(), Fatal> {
        let bytes = sidecar::encode(sidecar).map_err(Fatal)?;
        self.files
            .write_state(&bytes)
            .map_err(|error| fatal_io("write the state file", &error))
    }
}
