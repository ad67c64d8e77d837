//! Writes a directory as a tar archive, for images that have no `tar`.
use std::{
    fs::{self, File},
    io::{self, Read as _, Write},
    path::Path,
};

const BLOCK: usize = 512;
/// Field of a header: where it begins, and its length.
const NAME: (usize, usize) = (0, 100);
const MODE: (usize, usize) = (100, 8);
const SIZE: (usize, usize) = (124, 12);
const CHECKSUM: (usize, usize) = (148, 8);
const KIND: (usize, usize) = (156, 1);
const MAGIC: (usize, usize) = (257, 8);
const PREFIX: (usize, usize) = (345, 155);

/// Writes `dir` and what is in it, under `name`.
pub(super) fn write(out: &mut impl Write, dir: &Path, name: &str) -> io::Result<()> {
    add(out, dir, name)?;
    // Two empty blocks end an archive.
    out.write_all(&[0; 2 * BLOCK])?;
    out.flush()
}

fn add(out: &mut impl Write, path: &Path, name: &str) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        out.write_all(&header(&format!("{name}/"), 0, b'5')?)?;
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let file = entry.file_name();
            let below = format!("{name}/{}", file.to_string_lossy());
            add(out, &entry.path(), &below)?;
        }
        return Ok(());
    }
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    out.write_all(&header(name, size, b'0')?)?;
    let copied = io::copy(&mut (&mut file).take(size), out)?;
    if copied != size {
        return Err(io::Error::other(format!("{name} became shorter")));
    }
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if rest > 0 {
        out.write_all(&vec![0; BLOCK - rest])?;
    }
    Ok(())
}

fn header(name: &str, size: u64, kind: u8) -> io::Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let (prefix, name) = split(name)?;
    put(&mut block, NAME, name.as_bytes());
    put(&mut block, PREFIX, prefix.as_bytes());
    put(
        &mut block,
        MODE,
        if kind == b'5' { b"0000755" } else { b"0000644" },
    );
    put(&mut block, SIZE, &size_field(size));
    put(&mut block, KIND, &[kind]);
    put(&mut block, MAGIC, b"ustar\x0000");
    // It is computed with blanks in its place.
    put(&mut block, CHECKSUM, &[b' '; 8]);
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut block, CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// Octal digits, or, from 8 GiB on, the binary form that GNU's and BSD's tar read.
fn size_field(size: u64) -> [u8; 12] {
    let mut field = [0; 12];
    let octal = format!("{size:011o}");
    if octal.len() < field.len() {
        for (to, from) in field.iter_mut().zip(octal.bytes()) {
            *to = from;
        }
    } else {
        for (to, from) in field.iter_mut().rev().zip(size.to_be_bytes().iter().rev()) {
            *to = *from;
        }
        if let Some(first) = field.first_mut() {
            *first = 0x80;
        }
    }
    field
}

fn put(block: &mut [u8; BLOCK], (at, length): (usize, usize), bytes: &[u8]) {
    let field = block.iter_mut().skip(at).take(length);
    for (to, from) in field.zip(bytes) {
        *to = *from;
    }
}

/// Divides a long name at a `/`.
fn split(name: &str) -> io::Result<(&str, &str)> {
    if name.len() <= NAME.1 {
        return Ok(("", name));
    }
    let fits = |at: &usize| *at <= PREFIX.1 && name.len() - at - 1 <= NAME.1;
    let at = name.match_indices('/').map(|(at, _)| at).find(fits);
    at.and_then(|at| Some((name.get(..at)?, name.get(at + 1..)?)))
        .ok_or_else(|| io::Error::other(format!("{name} is too long for an archive")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        assert_eq!(&size_field(8), b"00000000010\0");
        let large = size_field(10 << 30);
        assert_eq!(
            (large[0], &large[4..]),
            (0x80, &(10_u64 << 30).to_be_bytes()[..])
        );
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
        assert_eq!(split(&long).unwrap().0.len(), 90);
        assert!(split(&"x".repeat(101)).is_err());
    }

    #[test]
    fn blocks_and_checksum() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("raft")).unwrap();
        fs::write(dir.path().join("db.sqlite"), vec![7; 600]).unwrap();
        fs::write(dir.path().join("raft/x"), "y").unwrap();
        let mut out = Vec::new();
        write(&mut out, dir.path(), "copy-1").unwrap();
        // Directory, file of two blocks, directory, file of one block, end.
        assert_eq!(out.len(), BLOCK * (1 + 3 + 1 + 2 + 2));
        assert_eq!(&out[BLOCK..BLOCK + 16], b"copy-1/db.sqlite");
        let sum: u32 = (0..BLOCK)
            .map(|at| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u32::from(out[at])
                }
            })
            .sum();
        assert_eq!(&out[148..154], format!("{sum:06o}").as_bytes());
    }
}
