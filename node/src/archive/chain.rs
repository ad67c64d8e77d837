//! The end of the archive, as read from the store: the newest base, and the segment that reaches furthest.
use node_archive::{
    decide::{Resume, resume},
    documents::{self, Base, FORMAT, Gap, MAX_DOCUMENT_BYTES, Parent, Timeline},
    moment::Moment,
    names::Folder,
    problem::BadObject,
    reader::ArchiveError,
    segment::{Segment, Start},
};
use node_contract::Lineage;
use node_objects::{Created, Kind};

use super::{
    links::Links,
    place::{Failure, Place, is_lost},
};
use crate::identity::Cluster;

/// The end of the archive.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) folder: Folder,
    pub(super) lineage: Lineage,
    /// Where the next segment begins; `None` before the first base.
    pub(super) start: Option<Start>,
    /// The newest base.
    pub(super) base: Option<Base>,
    /// Bytes of the segments after the newest base, as stored.
    pub(super) segment_bytes: u64,
    /// Ranges that were never archived, as far as the manifest and this leader know.
    pub(super) gaps: Vec<Gap>,
    /// No member has the entries that come next, or the last segment is damaged: a new base must come next.
    pub(super) is_broken: bool,
    /// The segments after the newest base.
    pub(super) links: Links,
}

/// The archive that this leader knows is not in the store.
pub(super) fn gone(lineage: &Lineage) -> Failure {
    let name = Folder::new(lineage).map_or_else(|_| String::new(), |folder| folder.timeline());
    Failure(format!(
        "{name}: the archive was there and is gone: a folder that is not mounted, or deleted objects. Nothing is written until it is back; if it was deleted for good, restart each node, and a new archive begins"
    ))
}

/// The timeline's document, checked to be of this cluster; `None` if there is none.
pub(super) async fn timeline(
    place: &Place,
    cluster: &Cluster,
) -> Result<Option<Timeline>, Failure> {
    let name = Folder::new(&cluster.lineage)?.timeline();
    let stored = match place.store.get(&name, MAX_DOCUMENT_BYTES).await {
        Ok(stored) => stored,
        Err(error) if error.kind == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let timeline: Timeline = documents::decode(&name, &stored, place.keys.as_ref())?;
    if timeline.cluster_id != cluster.id {
        return Err(Failure(format!(
            "{name}: this is the archive of cluster {}, not of {}: give each cluster a prefix of its own",
            timeline.cluster_id, cluster.id
        )));
    }
    Ok(Some(timeline))
}

/// Creates the timeline's document; returns the one that is then there, of this node or another.
pub(super) async fn create_timeline(
    place: &Place,
    cluster: &Cluster,
    parent: Option<Parent>,
    now: Moment,
) -> Result<Timeline, Failure> {
    let name = Folder::new(&cluster.lineage)?.timeline();
    let created = Timeline {
        format: FORMAT,
        cluster_id: cluster.id.clone(),
        lineage: cluster.lineage.clone(),
        created_at: now,
        parent,
    };
    let bytes = documents::encode(&created, &name, place.keys.as_ref())?;
    match place.store.create(&name, bytes.into()).await? {
        Created::Yes => Ok(created),
        Created::No => {
            let there = timeline(place, cluster).await?;
            there.ok_or_else(|| gone(&cluster.lineage))
        }
    }
}

/// Reads the end of the archive; of an archive that does not exist yet, everything is empty.
pub(super) async fn read(place: &Place, lineage: &Lineage) -> Result<Chain, Failure> {
    let folder = Folder::new(lineage)?;
    let reader = place.reader();
    let contents = reader.contents(&folder).await?;
    let mut bases = reader.bases(&folder, &contents.bases).await?;
    for (_, why) in &bases.refused {
        if !is_lost(why) {
            return Err(why.clone().into());
        }
        tracing::error!(target: "archive", "{why}; what only this base restores is lost");
    }
    let base = bases.readable.pop();
    let gaps = match reader.manifest(&folder).await {
        Ok(manifest) => manifest.map_or_else(Vec::new, |manifest| manifest.gaps),
        // The manifest is for people, and a new one is written soon.
        Err(ArchiveError::Object(why)) => {
            tracing::warn!(target: "archive", "{why}");
            Vec::new()
        }
        Err(e) => return Err(e.into()),
    };
    let mut chain = Chain {
        lineage: lineage.clone(),
        start: None,
        segment_bytes: contents.segment_bytes_after(base.as_ref().map_or(0, |base| base.index)),
        links: Links::after(base.as_ref(), &contents.segments),
        base,
        gaps,
        is_broken: false,
        folder,
    };
    let after_last = match reader.end(&chain.folder, &contents.segments).await {
        Ok(end) => end,
        Err(ArchiveError::Object(why)) if is_lost(&why) => {
            tracing::error!(target: "archive", "{why}; a new base is made and the archive goes on behind it");
            chain.is_broken = true;
            None
        }
        Err(e) => return Err(e.into()),
    };
    // Whether a log still holds the next entry is found when it is read, hence `log_first` 0.
    if let Resume::At(start) = resume(after_last.as_ref(), chain.base.as_ref(), 0) {
        chain.start = Some(start);
    }
    Ok(chain)
}

/// Where the first segment after a base begins, if no segment ends right before it.
pub(super) fn after(base: &Base) -> Start {
    Start {
        first: base.index.saturating_add(1),
        previous: None,
        not_before: base.time,
        term: base.term,
    }
}

/// The document of a base.
pub(super) async fn read_base(place: &Place, folder: &Folder, index: u64) -> Result<Base, Failure> {
    Ok(place.reader().document(&folder.base(index)).await?)
}

/// The segment with this first index, which another leader has stored; the inner error if it is damaged for
/// good.
pub(super) async fn winner(
    place: &Place,
    folder: &Folder,
    first: u64,
) -> Result<Result<Segment, BadObject>, Failure> {
    match place.reader().segment(folder, first).await {
        Ok(segment) => Ok(Ok(segment)),
        Err(ArchiveError::Object(why)) if is_lost(&why) => Ok(Err(why)),
        Err(e) => Err(e.into()),
    }
}
