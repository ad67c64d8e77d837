//! Writing files and names so that they survive a power cut. A file's content is durable after an fsync of
//! the file, its name only after an fsync of the directory. A rename is atomic, but may itself be lost until
//! the directory is synced.
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// Replaces a file so that a crash leaves either the old or the new content. Durable when it returns.
///
/// # Errors
/// The file system's.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    rename(&temporary, path)
}

/// Makes a file's content, or a directory's names, durable.
///
/// # Errors
/// The file system's; also if `path` does not exist.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the name of `path`, or its deletion, durable.
///
/// # Errors
/// The file system's.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    sync(parent(path))
}

/// Renames a file or directory, within a directory or to another one. Durable when it returns.
///
/// # Errors
/// The file system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)?;
    if parent(from) == parent(to) {
        Ok(())
    } else {
        sync_parent(from)
    }
}

/// Creates a directory and its missing parents. Their names are durable when it returns, even if the
/// directory existed before: a process may have been killed after creating it and before syncing it.
///
/// # Errors
/// The file system's.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return match sync_parent(dir) {
            // The directory was created by somebody else, in a parent that this process may not open or sync
            // (a mount point).
            Err(error) if is_not_ours(error.kind()) => Ok(()),
            result => result,
        };
    }
    let above = parent(dir);
    if !above.is_dir() {
        create_dir_all(above)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        result => result?,
    }
    sync_parent(dir)
}

fn is_not_ours(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
    )
}

/// The directory that contains `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_renames_and_creates() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_dir_all(&deep).unwrap();
        create_dir_all(&deep).unwrap();
        let (one, other) = (deep.join("one.json"), dir.path().join("a/other"));
        for content in ["first", "second"] {
            write(&one, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&one).unwrap(), content);
        }
        rename(&one, &other).unwrap();
        assert!(!one.exists() && other.exists());
        assert!(create_dir_all(&other.join("below a file")).is_err());
        assert_eq!(parent(Path::new("here")), Path::new("."));
        assert_eq!(parent(Path::new("/")), Path::new("/"));
    }
}
