//! Entries of the log as bytes, for a reader outside of Raft: the archive.
use std::io;

use bytes::Bytes;
use openraft::EntryPayload;

use super::log::Log;
use crate::{
    command::logged::{LoggedEntry, LoggedKind},
    raft::types::Entry,
};

/// Bytes read while the log is locked; what is appended meanwhile waits.
const PIECE_BYTES: usize = 256 << 10;
/// Entries read while the log is locked.
const PIECE_ENTRIES: u64 = 256;

/// What the log has from an index on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logged {
    /// Entries without holes from that index on. None of them, if there are none yet.
    Entries(Vec<LoggedEntry>),
    /// The entry at that index was purged; the log begins at this one.
    Purged(u64),
}

impl Log {
    /// The entries from `from` to `last` inclusive, as many as fit in `max_bytes` but at least one. The
    /// caller knows that they are committed. Blocks on the disk, for a moment at a time.
    ///
    /// # Errors
    /// The disk's.
    pub fn logged(&self, from: u64, last: u64, max_bytes: usize) -> io::Result<Logged> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while next <= last && bytes < max_bytes {
            let to = next
                .saturating_add(PIECE_ENTRIES)
                .min(last.saturating_add(1));
            let piece = self.read(next, to, PIECE_BYTES.min(max_bytes - bytes))?;
            // The log has no holes, so only its beginning can be missing: a purge since the last piece.
            if piece.first().map(|entry| entry.log_id.index) != Some(next) {
                let first = self.range().map_or(last.saturating_add(1), |range| range.0);
                if first > next && entries.is_empty() {
                    return Ok(Logged::Purged(first));
                }
                break;
            }
            for entry in piece {
                let entry = logged(&entry);
                bytes += entry.bytes.len();
                next = entry.index + 1;
                entries.push(entry);
            }
        }
        Ok(Logged::Entries(entries))
    }
}

fn logged(entry: &Entry) -> LoggedEntry {
    let (kind, bytes) = match &entry.payload {
        EntryPayload::Blank => (LoggedKind::Blank, Bytes::new()),
        EntryPayload::Normal(command) => (LoggedKind::Command, command.bytes().clone()),
        EntryPayload::Membership(_) => (LoggedKind::Membership, Bytes::new()),
    };
    LoggedEntry {
        index: entry.log_id.index,
        term: entry.log_id.leader_id.term,
        kind,
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use openraft::storage::{IOFlushed, RaftLogStorage};

    use super::*;
    use crate::{
        command::{Command, Encoded},
        raft::types::{Payload, log_id},
    };

    async fn log_of(dir: &std::path::Path, entries: u64) -> Log {
        let mut log = Log::open(dir).unwrap();
        let entry = |index| Entry {
            log_id: log_id(1 + index / 4, index),
            payload: match index {
                0 => Payload::Blank,
                _ => Payload::Normal(Encoded::new(Command::LoadAbort(index)).unwrap()),
            },
        };
        log.append((0..entries).map(entry), IOFlushed::noop())
            .await
            .unwrap();
        log
    }

    fn indexes(logged: &Logged) -> Vec<u64> {
        match logged {
            Logged::Entries(entries) => entries.iter().map(|e| e.index).collect(),
            Logged::Purged(first) => panic!("purged before {first}"),
        }
    }

    #[tokio::test]
    async fn entries_come_as_bytes_within_limits() {
        let dir = tempfile::tempdir().unwrap();
        let log = log_of(dir.path(), 600).await;
        let all = log.logged(0, 599, 1 << 20).unwrap();
        assert_eq!(indexes(&all), (0..600).collect::<Vec<_>>());
        let Logged::Entries(all) = all else {
            unreachable!()
        };
        assert_eq!((all[0].kind, all[0].bytes.len()), (LoggedKind::Blank, 0));
        let command = Encoded::from_bytes(all[9].bytes.clone()).take_command();
        assert_eq!(command.unwrap(), Command::LoadAbort(9));
        assert_eq!(all[9].term, 3);
        for (name, from, last, bytes, want) in [
            ("a part", 3, 5, 1 << 20, 3..6),
            ("at least one", 3, 5, 1, 3..4),
            ("past the end", 598, 2000, 1 << 20, 598..600),
            ("nothing yet", 600, 600, 1 << 20, 0..0),
            ("an empty range", 7, 6, 1 << 20, 0..0),
        ] {
            let got = indexes(&log.logged(from, last, bytes).unwrap());
            assert_eq!(got, want.collect::<Vec<_>>(), "{name}");
        }
    }

    #[tokio::test]
    async fn what_was_purged_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log_of(dir.path(), 20).await;
        log.purge(log_id(3, 9)).await.unwrap();
        assert_eq!(log.logged(9, 19, 1 << 20).unwrap(), Logged::Purged(10));
        assert_eq!(indexes(&log.logged(10, 12, 1 << 20).unwrap()), [10, 11, 12]);
        log.purge(log_id(5, 19)).await.unwrap();
        assert_eq!(log.logged(12, 19, 1 << 20).unwrap(), Logged::Purged(20));
    }
}
