//! The last entry that may have changed the database.
use openraft::EntryPayload;

use super::Log;
use crate::command::{Asked, Command, may_change};

/// Entries that are read at a time in search of the last change.
const LOOK_BACK: u64 = 16;

impl Log {
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
            for entry in entries.iter().rev() {
                let EntryPayload::Normal(command) = &entry.payload else {
                    continue;
                };
                match command.take_command().map(Command::asks) {
                    Ok(Asked::Version(_)) => {}
                    Ok(Asked::Work(work)) if !may_change(&work) => {}
                    Ok(Asked::Work(_)) | Err(_) => return entry.log_id.index,
                }
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
