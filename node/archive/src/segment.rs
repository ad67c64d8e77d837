//! A sealed segment: consecutive entries, compressed, checksummed, and linked to the segment before.
//!
//! ```text
//! "RQSEG1 " <header: JSON on one line> "\n"
//! <zstd frame of the records>
//! <SHA-256 of everything before it: 32 bytes>
//! ```
//! With keys, all of that is encrypted (`seal.rs`), the first line as chunks of its own, so that the header
//! can be read without the rest. The SHA-256 is of the plaintext: it names the segment in the next one's
//! header.
use std::io::{self, BufReader, Read, Write};

use bytes::Bytes;
use node_contract::Lineage;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{
    documents::{FORMAT, Writer, foreign_lineage},
    hex,
    keys::Keys,
    moment::Moment,
    names::{self, Object},
    problem::{BadObject, Problem, json},
    record::{HEAD_BYTES, Record},
    seal::{self, Opener, Sealer},
};

const MAGIC: &[u8] = b"RQSEG1 ";
const SHA256_BYTES: usize = 32;
/// Longest header. Content hashes are its only part that grows; [`MAX_HASHES`] keeps it far below.
const MAX_HEADER_BYTES: usize = 256 << 10;
/// Most content hashes of one segment; later ones are left out.
const MAX_HASHES: usize = 500;
/// Bytes to read from the beginning of a segment: they hold nearly every header.
pub const HEADER_READ_BYTES: u64 = 4 << 10;
/// Bytes that hold every header, encrypted or not.
pub const HEADER_READ_BYTES_MAX: u64 = 512 << 10;
/// Largest segment, as stored: a restore holds one in memory.
pub const MAX_SEGMENT_BYTES: u64 = 4 << 30;
/// SQL and its values compress well at every level; 3 is zstd's default.
const ZSTD_LEVEL: i32 = 3;
/// Base-2 logarithm of the largest zstd window that is accepted (8 MiB). Bounds the memory that a frame
/// written elsewhere can demand.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Hash of the database's content at an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentHash {
    /// The index.
    pub index: u64,
    /// The hash, in hexadecimal digits.
    pub hash: String,
}

/// The segment before another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its first index, and so its name.
    pub first: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// A segment's first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`]
    pub format: u32,
    /// The timeline's lineage.
    pub lineage: Lineage,
    /// Index of the first entry.
    pub first: u64,
    /// Index of the last entry.
    pub last: u64,
    /// Term of the last entry.
    pub last_term: u64,
    /// Time of the first entry.
    pub first_time: Moment,
    /// Time of the last entry.
    pub last_time: Moment,
    /// Bytes of the records before compression.
    pub body_bytes: u64,
    /// The segment that ends right before this one; `None` if nothing that ends there is archived.
    pub previous: Option<Previous>,
    /// The program that wrote it.
    pub writer: Writer,
    /// Hashes of the content that were known when it was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashes: Vec<ContentHash>,
}

/// Where the next segment begins, and what it is linked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Index of its first entry.
    pub first: u64,
    /// The segment that ends right before.
    pub previous: Option<Previous>,
    /// No entry has a time before this.
    pub not_before: Moment,
    /// No entry has a term below this.
    pub term: u64,
}

/// A whole segment in memory. Its records are still compressed.
#[derive(Clone, Debug)]
pub struct Segment {
    header: Header,
    sha256: [u8; SHA256_BYTES],
    /// First line, zstd frame, SHA-256.
    plain: Bytes,
    /// Where the zstd frame begins.
    body: usize,
}

/// An entry that cannot follow the last one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Misplaced {
    /// An index is missing or repeated.
    #[error("entry {got} cannot follow entry {last} in a segment")]
    Index {
        /// The last entry's index.
        last: u64,
        /// The index of the entry refused.
        got: u64,
    },
    /// The term is lower than that of an entry before it.
    #[error("entry {index} has term {got}, but an entry before it has term {last}")]
    Term {
        /// The index of the entry refused.
        index: u64,
        /// The highest term before.
        last: u64,
        /// Its term.
        got: u64,
    },
    /// Compression failed, or the content is longer than 4 GiB.
    #[error("entry {0} cannot be encoded: {1}")]
    Encoding(u64, String),
}

