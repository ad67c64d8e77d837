//! `raft/recovery.json`: the journal of a recovery, with the state that the data directory will have. While
//! the file exists the node does not start; the next attempt completes the recovery.
use std::{fs, io, path::Path};

use node_db::durable;
use serde::{Deserialize, Serialize};

use super::error::RecoverError;
use crate::identity::Cluster;

/// Name of the file, in `<data>/raft/`.
pub(super) const FILE_NAME: &str = "recovery.json";
/// Version of the file's format.
const FORMAT: u32 = 1;

/// The decisions made at the start of a recovery. A repeated run must not decide again, because the identity
/// may already be the new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    format: u32,
    /// SHA-256 of the peers file.
    pub(super) peers: String,
    /// This node's name in the peers file.
    pub(super) name: String,
    /// The cluster and lineage before the recovery.
    pub(super) from: Cluster,
    /// The cluster and lineage after the recovery.
    pub(super) to: Cluster,
    /// The lineage was chosen by a plan, not derived.
    pub(super) planned: bool,
    /// Term of the new vote: higher than every term in the directory.
    pub(super) term: u64,
    /// Only renaming the peers file and cleaning up remain.
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
        // These types always serialize; an empty text would only fail the comparison.
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
