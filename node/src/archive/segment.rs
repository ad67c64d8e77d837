//! Builds a segment from the log, or from entries that another member sent.
use node_archive::{
    documents::Writer,
    moment::Moment,
    record::{Kind, Record},
    segment::{Builder, Segment, Start},
};
use node_contract::Lineage;

use super::place::Failure;
use crate::{
    command::logged::{LoggedEntry, LoggedKind},
    raft::{Consensus, storage::logged::Logged},
};

/// Bytes of entries read from the log at once.
const PIECE_BYTES: usize = 1 << 20;

/// Result of building a segment.
#[derive(Debug)]
pub(super) enum Built {
    /// A segment.
    Segment(Box<Segment>),
    /// There is no applied entry to archive yet.
    Nothing,
    /// The log no longer holds the first entry; it begins at this index.
    Purged(u64),
}

/// Where a segment begins, and what its header says.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) lineage: Lineage,
    pub(super) writer: Writer,
    pub(super) start: Start,
    /// A content hash and its index.
    pub(super) hash: Option<(u64, String)>,
}

impl Place {
    fn builder(&self) -> Result<Builder, Failure> {
        let (lineage, writer) = (self.lineage.clone(), self.writer.clone());
        Ok(Builder::new(lineage, writer, self.start.clone())?)
    }
}

/// Builds a segment of the applied entries from its start on, up to about `max_bytes` before compression.
/// Blocks on the disk.
pub(super) fn from_log(
    consensus: &Consensus,
    place: &Place,
    max_bytes: u64,
) -> Result<Built, Failure> {
    let mut builder = place.builder()?;
    // Entries applied from now on go into the next segment; otherwise fast writers would keep this loop
    // running.
    let last = consensus.applied_index();
    while builder.body_bytes() < max_bytes && builder.next() <= last {
        match consensus.applied_entries(builder.next(), PIECE_BYTES)? {
            Logged::Purged(first) if builder.is_empty() => return Ok(Built::Purged(first)),
            Logged::Purged(_) => break,
            Logged::Entries(entries) if entries.is_empty() => break,
            Logged::Entries(entries) => push(&mut builder, entries)?,
        }
    }
    seal(builder, place)
}

/// Builds a segment of entries that another member sent.
pub(super) fn from_entries(place: &Place, entries: Vec<LoggedEntry>) -> Result<Built, Failure> {
    let mut builder = place.builder()?;
    push(&mut builder, entries)?;
    seal(builder, place)
}

fn push(builder: &mut Builder, entries: Vec<LoggedEntry>) -> Result<(), Failure> {
    for entry in entries {
        // An entry without a time gets that of the one before it.
        let time = entry.unix_micros()?.unwrap_or(i64::MIN);
        builder.push(Record {
            index: entry.index,
            term: entry.term,
            kind: match entry.kind {
                LoggedKind::Blank => Kind::Blank,
                LoggedKind::Membership => Kind::Membership,
                LoggedKind::Command => Kind::Command,
            },
            time: Moment(time),
            content: entry.bytes,
        })?;
    }
    Ok(())
}

fn seal(mut builder: Builder, place: &Place) -> Result<Built, Failure> {
    if let Some((index, hash)) = &place.hash {
        builder.note_hash(*index, hash);
    }
    Ok(builder
        .seal()?
        .map_or(Built::Nothing, |segment| Built::Segment(Box::new(segment))))
}
