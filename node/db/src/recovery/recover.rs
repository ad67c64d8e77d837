//! Opening: completes what a crash interrupted, and deletes what the log replays.
use std::{fs, io};

use crate::{
    entry::Position,
    files::{
        durable,
        layout::{self, Files},
        sidecar::{self, Base, Intent, Sidecar},
        wal_file::{self, WalEnd},
    },
    recovery::classify::{Observed, Verdict, classify, required_position},
    types::OpenError,
};

/// Advice for a damaged file that nothing here can replace.
const REMEDY: &str = "Delete the directory and let this node join again, or restore a backup";

pub(crate) fn io_error(context: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io {
        context: context.to_owned(),
        source,
    }
}

/// Brings the directory to a state where the main file equals the returned base and no other file matters.
/// `log_holds_all` tells whether the caller's log holds every entry from the first one up to a position.
///
/// Nothing is changed before the verdict, and each step keeps the evidence for the verdict until the next
/// sidecar is durable. So an interrupted start comes to the same verdict next time.
pub(crate) fn recover(
    files: &Files,
    log_holds_all: &dyn Fn(Position) -> bool,
) -> Result<Base, OpenError> {
    durable::create_dir_all(&files.dir).map_err(io_error("create the database's directory"))?;
    // A killed process may have left names that exist but are not durable.
    files
        .sync_dir()
        .map_err(io_error("fsync the database's directory"))?;
    let sidecar = read_sidecar(files)?;
    let observed = inspect(files, &sidecar)?;
    let holds_all = required_position(&sidecar).is_none_or(log_holds_all);
    let base = match classify(&sidecar, &observed, holds_all) {
        Verdict::Equals(base) if sidecar.intent.is_none() => base,
        Verdict::Equals(base) => commit_base(files, base)?,
        Verdict::MoveWal(end, base) => {
            move_wal(files, &sidecar, end).map_err(io_error("finish a checkpoint"))?;
            commit_base(files, base)?
        }
        Verdict::RenameReplacement(base) => {
            rename_replacement(files).map_err(io_error("put the new database in place"))?;
            commit_base(files, base)?
        }
        Verdict::Rebuild(why) => {
            tracing::warn!(
                "{}: {why}. The log holds all entries: the database is rebuilt from it",
                files.dir.display()
            );
            commit_base(files, Base::default())?
        }
        Verdict::Refuse(why) => {
            return Err(OpenError::Corrupt(format!(
                "{}: {why}. {REMEDY}",
                files.dir.display()
            )));
        }
    };
    clean_up(files, &base).map_err(io_error("remove what is left over"))?;
    Ok(base)
}

/// Observes the files by plain reads.
fn inspect(files: &Files, sidecar: &Sidecar) -> Result<Observed, OpenError> {
    let wal = match &sidecar.intent {
        Some(Intent::Checkpoint {
            wal_salts,
            wal_frames,
            ..
        }) => wal_file::check(&files.wal, *wal_salts, *wal_frames)
            .map_err(io_error("read the WAL"))?,
        _ => Err("it is not needed".to_owned()),
    };
    Ok(Observed {
        main_bytes: layout::len(&files.main).map_err(io_error("measure the main file"))?,
        replacement_bytes: layout::len_if_there(&files.replacement)
            .map_err(io_error("measure the new database"))?,
        wal,
    })
}

/// Records durably that the main file equals `base`.
fn commit_base(files: &Files, base: Base) -> Result<Base, OpenError> {
    write(files, &Sidecar::at_rest(base.clone()))?;
    Ok(base)
}

fn move_wal(files: &Files, sidecar: &Sidecar, end: WalEnd) -> io::Result<()> {
    let Some(Intent::Checkpoint {
        wal_salts,
        wal_frames,
        ..
    }) = sidecar.intent
    else {
        return Ok(());
    };
    wal_file::copy(&files.wal, wal_salts, wal_frames, end, &files.main)?;
    durable::sync(&files.main)?;
    // The file may have been created just now, so its name must be synced, too.
    files.sync_dir()
}

/// The replacement was made durable before the intent.
fn rename_replacement(files: &Files) -> io::Result<()> {
    files.remove_wal()?;
    durable::rename(&files.replacement, &files.main)
}

fn clean_up(files: &Files, base: &Base) -> io::Result<()> {
    for leftover in [
        &files.snapshot,
        &files.load,
        &files.replacement,
        &files.pin_copy,
    ] {
        layout::remove(leftover)?;
    }
    files.remove_wal()?;
    if base.position.is_none() {
        // There has been no checkpoint, so the file was created after the last one and holds nothing durable.
        layout::remove(&files.main)?;
    }
    Ok(())
}

pub(crate) fn write(files: &Files, sidecar: &Sidecar) -> Result<(), OpenError> {
    let bytes = sidecar::encode(sidecar).map_err(OpenError::Corrupt)?;
    files
        .write_state(&bytes)
        .map_err(io_error("write the state file"))
}

/// A new directory gets its sidecar before its main file. A main file without a sidecar was therefore not
/// made by this program and is never deleted.
fn read_sidecar(files: &Files) -> Result<Sidecar, OpenError> {
    if let Some(sidecar) = load_sidecar(files)? {
        return Ok(sidecar);
    }
    let sidecar = Sidecar::default();
    write(files, &sidecar)?;
    Ok(sidecar)
}

/// `None`: there is neither a sidecar nor a main file.
pub(crate) fn load_sidecar(files: &Files) -> Result<Option<Sidecar>, OpenError> {
    match fs::read(&files.state) {
        Ok(bytes) => sidecar::decode(&bytes).map(Some).map_err(|reason| {
            OpenError::Corrupt(format!(
                "the state file {} is damaged: {reason}. {REMEDY}",
                files.state.display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if layout::len(&files.main).map_err(io_error("measure the main file"))? > 0 {
                return Err(OpenError::Corrupt(format!(
                    "{} exists but the state file {} is missing, so it is unknown which log position the database equals. {REMEDY}",
                    files.main.display(),
                    files.state.display()
                )));
            }
            Ok(None)
        }
        Err(error) => Err(io_error("read the state file")(error)),
    }
}

pub(crate) fn check_length(files: &Files, base: &Base) -> Result<(), OpenError> {
    let len = layout::len(&files.main).map_err(io_error("measure the main file"))?;
    if base.position.is_some() && len < base.main_len {
        return Err(OpenError::Corrupt(format!(
            "the database {} has {len} bytes but had {} at its last checkpoint: it was cut short. {REMEDY}",
            files.main.display(),
            base.main_len
        )));
    }
    Ok(())
}
