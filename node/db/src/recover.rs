//! Opening: finishing what a crash interrupted, and throwing away what the log replays.
use std::{fs, io, path::Path};

use rusqlite::wal::CheckpointMode;

use crate::{
    OpenError,
    checkpoint::wal_salts,
    connection::{Meters, Session},
    fault::message,
    files::{self, Files},
    sidecar::{self, Base, Intent, Sidecar},
};

pub(crate) fn io_error(context: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io {
        context: context.to_owned(),
        source,
    }
}

fn sqlite_error(error: &rusqlite::Error) -> OpenError {
    OpenError::Sqlite(message(error))
}

/// Brings the directory to a state where the main file equals what is returned and nothing else matters.
pub(crate) fn recover(files: &Files) -> Result<Base, OpenError> {
    fs::create_dir_all(&files.dir).map_err(io_error("create the database's directory"))?;
    for leftover in [&files.snapshot, &files.load] {
        files::remove(leftover).map_err(io_error("remove an unfinished file"))?;
    }
    let sidecar = read_sidecar(files)?;
    let finished = match sidecar.intent {
        None => None,
        Some(Intent::Checkpoint {
            position,
            meta,
            wal_salts,
            wal_frames,
        }) => {
            finish_checkpoint(files, wal_salts, wal_frames)?;
            let main_len = files::len(&files.main).map_err(io_error("measure the main file"))?;
            Some(Base {
                position: Some(position),
                meta,
                main_len,
            })
        }
        Some(Intent::Replace {
            position,
            meta,
            main_len,
        }) => {
            finish_replacement(files)?;
            Some(Base {
                position: Some(position),
                meta,
                main_len,
            })
        }
    };
    let base = match finished {
        Some(base) => {
            check_length(files, &base)?;
            write(
                files,
                &Sidecar {
                    base: base.clone(),
                    intent: None,
                },
            )?;
            base
        }
        None => sidecar.base,
    };
    files::remove(&files.replacement).map_err(io_error("remove an unfinished file"))?;
    files.remove_wal().map_err(io_error("remove the WAL"))?;
    if base.position.is_none() {
        // Whatever is there was made after the last checkpoint, of which there is none.
        files::remove(&files.main).map_err(io_error("remove an empty database"))?;
    }
    check_length(files, &base)?;
    Ok(base)
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
                "the state file {} is damaged: {reason}. Delete the directory and let this node join anew, or restore a backup",
                files.state.display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if files::len(&files.main).map_err(io_error("measure the main file"))? > 0 {
                return Err(OpenError::Corrupt(format!(
                    "{} exists but the state file {} is missing, so it is unknown which log position the database equals. \
                     Delete the directory and let this node join anew, or restore a backup",
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
    let len = files::len(&files.main).map_err(io_error("measure the main file"))?;
    if base.position.is_some() && len < base.main_len {
        return Err(OpenError::Corrupt(format!(
            "the database {} has {len} bytes but had {} at its last checkpoint: it was cut short. \
             Delete the directory and let this node join anew, or restore a backup",
            files.main.display(),
            base.main_len
        )));
    }
    Ok(())
}

fn finish_checkpoint(files: &Files, salts: [u8; 8], frames: u32) -> Result<(), OpenError> {
    // An empty WAL means that SQLite had done everything.
    if files::len(&files.wal).map_err(io_error("measure the WAL"))? == 0 {
        return Ok(());
    }
    let damaged = |what: &str| {
        OpenError::Corrupt(format!(
            "the WAL {} is damaged in the middle of a checkpoint: {what}. \
             Delete the directory and let this node join anew, or restore a backup",
            files.wal.display()
        ))
    };
    if wal_salts(&files.wal).map_err(io_error("read the WAL's header"))? != salts {
        return Err(damaged("it is not the one that was being moved"));
    }
    // Its index may have been half written.
    remove_index(&files.wal)?;
    let session = Session::open(&files.main, false, Meters::default())
        .map_err(|error| sqlite_error(&error))?;
    let (found, copied) = session
        .conn
        .wal_checkpoint_v2(Some("main"), CheckpointMode::PASSIVE)
        .map_err(|error| sqlite_error(&error))?;
    if u32::try_from(found) != Ok(frames) || copied != found {
        return Err(damaged(&format!("{found} of {frames} frames are valid")));
    }
    drop(session);
    files::sync(&files.main).map_err(io_error("fsync the main file"))
}

fn remove_index(wal: &Path) -> Result<(), OpenError> {
    files::remove(&wal.with_file_name("db.sqlite-shm")).map_err(io_error("remove the WAL's index"))
}

/// The replacement was durable before the intent; if it is gone, it was renamed.
fn finish_replacement(files: &Files) -> Result<(), OpenError> {
    let io = io_error("put the new database in place");
    files.remove_wal().map_err(&io)?;
    match fs::rename(&files.replacement, &files.main) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    files.sync_dir().map_err(io)
}
