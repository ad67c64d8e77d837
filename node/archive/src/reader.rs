//! Reads an archive from a store: its timelines, bases and segments, and what a restore to a point needs.
use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use node_contract::Lineage;
use thiserror::Error;

use crate::{
    documents::{self, Base, Document, MAX_DOCUMENT_BYTES, Manifest, Timeline},
    keys::Keys,
    moment::Moment,
    names::{self, BadLineage, Folder, Object},
    plan::{self, Plan, Target, Unreachable},
    problem::{BadObject, Problem},
    segment::{
        self, HEADER_READ_BYTES, HEADER_READ_BYTES_MAX, Header, MAX_SEGMENT_BYTES, Segment, Start,
    },
    store::{Listed, Store, StoreError},
};

/// Concurrent requests to the store.
const AT_ONCE: usize = 16;

/// Why an archive cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArchiveError {
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object is damaged, foreign, or cannot be decrypted.
    #[error(transparent)]
    Object(#[from] BadObject),
    /// The point cannot be restored.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// A lineage's id cannot be part of an object's name.
    #[error(transparent)]
    Name(#[from] BadLineage),
}

/// What a timeline's folder holds, by names alone.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Indexes of bases, ascending.
    pub bases: Vec<u64>,
    /// Objects with data of bases.
    pub data: Vec<Listed>,
    /// First indexes of segments, ascending.
    pub segments: Vec<u64>,
    /// Their bytes, by first index.
    pub segment_bytes: BTreeMap<u64, u64>,
    /// Bytes of all objects.
    pub bytes: u64,
    /// When the newest object was written, by the store's clock.
    pub newest: Moment,
    /// Names that no object of an archive has.
    pub foreign: Vec<String>,
}

/// Documents of bases.
#[derive(Clone, Debug, Default)]
pub struct Bases {
    /// Those that can be read, by index.
    pub readable: Vec<Base>,
    /// Index of each one that cannot be read, and why.
    pub refused: Vec<(u64, BadObject)>,
}

/// Number of last segments whose headers are compared to find the one that reaches furthest: after a gap, two
/// leaders may have cut the same entries differently, so the last by name need not reach furthest.
const LAST_SEGMENTS: usize = 5;

/// An archive: a store, and the keys that open it.
pub struct Reader<'a, S: ?Sized> {
    /// The store, at the archive's prefix.
    pub store: &'a S,
    /// The keys; `None` for an archive without encryption.
    pub keys: Option<&'a Keys>,
}

impl<S: ?Sized> Clone for Reader<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for Reader<'_, S> {}

