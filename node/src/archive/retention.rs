//! Deleting what nobody can ask for any more. Any moment within `retention` stays restorable: the newest base
//! from before it, and everything after that base.
use std::time::Duration;

use node_archive::{
    documents::Base,
    moment::Moment,
    names::{self, Folder, Object},
};

use super::{
    chain::{Failure, LAST_SEGMENTS, bases, in_folder, last_index, read_base, segments_after},
    shared::Place,
};

/// Data of a base without a document may be of one that is being made: it is deleted when it is this old.
const ORPHAN_AGE_SECONDS: i64 = 2 * 24 * 3600;

/// What is there afterwards.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Objects that were deleted.
    pub(super) deleted: u64,
    /// The oldest base.
    pub(super) oldest: Option<Base>,
    /// Number of bases.
    pub(super) bases: u64,
    /// Number of segments.
    pub(super) segments: u64,
}

/// A base, as far as retention is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dated {
    index: u64,
    time: Moment,
}

/// The index of the oldest base to keep: the newest one from before `horizon`, or the oldest of all.
fn oldest_kept(bases: &[Dated], horizon: Moment) -> Option<u64> {
    let before = bases.iter().filter(|base| base.time <= horizon);
    let newest = before.max_by_key(|base| base.index);
    newest
        .or_else(|| bases.iter().min_by_key(|base| base.index))
        .map(|base| base.index)
}

/// The first indexes of the segments that end at or before the base: those whose successor begins there.
fn superseded(firsts: &[u64], base: u64) -> impl Iterator<Item = u64> {
    let pairs = firsts.iter().zip(firsts.iter().skip(1));
    pairs
        .filter(move |(_, next)| **next <= base.saturating_add(1))
        .map(|(first, _)| *first)
}

/// Deletes what `retention` lets go.
pub(super) async fn apply(
    place: &Place,
    folder: &Folder,
    retention: Duration,
    now: Moment,
) -> Result<Kept, Failure> {
    let seconds = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
    let horizon = now.plus_seconds(seconds.saturating_neg());
    let mut documents = Vec::new();
    for index in bases(place, folder).await? {
        documents.push(read_base(place, folder, index).await?);
    }
    let all: Vec<Dated> = documents
        .iter()
        .map(|base| Dated {
            index: base.index,
            time: base.time,
        })
        .collect();
    let Some(oldest) = oldest_kept(&all, horizon) else {
        return Ok(Kept {
            deleted: 0,
            oldest: None,
            bases: 0,
            segments: 0,
        });
    };
    let mut deleted = 0;
    // Documents first: a base whose data are gone must not be offered.
    for base in all.iter().filter(|base| base.index < oldest) {
        place.store.delete(&folder.base(base.index)).await?;
        deleted += 1;
    }
    let listed = place.store.list(in_folder(&folder.bases()), None).await?;
    let described: Vec<u64> = listed
        .iter()
        .filter_map(|listed| match names::parse(&listed.name) {
            Some((_, _, Object::Base { index })) => Some(index),
            _ => None,
        })
        .collect();
    for listed in &listed {
        let Some((_, _, Object::BaseData { index, .. })) = names::parse(&listed.name) else {
            continue;
        };
        let is_orphan = !described.contains(&index)
            && (index < oldest
                || now.seconds_since(Moment(listed.modified_unix_ms.saturating_mul(1000)))
                    > ORPHAN_AGE_SECONDS);
        if is_orphan {
            place.store.delete(&listed.name).await?;
            deleted += 1;
        }
    }
    let (segments, gone) = delete_segments(place, folder, oldest).await?;
    deleted += gone;
    documents.retain(|base| base.index >= oldest);
    Ok(Kept {
        deleted,
        bases: documents.len() as u64,
        oldest: documents.into_iter().min_by_key(|base| base.index),
        segments,
    })
}

/// Deletes the segments that end at or before the base; returns how many are left and how many went.
async fn delete_segments(
    place: &Place,
    folder: &Folder,
    oldest: u64,
) -> Result<(u64, u64), Failure> {
    let segments = segments_after(place, folder, None).await?;
    let firsts: Vec<u64> = segments.iter().map(|(first, _)| *first).collect();
    let mut superseded: Vec<u64> = superseded(&firsts, oldest).collect();
    // Two leaders may have cut the same entries differently: near the base, what a segment says counts.
    let near = superseded.split_off(superseded.len().saturating_sub(LAST_SEGMENTS));
    for first in near {
        if last_index(place, folder, first).await? <= oldest {
            superseded.push(first);
        }
    }
    let gone = superseded.len() as u64;
    for first in superseded {
        place.store.delete(&folder.segment(first)).await?;
    }
    Ok(((firsts.len() as u64).saturating_sub(gone), gone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept() {
        let base = |index, time| Dated {
            index,
            time: Moment(time),
        };
        let bases = [base(10, 100), base(20, 200), base(30, 300)];
        for (horizon, want) in [
            (50, 10),
            (100, 10),
            (199, 10),
            (200, 20),
            (250, 20),
            (999, 30),
        ] {
            assert_eq!(
                oldest_kept(&bases, Moment(horizon)),
                Some(want),
                "{horizon}"
            );
        }
        assert_eq!(oldest_kept(&[], Moment(0)), None);
    }

    #[test]
    fn segments_that_reach_past_the_base_stay() {
        let gone = |base| superseded(&[1, 11, 21, 31], base).collect::<Vec<_>>();
        assert_eq!(gone(9), [] as [u64; 0]);
        assert_eq!(gone(10), [1]);
        assert_eq!(gone(19), [1]);
        assert_eq!(gone(20), [1, 11]);
        assert_eq!(
            gone(999),
            [1, 11, 21],
            "the last one's end is not known here"
        );
    }
}
