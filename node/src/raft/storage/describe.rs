//! Describes one entry of a log that is not in use, for `inspect` and `skip-entry`.
use std::io;

use openraft::EntryPayload;
use sha2::{Digest, Sha256};

use super::log::Log;
use crate::{command::Command, raft::codec::PayloadRecord};

/// Most characters of an entry's SQL that are shown.
const SHOWN_SQL: usize = 300;
/// Bytes of entries that are read at once.
const READ_BYTES: usize = 8 << 20;

/// An entry, described for a person and for comparing nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its term.
    pub term: u64,
    /// First 16 hexadecimal digits of the SHA-256 of its content: equal on all nodes that hold it.
    pub checksum: String,
    /// The kind of entry and the beginning of its SQL.
    pub what: String,
    /// Clients wrote it, or this version cannot read it; Raft itself does not need it.
    pub can_be_skipped: bool,
}

impl Log {
    /// The entry at `index`, if the log holds it.
    ///
    /// # Errors
    /// Damage, or an I/O error.
    pub fn describe(&self, index: u64) -> io::Result<Option<Described>> {
        let Some(entry) = self.read(index, index.saturating_add(1), usize::MAX)?.pop() else {
            return Ok(None);
        };
        let bytes =
            postcard::to_stdvec(&PayloadRecord::from(&entry.payload)).map_err(io::Error::other)?;
        let checksum = Sha256::digest(bytes)
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let (what, can_be_skipped) = match entry.payload {
            EntryPayload::Blank => ("an entry without content".to_owned(), false),
            EntryPayload::Membership(_) => ("a change of the membership".to_owned(), false),
            EntryPayload::Normal(command) => match command.take_command() {
                Ok(Command::RaiseVersion(version)) => {
                    (format!("the step to format version {version}"), false)
                }
                Ok(command) => (describe(&command), true),
                Err(e) => (
                    format!("an entry that this version cannot read ({e})"),
                    true,
                ),
            },
        };
        Ok(Some(Described {
            term: entry.log_id.leader_id.term,
            checksum,
            what,
            can_be_skipped,
        }))
    }
}

impl Log {
    /// Whether an entry holds data of clients, or the end of a load. Pieces of a load that never ended are no
    /// data: the next term makes them void.
    ///
    /// # Errors
    /// Damage, or an I/O error.
    pub fn holds_client_data(&self) -> io::Result<bool> {
        let Some((mut from, last)) = self.range() else {
            return Ok(false);
        };
        while from <= last {
            let entries = self.read(from, last.saturating_add(1), READ_BYTES)?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                from = entry.log_id.index.saturating_add(1);
                let EntryPayload::Normal(command) = entry.payload else {
                    continue;
                };
                let is_data = match command.take_command() {
                    Ok(Command::Load(chunk)) => chunk.finish.is_some(),
                    Ok(Command::Requests(_) | Command::Bounded(_)) => true,
                    Ok(Command::LoadAbort(_) | Command::HashContent | Command::RaiseVersion(_)) => {
                        false
                    }
                    // Of a newer version: to be careful.
                    Err(_) => true,
                };
                if is_data {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

fn describe(command: &Command) -> String {
    let requests = match command {
        Command::Requests(requests) => requests,
        Command::Bounded(bounded) => &bounded.requests,
        Command::Load(_) => return "a piece of a loaded file".to_owned(),
        Command::LoadAbort(_) => return "the end of an abandoned load".to_owned(),
        Command::HashContent => return "a comparison of the copies".to_owned(),
        Command::RaiseVersion(version) => return format!("the step to format version {version}"),
    };
    let sql: Vec<&str> = requests
        .iter()
        .flat_map(|request| &request.statements)
        .map(|statement| statement.sql.as_str())
        .collect();
    let all = sql.join("; ");
    let shown: String = all.chars().take(SHOWN_SQL).collect();
    let more = if shown.len() < all.len() { "..." } else { "" };
    format!(
        "{} requests with {} statements: {shown}{more}",
        requests.len(),
        sql.len()
    )
}
