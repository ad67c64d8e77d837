//! Classifies the bytes of a log as intact, as ending in a write that a crash cut short, or as damaged. A
//! function of the bytes and of the offset up to which they are known to be synced (`synced.rs`). The
//! argument is in `../../DESIGN.md`.
//!
//! A crash can lose any sectors of a write whose sync never ended: they then read as zeros, or the file ends
//! before them. Nothing in such a write was acknowledged, so it is cut off. Everything else that is wrong is
//! damage and is refused, because it may contain an acknowledged entry.
use std::io;

use super::record::{
    Kind, Parsed, SMALL_MAX_BYTES, is_whole, is_whole_with_another_length, parse_header,
};
use crate::raft::codec::Id;

/// The unit in which disks write.
const SECTOR_BYTES: usize = 512;

/// A log that can be opened once the remains of a torn write are cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sound {
    /// Files without a complete record, by start offset; to be removed.
    pub remove: Vec<u64>,
    /// The file to cut, by start offset, and the length that it keeps.
    pub cut: Option<(u64, u64)>,
    /// Bytes that both drop.
    pub dropped: u64,
    /// Where the log ends afterwards.
    pub end: u64,
}

/// Where and how a log is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// The file, by start offset. `None`: there is no file at all.
    pub file: Option<u64>,
    /// Offset in the file.
    pub offset: u64,
    /// Description for a person.
    pub what: &'static str,
}

const MISSING: &str = "there is no file, although a log had been written and synced here";
const FIRST_MISSING: &str = "the files before this one are missing, and this one holds nothing";
const GAP: &str = "the file ends here, but the next one begins later";
const ENDS_EARLY: &str =
    "the log ends here, but it had been synced further than that: its end is missing";
const FINISHED: &str = "a damaged record in a file that had been finished and synced";
const SYNCED: &str = "a damaged record in a part that had been synced";
const FOLLOWED: &str =
    "a damaged record, and behind it records that were written after it had been synced";
const LENGTH: &str = "a damaged length: with another one the record would be whole";
const NOT_TORN: &str =
    "a damaged record of which no sector is missing, so it is not a write that a crash cut short";

/// Classifies a log of these files, sorted by start offset. `load` reads one file; they are read one at a
/// time, the last one first.
///
/// # Errors
/// `load` failed.
pub(super) fn classify(
    files: &[u64],
    synced: u64,
    mut load: impl FnMut(u64) -> io::Result<Vec<u8>>,
) -> io::Result<Result<Sound, Damage>> {
    let mut sound = Sound::default();
    let mut files = files.to_vec();
    // A file is created before the previous one is full and synced, so several at the end may be empty.
    while let Some(&start) = files.last() {
        let bytes = load(start)?;
        if whole_record(&bytes).is_some() {
            break;
        }
        if let Err(what) = torn(start, &bytes, 0, None, synced) {
            return Ok(Err(damage(start, 0, what)));
        }
        if start > 0 && files.len() == 1 {
            return Ok(Err(damage(start, 0, FIRST_MISSING)));
        }
        sound.dropped += bytes.len() as u64;
        sound.remove.push(start);
        files.pop();
    }
    let Some(&newest) = files.last() else {
        return Ok(match synced {
            0 => Ok(sound),
            _ => Err(Damage {
                file: None,
                offset: 0,
                what: MISSING,
            }),
        });
    };
    let mut last = None;
    let mut previous = None;
    for start in files {
        if let Some((before, end)) = previous.filter(|(_, end)| *end != start) {
            return Ok(Err(damage(before, end - before, GAP)));
        }
        let bytes = load(start)?;
        let whole = walk(&bytes, &mut last);
        if whole < bytes.len() {
            let cause = match start == newest {
                true => torn(start, &bytes, whole, last, synced),
                false => Err(FINISHED),
            };
            if let Err(what) = cause {
                return Ok(Err(damage(start, whole as u64, what)));
            }
            sound.cut = Some((start, whole as u64));
            sound.dropped += (bytes.len() - whole) as u64;
        }
        sound.end = start + whole as u64;
        previous = Some((start, sound.end));
    }
    if sound.end < synced {
        return Ok(Err(damage(newest, sound.end - newest, ENDS_EARLY)));
    }
    Ok(Ok(sound))
}

