//! Opening: finishing what a crash interrupted, and throwing away what the log replays.
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

/// What helps where nothing here can replace a damaged file.
const REMEDY: &str = "Delete the directory and let this node join anew, or restore a backup";

pub(crate) fn io_error(context: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io {
        context: context.to_owned(),
        source,
    }
}

/// Brings the directory to a state where the main file equals what is returned and nothing else matters. `log_holds_all` says whether the
/// caller's log holds every entry from its beginning up to a position.
///
/// Nothing is changed before the verdict, and each step leaves what the verdict was founded on until the next sidecar is durable. So
/// whatever happens in between, the next start comes to the same verdict.
pub(crate) fn recover(
    files: &Files,
    log_holds_all: &dyn Fn(Position) -> bool,
) -> Result<Base, OpenError> {
    durable::create_dir_all(&files.dir).map_err(io_error("create the database's directory"))?;
    // A process that was killed may have left names that are there, but not durable.
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
                "{}: {why}. The log holds everything: the database is made from it anew",
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

/// Plain reads only.
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

/// From here on the main file equals `base`, and no crash leads back.
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
    // If the file had to be made, so is its name.
    files.sync_dir()
}

/// The replacement was durable before the intent.
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
        // Whatever is there was made after the last checkpoint, of which there is none.
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

/// A new directory gets its sidecar before its main file, so that a main file without one is never ours to delete.
fn read_sidecar(files: &Files) -> Result<Sidecar, OpenError> {
    if let Some(sidecar) = load_sidecar(files)? {
        return Ok(sidecar);
    }
    let sidecar = Sidecar::default();
    write(files, &sidecar)?;
    Ok(sidecar)
}

/// `None`: neither a sidecar nor a main file.
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
