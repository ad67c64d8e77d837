//! Writes a directory as a tar archive, for images that have no `tar`.
use std::{
    fs::{self, File},
    io::{self, Read as _, Write},
    path::Path,
};

use tar::{Builder, EntryType, Header};

/// Writes `dir` and what is in it, under `name`. Owners and times are left out: the copy is unpacked as the
/// data directory of whoever unpacks it.
pub(super) fn write(out: &mut impl Write, dir: &Path, name: &str) -> io::Result<()> {
    let mut archive = Builder::new(out);
    add(&mut archive, dir, Path::new(name))?;
    archive.into_inner()?.flush()
}

fn add(archive: &mut Builder<impl Write>, path: &Path, name: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        archive.append_data(&mut header(EntryType::Directory, 0), name, io::empty())?;
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            add(archive, &entry.path(), &name.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut content = Counted {
        file: file.take(size),
        read: 0,
    };
    archive.append_data(&mut header(EntryType::Regular, size), name, &mut content)?;
    if content.read == size {
        return Ok(());
    }
    let name = name.display();
    Err(io::Error::other(format!("{name} became shorter")))
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header
}

/// A file, and how much of it was read: the archive's header promises its size.
struct Counted {
    file: io::Take<File>,
    read: u64,
}

impl io::Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read = self
            .read
            .saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        // Longer than the field of a header.
        let deep = Path::new("raft").join("d".repeat(90)).join("f".repeat(120));
        fs::create_dir_all(copy.join(&deep).parent().unwrap()).unwrap();
        fs::write(copy.join("db.sqlite"), vec![7; 600]).unwrap();
        fs::write(copy.join(&deep), "y").unwrap();
        let mut out = Vec::new();
        write(&mut out, &copy, "copy-1").unwrap();
        let to = dir.path().join("to");
        tar::Archive::new(&out[..]).unpack(&to).unwrap();
        let there = |name: &Path| fs::read(to.join("copy-1").join(name)).unwrap();
        assert_eq!(there(Path::new("db.sqlite")), vec![7; 600]);
        assert_eq!(there(&deep), b"y");
        let mut again = Vec::new();
        write(&mut again, &copy, "copy-1").unwrap();
        assert_eq!(out, again);
    }

    #[test]
    fn more_than_an_octal_field_holds() {
        let header = header(EntryType::Regular, 10 << 30);
        assert_eq!(header.size().unwrap(), 10 << 30);
    }
}