fn damage(file: u64, offset: u64, what: &'static str) -> Damage {
    Damage {
        file: Some(file),
        offset,
        what,
    }
}

/// The record at the front, if it is complete.
fn whole_record(bytes: &[u8]) -> Option<(Kind, usize, Option<Id>)> {
    match parse_header(bytes) {
        Parsed::Complete(header) if is_whole(&bytes[..header.length]) => {
            Some((header.kind, header.length, header.id))
        }
        Parsed::Complete(_) | Parsed::Truncated(_) | Parsed::Invalid => None,
    }
}

/// Where the complete records at the front end; `last` follows the log's last entry.
fn walk(bytes: &[u8], last: &mut Option<Id>) -> usize {
    let mut at = 0;
    while let Some((kind, length, id)) = whole_record(&bytes[at..]) {
        at += length;
        match kind {
            Kind::Append | Kind::Checkpoint => *last = id,
            Kind::Truncate => *last = (*last).min(id),
            Kind::Purge => *last = (*last).max(id),
            Kind::Vote | Kind::Commit => {}
        }
    }
    at
}

/// `Ok` if the incomplete record at `at` was cut short by a crash; otherwise why not.
fn torn(
    start: u64,
    bytes: &[u8],
    at: usize,
    last: Option<Id>,
    synced: u64,
) -> Result<(), &'static str> {
    if start + (at as u64) < synced {
        return Err(SYNCED);
    }
    let rest = &bytes[at..];
    let seen = parse_header(rest);
    let header = match seen {
        Parsed::Complete(header) | Parsed::Truncated(Some(header)) => Some(header),
        Parsed::Truncated(None) | Parsed::Invalid => None,
    };
    let plausible = header.is_none_or(|header| follows(header.kind, header.id, last));
    let kind = rest
        .first_chunk()
        .and_then(|number| Kind::of(u32::from_be_bytes(*number)));
    if let Some(header) = header.filter(|_| plausible)
        && was_synced_before_others(rest, header.kind, header.length)
    {
        return Err(FOLLOWED);
    }
    if kind.is_some_and(|kind| is_whole_with_another_length(rest, kind)) {
        return Err(LENGTH);
    }
    let ends_within = matches!(seen, Parsed::Truncated(_)) && plausible;
    let reaches_to = match kind {
        Some(Kind::Append) => bytes.len(),
        Some(_) | None => bytes.len().min(at + SMALL_MAX_BYTES),
    };
    if ends_within || lacks_a_sector(bytes, at, reaches_to) {
        Ok(())
    } else {
        Err(NOT_TORN)
    }
}

/// Whether such a record may follow an entry `last`.
fn follows(kind: Kind, id: Option<Id>, last: Option<Id>) -> bool {
    match (kind, id, last) {
        (Kind::Append, Some(id), Some(last)) => id.1 == last.1 + 1 && id.0 >= last.0,
        (Kind::Commit, Some(id), last) => Some(id) <= last,
        _ => true,
    }
}

/// Whether records follow that were written after this one had been synced. Syncs come one at a time, and one
/// write consists of commit marks, then either entries or one other record. So a record of another kind
/// behind an entry, or anything behind a vote, a truncation or a purge, belongs to a later write. `length` is
/// that of the damaged record: where the next one begins.
fn was_synced_before_others(rest: &[u8], kind: Kind, length: usize) -> bool {
    let mut before = kind;
    let mut at = length;
    while let Some((kind, length, _)) = rest.get(at..).and_then(whole_record) {
        let later = match before {
            Kind::Append => kind != Kind::Append,
            Kind::Vote | Kind::Truncate | Kind::Purge => true,
            Kind::Commit | Kind::Checkpoint => false,
        };
        if later {
            return true;
        }
        before = kind;
        at += length;
    }
    false
}

/// Whether one of the sectors from `from` to `to`, or the part of it after `from`, is all zeros. The first
/// sector may begin with records that had been written before and remain.
fn lacks_a_sector(bytes: &[u8], from: usize, to: usize) -> bool {
    let mut at = from;
    while at < to {
        let next = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let end = next.min(bytes.len());
        if bytes[at..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        at = next;
    }
    false
}

#[cfg(test)]
mod tests;
