//! The file in which the chunks of a load are collected.
use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use crate::entry::{LoadChunk, LoadFinish};

/// A load in progress. The file is not synced: after a crash the log delivers the chunks again, because no
/// checkpoint is made while a load is in progress.
pub(crate) struct CollectedLoad {
    pub(super) id: u64,
    pub(super) term: u64,
    received: u64,
    crc: crc32fast::Hasher,
    file: File,
}

impl CollectedLoad {
    /// Creates the file for load `id`, proposed in `term`.
    pub(super) fn begin(path: &Path, id: u64, term: u64) -> io::Result<Self> {
        Ok(Self {
            id,
            term,
            received: 0,
            crc: crc32fast::Hasher::new(),
            file: File::create(path)?,
        })
    }

    /// Whether `chunk` is the next one of this load.
    pub(super) fn continues_with(&self, chunk: &LoadChunk) -> bool {
        self.id == chunk.load_id && self.received == chunk.offset
    }

    pub(super) fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)?;
        self.crc.update(data);
        self.received += data.len() as u64;
        Ok(())
    }

    /// Whether length and checksum match those in the last chunk.
    pub(super) fn is_whole(&self, finish: &LoadFinish) -> bool {
        self.received == finish.total_bytes && self.crc.clone().finalize() == finish.crc32
    }
}
