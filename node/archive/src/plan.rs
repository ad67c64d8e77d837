//! Which objects a restore to a point of the past reads: decisions about one timeline, without I/O.
//!
//! 1. [`choose_base`]: the newest base at or before the target.
//! 2. [`wanted`]: of the segments' names, those whose headers are needed.
//! 3. [`plan`]: a sequence of segments without a gap up to the target, or what is missing.
//! 4. [`Sequence`]: checks, while segments are read, that each is the one that followed when it was written.
use std::fmt;

use node_contract::Lineage;
use thiserror::Error;

use crate::{
    decide::first_needed,
    documents::{Base, Gap},
    moment::Moment,
    names::Folder,
    problem::{BadObject, Problem},
    record::Record,
    segment::{Header, Previous, Segment},
};

/// A point of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The last archived entry.
    End,
    /// The state after this entry.
    Index(u64),
    /// The state after the last entry whose time is not later than this.
    Time(Moment),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the end of the archive"),
            Self::Index(index) => write!(f, "entry {index}"),
            Self::Time(time) => write!(f, "{time}"),
        }
    }
}

/// An entry's index and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Index.
    pub index: u64,
    /// Time.
    pub time: Moment,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} of {}", self.index, self.time)
    }
}

/// Why a point cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreachable {
    /// The timeline has no base.
    #[error("{folder}: there is no base, so nothing can be restored")]
    NoBase {
        /// The timeline's folder.
        folder: String,
    },
    /// The target is before the oldest base.
    #[error(
        "{folder}: {target} is before the oldest base, which holds {oldest}; ask for that or later"
    )]
    BeforeOldest {
        /// The timeline's folder.
        folder: String,
        /// What was asked for.
        target: String,
        /// The oldest point.
        oldest: Point,
    },
    /// The target is after the last archived entry.
    #[error("{folder}: {target} is not archived; the archive ends with {end}")]
    AfterEnd {
        /// The timeline's folder.
        folder: String,
        /// What was asked for.
        target: String,
        /// The newest point.
        end: Point,
    },
    /// Entries are missing before the target.
    #[error(
        "{missing}: missing, or never written: entries {} to {} are in no segment, so {target} cannot be \
         restored; the last point before is entry {last_good}",
        gap.first, gap.last
    )]
    Hole {
        /// Name of the segment that begins with the first missing entry, if it was ever written.
        missing: String,
        /// The missing entries.
        gap: Gap,
        /// What was asked for.
        target: String,
        /// The last index before the hole.
        last_good: u64,
    },
}

/// The objects that restore a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The base to start from.
    pub base: Base,
    /// The segments to read after it, in this order.
    pub segments: Vec<Header>,
    /// What was asked for.
    pub target: Target,
    /// The last entry of the segments that were looked at.
    pub end: Point,
}

impl Plan {
    /// Whether this entry is replayed: not if the base contains it, nor if it is after the target.
    pub fn includes(&self, record: &Record) -> bool {
        record.index > self.base.index && !self.is_after(record)
    }

    /// Whether this entry is after the target. If so, all that follow are, too.
    pub fn is_after(&self, record: &Record) -> bool {
        match self.target {
            Target::End => false,
            Target::Index(index) => record.index > index,
            Target::Time(time) => record.time > time,
        }
    }

    /// Upper bound of the bytes of records to read, uncompressed.
    pub fn body_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.body_bytes).sum()
    }
}

/// The newest base at or before the target. `bases` may be in any order.
///
/// # Errors
/// [`Unreachable::NoBase`] or [`Unreachable::BeforeOldest`].
pub fn choose_base<'a>(
    folder: &Folder,
    bases: &'a [Base],
    target: Target,
) -> Result<&'a Base, Unreachable> {
    let oldest = bases.iter().min_by_key(|b| b.index);
    let oldest = oldest.ok_or_else(|| Unreachable::NoBase {
        folder: folder.as_str().to_owned(),
    })?;
    let at_or_before = |base: &&Base| match target {
        Target::End => true,
        Target::Index(index) => base.index <= index,
        Target::Time(time) => base.time <= time,
    };
    let newest = bases.iter().filter(at_or_before).max_by_key(|b| b.index);
    newest.ok_or_else(|| Unreachable::BeforeOldest {
        folder: folder.as_str().to_owned(),
        target: target.to_string(),
        oldest: Point {
            index: oldest.index,
            time: oldest.time,
        },
    })
}

/// Of the first indexes of all segments, in ascending order, those whose headers [`plan`] needs.
pub fn wanted<'a>(firsts: &'a [u64], base: &Base, bases: &[Base], target: Target) -> &'a [u64] {
    let from = first_needed(firsts, base.index);
    let to = match target {
        Target::End => firsts.len(),
        Target::Index(index) => firsts.partition_point(|first| *first <= index),
        // The next newer base is after the target, and so is every segment that begins after it.
        Target::Time(_) => bases
            .iter()
            .map(|b| b.index)
            .filter(|index| *index > base.index)
            .min()
            .map_or(firsts.len(), |next| {
                firsts.partition_point(|first| *first <= next)
            }),
    };
    firsts.get(from.min(to)..to).unwrap_or_default()
}