/// Builds a segment entry by entry. Memory: the compressed bytes, and a few MiB for zstd.
pub struct Builder {
    start: Start,
    lineage: Lineage,
    writer: Writer,
    next: u64,
    term: u64,
    first_time: Moment,
    last_time: Moment,
    body_bytes: u64,
    hashes: Vec<ContentHash>,
    zstd: zstd::stream::write::Encoder<'static, Vec<u8>>,
}

impl Builder {
    /// Begins a segment.
    ///
    /// # Errors
    /// No memory for zstd.
    pub fn new(lineage: Lineage, writer: Writer, start: Start) -> io::Result<Self> {
        Ok(Self {
            next: start.first,
            term: start.term,
            first_time: start.not_before,
            last_time: start.not_before,
            start,
            lineage,
            writer,
            body_bytes: 0,
            hashes: Vec::new(),
            zstd: zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?,
        })
    }

    /// Adds the next entry. Its time is raised to that of the entry before if it is less.
    ///
    /// # Errors
    /// The entry cannot follow the last one. The builder is then unchanged, except after
    /// [`Misplaced::Encoding`], after which it cannot be used.
    pub fn push(&mut self, mut record: Record) -> Result<(), Misplaced> {
        let index = record.index;
        if index != self.next {
            return Err(Misplaced::Index {
                last: self.next.saturating_sub(1),
                got: index,
            });
        }
        if record.term < self.term {
            return Err(Misplaced::Term {
                index,
                last: self.term,
                got: record.term,
            });
        }
        let broken = |text: String| Misplaced::Encoding(index, text);
        let next = index.checked_add(1);
        let next = next.ok_or_else(|| broken("indexes end here".into()))?;
        record.time = record.time.max(self.last_time);
        let head = record.head();
        let head = head.ok_or_else(|| broken("its content has more than 4 GiB".into()))?;
        for part in [&head[..], &record.content] {
            self.zstd
                .write_all(part)
                .map_err(|e| broken(e.to_string()))?;
        }
        if self.is_empty() {
            self.first_time = record.time;
        }
        self.body_bytes += bytes_of(&record);
        self.last_time = record.time;
        self.term = record.term;
        self.next = next;
        Ok(())
    }

    /// Adds a hash of the content at an index of this segment or before: computing one can take longer than
    /// filling a segment. A hash at a later index is ignored, as is the 501st.
    pub fn note_hash(&mut self, index: u64, hash: &str) {
        if index < self.next
            && self.hashes.len() < MAX_HASHES
            && self.hashes.iter().all(|h| h.index != index)
        {
            self.hashes.push(ContentHash {
                index,
                hash: hash.to_owned(),
            });
        }
    }

    /// Has it no entry yet?
    pub fn is_empty(&self) -> bool {
        self.next == self.start.first
    }

    /// Index of the next entry.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Bytes of its entries before compression.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Ends the segment; `None` if it has no entry.
    ///
    /// # Errors
    /// No memory for zstd.
    pub fn seal(self) -> io::Result<Option<Segment>> {
        if self.is_empty() {
            return Ok(None);
        }
        let header = Header {
            format: FORMAT,
            lineage: self.lineage,
            first: self.start.first,
            last: self.next - 1,
            last_term: self.term,
            first_time: self.first_time,
            last_time: self.last_time,
            body_bytes: self.body_bytes,
            previous: self.start.previous,
            writer: self.writer,
            hashes: self.hashes,
        };
        let frame = self.zstd.finish()?;
        let mut plain = MAGIC.to_vec();
        serde_json::to_writer(&mut plain, &header)?;
        plain.push(b'\n');
        let body = plain.len();
        plain.extend_from_slice(&frame);
        let sha256: [u8; SHA256_BYTES] = Sha256::digest(&plain).into();
        plain.extend_from_slice(&sha256);
        Ok(Some(Segment {
            header,
            sha256,
            plain: plain.into(),
            body,
        }))
    }
}

