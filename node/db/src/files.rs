//! Names of the files in the database's directory, and writing them so that they survive a power cut.
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Where everything lies.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) dir: PathBuf,
    /// The main file.
    pub(crate) main: PathBuf,
    pub(crate) wal: PathBuf,
    shm: PathBuf,
    /// The sidecar.
    pub(crate) state: PathBuf,
    state_temporary: PathBuf,
    /// A snapshot being received.
    pub(crate) snapshot: PathBuf,
    /// A load being collected.
    pub(crate) load: PathBuf,
    /// A whole file that is about to replace the main file.
    pub(crate) replacement: PathBuf,
}

impl Files {
    pub(crate) fn new(dir: &Path) -> Self {
        let file = |name: &str| dir.join(name);
        Self {
            dir: dir.to_owned(),
            main: file("db.sqlite"),
            wal: file("db.sqlite-wal"),
            shm: file("db.sqlite-shm"),
            state: file("state"),
            state_temporary: file("state.tmp"),
            snapshot: file("incoming-snapshot.part"),
            load: file("incoming-load.part"),
            replacement: file("replacement.sqlite"),
        }
    }

    /// Deletes what SQLite keeps beside the main file. No connection may be open.
    pub(crate) fn remove_wal(&self) -> io::Result<()> {
        remove(&self.wal)?;
        remove(&self.shm)
    }

    /// Replaces the sidecar; durable when it returns.
    pub(crate) fn write_state(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(&self.state_temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&self.state_temporary, &self.state)?;
        self.sync_dir()
    }

    /// Makes renames and deletions durable.
    pub(crate) fn sync_dir(&self) -> io::Result<()> {
        sync(&self.dir)
    }
}

/// Makes a file's content (or a directory's names) durable. A missing file is fine.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => file.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
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
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
