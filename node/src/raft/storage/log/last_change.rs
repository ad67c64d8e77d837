//! The last entry that may have changed the database.
use std::io;

use openraft::EntryPayload;

use super::Log;
use crate::{
    command::{Asked, Command, may_change},
    raft::types::Entry,
};

/// Entries that are read at a time in search of the last change.
const LOOK_BACK: u64 = 16;

impl Log {
    /// The first entry after `after` and up to `end` that may have changed the database. `Err` if the log
    /// does not reach back so far.
    ///
    /// # Errors
    /// That, or the disk's.
    pub fn change_after(&self, after: u64, end: u64) -> io::Result<Option<u64>> {
        let mut from = after.saturating_add(1);
        if self.range().is_none_or(|(first, _)| first > from) && from <= end {
            return Err(io::Error::other("the log no longer reaches back so far"));
        }
        while from <= end {
            let to = from.saturating_add(LOOK_BACK).min(end.saturating_add(1));
            let entries = self.read(from, to, usize::MAX)?;
            if entries.is_empty() {
                return Err(io::Error::other("the log was purged meanwhile"));
            }
            let changed = entries.iter().find(|entry| changes(entry));
            if let Some(entry) = changed {
                return Ok(Some(entry.log_id.index));
            }
            from = from.saturating_add(entries.len() as u64);
        }
        Ok(None)
    }

    /// Index of the last entry up to `end` that may have changed the database. Where the log no longer
    /// reaches back to it, the oldest index that it may be is not known: then it is `end` itself.
    pub fn last_change(&self, end: u64) -> u64 {
        let Some((first, last)) = self.range() else {
            return end;
        };
        let mut to = end.min(last).saturating_add(1);
        while to > first {
            let from = to.saturating_sub(LOOK_BACK).max(first);
            let Ok(entries) = self.read(from, to, usize::MAX) else {
                return end;
            };
            if let Some(entry) = entries.iter().rev().find(|entry| changes(entry)) {
                return entry.log_id.index;
            }
            to = from;
        }
        // A log that begins at the beginning holds no change; another one has forgotten it.
        match first <= 1 {
            true => 0,
            false => end,
        }
    }
}

/// Whether an entry may have changed the database. One that this program does not understand may have.
fn changes(entry: &Entry) -> bool {
    let EntryPayload::Normal(command) = &entry.payload else {
        return false;
    };
    match command.take_command().map(Command::asks) {
        Ok(Asked::Version(_)) => false,
        Ok(Asked::Work(work)) => may_change(&work),
        Err(_) => true,
    }
}
