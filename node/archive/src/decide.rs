//! Decisions of the writer: where to go on, when a base is due, what may be deleted. Values in, values out.
use crate::{
    documents::{Base, Gap, Writer},
    moment::Moment,
    segment::Start,
};

/// Where a writer goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// With a segment that begins here.
    At(Start),
    /// With a base: the log does not hold the entries that follow what is archived.
    NeedsBase {
        /// The entries that no log holds any more; `None` in a new archive. The gap reaches up to the base.
        missing: Option<Gap>,
    },
}

/// Where a new leader goes on. `after_last` is [`crate::segment::Segment::after`] of the last segment by
/// name, `log_first` the first index that its log still holds.
///
/// Archiving goes on behind the last segment as long as the log allows it, even if there is a base behind
/// that: so a base never makes a gap.
pub fn resume(after_last: Option<&Start>, newest_base: Option<&Base>, log_first: u64) -> Resume {
    let after_base = newest_base.map(|base| Start {
        first: base.index.saturating_add(1),
        previous: None,
        not_before: base.time,
        term: base.term,
    });
    let held = |start: &&Start| start.first >= log_first;
    // Without a base, segments restore nothing; so it comes first.
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

/// Why a base is made. Its words are in [`Base::reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is none.
    First,
    /// The log does not hold what the archive lacks.
    Gap,
    /// Another SQLite or rqlited applies entries than the one that wrote the newest base.
    Version,
    /// The database was replaced by a load or a restore.
    Load,
    /// The newest base is old.
    Interval,
    /// Many bytes follow the newest base.
    Size,
    /// Somebody asked for it.
    Request,
}

impl Reason {
    /// Its word in a base's document.
    pub fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Gap => "gap",
            Self::Version => "version",
            Self::Load => "load",
            Self::Interval => "interval",
            Self::Size => "size",
            Self::Request => "request",
        }
    }
}

/// What is known when the question is asked.
#[derive(Clone, Debug)]
pub struct BaseFacts<'a> {
    /// The newest base.
    pub newest: Option<&'a Base>,
    /// Did [`resume`] ask for a base?
    pub needed: bool,
    /// Index of the last entry applied.
    pub applied: u64,
    /// Now.
    pub now: Moment,
    /// Bytes of segments, as stored, since the newest base.
    pub bytes_since: u64,
    /// Bytes of the database.
    pub database_bytes: u64,
    /// This program.
    pub writer: &'a Writer,
    /// Index of the last load or restore, if one is known.
    pub replaced_at: Option<u64>,
}

/// When bases are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseRules {
    /// Oldest that a base becomes.
    pub interval_seconds: i64,
    /// So many bytes of segments, or as many as the database has, make a new base due.
    pub bytes: u64,
}

/// Is a base due, and why?
pub fn base_due(facts: &BaseFacts<'_>, rules: BaseRules) -> Option<Reason> {
    let Some(newest) = facts.newest else {
        return Some(Reason::First);
    };
    if facts.needed {
        return Some(Reason::Gap);
    }
    // A base that contains everything is as new as any could be.
    if facts.applied <= newest.index {
        return None;
    }
    let age = facts.now.seconds_since(newest.created_at);
    let reasons = [
        (Reason::Version, *facts.writer != newest.writer),
        (
            Reason::Load,
            facts.replaced_at.is_some_and(|at| at > newest.index),
        ),
        // Far in the future: a clock was wrong, and waiting for it could take years.
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

/// What may be deleted. In this order: documents of bases, their data, segments from the oldest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletable {
    /// Indexes of bases, oldest first.
    pub bases: Vec<u64>,
    /// First indexes of segments, oldest first.
    pub segments: Vec<u64>,
}

/// So many segments before the first needed one are kept and looked at, too: after a gap, two leaders may
/// have divided the same entries differently, and an earlier one may reach further than its successor's name
/// says.
pub const OVERLAPS: usize = 4;

/// What no point since `keep_since` needs. `firsts` are all segments' first indexes, ascending. Always keeps
/// a base: the newest one that is not after `keep_since`, or all if there is none.
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

/// Position of the first segment that a restore from a base at `index` may need.
pub(crate) fn first_needed(firsts: &[u64], index: u64) -> usize {
    let next = index.saturating_add(1);
    firsts
        .partition_point(|first| *first <= next)
        .saturating_sub(1 + OVERLAPS)
}

/// How long data of a base may wait for its document.
const ORPHAN_SECONDS: i64 = 2 * 24 * 60 * 60;

/// Of objects with data of bases (last part of the name, time of writing), those that no document names and
/// that are older than two days: left by a crash, or by the loser of a race. `bases` must be all of them.
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