impl<S: Store + ?Sized> Reader<'_, S> {
    /// The timelines with the lineage id `wanted`, or all, in order of epochs. Folders of other names are
    /// ignored.
    ///
    /// # Errors
    /// A request to the store failed, or the document is refused.
    pub async fn timelines(
        &self,
        wanted: Option<&str>,
    ) -> Result<Vec<(Folder, Timeline)>, ArchiveError> {
        let mut found = Vec::new();
        for name in self.store.folders().await? {
            let is_wanted = |lineage: &Lineage| wanted.is_none_or(|id| lineage.id == id);
            let parsed = Folder::parse(name.trim_matches('/'));
            let Some((folder, _)) = parsed.filter(|(_, lineage)| is_wanted(lineage)) else {
                continue;
            };
            match self.document::<Timeline>(&folder.timeline()).await {
                Ok(timeline) => found.push((folder, timeline)),
                // The writer stopped before it wrote the document.
                Err(ArchiveError::Store(StoreError::NotFound { .. })) => {}
                Err(e) => return Err(e),
            }
        }
        found.sort_by_key(|(_, timeline)| timeline.lineage.epoch);
        Ok(found)
    }

    /// What a timeline's folder holds.
    ///
    /// # Errors
    /// A request to the store failed.
    pub async fn contents(&self, folder: &Folder) -> Result<Contents, ArchiveError> {
        let mut found = Contents::default();
        for object in self.store.list(folder.as_str()).await? {
            found.bytes += object.bytes;
            found.newest = found.newest.max(object.modified);
            match names::parse(&object.name).map(|(_, _, object)| object) {
                Some(Object::Base { index }) => found.bases.push(index),
                Some(Object::BaseData { .. }) => found.data.push(object),
                Some(Object::Segment { first }) => {
                    found.segments.push(first);
                    found.segment_bytes.insert(first, object.bytes);
                }
                Some(Object::Timeline | Object::Manifest) => {}
                None => found.foreign.push(object.name),
            }
        }
        found.bases.sort_unstable();
        found.segments.sort_unstable();
        Ok(found)
    }

    /// A document.
    ///
    /// # Errors
    /// A request to the store failed, or the document is refused.
    pub async fn document<D: Document>(&self, name: &str) -> Result<D, ArchiveError> {
        let stored = self.store.get(name, MAX_DOCUMENT_BYTES).await?;
        Ok(documents::decode(name, &stored, self.keys)?)
    }

    /// The manifest, if there is one.
    ///
    /// # Errors
    /// A request to the store failed, or the manifest is refused.
    pub async fn manifest(&self, folder: &Folder) -> Result<Option<Manifest>, ArchiveError> {
        match self.document(&folder.manifest()).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(ArchiveError::Store(StoreError::NotFound { .. })) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Documents of bases, in the order of `indexes`. One that retention deleted meanwhile is left out.
    ///
    /// # Errors
    /// A request to the store failed.
    pub async fn bases(&self, folder: &Folder, indexes: &[u64]) -> Result<Bases, ArchiveError> {
        let names: Vec<String> = indexes.iter().map(|index| folder.base(*index)).collect();
        let mut found = Bases::default();
        let reads: Vec<_> = names
            .iter()
            .map(|name| self.document::<Base>(name))
            .collect();
        let mut read = stream::iter(reads).buffered(AT_ONCE);
        let mut indexes = indexes.iter();
        while let (Some(base), Some(index)) = (read.next().await, indexes.next()) {
            match base {
                Ok(base) => found.readable.push(base),
                Err(ArchiveError::Object(why)) => found.refused.push((*index, why)),
                Err(ArchiveError::Store(StoreError::NotFound { .. })) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// Headers of segments, in the order of `firsts`.
    ///
    /// # Errors
    /// A request to the store failed, or a segment is refused.
    pub async fn headers(
        &self,
        folder: &Folder,
        firsts: &[u64],
    ) -> Result<Vec<Header>, ArchiveError> {
        let names: Vec<String> = firsts.iter().map(|first| folder.segment(*first)).collect();
        let reads: Vec<_> = names.iter().map(|name| self.header(name)).collect();
        stream::iter(reads).buffered(AT_ONCE).try_collect().await
    }

    /// The header of a segment.
    ///
    /// # Errors
    /// A request to the store failed, or a segment is refused.
    pub async fn header(&self, name: &str) -> Result<Header, ArchiveError> {
        // The first read holds nearly every header, the second every one.
        for bytes in [HEADER_READ_BYTES, HEADER_READ_BYTES_MAX] {
            let first = self.store.get_first(name, bytes).await?;
            if let Some(header) = segment::header(name, &first, self.keys)? {
                return Ok(header);
            }
        }
        let truncated = Problem::Truncated("its header has no end".into());
        Err(BadObject::new(name, truncated).into())
    }

    /// A segment.
    ///
    /// # Errors
    /// A request to the store failed, or a segment is refused.
    pub async fn segment(&self, folder: &Folder, first: u64) -> Result<Segment, ArchiveError> {
        let name = folder.segment(first);
        let stored = self.store.get(&name, MAX_SEGMENT_BYTES).await?;
        Ok(Segment::decode(&name, stored, self.keys)?)
    }

    /// Where the segment after the one that reaches furthest begins; `None` if there are no segments.
    /// `firsts` are the first indexes of all segments, ascending.
    ///
    /// # Errors
    /// A request to the store failed, or a segment at the end is refused.
    pub async fn end(
        &self,
        folder: &Folder,
        firsts: &[u64],
    ) -> Result<Option<Start>, ArchiveError> {
        let mut best: Option<(u64, u64)> = None;
        let mut refused = None;
        for first in firsts.iter().rev().take(LAST_SEGMENTS) {
            match self.header(&folder.segment(*first)).await {
                Ok(header) if best.is_none_or(|(last, _)| last < header.last) => {
                    best = Some((header.last, *first));
                }
                Ok(_) => {}
                Err(ArchiveError::Object(why)) => refused = refused.or(Some(why)),
                Err(e) => return Err(e),
            }
        }
        match (best, refused) {
            // If the last segment is readable, archiving has continued after the unreadable one before it.
            (Some((_, first)), refused) if refused.is_none() || firsts.last() == Some(&first) => {
                Ok(Some(self.segment(folder, first).await?.after()))
            }
            (_, Some(why)) => Err(why.into()),
            (_, None) => Ok(None),
        }
    }

    /// The objects that a restore to `target` reads.
    ///
    /// # Errors
    /// A request to the store failed, a needed object is refused, or the point cannot be restored.
    pub async fn plan(&self, folder: &Folder, target: Target) -> Result<Plan, ArchiveError> {
        self.plan_from(folder, target, target).await
    }

    /// As [`Self::plan`], but begins with a base at or before `since`, an earlier point.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub async fn plan_from(
        &self,
        folder: &Folder,
        target: Target,
        since: Target,
    ) -> Result<Plan, ArchiveError> {
        let contents = self.contents(folder).await?;
        let bases = self.bases(folder, &contents.bases).await?;
        let base = bases.choose(folder, since)?;
        let firsts = &contents.segments;
        let wanted = if since == target {
            plan::wanted(firsts, base, &bases.readable, target)
        } else {
            let begin = plan::wanted(firsts, base, &[], Target::End);
            let last = bases.choose(folder, target)?;
            let end = plan::wanted(firsts, last, &bases.readable, target).last();
            let until = begin.partition_point(|first| end.is_some_and(|end| first <= end));
            begin.get(..until).unwrap_or_default()
        };
        let (before, after) = wanted.split_at(plan::before_base(wanted, base).min(wanted.len()));
        let (mut headers, refused) = self.headers_that_may_be_bad(folder, before).await?;
        headers.extend(self.headers(folder, after).await?);
        let manifest = self.manifest(folder).await?;
        let promised = manifest.map(|manifest| manifest.archived_index);
        match (
            plan::plan(folder, base, &headers, promised, target),
            refused,
        ) {
            (Err(Unreachable::Hole { .. }), Some(why)) => Err(why.into()),
            (planned, _) => Ok(planned?),
        }
    }

    /// Headers of segments that are probably not needed. A refused one is no error yet: its reason is the
    /// second value, for the case that it is needed after all.
    async fn headers_that_may_be_bad(
        &self,
        folder: &Folder,
        firsts: &[u64],
    ) -> Result<(Vec<Header>, Option<BadObject>), ArchiveError> {
        let (mut headers, mut refused) = (Vec::new(), None);
        for first in firsts {
            match self.header(&folder.segment(*first)).await {
                Ok(header) => headers.push(header),
                Err(ArchiveError::Object(why)) => refused = refused.or(Some(why)),
                // Retention has deleted it since it was listed.
                Err(ArchiveError::Store(StoreError::NotFound { .. })) => {}
                Err(e) => return Err(e),
            }
        }
        Ok((headers, refused))
    }
}

impl Contents {
    /// Bytes of the segments that begin after this index.
    pub fn segment_bytes_after(&self, index: u64) -> u64 {
        self.segment_bytes
            .range(index.saturating_add(1)..)
            .map(|(_, bytes)| bytes)
            .sum()
    }
}

impl Bases {
    /// The newest base at or before the target.
    ///
    /// # Errors
    /// There is no such base, or one that cannot be read might be it.
    pub fn choose(&self, folder: &Folder, target: Target) -> Result<&Base, ArchiveError> {
        let chosen = plan::choose_base(folder, &self.readable, target);
        let base = chosen.as_ref().ok().copied();
        match plan::doubtful(base, &self.readable, &self.refused, target) {
            Some(why) => Err(why.clone().into()),
            None => Ok(chosen?),
        }
    }
}
