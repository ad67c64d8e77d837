//! Moves the WAL into the main file. A crash at any step leaves either the old or the new position.
//!
//! 1. once after each opening: fsync the main file as SQLite created it, and the directory with both names,
//! 2. fsync the WAL,
//! 3. write a sidecar with an intent that describes the WAL, including its last checksum,
//! 4. SQLite copies the pages of the WAL,
//! 5. fsync the main file,
//! 6. write a sidecar with the new position,
//! 7. empty the WAL.
//!
//! A crash before step 3 loses the WAL, which the log replays. After a crash between 3 and 6 the next start
//! repeats 4 to 6 from the durable WAL. After 6 the next start deletes the WAL, as every start does.
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

/// How long writes and new reads wait for running reads to end. Reads usually take microseconds; a longer one
/// postpones the checkpoint.
const READ_WAIT: Duration = Duration::from_millis(20);
/// The same for an overdue checkpoint. While it waits, no new read starts, so a sequence of overlapping reads
/// comes to an end.
const LONG_READ_WAIT: Duration = Duration::from_millis(500);
/// The same if that was not enough: on a busy machine a read of 200 ms of work takes longer.
const LONGEST_READ_WAIT: Duration = Duration::from_millis(1500);
/// How long reads may continue when the checkpoint cannot be postponed any more. Then they are ended.
const GRACE: Duration = Duration::from_secs(1);
/// Free space required beyond the growth of the main file: for the sidecar and for concurrent writes by
/// others.
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
            return Ok(Checkpoint::Busy("a load is in progress"));
        }
        if !self.has_space()? {
            return Ok(Checkpoint::Busy("the disk has no space for it"));
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
            Urgency::Must => self.readers.end_reads(GRACE),
        };
        if !quiet {
            self.main.end_change(None);
            return Ok(Checkpoint::Busy("a long read is running"));
        }
        // Reads that start now see the newest state and do not delay the copying. But if reads overlap
        // without a gap, the WAL always has a reader and cannot restart from its beginning, however often it
        // is copied.
        let keep_readers_out = urgency > Urgency::Polite || self.wal().is_overgrown();
        if !keep_readers_out {
            self.readers.resume();
        }
        let base = self.move_wal(position)?;
        self.main.end_change(Some(base));
        self.empty_wal(keep_readers_out);
        Ok(Checkpoint::Done(position))
    }

    /// Whether the disk has space for the main file at its length after the checkpoint.
    fn has_space(&self) -> Result<bool, Fatal> {
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

    /// SQLite creates the main file and the WAL without syncing. After a power cut, a sidecar that refers to
    /// them must not be the only file left.
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

    /// Truncates the copied WAL. If a read that started meanwhile still uses it, the next commit or
    /// checkpoint restarts it.
    fn empty_wal(&self, readers_held_back: bool) {
        self.wal().moved();
        if readers_held_back || self.readers.pause(READ_WAIT) {
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
