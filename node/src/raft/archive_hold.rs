//! What the log must keep for the archive: entries that are not archived yet, on every node, because any of
//! them may lead next; within a bound, because an archive that cannot be written must not fill the disk.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// Entries that the log keeps for the archive at most. Each takes some 64 bytes of memory, however small it
/// is on disk: this many are 64 MiB.
pub const MAX_HELD_ENTRIES: u64 = 1 << 20;

/// Entries that were purged before they were archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// When they were purged, microseconds since the Unix epoch.
    pub unix_micros: u64,
}

/// How far the archive is, and what the log keeps for it. Exists where an archive is configured.
#[derive(Debug)]
pub struct ArchiveHold {
    limit_bytes: u64,
    /// The index after the last archived entry; 0 while this node knows of none.
    next: AtomicU64,
    dropped: Mutex<Option<Dropped>>,
    /// Bytes that the log takes, and may take, as of the last checkpoint.
    bound_bytes: AtomicU64,
}

/// The size of a log.
#[derive(Clone, Copy, Debug)]
pub struct LogSize {
    /// On disk.
    pub bytes: u64,
    /// First and last index.
    pub range: Option<(u64, u64)>,
}

/// What follows for a purge up to an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Purge up to here; `None` is not at all.
    pub upto: Option<u64>,
    /// Entries that are purged although they are not archived.
    pub dropped: Option<(u64, u64)>,
}

/// The most that the log may take for the archive: the configured limit, and at most half of what the disk
/// would have without the log.
pub fn bound(limit_bytes: u64, log_bytes: u64, spare_bytes: u64) -> u64 {
    limit_bytes.min(spare_bytes.saturating_add(log_bytes) / 2)
}

/// Limits purging up to `upto` to what is archived (everything before `next`), unless the log is over its
/// bound. Then all of it goes: with the first entry the archive's continuity is lost, and a new base makes
/// the others unnecessary.
pub fn limit_for_archive(upto: u64, next: u64, log: LogSize, bound_bytes: u64) -> Limited {
    let all = |dropped| Limited {
        upto: Some(upto),
        dropped,
    };
    let Some((first, last)) = log.range else {
        return all(None);
    };
    if upto < next {
        return all(None);
    }
    let is_over = log.bytes > bound_bytes || last - first >= MAX_HELD_ENTRIES;
    if is_over {
        let lost = next.max(first);
        return all((lost <= upto).then_some((lost, upto)));
    }
    Limited {
        upto: next.checked_sub(1),
        dropped: None,
    }
}

impl ArchiveHold {
    /// For a log that may take at most `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            next: AtomicU64::new(0),
            dropped: Mutex::default(),
            bound_bytes: AtomicU64::new(limit_bytes),
        }
    }

    /// Records that the archive holds everything up to `index`: at least that, since reports may be late.
    pub fn note_archived(&self, index: u64) {
        self.next.fetch_max(index.saturating_add(1), Relaxed);
    }

    /// Records that the archive ends with `index`, although it held more: objects are gone.
    pub fn shrink(&self, index: u64) {
        self.next.store(index.saturating_add(1), Relaxed);
    }

    /// The last archived entry that this node knows of.
    pub fn archived(&self) -> Option<u64> {
        self.next.load(Relaxed).checked_sub(1)
    }

    /// The last entries that were purged unarchived.
    pub fn dropped(&self) -> Option<Dropped> {
        *self.dropped.lock()
    }

    /// The bound that was last applied.
    pub fn bound_bytes(&self) -> u64 {
        self.bound_bytes.load(Relaxed)
    }

    /// Limits a purge, and records what it drops.
    pub fn limit(&self, upto: u64, log: LogSize, spare_bytes: u64) -> Option<u64> {
        let bound_bytes = bound(self.limit_bytes, log.bytes, spare_bytes);
        self.bound_bytes.store(bound_bytes, Relaxed);
        let limited = limit_for_archive(upto, self.next.load(Relaxed), log, bound_bytes);
        if let Some((first, last)) = limited.dropped {
            tracing::error!(
                target: "archive",
                "the entries {first} to {last} are purged from this node's log before they were archived: the log takes {} bytes and may take {bound_bytes} for the archive (-archive, log_limit_bytes)",
                log.bytes
            );
            *self.dropped.lock() = Some(Dropped {
                first,
                last,
                unix_micros: crate::clock::unix_micros(),
            });
        }
        limited.upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_kept_for_the_archive_within_a_bound() {
        let log = |bytes, first, last| LogSize {
            bytes,
            range: Some((first, last)),
        };
        let long = log(5, 1, 1 + MAX_HELD_ENTRIES);
        for (name, upto, next, log, want, dropped) in [
            ("archived further", 90, 96, log(5, 1, 100), Some(90), None),
            (
                "archived just as far",
                90,
                91,
                log(5, 1, 100),
                Some(90),
                None,
            ),
            ("archived less far", 90, 41, log(5, 1, 100), Some(40), None),
            ("nothing known", 90, 0, log(5, 0, 100), None, None),
            ("at the bound", 90, 41, log(10, 1, 100), Some(40), None),
            ("over it", 90, 41, log(11, 1, 100), Some(90), Some((41, 90))),
            (
                "over it, unknown",
                90,
                0,
                log(11, 7, 100),
                Some(90),
                Some((7, 90)),
            ),
            ("over it, archived", 90, 91, log(11, 1, 100), Some(90), None),
            ("too many entries", 90, 41, long, Some(90), Some((41, 90))),
            ("purged already", 90, 41, log(11, 95, 100), Some(90), None),
        ] {
            let limited = limit_for_archive(upto, next, log, 10);
            assert_eq!((limited.upto, limited.dropped), (want, dropped), "{name}");
        }
        let empty = LogSize {
            bytes: 50,
            range: None,
        };
        assert_eq!(limit_for_archive(9, 0, empty, 10).upto, Some(9));
    }

    #[test]
    fn half_of_the_room_at_most() {
        assert_eq!(bound(1000, 0, 5000), 1000);
        assert_eq!(bound(1000, 0, 500), 250);
        assert_eq!(bound(1000, 300, 500), 400, "the log's own bytes are room");
        assert_eq!(bound(1000, 300, 0), 150);
        assert_eq!(bound(1000, u64::MAX, u64::MAX), 1000);
    }

    #[test]
    fn what_was_dropped_is_remembered() {
        let hold = ArchiveHold::new(100);
        assert_eq!((hold.archived(), hold.dropped()), (None, None));
        let log = |bytes| LogSize {
            bytes,
            range: Some((1, 50)),
        };
        assert_eq!(hold.limit(30, log(100), 1 << 30), None, "kept");
        hold.note_archived(20);
        hold.note_archived(10);
        assert_eq!(hold.archived(), Some(20));
        assert_eq!(hold.limit(30, log(100), 1 << 30), Some(20));
        assert_eq!(hold.limit(30, log(101), 1 << 30), Some(30));
        let dropped = hold.dropped().unwrap();
        assert_eq!((dropped.first, dropped.last), (21, 30));
    }
}