/// Bytes that a record adds to `body_bytes`.
fn bytes_of(record: &Record) -> u64 {
    u64::try_from(HEAD_BYTES + record.content.len()).unwrap_or(u64::MAX)
}

impl Segment {
    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where the next segment begins, with the link to this one.
    pub fn after(&self) -> Start {
        Start {
            first: self.header.last.saturating_add(1),
            previous: Some(Previous {
                first: self.header.first,
                sha256: self.sha256(),
            }),
            not_before: self.header.last_time,
            term: self.header.last_term,
        }
    }

    /// Its SHA-256, in hexadecimal digits.
    pub fn sha256(&self) -> String {
        hex(&self.sha256)
    }

    /// The bytes to store under `name`.
    ///
    /// # Errors
    /// More than 4 PiB.
    pub fn encode(&self, name: &str, keys: Option<&Keys>) -> Result<Bytes, seal::TooLong> {
        if keys.is_none() {
            return Ok(self.plain.clone());
        }
        let (line, rest) = self.plain.split_at(self.body);
        let mut out = Vec::with_capacity(self.plain.len() + 512);
        let mut sealer = Sealer::new(keys, name);
        sealer.push(line, &mut out)?;
        sealer.cut(&mut out)?;
        sealer.push(rest, &mut out)?;
        sealer.finish(&mut out)?;
        Ok(out.into())
    }

    /// Decodes the object `name`, and checks that it is authentic (with keys), undamaged, and belongs under
    /// this name. Its records are checked when they are read.
    ///
    /// # Errors
    /// The object cannot be decrypted, is damaged, or belongs under another name.
    pub fn decode(name: &str, stored: Bytes, keys: Option<&Keys>) -> Result<Self, BadObject> {
        let plain = Bytes::from(seal::open(keys, name, &stored)?);
        drop(stored);
        Self::of_plain(name, plain).map_err(|problem| BadObject::new(name, problem))
    }

    fn of_plain(name: &str, plain: Bytes) -> Result<Self, Problem> {
        let Some((header, body)) = parse_header(name, &plain)? else {
            return Err(Problem::Truncated("its header has no end".into()));
        };
        let Some((content, sha256)) = plain.split_last_chunk::<SHA256_BYTES>() else {
            return Err(Problem::Truncated("it has no checksum".into()));
        };
        if content.len() < body {
            return Err(Problem::Truncated("it ends in its header".into()));
        }
        if <[u8; SHA256_BYTES]>::from(Sha256::digest(content)) != *sha256 {
            return Err(Problem::Damaged(
                "its checksum is another one: bytes were changed, or its end is missing".into(),
            ));
        }
        Ok(Self {
            header,
            sha256: *sha256,
            body,
            plain,
        })
    }

    /// Its records in order, each checked against the header. Stops after the first error.
    ///
    /// # Errors
    /// No memory for zstd.
    pub fn records(&self) -> Result<Records<'_>, BadObject> {
        let end = self.plain.len().saturating_sub(SHA256_BYTES);
        let frame = self.plain.get(self.body..end).unwrap_or_default();
        let object = names::Folder::new(&self.header.lineage)
            .map_or_else(|_| String::new(), |f| f.segment(self.header.first));
        let failed = |e: io::Error| BadObject::new(&object, Problem::Damaged(e.to_string()));
        let mut zstd = zstd::stream::read::Decoder::with_buffer(frame).map_err(failed)?;
        zstd.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
        Ok(Records {
            header: &self.header,
            object,
            from: BufReader::new(zstd),
            next: Some(self.header.first),
            left: self.header.body_bytes,
            time: self.header.first_time,
            term: 0,
        })
    }

    /// Reads every record.
    ///
    /// # Errors
    /// The first record that contradicts the header or the one before it.
    pub fn check(&self) -> Result<(), BadObject> {
        self.records()?.try_for_each(|record| record.map(drop))
    }
}

