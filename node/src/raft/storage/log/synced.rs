//! How far the log is known to be synced: a small file beside the log's files, written after each sync, never
//! before it has ended.
//!
//! It is evidence only. It is not synced itself, except when the log is opened, so it costs a write of the
//! log only one small write into the page cache. After the end of a process it is exact; after a power cut it
//! may be older than the log, never newer. Two slots are written in turn, each in a sector of its own, so a
//! torn write leaves the other one intact.
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// In the log's directory, so that it is copied and moved with the log.
pub(super) const FILE: &str = "synced";
/// One slot per sector.
const SLOT_BYTES: usize = 512;
const SLOTS: usize = 2;
/// Format, sequence number, offset; then the CRC32 of these. A file of another format is no evidence.
const FORMAT: &str = "rqlited-synced 1";

/// The offset up to which the log was synced, counted as in the names of its files. 0 if nothing is known: an
/// older node wrote this log, or the file did not survive a crash.
///
/// # Errors
/// The disk refused.
pub(super) fn read(dir: &Path) -> io::Result<u64> {
    Ok(newest(dir)?.map_or(0, |(_, offset)| offset))
}

fn newest(dir: &Path) -> io::Result<Option<(u64, u64)>> {
    match std::fs::read(dir.join(FILE)) {
        Ok(bytes) => Ok(bytes.chunks(SLOT_BYTES).filter_map(decode).max()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// One line of text, padded with zeros.
fn encode(sequence: u64, offset: u64) -> [u8; SLOT_BYTES] {
    let text = format!("{FORMAT} {sequence:020} {offset:020}");
    let line = format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()));
    let mut slot = [0; SLOT_BYTES];
    slot[..line.len()].copy_from_slice(line.as_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, u64)> {
    let line = slot.split(|byte| *byte == b'\n').next()?;
    let (text, sum) = std::str::from_utf8(line).ok()?.rsplit_once(' ')?;
    if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(text.as_bytes()) {
        return None;
    }
    let (sequence, offset) = text.strip_prefix(FORMAT)?.trim_start().split_once(' ')?;
    Some((sequence.parse().ok()?, offset.parse().ok()?))
}

/// Keeps the file up to date; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Synced(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    sequence: AtomicU64,
    failed: AtomicBool,
}

impl Synced {
    /// Records durably that the log in `dir` is synced up to `offset`, and prepares for further records.
    ///
    /// # Errors
    /// The disk refused.
    pub(super) fn begin(dir: &Path, offset: u64) -> io::Result<Self> {
        let sequence = newest(dir)?.map_or(0, |(sequence, _)| sequence);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(FILE))?;
        let synced = Self(Arc::new(Inner {
            file,
            sequence: AtomicU64::new(sequence + 1),
            failed: AtomicBool::new(false),
        }));
        synced.write(offset)?;
        synced.0.file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(synced)
    }

    /// Records a successful sync of the log up to `offset`. A failure to write the mark is only logged:
    /// acknowledgements do not depend on it.
    pub(super) fn note(&self, offset: u64) {
        if let Err(e) = self.write(offset)
            && !self.0.failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(target: "store", "the file that says how far the Raft log is synced cannot be written: {e}");
        }
    }

    fn write(&self, offset: u64) -> io::Result<()> {
        let sequence = self.0.sequence.fetch_add(1, Ordering::Relaxed);
        let slot = (sequence % SLOTS as u64) * SLOT_BYTES as u64;
        self.0.file.write_all_at(&encode(sequence, offset), slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), 0, "no file");
        let synced = Synced::begin(dir.path(), 7).unwrap();
        for offset in [8, 9, 4096, 70_000] {
            synced.note(offset);
            assert_eq!(read(dir.path()).unwrap(), offset);
        }
        let again = Synced::begin(dir.path(), 80_000).unwrap();
        assert_eq!(read(dir.path()).unwrap(), 80_000);
        again.note(80_001);
        assert_eq!(read(dir.path()).unwrap(), 80_001);
    }

    #[test]
    fn damage_leaves_the_older_slot_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let synced = Synced::begin(dir.path(), 7).unwrap();
        synced.note(8);
        let file = dir.path().join(FILE);
        let sound = std::fs::read(&file).unwrap();
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 4;
            std::fs::write(&file, &bytes).unwrap();
            let read = read(dir.path()).unwrap();
            assert!(read == 8 || read == 7, "byte {at}: {read}");
        }
        for length in 0..sound.len() {
            std::fs::write(&file, &sound[..length]).unwrap();
            assert!(read(dir.path()).unwrap() <= 8);
        }
    }
}