/// How many segments at the beginning of `wanted` end before the base, by the first indexes of those after
/// them. A damaged one among them matters only if [`plan`] then finds entries missing.
pub fn before_base(wanted: &[u64], base: &Base) -> usize {
    let next = base.index.saturating_add(1);
    wanted
        .partition_point(|first| *first <= next)
        .saturating_sub(1)
}

/// Why a base is refused that might be the right one instead of `chosen`: it is newer, and no readable base
/// in between shows that it is after the target. `None` if there is no such base.
pub fn doubtful<'a, T>(
    chosen: Option<&Base>,
    readable: &[Base],
    refused: &'a [(u64, T)],
    target: Target,
) -> Option<&'a T> {
    let chosen = chosen.map(|base| base.index);
    let later = readable.iter().map(|base| base.index);
    let next = later.filter(|index| Some(*index) > chosen).min();
    let found = refused.iter().find(|(index, _)| {
        let is_after = matches!(target, Target::Index(asked) if *index > asked);
        Some(*index) > chosen && next.is_none_or(|next| *index < next) && !is_after
    });
    found.map(|(_, why)| why)
}

/// Plans a sequence of segments without a gap, from the base up to the target. `headers` are those of
/// [`wanted`], in ascending order; `promised` is the last index by the manifest, which shows that a segment
/// at the end was lost.
///
/// # Errors
/// [`Unreachable::Hole`] or [`Unreachable::AfterEnd`].
pub fn plan(
    folder: &Folder,
    base: &Base,
    headers: &[Header],
    promised: Option<u64>,
    target: Target,
) -> Result<Plan, Unreachable> {
    let mut end = Point {
        index: base.index,
        time: base.time,
    };
    let mut segments: Vec<Header> = Vec::new();
    let reached = |end: Point| match target {
        Target::End => false,
        Target::Index(index) => index <= end.index,
        Target::Time(time) => time < end.time,
    };
    while !reached(end) {
        let next = end.index.saturating_add(1);
        let covers = |h: &&Header| (h.first..=h.last).contains(&next);
        if let Some(found) = headers.iter().rev().find(covers) {
            end = Point {
                index: found.last,
                time: found.last_time,
            };
            segments.push(found.clone());
            continue;
        }
        let after = headers.iter().map(|h| h.first).filter(|f| *f > next).min();
        let after = after.or(promised.filter(|p| *p >= next).map(|p| p.saturating_add(1)));
        match (after, target) {
            (Some(after), _) => {
                return Err(Unreachable::Hole {
                    missing: folder.segment(next),
                    gap: Gap {
                        first: next,
                        last: after - 1,
                    },
                    target: target.to_string(),
                    last_good: end.index,
                });
            }
            (None, Target::Index(_)) => {
                return Err(Unreachable::AfterEnd {
                    folder: folder.as_str().to_owned(),
                    target: target.to_string(),
                    end,
                });
            }
            (None, Target::End | Target::Time(_)) => break,
        }
    }
    Ok(Plan {
        base: base.clone(),
        segments,
        target,
        end,
    })
}

/// Checks that the segments of a plan follow each other, while they are read.
#[derive(Clone, Debug)]
pub struct Sequence {
    lineage: Lineage,
    next: u64,
    term: u64,
    time: Moment,
    last: Option<Previous>,
}

impl Sequence {
    /// Begins after a base.
    pub fn after(base: &Base) -> Self {
        Self {
            lineage: base.lineage.clone(),
            next: base.index.saturating_add(1),
            term: base.term,
            time: base.time,
            last: None,
        }
    }

    /// Index of the next entry.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Accepts the next segment.
    ///
    /// # Errors
    /// The segment does not continue what was read: it, or the one before it, was replaced by another object.
    pub fn follow(&mut self, name: &str, segment: &Segment) -> Result<(), BadObject> {
        let header = segment.header();
        let refuse = |text: String| Err(BadObject::new(name, Problem::Foreign(text)));
        if header.lineage != self.lineage {
            return refuse("it is of another timeline".into());
        }
        if !(header.first..=header.last).contains(&self.next) {
            return refuse(format!(
                "it holds entries {} to {}, but entry {} is next",
                header.first, header.last, self.next
            ));
        }
        if header.last_term < self.term || header.last_time < self.time {
            return refuse("it is older than what comes before it".into());
        }
        if let (Some(previous), Some(last)) = (&header.previous, &self.last)
            && header.first == self.next
            && previous != last
        {
            return refuse(format!(
                "it was written after a segment {} with SHA-256 {}, but {} with {} is before it: one of the two was replaced",
                previous.first, previous.sha256, last.first, last.sha256
            ));
        }
        let after = segment.after();
        self.next = after.first;
        self.term = after.term;
        self.time = after.not_before;
        self.last = after.previous;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
