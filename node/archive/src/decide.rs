//! Decisions of the archive's writer, as functions without I/O: where to continue, when a base is due, what
//! may be deleted.
use crate::{
    documents::{Base, Gap, Writer},
    moment::Moment,
    segment::Start,
};

/// Where a writer continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// With a segment that begins here.
    At(Start),
    /// With a new base: the log no longer holds the entries that follow what is archived.
    NeedsBase {
        /// The entries that are neither archived nor in the log; `None` in a new archive. The gap ends at the
        /// new base.
        missing: Option<Gap>,
    },
}

/// Where a new leader continues. `after_last` is [`crate::segment::Segment::after`] of the segment that
/// reaches furthest, `log_first` the first index that the leader's log still holds.
///
/// Continues after the last segment while the log still holds the next entry, even if there is a newer base:
/// continuing after that base would leave out the entries before it.
pub fn resume(after_last: Option<&Start>, newest_base: Option<&Base>, log_first: u64) -> Resume {
    let after_base = newest_base.map(|base| Start {
        first: base.index.saturating_add(1),
        previous: None,
        not_before: base.time,
        term: base.term,
    });
    let held = |start: &&Start| start.first >= log_first;
    // Segments cannot be restored without a base, so the first base comes before the first segment.
    if let Some(after_base) = &after_base
        && let Some(start) = after_last.filter(held).or(Some(after_base).filter(held))
    {
        return Resume::At(start.clone());
    }
    let next = [after_last, after_base.as_ref()]
        .into_iter()
        .flatten()
        .map(|start| start.first)
        .max();
    Resume::NeedsBase {
        missing: next.filter(|next| *next < log_first).map(|first| Gap {
            first,
            last: log_first - 1,
        }),
    }
}

/// The first entries after the base at `base` and up to `end` that are in no segment: nothing from them on
/// can be restored before there is a newer base. `segments` are first and last indexes, in any order.
pub fn hole(base: u64, segments: &[(u64, u64)], end: u64) -> Option<Gap> {
    let mut sorted = segments.to_vec();
    sorted.sort_unstable();
    let mut next = base.saturating_add(1);
    for (first, last) in sorted {
        if first > next {
            break;
        }
        next = next.max(last.saturating_add(1));
    }
    if next > end {
        return None;
    }
    // The hole ends before the next segment that is there.
    let later = segments.iter().map(|(first, _)| *first);
    let after = later.filter(|first| *first > next).min();
    Some(Gap {
        first: next,
        last: after.map_or(end, |after| after - 1),
    })
}

/// Why a base is made. [`Reason::word`] is stored as [`Base::reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no base yet.
    First,
    /// Entries that are not archived are no longer in the log.
    Gap,
    /// Segments after the newest base are gone from the store ([`hole`]).
    Hole,
    /// Entries are applied by another version of SQLite or rqlited, or with other settings, than those of the
    /// newest base.
    Version,
    /// The database was replaced by a load or a restore.
    Load,
    /// The newest base is old.
    Interval,
    /// Many bytes follow the newest base.
    Size,
    /// It was requested.
    Request,
}

impl Reason {
    /// The value of [`Base::reason`] in the base's document.
    pub fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Gap | Self::Hole => "gap",
            Self::Version => "version",
            Self::Load => "load",
            Self::Interval => "interval",
            Self::Size => "size",
            Self::Request => "request",
        }
    }
}

/// What [`base_due`] decides from.
#[derive(Clone, Debug)]
pub struct BaseFacts<'a> {
    /// The newest base.
    pub newest: Option<&'a Base>,
    /// Whether [`resume`] returned [`Resume::NeedsBase`].
    pub needed: bool,
    /// Whether [`hole`] returned entries that are in no segment.
    pub has_hole: bool,
    /// Index of the last entry applied.
    pub applied: u64,
    /// The present time, by this node's clock.
    pub now: Moment,
    /// Bytes of segments, as stored, since the newest base.
    pub bytes_since: u64,
    /// Length of the database in bytes.
    pub database_bytes: u64,
    /// This program and its settings.
    pub writer: &'a Writer,
    /// Index of the last load or restore, if one is known.
    pub replaced_at: Option<u64>,
}

