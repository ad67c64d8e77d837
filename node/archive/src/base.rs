//! The data of a base: a database file as one zstd frame, encrypted if there are keys, in constant memory.
//!
//! Both directions take bytes as they come and give bytes back, so that callers choose threads and streams.
use std::io::{self, Write};

use sha2::{Digest, Sha256};

use crate::{
    documents::Base,
    hex,
    keys::Keys,
    problem::{BadObject, Problem},
    seal::{Opener, Sealer},
};

/// zstd's default: a base should not take the disk's or the writers' time.
const ZSTD_LEVEL: i32 = 3;
/// Frames from elsewhere may not take more memory than this (8 MiB).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// The decoder is given stored bytes in pieces of this size, and each piece becomes at most a few hundred
/// times as much: so much is in memory at once.
const PIECE_BYTES: usize = 4 << 10;

/// What was stored of a database file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// Bytes of the object.
    pub object_bytes: u64,
}

/// A database file on its way into the archive.
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

    /// Ends the object.
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

/// A database file on its way out of the archive. What it gives is proven only by [`Decoder::finish`].
pub struct Decoder<'a> {
    object: &'a str,
    expected: Stored,
    opener: Opener<'a>,
    zstd: zstd::stream::write::Decoder<'static, Counted>,
    object_bytes: u64,
}

/// What the decoder writes to: the bytes not yet taken, and what was seen of all.
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
    /// An object that does not open or is longer than the base; an error of `sink`.
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
        for piece in opened.chunks(PIECE_BYTES) {
            let written = self.zstd.write_all(piece).and_then(|()| self.zstd.flush());
            written.map_err(|e| self.damaged(&e.to_string()))?;
            self.drain(&mut sink)?;
        }
        Ok(())
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

    /// Ends the object: everything that was passed to `sink` is the database file of the base.
    ///
    /// # Errors
    /// An object that is truncated or holds another file.
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
                "{} of {} bytes are there",
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
    /// The object is refused.
    #[error(transparent)]
    Object(#[from] BadObject),
    /// The receiver of the file failed.
    #[error("the database cannot be written: {0}")]
    Sink(io::Error),
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
