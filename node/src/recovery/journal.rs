//! `raft/recovery.json`: what a recovery that has begun is going to make of this data directory. While the file exists the node does not
//! start; whoever finds it goes forward.
use std::{fs, io, path::Path};

use node_db::durable;
use serde::{Deserialize, Serialize};

use super::error::RecoverError;
use crate::identity::Cluster;

/// Name of the file, in `<data>/raft/`.
pub(super) const FILE_NAME: &str = "recovery.json";
/// Version of the file's layout.
const FORMAT: u32 = 1;

/// What was decided at the beginning. A rerun must not decide again: by then the identity may be the new one already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    format: u32,
    /// SHA-256 of the peers file that is being followed.
    pub(super) peers: String,
    /// This node's name in it.
    pub(super) name: String,
    /// What the directory belonged to.
    pub(super) from: Cluster,
    /// What it will belong to.
    pub(super) to: Cluster,
    /// The lineage was given by a plan, not derived.
    pub(super) planned: bool,
    /// Term of the new vote: above every term that the directory knew.
    pub(super) term: u64,
    /// Everything but renaming the peers file and cleaning up has been done.
    pub(super) done: bool,
    /// CRC-32 (IEEE) of everything above, as compact JSON without this field.
    #[serde(default)]
    crc32: u32,
}

impl Journal {
    pub(super) fn new(
        peers: String,
        name: String,
        from: Cluster,
        to: Cluster,
        planned: bool,
        term: u64,
    ) -> Self {
        Self {
            format: FORMAT,
            peers,
            name,
            from,
            to,
            planned,
            term,
            done: false,
            crc32: 0,
        }
    }

    fn checksum(&self) -> u32 {
        let plain = Self {
            crc32: 0,
            ..self.clone()
        };
        // These types always serialize; an empty text would only make the comparison fail.
        crc32fast::hash(&serde_json::to_vec(&plain).unwrap_or_default())
    }

    pub(super) fn load(raft_dir: &Path) -> Result<Option<Self>, RecoverError> {
        let path = raft_dir.join(FILE_NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(RecoverError::io("read", &path, &e)),
        };
        let damaged = |reason: &str| {
            RecoverError::Failed(format!(
                "{} is damaged ({reason}): it is unknown what an interrupted recovery was about to do; \
                 give this node an empty data directory and let it join, or restore a backup",
                path.display()
            ))
        };
        let journal: Self = serde_json::from_slice(&text).map_err(|e| damaged(&e.to_string()))?;
        if journal.format != FORMAT {
            return Err(damaged("written by a newer version"));
        }
        if journal.crc32 != journal.checksum() {
            return Err(damaged("checksum does not match"));
        }
        Ok(Some(journal))
    }

    pub(super) fn save(&self, raft_dir: &Path) -> Result<(), RecoverError> {
        let path = raft_dir.join(FILE_NAME);
        let sealed = Self {
            crc32: self.checksum(),
            ..self.clone()
        };
        let text =
            serde_json::to_vec_pretty(&sealed).map_err(|e| RecoverError::Failed(e.to_string()))?;
        durable::write(&path, &text).map_err(|e| RecoverError::io("write", &path, &e))
    }
}
