//! Looking at an archive through a store: which timelines, bases and segments there are, and what restores a
//! point.
use futures_util::{StreamExt, TryStreamExt, stream};
use thiserror::Error;

use crate::{
    documents::{self, Base, Document, MAX_DOCUMENT_BYTES, Manifest, Timeline},
    keys::Keys,
    lineages::NotOne,
    names::{self, BadLineage, Folder, Object},
    plan::{self, Plan, Target, Unreachable},
    problem::{BadObject, Problem},
    segment::{self, HEADER_READ_BYTES, HEADER_READ_BYTES_MAX, Header, MAX_SEGMENT_BYTES, Segment},
    store::{Listed, Store, StoreError},
};

/// Requests to the store at once.
const AT_ONCE: usize = 16;

/// Why an archive cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArchiveError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object that is refused.
    #[error(transparent)]
    Object(#[from] BadObject),
    /// A point that is not there.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// No timeline, or several.
    #[error(transparent)]
    Lineage(#[from] NotOne),
    /// An id that is no name.
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
    /// Bytes of all objects.
    pub bytes: u64,
    /// Objects that are none of an archive's.
    pub foreign: Vec<String>,
}

/// An archive: a store, and the keys that open it.
pub struct Reader<'a, S: ?Sized> {
    /// Where it is.
    pub store: &'a S,
    /// What opens it.
    pub keys: Option<&'a Keys>,
}

impl<S: ?Sized> Clone for Reader<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for Reader<'_, S> {}

impl<S: Store + ?Sized> Reader<'_, S> {
    /// All timelines, by name.
    ///
    /// # Errors
    /// The store, or a document that is refused.
    pub async fn timelines(&self) -> Result<Vec<Timeline>, ArchiveError> {
        let mut found = Vec::new();
        for name in self.store.folders().await? {
            let Some((folder, _)) = Folder::parse(&name) else {
                continue;
            };
            match self.document(&folder.timeline()).await {
                Ok(timeline) => found.push(timeline),
                // A writer that stopped before its first object.
                Err(ArchiveError::Store(StoreError::NotFound { .. })) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// What a timeline's folder holds.
    ///
    /// # Errors
    /// The store.
    pub async fn contents(&self, folder: &Folder) -> Result<Contents, ArchiveError> {
        let mut found = Contents::default();
        for object in self.store.list(folder.as_str()).await? {
            found.bytes += object.bytes;
            match names::parse(&object.name).map(|(_, _, object)| object) {
                Some(Object::Base { index }) => found.bases.push(index),
                Some(Object::BaseData { .. }) => found.data.push(object),
                Some(Object::Segment { first }) => found.segments.push(first),
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
    /// The store, or a document that is refused.
    pub async fn document<D: Document>(&self, name: &str) -> Result<D, ArchiveError> {
        let stored = self.store.get(name, MAX_DOCUMENT_BYTES).await?;
        Ok(documents::decode(name, &stored, self.keys)?)
    }

    /// The manifest, if there is one.
    ///
    /// # Errors
    /// The store, or a manifest that is refused.
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
    /// The store, or a document that is refused.
    pub async fn bases(&self, folder: &Folder, indexes: &[u64]) -> Result<Vec<Base>, ArchiveError> {
        let names: Vec<String> = indexes.iter().map(|index| folder.base(*index)).collect();
        let mut found = Vec::new();
        let mut read = stream::iter(&names)
            .map(|name| self.document(name))
            .buffered(AT_ONCE);
        while let Some(base) = read.next().await {
            match base {
                Ok(base) => found.push(base),
                Err(ArchiveError::Store(StoreError::NotFound { .. })) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// Headers of segments, in the order of `firsts`.
    ///
    /// # Errors
    /// The store, or a segment that is refused.
    pub async fn headers(
        &self,
        folder: &Folder,
        firsts: &[u64],
    ) -> Result<Vec<Header>, ArchiveError> {
        let names: Vec<String> = firsts.iter().map(|first| folder.segment(*first)).collect();
        let read = stream::iter(&names).map(|name| self.header(name));
        read.buffered(AT_ONCE).try_collect().await
    }

    async fn header(&self, name: &str) -> Result<Header, ArchiveError> {
        // The longest header, and what encryption adds to it.
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
    /// The store, or a segment that is refused.
    pub async fn segment(&self, folder: &Folder, first: u64) -> Result<Segment, ArchiveError> {
        let name = folder.segment(first);
        let stored = self.store.get(&name, MAX_SEGMENT_BYTES).await?;
        Ok(Segment::decode(&name, stored, self.keys)?)
    }

    /// What restores this point.
    ///
    /// # Errors
    /// The store, an object that is refused, or a point that is not there.
    pub async fn plan(&self, folder: &Folder, target: Target) -> Result<Plan, ArchiveError> {
        let contents = self.contents(folder).await?;
        let bases = self.bases(folder, &contents.bases).await?;
        let base = plan::choose_base(folder, &bases, target)?;
        let wanted = plan::wanted(&contents.segments, base, &bases, target);
        let headers = self.headers(folder, wanted).await?;
        let manifest = self.manifest(folder).await?;
        let promised = manifest.map(|manifest| manifest.archived_index);
        Ok(plan::plan(folder, base, &headers, promised, target)?)
    }
}
