//! The JSON documents of a timeline: its origin, its bases, and the manifest for people.
//!
//! Fields are only ever added: readers ignore those that they do not know, and a document whose `format` is
//! newer is refused.
use node_contract::Lineage;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    keys::Keys,
    moment::Moment,
    names::{self, Object},
    problem::{BadObject, Problem, json},
    seal,
};

/// Format of documents and of segments' headers.
pub const FORMAT: u32 = 1;
/// Largest document, as stored.
pub const MAX_DOCUMENT_BYTES: u64 = 1 << 20;

/// Version and settings of the program that applied the entries of a base or segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Version of SQLite, such as `3.50.4`.
    pub sqlite: String,
    /// SQLite's source id: the same version may be built from other sources.
    pub sqlite_source_id: String,
    /// Version of rqlited.
    pub rqlited: String,
    /// Format version in effect (`node/src/version.rs`).
    pub format_version: u16,
    /// Whether foreign keys were enforced (`-fk`): the same entries give other results with and without.
    /// `None` in archives from before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_keys: Option<bool>,
}

/// `timeline.json`: created once, before anything else of the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// [`FORMAT`]
    pub format: u32,
    /// The cluster whose data it is.
    pub cluster_id: String,
    /// Its lineage.
    pub lineage: Lineage,
    /// When the archive of this lineage began.
    pub created_at: Moment,
    /// Where its data comes from, if it continues another timeline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
}

/// The timeline that another one continues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Its lineage.
    pub lineage: Lineage,
    /// Last index that both have in common, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// What began the new one: `recovery`, `skip-entry`, `restore`.
    pub how: String,
}

/// `bases/<index>.json`: created once, after the base's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// [`FORMAT`]
    pub format: u32,
    /// The timeline's lineage.
    pub lineage: Lineage,
    /// Index of the last entry that it contains.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Time of that entry, which is the time of the last request up to it.
    pub time: Moment,
    /// When the base was made.
    pub created_at: Moment,
    /// Bytes of the database file.
    pub bytes: u64,
    /// SHA-256 of the database file, in hexadecimal digits.
    pub sha256: String,
    /// Pages of the database file.
    pub pages: u64,
    /// Last part of the name of the object with the data (`<index>-<random>.db`).
    pub object: String,
    /// Bytes of that object.
    pub object_bytes: u64,
    /// The program that wrote it.
    pub writer: Writer,
    /// Hash of the content at `index`, if one was made there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<String>,
    /// Why it was made: `first`, `interval`, `size`, `version`, `load`, `gap`, `request`.
    pub reason: String,
}

/// A range of indexes that was never archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First missing index.
    pub first: u64,
    /// Last missing index.
    pub last: u64,
}

/// `manifest.json`: for people and quick looks. Nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`]
    pub format: u32,
    /// The cluster whose data it is.
    pub cluster_id: String,
    /// The timeline's lineage.
    pub lineage: Lineage,
    /// When this was written.
    pub written_at: Moment,
    /// Index up to which every entry is archived.
    pub archived_index: u64,
    /// Time of that entry.
    pub archived_time: Moment,
    /// The oldest base.
    pub oldest_base: Option<BaseSummary>,
    /// The newest base.
    pub newest_base: Option<BaseSummary>,
    /// Name of the newest segment.
    pub newest_segment: Option<String>,
    /// Number of bases.
    pub bases: u64,
    /// Number of segments.
    pub segments: u64,
    /// Ranges that were never archived.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// A base in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseSummary {
    /// As in [`Base`].
    pub index: u64,
    /// As in [`Base`].
    pub time: Moment,
    /// As in [`Base`].
    pub bytes: u64,
    /// As in [`Base`].
    pub object_bytes: u64,
}

impl From<&Base> for BaseSummary {
    fn from(base: &Base) -> Self {
        Self {
            index: base.index,
            time: base.time,
            bytes: base.bytes,
            object_bytes: base.object_bytes,
        }
    }
}

/// A document whose content says under which name it belongs.
pub trait Document: Serialize + DeserializeOwned {
    /// Its format.
    fn format(&self) -> u32;
    /// Its timeline's lineage.
    fn lineage(&self) -> &Lineage;
    /// Whether `object` is the one that this document describes.
    fn is(&self, object: &Object) -> bool;
}

impl Document for Timeline {
    fn format(&self) -> u32 {
        self.format
    }
    fn lineage(&self) -> &Lineage {
        &self.lineage
    }
    fn is(&self, object: &Object) -> bool {
        *object == Object::Timeline
    }
}

impl Document for Base {
    fn format(&self) -> u32 {
        self.format
    }
    fn lineage(&self) -> &Lineage {
        &self.lineage
    }
    fn is(&self, object: &Object) -> bool {
        *object == (Object::Base { index: self.index })
    }
}

impl Document for Manifest {
    fn format(&self) -> u32 {
        self.format
    }
    fn lineage(&self) -> &Lineage {
        &self.lineage
    }
    fn is(&self, object: &Object) -> bool {
        *object == Object::Manifest
    }
}

/// The format number alone, which must be readable whatever the rest is.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// A document as the bytes of the object `name`: indented JSON, encrypted if there are keys.
///
/// # Errors
/// Serialization or encryption failed; neither is expected of these types.
pub fn encode<D: Document>(
    document: &D,
    name: &str,
    keys: Option<&Keys>,
) -> Result<Vec<u8>, BadObject> {
    let damaged = |e: String| BadObject::new(name, Problem::Damaged(e));
    let mut text = serde_json::to_vec_pretty(document).map_err(|e| damaged(e.to_string()))?;
    text.push(b'\n');
    seal::seal(keys, name, &text).map_err(|e| damaged(e.to_string()))
}

/// The document that the object `name` holds.
///
/// # Errors
/// The object cannot be decrypted, is not a document of this type, has a newer format, or belongs under
/// another name.
pub fn decode<D: Document>(name: &str, stored: &[u8], keys: Option<&Keys>) -> Result<D, BadObject> {
    let text = seal::open(keys, name, stored)?;
    let checked = || {
        let format = json::<FormatOnly>(&text)?.format;
        if format > FORMAT {
            return Err(Problem::Newer(format));
        }
        let document: D = json(&text)?;
        let (_, lineage, object) = names::parse(name)
            .ok_or_else(|| Problem::Foreign("this is no name of an archive's object".into()))?;
        if *document.lineage() != lineage {
            return Err(foreign_lineage(document.lineage()));
        }
        if !document.is(&object) {
            return Err(Problem::Foreign(
                "it describes another object than its name says".into(),
            ));
        }
        Ok(document)
    };
    checked().map_err(|problem| BadObject::new(name, problem))
}

/// The problem of an object whose content names this lineage, while its name says another one.
pub(crate) fn foreign_lineage(lineage: &Lineage) -> Problem {
    Problem::Foreign(format!(
        "it was written for lineage {} of epoch {}",
        lineage.id, lineage.epoch
    ))
}