/// The header at the beginning of a plain segment, and where the body begins; `None` if more bytes are
/// needed.
fn parse_header(name: &str, plain: &[u8]) -> Result<Option<(Header, usize)>, Problem> {
    if !plain.starts_with(MAGIC) {
        if MAGIC.starts_with(plain) {
            return Ok(None);
        }
        return Err(Problem::Damaged(
            "it does not begin with the magic bytes of a segment".into(),
        ));
    }
    let Some(end) = plain.iter().position(|b| *b == b'\n') else {
        if plain.len() > MAX_HEADER_BYTES {
            return Err(Problem::Damaged("its header has no end".into()));
        }
        return Ok(None);
    };
    let line = plain.get(MAGIC.len()..end).unwrap_or_default();
    let format: FormatOnly = json(line)?;
    if format.format > FORMAT {
        return Err(Problem::Newer(format.format));
    }
    let header: Header = json(line)?;
    in_its_place(name, &header)?;
    Ok(Some((header, end + 1)))
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Checks that the header agrees with the object's name.
fn in_its_place(name: &str, header: &Header) -> Result<(), Problem> {
    let Some((_, lineage, Object::Segment { first })) = names::parse(name) else {
        return Err(Problem::Foreign("this is not the name of a segment".into()));
    };
    if lineage != header.lineage {
        return Err(foreign_lineage(&header.lineage));
    }
    if first != header.first {
        return Err(Problem::Foreign(format!(
            "it begins at entry {}, not at the one of its name",
            header.first
        )));
    }
    let follows = header.previous.as_ref().is_none_or(|p| p.first < first);
    if header.last < first || header.last_time < header.first_time || !follows {
        return Err(Problem::Damaged("its header contradicts itself".into()));
    }
    Ok(())
}

/// Parses the header of the segment `name` from its first bytes; `None` if more are needed. Without keys, a
/// header is unverified until [`Segment::decode`] has checked the whole object.
///
/// # Errors
/// The object cannot be decrypted, or belongs under another name.
pub fn header(
    name: &str,
    first_bytes: &[u8],
    keys: Option<&Keys>,
) -> Result<Option<Header>, BadObject> {
    let mut plain = Vec::new();
    Opener::new(keys, name).push(first_bytes, &mut plain)?;
    let parsed = parse_header(name, &plain);
    let parsed = parsed.map_err(|problem| BadObject::new(name, problem))?;
    Ok(parsed.map(|(header, _)| header))
}

/// The records of a segment.
pub struct Records<'a> {
    header: &'a Header,
    object: String,
    from: BufReader<zstd::stream::read::Decoder<'a, &'a [u8]>>,
    /// `None` after the last one, and after an error.
    next: Option<u64>,
    left: u64,
    time: Moment,
    term: u64,
}

impl Iterator for Records<'_> {
    type Item = Result<Record, BadObject>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next.take()?;
        let record = self.record(index);
        if record.is_ok() && index < self.header.last {
            self.next = Some(index + 1);
        }
        Some(record.map_err(|text| BadObject::new(&self.object, Problem::Damaged(text))))
    }
}

impl Records<'_> {
    fn record(&mut self, index: u64) -> Result<Record, String> {
        let record = Record::read(&mut (&mut self.from).take(self.left))
            .map_err(|e| format!("at entry {index}: {e}"))?;
        self.left = self.left.saturating_sub(bytes_of(&record));
        if record.index != index {
            return Err(format!(
                "entry {} is where entry {index} should be",
                record.index
            ));
        }
        if record.term < self.term || record.time < self.time {
            return Err(format!(
                "entry {index} has a term or time before that of the entry before it"
            ));
        }
        let first = index == self.header.first;
        let last = index == self.header.last;
        let agrees = (!first || record.time == self.header.first_time)
            && (!last
                || (record.time == self.header.last_time && record.term == self.header.last_term));
        if !agrees {
            return Err(format!("entry {index} contradicts the header"));
        }
        if last && (self.left > 0 || self.from.read(&mut [0]).map_err(|e| e.to_string())? > 0) {
            return Err(format!("bytes follow its last entry, {index}"));
        }
        self.term = record.term;
        self.time = record.time;
        Ok(record)
    }
}

#[cfg(test)]
mod tests;
