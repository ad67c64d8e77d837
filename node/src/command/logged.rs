//! Entries of the Raft log as the archive keeps them: position, kind and bytes. Knows nothing of Raft.
use bytes::Bytes;
use node_db::Request;
use serde::{Deserialize, Serialize};

use super::{Command, DecodeError, Encoded};

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoggedKind {
    /// A new leader's first entry: no content.
    Blank,
    /// A [`Command`].
    Command,
    /// A membership. Its bytes are left out: it says where nodes are, nothing about the data.
    Membership,
}

/// One entry that is committed and applied. Its fields' order is part of the node protocol's encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedEntry {
    /// Raft index.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// What it holds.
    pub kind: LoggedKind,
    /// The encoded [`Command`]; empty for the other kinds.
    pub bytes: Bytes,
}

impl LoggedEntry {
    /// The greatest time stamp of its requests, in microseconds since the Unix epoch. `None` for an entry
    /// without requests.
    ///
    /// # Errors
    /// Bytes of a newer version, or damaged ones.
    pub fn unix_micros(&self) -> Result<Option<i64>, DecodeError> {
        if self.kind != LoggedKind::Command {
            return Ok(None);
        }
        let latest = |requests: &[Request]| requests.iter().map(|r| r.stamp.unix_micros).max();
        Ok(
            match Encoded::from_bytes(self.bytes.clone()).take_command()? {
                Command::Requests(requests) => latest(&requests),
                Command::Bounded(batch) => latest(&batch.requests),
                Command::Load(_)
                | Command::LoadAbort(_)
                | Command::RaiseVersion(_)
                | Command::HashContent => None,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use node_db::{Kind, Rules, Stamp};

    use super::*;
    use crate::command::BoundedRequests;

    fn request(unix_micros: i64) -> Request {
        Request {
            kind: Kind::Execute,
            transaction: false,
            qualify_columns: false,
            statements: Vec::new(),
            stamp: Stamp {
                unix_micros,
                seed: 0,
            },
            rules: Rules::V1,
        }
    }

    #[test]
    fn an_entry_is_as_late_as_its_latest_request() {
        let batch = || vec![request(5), request(9), request(7)];
        let cases = [
            (Command::Requests(Arc::new(batch())), Some(9)),
            (Command::Bounded(BoundedRequests::new(batch())), Some(9)),
            (Command::Requests(Arc::default()), None),
            (Command::RaiseVersion(2), None),
            (Command::HashContent, None),
            (Command::LoadAbort(4), None),
        ];
        let entry = |kind, bytes| LoggedEntry {
            index: 1,
            term: 1,
            kind,
            bytes,
        };
        for (command, want) in cases {
            let bytes = Encoded::new(command.clone()).unwrap().bytes().clone();
            let entry = entry(LoggedKind::Command, bytes);
            assert_eq!(entry.unix_micros().unwrap(), want, "{command:?}");
        }
        assert_eq!(
            entry(LoggedKind::Blank, Bytes::new()).unix_micros(),
            Ok(None)
        );
        assert!(
            entry(LoggedKind::Command, Bytes::from_static(&[9]))
                .unix_micros()
                .is_err()
        );
    }
}
