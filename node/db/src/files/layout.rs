//! The files in the database's directory, and operations on files that may be missing.
use std::{
    fs::{self, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use crate::files::durable;

/// Offset of the header bytes for the journal mode (1 rollback, 2 WAL): first for writing, then for reading.
pub(crate) const VERSIONS_AT: usize = 18;

/// Paths of the database's files.
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
    /// The collected chunks of a load.
    pub(crate) load: PathBuf,
    /// A complete file that is about to replace the main file.
    pub(crate) replacement: PathBuf,
    /// A copy of the main file for senders of a snapshot. It is unlinked as soon as it is open.
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

    /// Deletes SQLite's files beside the main file. No connection may be open. The rollback journal only
    /// exists while SQLite creates the file; if it came back after a power cut, SQLite would roll it back
    /// into the current file.
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

/// Makes a file's content durable; does nothing for a missing file.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    match durable::sync(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Space that copies leave free on the disk, so that the log can continue and the process can stop in order;
/// an eighth of a small disk.
const RESERVE_BYTES: u64 = 48 << 20;

/// Bytes that a copy may use on the disk of `dir`. A file system that reports nothing counts as not full.
pub(crate) fn spare_bytes(dir: &Path) -> u64 {
    let total = fs4::total_space(dir).unwrap_or(u64::MAX);
    let free = fs4::available_space(dir).unwrap_or(u64::MAX);
    free.saturating_sub(RESERVE_BYTES.min(total / 8))
}

/// Fails if the disk has no space for a file of this size.
pub(crate) fn check_space(dir: &Path, bytes: u64) -> io::Result<()> {
    let spare = spare_bytes(dir);
    if spare > bytes {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::StorageFull,
        format!(
            "not enough space on the disk of {}: {bytes} more bytes are needed, {spare} may be used",
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

/// The journal mode in a file's header.
#[derive(Clone, Copy)]
pub(crate) enum JournalMode {
    Delete = 1,
    Wal = 2,
}

/// Sets the journal mode in the header. The file must be closed and have no journal.
pub(crate) fn set_journal_mode(path: &Path, mode: JournalMode) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(VERSIONS_AT as u64))?;
    file.write_all(&[mode as u8, mode as u8])
}
