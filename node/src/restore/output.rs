//! The file that a restore creates: it never replaces another file, and is never in a node's data directory.
use std::{
    io,
    path::{Path, PathBuf},
};

use node_db::durable;
use tempfile::TempPath;

/// Suffixes of files that SQLite would apply to a database with that name.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Why a restored file cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The path exists.
    #[error("{} exists, and a restore never overwrites anything: name a new file", .0.display())]
    Exists(PathBuf),
    /// There is an old journal or WAL that SQLite would apply to the new database.
    #[error("{} exists and would be mixed into the restored database: remove it, or name another file", .0.display())]
    Companion(PathBuf),
    /// The directory is a node's data directory.
    #[error("{} is a node's data directory: name a file elsewhere, then load it (POST /db/load or -auto-restore)", .0.display())]
    DataDirectory(PathBuf),
    /// The directory does not exist.
    #[error("there is no directory {}: create it, or name a file elsewhere", .0.display())]
    NoDirectory(PathBuf),
    /// The path names no file.
    #[error("{} names no file", .0.display())]
    NoName(PathBuf),
    /// The file system's error.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// A file that does not exist yet, in a directory that does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    path: PathBuf,
    dir: PathBuf,
}

impl Output {
    /// Checks the path, before the restore begins.
    ///
    /// # Errors
    /// See [`OutputError`].
    pub fn new(path: &Path) -> Result<Self, OutputError> {
        let path = std::path::absolute(path).map_err(|source| OutputError::Io {
            path: path.to_owned(),
            source,
        })?;
        let (Some(dir), Some(_)) = (path.parent().map(Path::to_owned), path.file_name()) else {
            return Err(OutputError::NoName(path));
        };
        if path.symlink_metadata().is_ok() {
            return Err(OutputError::Exists(path));
        }
        if !dir.is_dir() {
            return Err(OutputError::NoDirectory(dir));
        }
        if dir.join("raft").exists() || dir.join("state").exists() {
            return Err(OutputError::DataDirectory(dir));
        }
        for companion in companions(&path) {
            if companion.symlink_metadata().is_ok() {
                return Err(OutputError::Companion(companion));
            }
        }
        Ok(Self { path, dir })
    }

    /// The directory. Scratch files belong into it, because [`Self::place`] needs them on the same disk.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames `from`, a complete and synced file on the same disk, to this path. The name is durable when
    /// this returns.
    ///
    /// # Errors
    /// The path exists by now, or the file system's error.
    pub fn place(&self, from: PathBuf) -> Result<(), OutputError> {
        let io = |source| OutputError::Io {
            path: self.path.clone(),
            source,
        };
        let from = TempPath::try_from_path(from).map_err(io)?;
        from.persist_noclobber(&self.path)
            .map_err(|error| match error.error.kind() {
                io::ErrorKind::AlreadyExists => OutputError::Exists(self.path.clone()),
                _ => io(error.error),
            })?;
        durable::sync_parent(&self.path).map_err(io)
    }
}

fn companions(path: &Path) -> impl Iterator<Item = PathBuf> {
    COMPANIONS.iter().map(move |suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_a_new_name_in_a_plain_directory_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let here = |name: &str| dir.path().join(name);
        fs::write(here("old"), "data").unwrap();
        fs::write(here("new.db-journal"), "").unwrap();
        fs::create_dir_all(here("node/raft")).unwrap();
        std::os::unix::fs::symlink(here("nowhere"), here("link")).unwrap();
        for (name, says) in [
            ("old", "never overwrites"),
            ("node", "never overwrites"),
            ("link", "never overwrites"),
            ("new.db", "mixed into"),
            ("node/db.sqlite", "a node's data directory"),
            ("missing/x", "there is no directory"),
        ] {
            let error = Output::new(&here(name)).unwrap_err().to_string();
            assert!(
                error.contains(says) && error.contains(name.split('/').next().unwrap()),
                "{error}"
            );
        }
        assert!(Output::new(Path::new("/")).is_err());
        assert!(Output::new(&here("fine")).is_ok());
    }

    #[test]
    fn a_name_that_is_taken_meanwhile_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        fs::write(&made, "new").unwrap();
        let output = Output::new(&dir.path().join("out")).unwrap();
        fs::write(output.path(), "old").unwrap();
        assert!(matches!(
            output.place(made.clone()),
            Err(OutputError::Exists(_))
        ));
        assert_eq!(fs::read(output.path()).unwrap(), b"old");
        fs::remove_file(output.path()).unwrap();
        fs::write(&made, "new").unwrap();
        output.place(made.clone()).unwrap();
        assert_eq!(fs::read(output.path()).unwrap(), b"new");
        assert!(!made.exists());
    }
}
