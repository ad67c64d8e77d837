//! Whether the bytes of a log are sound, end in a write that a crash cut short, or are damaged: a function of the bytes and of how far they are known to
//! have been synced (`synced.rs`). The argument is in `../DESIGN.md`.
//!
//! A crash may take from a write whose sync never ended any of its sectors: they then read as zeros, or the file ends before them. Nothing that it
//! held was acknowledged, so it is cut off. Everything else that is wrong is damage, and is refused: an acknowledged entry may be in it.
use std::io;

use super::record::{Kind, Look, SMALL_MAX_BYTES, is_whole, is_whole_with_another_length, look};
use crate::raft::codec::Id;

/// The unit in which disks write.
const SECTOR_BYTES: usize = 512;

/// A log that can be opened, once what a crash cut short is taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sound {
    /// Files that hold nothing whole, by their starts; to be removed.
    pub remove: Vec<u64>,
    /// The file to cut, by its start, and the length that it keeps.
    pub cut: Option<(u64, u64)>,
    /// Bytes that are lost by both.
    pub dropped: u64,
    /// Where the log ends afterwards.
    pub end: u64,
}

/// Where and how a log is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// The file, by its start. `None`: there is no file at all.
    pub file: Option<u64>,
    /// In the file.
    pub offset: u64,
    /// For a person.
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

/// Judges a log of these files, sorted by their starts. `load` reads one; they are read one at a time, the last one first.
///
/// # Errors
/// `load` failed.
pub(super) fn judge(
    files: &[u64],
    synced: u64,
    mut load: impl FnMut(u64) -> io::Result<Vec<u8>>,
) -> io::Result<Result<Sound, Damage>> {
    let mut sound = Sound::default();
    let mut files = files.to_vec();
    // A file is begun before the one before it is full and synced; so several at the end may hold nothing.
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

/// The record at the front, if it is whole.
fn whole_record(bytes: &[u8]) -> Option<(Kind, usize, Option<Id>)> {
    match look(bytes) {
        Look::Fits(header) if is_whole(&bytes[..header.length]) => {
            Some((header.kind, header.length, header.id))
        }
        Look::Fits(_) | Look::Short(_) | Look::Nonsense => None,
    }
}

/// Where the whole records at the front end; `last` follows the log's last entry.
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

/// `Ok` if the record at `at`, which is not whole, is one that a crash cut short. Otherwise why not.
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
    let seen = look(rest);
    let header = match seen {
        Look::Fits(header) | Look::Short(Some(header)) => Some(header),
        Look::Short(None) | Look::Nonsense => None,
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
    let ends_within = matches!(seen, Look::Short(_)) && plausible;
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

/// Such a record may come after an entry `last`.
fn follows(kind: Kind, id: Option<Id>, last: Option<Id>) -> bool {
    match (kind, id, last) {
        (Kind::Append, Some(id), Some(last)) => id.1 == last.1 + 1 && id.0 >= last.0,
        (Kind::Commit, Some(id), last) => Some(id) <= last,
        _ => true,
    }
}

/// One sync after the other: within one write commit marks come first and then either entries or one other record. So a record of another kind behind an
/// entry, or anything behind a vote, a truncation or a purge, was written after these had been synced. `length` is that of the damaged
/// record: where the next one begins.
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

/// One of the sectors from `from` to `to`, or what of it comes after `from`, is nothing but zeros. The first one may begin with records that had
/// been written before: they stay.
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
