//! The end of the archive as the store shows it: the newest base, and the segment that reaches furthest.
use node_archive::{
    documents::{self, Base, FORMAT, Gap, MAX_DOCUMENT_BYTES, Parent, Timeline},
    moment::Moment,
    names::{self, Folder, Object},
    problem::{BadObject, Problem},
    segment::{self, HEADER_READ_BYTES, MAX_SEGMENT_BYTES, Segment, Start},
};
use node_contract::Lineage;
use node_objects::{Created, Kind, ObjectError};

use super::shared::Place;
use crate::identity::Cluster;

/// So many segments at the end are looked at: after a gap, two leaders may have cut the same entries
/// differently, and the one that begins last need not reach furthest.
pub(super) const LAST_SEGMENTS: usize = 5;
/// A header that is longer than usual.
const LONG_HEADER_BYTES: u64 = 512 << 10;

/// Why a step failed, as text that names the object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failure(pub(super) String);

macro_rules! failure_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        })*
    };
}

failure_from!(
    ObjectError,
    BadObject,
    names::BadLineage,
    std::io::Error,
    segment::Misplaced,
    node_archive::seal::TooLong,
    crate::command::DecodeError
);

/// The end of the archive.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) folder: Folder,
    pub(super) lineage: Lineage,
    /// Where the next segment begins; `None` before the first base.
    pub(super) start: Option<Start>,
    /// The newest base.
    pub(super) base: Option<Base>,
    /// Bytes of the segments after it, as stored.
    pub(super) segment_bytes: u64,
    /// Ranges that this leader found lost.
    pub(super) gaps: Vec<Gap>,
    /// What the archive lacks can be found nowhere, or its last segment is damaged: a new base must begin
    /// another sequence.
    pub(super) is_broken: bool,
}

/// Creates the timeline, unless there is one. It must be of this cluster.
pub(super) async fn create_timeline(
    place: &Place,
    cluster: &Cluster,
    parent: Option<Parent>,
    now: Moment,
) -> Result<(), Failure> {
    let folder = Folder::new(&cluster.lineage)?;
    let name = folder.timeline();
    let stored = match place.store.get(&name, MAX_DOCUMENT_BYTES).await {
        Ok(stored) => stored,
        Err(error) if error.kind == Kind::NotFound => {
            let timeline = Timeline {
                format: FORMAT,
                cluster_id: cluster.id.clone(),
                lineage: cluster.lineage.clone(),
                created_at: now,
                parent,
            };
            let bytes = documents::encode(&timeline, &name, place.keys.as_ref())?;
            match place.store.create(&name, bytes.into()).await? {
                Created::Yes => return Ok(()),
                Created::No => place.store.get(&name, MAX_DOCUMENT_BYTES).await?,
            }
        }
        Err(error) => return Err(error.into()),
    };
    let timeline: Timeline = documents::decode(&name, &stored, place.keys.as_ref())?;
    if timeline.cluster_id != cluster.id {
        return Err(Failure(format!(
            "{name}: this is the archive of cluster {}, not of {}: give each cluster a prefix of its own",
            timeline.cluster_id, cluster.id
        )));
    }
    Ok(())
}

/// Reads the end of the archive; everything is empty if there is none.
pub(super) async fn read(place: &Place, lineage: &Lineage) -> Result<Chain, Failure> {
    let folder = Folder::new(lineage)?;
    let bases = bases(place, &folder).await?;
    let base = match bases.last() {
        None => None,
        Some(index) => Some(read_base(place, &folder, *index).await?),
    };
    let segments = last_segments(place, &folder, &bases).await?;
    let after_base = base.as_ref().map_or(0, |base| base.index);
    let segment_bytes = segments
        .iter()
        .filter(|(first, _)| *first > after_base)
        .map(|(_, bytes)| bytes)
        .sum();
    let mut chain = Chain {
        folder,
        lineage: lineage.clone(),
        start: base.as_ref().map(after),
        base,
        segment_bytes,
        gaps: Vec::new(),
        is_broken: false,
    };
    match furthest(place, &chain.folder, &segments).await {
        // Also where a base reaches further: the log may hold what is between, and then there is no gap.
        Ok(Some(start)) if chain.base.is_some() => chain.start = Some(start),
        Ok(Some(_)) => {}
        Ok(None) => {}
        Err(End::Damaged(error)) => {
            tracing::error!(target: "archive", "{error}; a new base is made and the archive goes on behind it");
            chain.is_broken = true;
        }
        Err(End::Failed(failure)) => return Err(failure),
    }
    Ok(chain)
}

/// The first segment after a base, where none ends right before it.
pub(super) fn after(base: &Base) -> Start {
    Start {
        first: base.index.saturating_add(1),
        previous: None,
        not_before: base.time,
        term: base.term,
    }
}

