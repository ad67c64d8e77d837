//! A file of acknowledged rows with their times: 16 bytes each, written atomically, readable while it is
//! written.
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use parking_lot::Mutex;

const BYTES: usize = 16;

/// One acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The row's number.
    pub number: u64,
    /// When the reply arrived, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// The file, for writing.
#[derive(Debug)]
pub struct Record {
    file: Mutex<File>,
}

impl Record {
    /// Opens or creates the file; appends to existing content.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        Ok(Self {
            file: Mutex::new(file),
        })
    }

    /// Appends a row that has just been acknowledged.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&self, number: u64) -> Result<()> {
        let mut file = self.file.lock();
        // The time is taken with the lock held, so that times in the file ascend.
        let entry = (u128::from(number) << 64 | u128::from(now_ms())).to_le_bytes();
        file.write_all(&entry).context("record an acknowledgement")
    }
}

/// All entries of the file, in order of time; empty if there is no file.
///
/// # Errors
/// If it cannot be read.
pub fn read(path: &Path) -> Result<Vec<Acknowledged>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
    };
    let (whole, _cut_off) = bytes.as_chunks::<BYTES>();
    Ok(whole.iter().map(entry).collect())
}

fn entry(bytes: &[u8; BYTES]) -> Acknowledged {
    let both = u128::from_le_bytes(*bytes);
    Acknowledged {
        number: (both >> 64) as u64,
        at_ms: both as u64,
    }
}

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_read_also_after_a_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acknowledged");
        assert!(read(&path).unwrap().is_empty());
        let record = Record::open(&path).unwrap();
        record.add(7).unwrap();
        record.add(u64::MAX).unwrap();
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"torn")
            .unwrap();
        let numbers: Vec<_> = read(&path)
            .unwrap()
            .iter()
            .map(|entry| entry.number)
            .collect();
        assert_eq!(numbers, [7, u64::MAX]);
    }
}
