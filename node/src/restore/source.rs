//! Reads an archive: its timelines, bases, segments and manifests, each checked by `node-archive`.
use std::path::Path;

use node_archive::{
    base::Decoder,
    documents::{Base, Manifest, Timeline},
    keys::Keys,
    names::Folder,
    plan::{Plan, Target},
    reader::{ArchiveError, Bases, Contents, Reader},
    segment::{Header, Segment},
    verify::{Report, verify},
};
use node_contract::Lineage;
use node_objects::{ObjectError, Store};

use crate::archive::settings;

/// Why something cannot be restored, as text for people that names the object.
pub type Refusal = String;

/// An archive to read: [`Reader`] with errors as texts for people, and the data of bases.
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
    /// Its document: cluster, lineage, origin.
    pub timeline: Timeline,
}

impl Source {
    /// An archive below the store's prefix.
    pub fn new(store: Store, keys: Option<Keys>) -> Self {
        Self { store, keys }
    }

    /// Where the archive is, as text for people.
    pub fn place(&self) -> &str {
        self.store.place()
    }

    fn reader(&self) -> Reader<'_, Store> {
        Reader {
            store: &self.store,
            keys: self.keys.as_ref(),
        }
    }

    /// The timelines with the lineage id `wanted`, or all, in order of epochs. Folders of other names are
    /// ignored.
    ///
    /// # Errors
    /// A request to the store failed, or a timeline's document is damaged.
    pub async fn timelines(&self, wanted: Option<&str>) -> Result<Vec<TimelineAt>, Refusal> {
        let found = self.reader().timelines(wanted).await.map_err(said)?;
        let found = found.into_iter().map(|(folder, timeline)| TimelineAt {
            folder,
            lineage: timeline.lineage.clone(),
            timeline,
        });
        Ok(found.collect())
    }

    /// What a timeline's folder holds.
    ///
    /// # Errors
    /// A request to the store failed.
    pub async fn contents(&self, folder: &Folder) -> Result<Contents, Refusal> {
        self.reader().contents(folder).await.map_err(said)
    }

    /// The bases of a timeline in the order of their indexes.
    ///
    /// # Errors
    /// A request to the store failed.
    pub async fn bases(&self, folder: &Folder, indexes: &[u64]) -> Result<Bases, Refusal> {
        self.reader().bases(folder, indexes).await.map_err(said)
    }

    /// The timeline's manifest, if there is one.
    ///
    /// # Errors
    /// A request to the store failed, or the manifest is damaged.
    pub async fn manifest(&self, folder: &Folder) -> Result<Option<Manifest>, Refusal> {
        self.reader().manifest(folder).await.map_err(said)
    }

    /// The header of the newest of these segments.
    ///
    /// # Errors
    /// A request to the store failed, or the segment is damaged.
    pub async fn newest(&self, folder: &Folder, firsts: &[u64]) -> Result<Option<Header>, Refusal> {
        let newest = firsts.last().copied();
        let headers = self.reader().headers(folder, newest.as_slice()).await;
        Ok(headers.map_err(said)?.pop())
    }

    /// A whole segment.
    ///
    /// # Errors
    /// A request to the store failed, or the segment is damaged.
    pub async fn segment(&self, folder: &Folder, first: u64) -> Result<Segment, Refusal> {
        self.reader().segment(folder, first).await.map_err(said)
    }

    /// Plans the restore of a point, from a base at or before `since`.
    ///
    /// # Errors
    /// A request to the store failed, an object is damaged, or the point cannot be restored.
    pub async fn plan(
        &self,
        folder: &Folder,
        target: Target,
        since: Target,
    ) -> Result<Plan, Refusal> {
        let planned = self.reader().plan_from(folder, target, since).await;
        planned.map_err(said)
    }

    /// Reads every object of a timeline and reports what is wrong with it.
    ///
    /// # Errors
    /// A request to the store failed.
    pub async fn verify(&self, folder: &Folder) -> Result<Report, Refusal> {
        verify(self.reader(), folder).await.map_err(said)
    }

    /// Passes a base's database file to `sink`, piece by piece. The pieces are unverified until this returns
    /// without an error.
    ///
    /// # Errors
    /// A request to the store failed, `sink` failed, or the object is damaged.
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

fn said(error: ArchiveError) -> Refusal {
    error.to_string()
}

fn text(error: ObjectError) -> Refusal {
    error.to_string()
}

/// Reads a key file.
///
/// # Errors
/// The file cannot be read, or is not a key file.
pub fn read_keys(path: Option<&Path>) -> Result<Option<Keys>, Refusal> {
    let Some(path) = path else {
        return Ok(None);
    };
    let keys = settings::read_keys(path);
    keys.map(Some).map_err(|e| format!("the key file {e}"))
}