/// A folder's name without the slash at its end.
pub(super) fn in_folder(name: &str) -> &str {
    name.trim_end_matches('/')
}

/// The indexes of all bases, ascending.
pub(super) async fn bases(place: &Place, folder: &Folder) -> Result<Vec<u64>, Failure> {
    let listed = place.store.list(in_folder(&folder.bases()), None).await?;
    let mut bases: Vec<u64> = listed
        .iter()
        .filter_map(|listed| match names::parse(&listed.name) {
            Some((_, _, Object::Base { index })) => Some(index),
            _ => None,
        })
        .collect();
    bases.sort_unstable();
    Ok(bases)
}

/// The document of a base.
pub(super) async fn read_base(place: &Place, folder: &Folder, index: u64) -> Result<Base, Failure> {
    let name = folder.base(index);
    let stored = place.store.get(&name, MAX_DOCUMENT_BYTES).await?;
    Ok(documents::decode(&name, &stored, place.keys.as_ref())?)
}

/// First index and size of the segments that begin after the newest base with any, ascending.
async fn last_segments(
    place: &Place,
    folder: &Folder,
    bases: &[u64],
) -> Result<Vec<(u64, u64)>, Failure> {
    let from = bases.iter().rev().map(|index| Some(folder.segment(*index)));
    for after in from.chain([None]) {
        let found = segments_after(place, folder, after.as_deref()).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// First index and size of the segments whose names come after this one, ascending.
pub(super) async fn segments_after(
    place: &Place,
    folder: &Folder,
    after: Option<&str>,
) -> Result<Vec<(u64, u64)>, Failure> {
    let folder = folder.segments();
    let listed = place.store.list(in_folder(&folder), after).await?;
    let mut found: Vec<(u64, u64)> = listed
        .iter()
        .filter_map(|listed| match names::parse(&listed.name) {
            Some((_, _, Object::Segment { first })) => Some((first, listed.bytes)),
            _ => None,
        })
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Why the end cannot be determined.
enum End {
    /// The segment at the end is not what was written.
    Damaged(BadObject),
    Failed(Failure),
}

impl From<ObjectError> for End {
    fn from(error: ObjectError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<BadObject> for End {
    fn from(error: BadObject) -> Self {
        match error.problem {
            Problem::Damaged(_) | Problem::Truncated(_) => Self::Damaged(error),
            _ => Self::Failed(error.into()),
        }
    }
}

/// Where the segment that reaches furthest ends.
async fn furthest(
    place: &Place,
    folder: &Folder,
    segments: &[(u64, u64)],
) -> Result<Option<Start>, End> {
    let mut best: Option<(u64, u64)> = None;
    let mut damaged = None;
    for (first, _) in segments.iter().rev().take(LAST_SEGMENTS) {
        match last_of(place, folder, *first).await {
            Ok(last) if best.is_none_or(|(reached, _)| reached < last) => {
                best = Some((last, *first));
            }
            Ok(_) => {}
            Err(End::Damaged(error)) => damaged = damaged.or(Some(error)),
            Err(failed) => return Err(failed),
        }
    }
    match (best, damaged) {
        // A damaged segment before others that are sound was left behind already.
        (Some((_, first)), damaged)
            if damaged.is_none() || segments.last().map(|s| s.0) == Some(first) =>
        {
            let segment = read_segment(place, &folder.segment(first)).await?;
            Ok(Some(segment.after()))
        }
        (_, Some(error)) => Err(End::Damaged(error)),
        (_, None) => Ok(None),
    }
}

async fn last_of(place: &Place, folder: &Folder, first: u64) -> Result<u64, End> {
    let name = folder.segment(first);
    for bytes in [HEADER_READ_BYTES, LONG_HEADER_BYTES] {
        let start = place.store.get_range(&name, 0, bytes).await?;
        if let Some(header) = segment::header(&name, &start, place.keys.as_ref())? {
            return Ok(header.last);
        }
    }
    let problem = Problem::Truncated("its header has no end".into());
    Err(BadObject::new(&name, problem).into())
}

async fn read_segment(place: &Place, name: &str) -> Result<Segment, End> {
    let stored = place.store.get(name, MAX_SEGMENT_BYTES).await?;
    Ok(Segment::decode(name, stored, place.keys.as_ref())?)
}

impl From<End> for Failure {
    fn from(end: End) -> Self {
        match end {
            End::Damaged(error) => error.into(),
            End::Failed(failure) => failure,
        }
    }
}

/// The last index of a segment, as its header says.
pub(super) async fn last_index(place: &Place, folder: &Folder, first: u64) -> Result<u64, Failure> {
    Ok(last_of(place, folder, first).await?)
}

/// The segment of this name, which somebody else has stored.
pub(super) async fn winner(place: &Place, name: &str) -> Result<Segment, Failure> {
    Ok(read_segment(place, name).await?)
}
