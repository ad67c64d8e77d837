//! Names of the files in the database's directory, and writing them so that they survive a power cut.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::files::durable;

/// Where everything lies.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) dir: PathBuf,
    /// The main file.
    pub(crate) main: PathBuf,
    pub(crate) wal: PathBuf,
    shm: PathBuf,
    journal: PathBuf,
    /// The sidecar.
    pub(crate) state: PathBuf,
    /// A snapshot being received.
    pub(crate) snapshot: PathBuf,
    /// A load being collected.
    pub(crate) load: PathBuf,
    /// A whole file that is about to replace the main file.
    pub(crate) replacement: PathBuf,
    /// A copy of the main file for those who send it. It loses its name as soon as it is open.
    pub(crate) pin_copy: PathBuf,
}

impl Files {
    pub(crate) fn new(dir: &Path) -> Self {
        let file = |name: &str| dir.join(name);
        Self {
            dir: dir.to_owned(),
            main: file("db.sqlite"),
            wal: file("db.sqlite-wal"),
            shm: file("db.sqlite-shm"),
            journal: file("db.sqlite-journal"),
            state: file("state"),
            snapshot: file("incoming-snapshot.part"),
            load: file("incoming-load.part"),
            replacement: file("replacement.sqlite"),
            pin_copy: file("aside.sqlite"),
        }
    }

    /// Deletes what SQLite keeps beside the main file. No connection may be open. The rollback journal is of the moment in which SQLite
    /// made the file; one that came back after a power cut would be rolled back into the present file.
    pub(crate) fn remove_wal(&self) -> io::Result<()> {
        remove(&self.wal)?;
        remove(&self.shm)?;
        remove(&self.journal)
    }

    /// Replaces the sidecar; durable when it returns.
    pub(crate) fn write_state(&self, bytes: &[u8]) -> io::Result<()> {
        durable::write(&self.state, bytes)
    }

    /// Makes renames and deletions durable.
    pub(crate) fn sync_dir(&self) -> io::Result<()> {
        durable::sync(&self.dir)
    }
}

/// Makes a file's content durable. A missing file is fine.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    match durable::sync(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// What copies leave free on a disk: what the log needs to go on and to end in order. An eighth of a small disk.
const RESERVE_BYTES: u64 = 48 << 20;

/// Bytes that a copy may take on the disk of `dir`. A file system that does not tell is not known to be full.
pub(crate) fn spare_bytes(dir: &Path) -> u64 {
    let total = fs4::total_space(dir).unwrap_or(u64::MAX);
    let free = fs4::available_space(dir).unwrap_or(u64::MAX);
    free.saturating_sub(RESERVE_BYTES.min(total / 8))
}

/// Is there room for a file of so many bytes?
pub(crate) fn check_space(dir: &Path, bytes: u64) -> io::Result<()> {
    let spare = spare_bytes(dir);
    if spare > bytes {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::StorageFull,
        format!(
            "not enough room on the disk of {}: {bytes} more bytes are needed, {spare} may be used",
            dir.display()
        ),
    ))
}

/// Deletes a file that may be missing.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Length in bytes; 0 for a missing file.
pub(crate) fn len(path: &Path) -> io::Result<u64> {
    Ok(len_if_there(path)?.unwrap_or(0))
}

/// Length in bytes; `None` for a missing file.
pub(crate) fn len_if_there(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
