//! Names of objects below the archive's prefix. Numbers have a fixed width, so that a store lists them in
//! order.
use node_contract::Lineage;
use thiserror::Error;

/// Longest id of a lineage that becomes a name.
const MAX_ID_BYTES: usize = 128;
/// Longest random part of a name of a base's data.
const MAX_RANDOM_BYTES: usize = 64;
const EPOCH_DIGITS: usize = 6;
const INDEX_DIGITS: usize = 20;

/// A lineage whose id cannot be part of a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "lineage {0:?} cannot be archived: its id must be 1 to {MAX_ID_BYTES} letters, digits, '-', '_' or '.', and not begin with '.'"
)]
pub struct BadLineage(String);

/// The folder of one timeline: everything that is archived of one lineage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Folder(String);

/// What an object of an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// `timeline.json`
    Timeline,
    /// `manifest.json`
    Manifest,
    /// `bases/<index>.json`
    Base {
        /// Index of the last entry that the base contains.
        index: u64,
    },
    /// `bases/<index>-<random>.db`
    BaseData {
        /// As [`Object::Base`].
        index: u64,
        /// Tells attempts apart.
        random: String,
    },
    /// `segments/<first index>`
    Segment {
        /// Index of its first entry.
        first: u64,
    },
}

impl Folder {
    /// The folder of a lineage.
    ///
    /// # Errors
    /// An id that cannot be part of a name.
    pub fn new(lineage: &Lineage) -> Result<Self, BadLineage> {
        if !is_word(&lineage.id, MAX_ID_BYTES) {
            return Err(BadLineage(lineage.id.clone()));
        }
        Ok(Self(format!(
            "{:0EPOCH_DIGITS$}-{}",
            lineage.epoch, lineage.id
        )))
    }

    /// The lineage that the folder is named after; `None` for names of another kind.
    pub fn parse(folder: &str) -> Option<(Self, Lineage)> {
        let (epoch, id) = folder.split_once('-')?;
        let lineage = Lineage {
            id: id.to_owned(),
            epoch: epoch.parse().ok()?,
        };
        let parsed = Self::new(&lineage).ok()?;
        (parsed.0 == folder).then_some((parsed, lineage))
    }

    /// The folder's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the document that begins the timeline.
    pub fn timeline(&self) -> String {
        format!("{}/timeline.json", self.0)
    }

    /// Name of the manifest.
    pub fn manifest(&self) -> String {
        format!("{}/manifest.json", self.0)
    }

    /// What all names of bases begin with.
    pub fn bases(&self) -> String {
        format!("{}/bases/", self.0)
    }

    /// Name of the document of the base that contains everything up to `index`.
    pub fn base(&self, index: u64) -> String {
        format!("{}/bases/{index:0INDEX_DIGITS$}.json", self.0)
    }

    /// Name of that base's data. `random` is a word that no other attempt uses.
    pub fn base_data(&self, index: u64, random: &str) -> String {
        format!("{}/bases/{index:0INDEX_DIGITS$}-{random}.db", self.0)
    }

    /// What all names of segments begin with.
    pub fn segments(&self) -> String {
        format!("{}/segments/", self.0)
    }

    /// Name of the segment whose first entry has this index.
    pub fn segment(&self, first: u64) -> String {
        format!("{}/segments/{first:0INDEX_DIGITS$}", self.0)
    }
}

/// Which object of which timeline has this name; `None` if it is no name of an archive.
pub fn parse(name: &str) -> Option<(Folder, Lineage, Object)> {
    let (folder, rest) = name.split_once('/')?;
    let (folder, lineage) = Folder::parse(folder)?;
    let object = match rest.split_once('/') {
        None => match rest {
            "timeline.json" => Object::Timeline,
            "manifest.json" => Object::Manifest,
            _ => return None,
        },
        Some(("segments", first)) => Object::Segment {
            first: index(first)?,
        },
        Some(("bases", base)) => match base.strip_suffix(".json") {
            Some(number) => Object::Base {
                index: index(number)?,
            },
            None => {
                let (number, random) = base.strip_suffix(".db")?.split_once('-')?;
                Object::BaseData {
                    index: index(number)?,
                    random: is_word(random, MAX_RANDOM_BYTES).then(|| random.to_owned())?,
                }
            }
        },
        Some(_) => return None,
    };
    Some((folder, lineage, object))
}

/// A number of exactly [`INDEX_DIGITS`] digits.
fn index(text: &str) -> Option<u64> {
    let digits = text.len() == INDEX_DIGITS && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

fn is_word(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(id: &str, epoch: u64) -> Lineage {
        Lineage {
            id: id.to_owned(),
            epoch,
        }
    }

    #[test]
    fn names_are_these() {
        let folder = Folder::new(&lineage("skip-7-2-ab", 3)).unwrap();
        let names = [
            (folder.timeline(), "timeline.json", Object::Timeline),
            (folder.manifest(), "manifest.json", Object::Manifest),
            (
                folder.base(12),
                "bases/00000000000000000012.json",
                Object::Base { index: 12 },
            ),
            (
                folder.base_data(12, "a-b"),
                "bases/00000000000000000012-a-b.db",
                Object::BaseData {
                    index: 12,
                    random: "a-b".into(),
                },
            ),
            (
                folder.segment(u64::MAX),
                "segments/18446744073709551615",
                Object::Segment { first: u64::MAX },
            ),
        ];
        for (name, want, object) in names {
            assert_eq!(name, format!("000003-skip-7-2-ab/{want}"));
            assert_eq!(
                parse(&name),
                Some((folder.clone(), lineage("skip-7-2-ab", 3), object))
            );
        }
    }

    #[test]
    fn other_names_are_nobodys() {
        for name in [
            "",
            "timeline.json",
            "3-a/timeline.json",
            "000003-/timeline.json",
            "000003-a/other.json",
            "000003-a/segments/12",
            "000003-a/segments/0000000000000000001x",
            "000003-a/segments/99999999999999999999",
            "000003-a/segments/00000000000000000001/x",
            "000003-a/bases/00000000000000000001",
            "000003-a/bases/00000000000000000001-.db",
            "000003-a/bases/00000000000000000001-a b.db",
            "000003-../timeline.json",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn ids_that_are_no_names_are_refused() {
        for id in ["", ".hidden", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(Folder::new(&lineage(id, 0)).is_err(), "{id}");
        }
    }
}
