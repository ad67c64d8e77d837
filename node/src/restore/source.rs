//! Reading an archive: its timelines, bases, segments and manifests, each checked by `node-archive`.
use std::path::Path;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use node_archive::{
    base::Decoder,
    documents::{self, Base, Document, MAX_DOCUMENT_BYTES, Manifest, Timeline},
    keys::Keys,
    names::{Folder, Object, parse},
    segment::{self, HEADER_READ_BYTES, Header, MAX_SEGMENT_BYTES, Segment},
};
use node_contract::Lineage;
use node_objects::{Kind, ObjectError, Store};

use crate::archive::settings;

/// Headers read at the same time: each is one small request.
const HEADERS_AT_ONCE: usize = 16;
/// Longest header that is looked for.
const MAX_HEADER_BYTES: u64 = 512 << 10;

/// Why something cannot be restored; for a person, and it names the object.
pub type Refusal = String;

/// An archive that is read.
#[derive(Debug)]
pub struct Source {
    store: Store,
    keys: Option<Keys>,
}

/// One timeline's place in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineAt {
    /// Its folder.
    pub folder: Folder,
    /// Its lineage.
    pub lineage: Lineage,
    /// What it began as.
    pub timeline: Timeline,
}

impl Source {
    /// An archive below the store's prefix.
    pub fn new(store: Store, keys: Option<Keys>) -> Self {
        Self { store, keys }
    }

    /// Where it is, for people.
    pub fn place(&self) -> &str {
        self.store.place()
    }

    /// All timelines, the oldest epoch first. Folders of other names are left alone.
    ///
    /// # Errors
    /// The store's, or a timeline that is no such document.
    pub async fn timelines(&self) -> Result<Vec<TimelineAt>, Refusal> {
        let folders = self.store.folders("").await.map_err(text)?;
        let mut found = Vec::new();
        for name in folders {
            let Some((folder, lineage)) = Folder::parse(name.trim_matches('/')) else {
                continue;
            };
            // Without this document nothing of the folder was finished.
            if let Some(timeline) = self.document::<Timeline>(&folder.timeline()).await? {
                found.push(TimelineAt {
                    folder,
                    lineage,
                    timeline,
                });
            }
        }
        found.sort_by_key(|at| at.lineage.epoch);
        Ok(found)
    }

    async fn document<D: Document>(&self, name: &str) -> Result<Option<D>, Refusal> {
        match self.store.get(name, MAX_DOCUMENT_BYTES).await {
            Ok(stored) => documents::decode(name, &stored, self.keys.as_ref())
                .map(Some)
                .map_err(|e| e.to_string()),
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(text(e)),
        }
    }

    /// The bases of a timeline in the order of their indexes.
    ///
    /// # Errors
    /// The store's, or an object that is no base.
    pub async fn bases(&self, folder: &Folder) -> Result<Vec<Base>, Refusal> {
        let prefix = folder.bases();
        let listed = self.store.list(prefix.trim_end_matches('/'), None);
        let mut bases = Vec::new();
        for entry in listed.await.map_err(text)? {
            if let Some((_, _, Object::Base { .. })) = parse(&entry.name) {
                // Deleted between both requests, by retention: it is not there.
                bases.extend(self.document::<Base>(&entry.name).await?);
            }
        }
        bases.sort_by_key(|base| base.index);
        Ok(bases)
    }

    /// First indexes of a timeline's segments, in order.
    ///
    /// # Errors
    /// The store's.
    pub async fn segments(&self, folder: &Folder) -> Result<Vec<u64>, Refusal> {
        let prefix = folder.segments();
        let listed = self.store.list(prefix.trim_end_matches('/'), None);
        let listed = listed.await.map_err(text)?;
        let firsts = listed.iter().filter_map(|entry| match parse(&entry.name)? {
            (_, _, Object::Segment { first }) => Some(first),
            _ => None,
        });
        let mut firsts: Vec<u64> = firsts.collect();
        firsts.sort_unstable();
        Ok(firsts)
    }

    /// The timeline's manifest, if there is one.
    ///
    /// # Errors
    /// The store's, or an object that is no manifest.
    pub async fn manifest(&self, folder: &Folder) -> Result<Option<Manifest>, Refusal> {
        self.document(&folder.manifest()).await
    }

    /// The headers of these segments, in the same order.
    ///
    /// # Errors
    /// The store's, or an object that is no segment.
    pub async fn headers(&self, folder: &Folder, firsts: &[u64]) -> Result<Vec<Header>, Refusal> {
        let names: Vec<String> = firsts.iter().map(|first| folder.segment(*first)).collect();
        stream::iter(names.into_iter().map(|name| self.header(name)))
            .buffered(HEADERS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn header(&self, name: String) -> Result<Header, Refusal> {
        let mut bytes = HEADER_READ_BYTES;
        loop {
            let start = self.store.get_range(&name, 0, bytes).await.map_err(text)?;
            let header = segment::header(&name, &start, self.keys.as_ref());
            if let Some(header) = header.map_err(|e| e.to_string())? {
                return Ok(header);
            }
            if bytes >= MAX_HEADER_BYTES || (start.len() as u64) < bytes {
                return Err(format!("{name}: is truncated: its header has no end"));
            }
            bytes = bytes.saturating_mul(8);
        }
    }

    /// A whole segment.
    ///
    /// # Errors
    /// The store's, or an object that is no segment.
    pub async fn segment(&self, name: &str) -> Result<Segment, Refusal> {
        let stored = self
            .store
            .get(name, MAX_SEGMENT_BYTES)
            .await
            .map_err(text)?;
        Segment::decode(name, stored, self.keys.as_ref()).map_err(|e| e.to_string())
    }

    /// Passes a base's database file to `sink`, piece by piece. Only when this returns without an error was
    /// it that file.
    ///
    /// # Errors
    /// The store's, the sink's, or an object that is not the base's.
    pub async fn base_data(
        &self,
        folder: &Folder,
        base: &Base,
        mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), Refusal> {
        let name = format!("{}{}", folder.bases(), base.object);
        let mut reader = self.store.read(&name, 0).await.map_err(text)?;
        let decoder = Decoder::new(&name, base, self.keys.as_ref());
        let mut decoder = decoder.map_err(|e| e.to_string())?;
        while let Some(bytes) = reader.next().await.map_err(text)? {
            decoder.push(&bytes, &mut sink).map_err(|e| e.to_string())?;
        }
        decoder.finish(sink).map_err(|e| e.to_string())
    }
}

fn text(error: ObjectError) -> Refusal {
    error.to_string()
}

/// Reads a key file.
///
/// # Errors
/// It cannot be read, or is none.
pub fn read_keys(path: Option<&Path>) -> Result<Option<Keys>, Refusal> {
    let Some(path) = path else {
        return Ok(None);
    };
    let keys = settings::read_keys(path);
    keys.map(Some).map_err(|e| format!("the key file {e}"))
}