/// When bases are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseRules {
    /// Age of the newest base from which another one is due.
    pub interval_seconds: i64,
    /// Bytes of segments after the newest base from which another one is due; at least the length of the
    /// database.
    pub bytes: u64,
}

/// Why a base is due; `None` if none is.
pub fn base_due(facts: &BaseFacts<'_>, rules: BaseRules) -> Option<Reason> {
    let Some(newest) = facts.newest else {
        return Some(Reason::First);
    };
    if facts.needed {
        return Some(Reason::Gap);
    }
    // Nothing was applied since the newest base: another one would hold the same.
    if facts.applied <= newest.index {
        return None;
    }
    let age = facts.now.seconds_since(newest.created_at);
    let reasons = [
        (Reason::Hole, facts.has_hole),
        (Reason::Version, *facts.writer != newest.writer),
        (
            Reason::Load,
            facts.replaced_at.is_some_and(|at| at > newest.index),
        ),
        // A base from the future was made by a wrong clock: waiting until it is old enough could take years.
        (
            Reason::Interval,
            age >= rules.interval_seconds || age < -rules.interval_seconds,
        ),
        (
            Reason::Size,
            facts.bytes_since >= rules.bytes.max(facts.database_bytes),
        ),
    ];
    reasons
        .into_iter()
        .find(|(_, due)| *due)
        .map(|(why, _)| why)
}

/// What may be deleted, in this order: documents of bases, their data, segments (the oldest first).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletable {
    /// Indexes of bases, oldest first.
    pub bases: Vec<u64>,
    /// First indexes of segments, oldest first.
    pub segments: Vec<u64>,
}

/// Number of segments before the first needed one that are also kept and read. After a gap, two leaders may
/// have cut the same entries into different segments, so a segment may reach further than the name of the
/// next one suggests.
pub const OVERLAPS: usize = 4;

/// What no restore to a time from `keep_since` on needs. `firsts` are the first indexes of all segments,
/// ascending. The newest base that is not after `keep_since` is kept, and everything after it; without such a
/// base, everything is kept.
pub fn deletable(bases: &[Base], firsts: &[u64], keep_since: Moment) -> Deletable {
    let old_enough = bases.iter().filter(|base| base.time <= keep_since);
    let Some(keep) = old_enough.map(|base| base.index).max() else {
        return Deletable::default();
    };
    let mut old: Vec<u64> = bases
        .iter()
        .map(|b| b.index)
        .filter(|i| *i < keep)
        .collect();
    old.sort_unstable();
    let needed = first_needed(firsts, keep);
    Deletable {
        bases: old,
        segments: firsts.get(..needed).unwrap_or_default().to_vec(),
    }
}

/// Position in `firsts` of the first segment that a restore from a base at `index` may need.
pub(crate) fn first_needed(firsts: &[u64], index: u64) -> usize {
    let next = index.saturating_add(1);
    firsts
        .partition_point(|first| *first <= next)
        .saturating_sub(1 + OVERLAPS)
}

/// Age in seconds above which the data of a base without a document are deleted.
const ORPHAN_SECONDS: i64 = 2 * 24 * 60 * 60;

/// Of the objects with data of bases (last part of the name, time of writing), those that no document names
/// and that are older than two days. They are left by a crash, or by a leader that found the base already
/// stored by another. `bases` must be all bases.
pub fn orphans<'a>(
    data: impl IntoIterator<Item = (&'a str, Moment)>,
    bases: &[Base],
    now: Moment,
) -> Vec<&'a str> {
    data.into_iter()
        .filter(|(object, written)| {
            bases.iter().all(|base| base.object != *object)
                && now.seconds_since(*written) > ORPHAN_SECONDS
        })
        .map(|(object, _)| object)
        .collect()
}

#[cfg(test)]
mod tests;
