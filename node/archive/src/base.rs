//! The data of a base: a database file, compressed as one zstd frame and, with keys, encrypted. Memory use
//! does not depend on the file's length.
//!
//! Encoder and decoder work on slices and do no I/O, so the caller chooses threads and streams.
use std::io::{self, Write};

use sha2::{Digest, Sha256};

use crate::{
    documents::Base,
    hex,
    keys::Keys,
    problem::{BadObject, Problem},
    seal::{Opener, Sealer},
};

/// zstd's default level: higher ones would take more CPU time from the node's own work.
const ZSTD_LEVEL: i32 = 3;
/// Base-2 logarithm of the largest zstd window that is accepted (8 MiB). Bounds the memory that a frame
/// written elsewhere can demand.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Lengths and checksum of a database file that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Length of the database file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// Length of the stored object in bytes.
    pub object_bytes: u64,
}

/// Compresses and encrypts a database file for the archive.
pub struct Encoder {
    zstd: zstd::stream::write::Encoder<'static, Vec<u8>>,
    sealer: Sealer,
    sha256: Sha256,
    bytes: u64,
    object_bytes: u64,
}

impl Encoder {
    /// Begins the object of this name (below the archive's prefix).
    ///
    /// # Errors
    /// No memory for zstd.
    pub fn new(object: &str, keys: Option<&Keys>) -> io::Result<Self> {
        let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
        zstd.include_checksum(true)?;
        Ok(Self {
            zstd,
            sealer: Sealer::new(keys, object),
            sha256: Sha256::new(),
            bytes: 0,
            object_bytes: 0,
        })
    }

    /// Adds bytes of the file (at most a few MiB at once); appends to `out` what is ready to be stored.
    ///
    /// # Errors
    /// No memory for zstd, or an object of more than 4 PiB.
    pub fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.sha256.update(data);
        self.bytes += length(data);
        self.zstd.write_all(data)?;
        let before = out.len();
        self.sealer
            .push(self.zstd.get_ref(), out)
            .map_err(io::Error::other)?;
        self.zstd.get_mut().clear();
        self.object_bytes += length(out.get(before..).unwrap_or_default());
        Ok(())
    }

    /// Ends the object: appends the rest of it to `out`.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> io::Result<Stored> {
        let before = out.len();
        let rest = self.zstd.finish()?;
        self.sealer.push(&rest, out).map_err(io::Error::other)?;
        self.sealer.finish(out).map_err(io::Error::other)?;
        Ok(Stored {
            bytes: self.bytes,
            sha256: hex(&self.sha256.finalize()),
            object_bytes: self.object_bytes + length(out.get(before..).unwrap_or_default()),
        })
    }
}

/// Decrypts and decompresses the data of a base. What it passes on is unverified until [`Decoder::finish`]
/// succeeds.
pub struct Decoder<'a> {
    object: &'a str,
    expected: Stored,
    opener: Opener<'a>,
    zstd: zstd::stream::write::Decoder<'static, Counted>,
    object_bytes: u64,
}

/// Receives the decompressed bytes: holds those not yet passed to the sink, counts and hashes all.
struct Counted {
    waiting: Vec<u8>,
    sha256: Sha256,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.sha256.update(data);
        self.bytes += length(data);
        self.waiting.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> Decoder<'a> {
    /// Begins the object of this name (below the archive's prefix), which is the data of `base`.
    ///
    /// # Errors
    /// No memory for zstd.
    pub fn new(object: &'a str, base: &Base, keys: Option<&'a Keys>) -> io::Result<Self> {
        let mut zstd = zstd::stream::write::Decoder::new(Counted {
            waiting: Vec::new(),
            sha256: Sha256::new(),
            bytes: 0,
        })?;
        zstd.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        Ok(Self {
            object,
            expected: Stored {
                bytes: base.bytes,
                sha256: base.sha256.clone(),
                object_bytes: base.object_bytes,
            },
            opener: Opener::new(keys, object),
            zstd,
            object_bytes: 0,
        })
    }

    /// Adds bytes of the object and passes bytes of the file to `sink`.
    ///
    /// # Errors
    /// The object cannot be decrypted or decompressed, or is longer than its base says; or `sink` failed.
    pub fn push(
        &mut self,
        stored: &[u8],
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), DecodeError> {
        self.object_bytes += length(stored);
        if self.object_bytes > self.expected.object_bytes {
            return Err(self.damaged("it is longer than its base says").into());
        }
        let mut opened = Vec::new();
        self.opener.push(stored, &mut opened)?;
        if opened.is_empty() {
            return Ok(());
        }
        let mut left = opened.as_slice();
        // One call of `write` unpacks at most one buffer of zstd. A whole piece at once could take any
        // memory: zstd's RLE blocks of 4 bytes stand for up to 128 KiB (RFC 8878, 3.1.1.2).
        while !left.is_empty() {
            let taken = self.zstd.write(left);
            let taken = taken.map_err(|e| self.damaged(&e.to_string()))?;
            if taken == 0 {
                return Err(self.damaged("something follows the end of its data").into());
            }
            left = left.get(taken..).unwrap_or_default();
            self.drain(&mut sink)?;
        }
        let flushed = self.zstd.flush();
        flushed.map_err(|e| self.damaged(&e.to_string()))?;
        self.drain(&mut sink)
    }

    fn drain(&mut self, sink: &mut impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), DecodeError> {
        let got = self.zstd.get_mut();
        if got.bytes > self.expected.bytes {
            return Err(self
                .damaged("the database is longer than its base says")
                .into());
        }
        sink(&got.waiting).map_err(DecodeError::Sink)?;
        got.waiting.clear();
        Ok(())
    }

    /// Checks length and SHA-256. On success, everything that was passed to `sink` is exactly the base's
    /// database file.
    ///
    /// # Errors
    /// The object is truncated or holds another file, or `sink` failed.
    pub fn finish(
        mut self,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), DecodeError> {
        let flushed = self.zstd.flush();
        flushed.map_err(|e| self.damaged(&e.to_string()))?;
        self.drain(&mut sink)?;
        let counted = self.zstd.into_inner();
        self.opener.finish()?;
        let refuse = |problem| Err(BadObject::new(self.object, problem).into());
        if self.object_bytes < self.expected.object_bytes || counted.bytes < self.expected.bytes {
            return refuse(Problem::Truncated(format!(
                "it has {} of {} bytes",
                self.object_bytes, self.expected.object_bytes
            )));
        }
        if hex(&counted.sha256.finalize()) != self.expected.sha256 {
            return refuse(Problem::Damaged(
                "the database has another checksum than its base says".into(),
            ));
        }
        Ok(())
    }

    fn damaged(&self, text: &str) -> BadObject {
        BadObject::new(self.object, Problem::Damaged(text.to_owned()))
    }
}

/// Why a base could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The object is damaged, foreign, or cannot be decrypted.
    #[error(transparent)]
    Object(#[from] BadObject),
    /// The `sink` failed.
    #[error("the database cannot be written: {0}")]
    Sink(io::Error),
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
