//! Who this data directory is: its name, its incarnation, and the cluster it belongs to. Written once, then only narrowed.
//!
//! A node's *name* is what users call it (`-node-id`). Its *Raft id* is the name plus the incarnation, a random number drawn when the
//! data directory is created. A directory that was lost and made anew therefore is another Raft member, and nothing that was promised
//! to the old one, neither votes nor acknowledgements, can be claimed by the new one.
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Name of the file, in `<data>/raft/`.
const FILE_NAME: &str = "identity.json";
/// Version of the file's layout.
const FORMAT: u32 = 1;

/// Separates the name from the incarnation in a Raft id. Node names may contain anything, so the last one counts.
pub const SEPARATOR: char = '#';

/// What a cluster's members have in common. Data of another cluster id or lineage is never mixed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Drawn when the cluster formed.
    pub id: String,
    /// Changes with every recovery from a lost quorum, so that nodes left out stay out.
    pub lineage: Lineage,
}

/// One unbroken history of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Random or derived from the recovery's peers file.
    pub id: String,
    /// Counts recoveries, from 0.
    pub epoch: u64,
}

/// A data directory's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    format: u32,
    /// `-node-id`.
    pub name: String,
    /// Drawn when the directory was created; 16 hexadecimal digits.
    pub incarnation: String,
    /// `None` until a leader has admitted this node or it took part in the first forming of a cluster.
    pub cluster: Option<Cluster>,
    /// Raft ids of the first forming that this node has agreed to take part in. Agreed to at most one, ever.
    #[serde(default)]
    pub pledged: Option<Vec<String>>,
    /// CRC-32 (IEEE) of everything above, as compact JSON without this field. One flipped bit would be another identity.
    #[serde(default)]
    crc32: u32,
}

/// Why an identity cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Not an identity file of ours.
    #[error("{}: {reason}; restore the file from a copy, or give the node an empty data directory and let it join again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The directory holds a log but no identity.
    #[error("{} is missing although the directory holds a Raft log; restore the file from a copy, or give the node an empty data directory and let it join again", path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
    },
}

impl Identity {
    /// The Raft id: `<name>#<incarnation>`.
    pub fn raft_id(&self) -> String {
        format!("{}{SEPARATOR}{}", self.name, self.incarnation)
    }

    /// A new identity for an empty data directory.
    pub fn new(name: &str) -> Self {
        Self {
            format: FORMAT,
            name: name.to_owned(),
            incarnation: format!("{:016x}", rand::random::<u64>()),
            cluster: None,
            pledged: None,
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

    /// Reads the identity in `raft_dir`, or makes and saves a new one if the directory holds no log. A changed `-node-id` is taken over
    /// as the new name: the Raft id changes with it, so the node has to join again (and the leader then replaces the old record).
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load_or_create(
        raft_dir: &Path,
        name: &str,
        log_exists: bool,
    ) -> Result<Self, IdentityError> {
        let path = raft_dir.join(FILE_NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if log_exists {
                    return Err(IdentityError::Missing { path });
                }
                let identity = Self::new(name);
                identity.save(raft_dir)?;
                return Ok(identity);
            }
            Err(source) => return Err(IdentityError::Io { path, source }),
        };
        let mut identity: Self =
            serde_json::from_slice(&text).map_err(|e| IdentityError::Damaged {
                path: path.clone(),
                reason: format!("not an identity file ({e})"),
            })?;
        if identity.format != FORMAT {
            let reason = format!("written by a newer version (format {})", identity.format);
            return Err(IdentityError::Damaged { path, reason });
        }
        if identity.crc32 != identity.checksum() {
            return Err(IdentityError::Damaged {
                path,
                reason: "checksum does not match".into(),
            });
        }
        if identity.incarnation.len() != 16
            || !identity.incarnation.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Err(IdentityError::Damaged {
                path,
                reason: "incarnation is not 16 hexadecimal digits".into(),
            });
        }
        if identity.name != name {
            tracing::warn!(target: "store", "node ID changed from {} to {name}: join the cluster again to replace the old record", identity.name);
            identity.name = name.to_owned();
            identity.save(raft_dir)?;
        }
        Ok(identity)
    }

    /// Makes the identity durable: written beside, synced, renamed, directory synced.
    ///
    /// # Errors
    /// The disk refused.
    pub fn save(&self, raft_dir: &Path) -> Result<(), IdentityError> {
        let path = raft_dir.join(FILE_NAME);
        let sealed = Self {
            crc32: self.checksum(),
            ..self.clone()
        };
        let text = serde_json::to_vec_pretty(&sealed).map_err(|e| IdentityError::Damaged {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        write_durably(&path, &text).map_err(|source| IdentityError::Io { path, source })
    }
}

/// The name part of a Raft id.
pub fn name_of(raft_id: &str) -> &str {
    raft_id
        .rsplit_once(SEPARATOR)
        .map_or(raft_id, |(name, _)| name)
}

/// Replaces a file so that a crash leaves either the old or the new content.
///
/// # Errors
/// The disk refused.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes a rename or a new name in `path`'s directory durable.
///
/// # Errors
/// The disk refused.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_once_then_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path(), "a", false).unwrap();
        let again = Identity::load_or_create(dir.path(), "a", true).unwrap();
        assert_eq!(first.raft_id(), again.raft_id());
        let renamed = Identity::load_or_create(dir.path(), "b", true).unwrap();
        assert_eq!(
            (renamed.name.as_str(), &renamed.incarnation),
            ("b", &first.incarnation)
        );
        assert_eq!(name_of(&first.raft_id()), "a");
        assert_eq!(name_of("x#y#0123456789abcdef"), "x#y");
    }

    #[test]
    fn a_log_without_identity_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Identity::load_or_create(dir.path(), "a", true).unwrap_err();
        assert!(matches!(error, IdentityError::Missing { .. }), "{error}");
    }

    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{",
            "[]",
            r#"{"format":9,"name":"a","incarnation":"0123456789abcdef","cluster":null}"#,
        ] {
            fs::write(dir.path().join(FILE_NAME), text).unwrap();
            let error = Identity::load_or_create(dir.path(), "a", true)
                .unwrap_err()
                .to_string();
            assert!(error.contains("identity.json"), "{text:?}: {error}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path(), "a", false).unwrap();
        let path = dir.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        for (at, byte) in whole
            .iter()
            .enumerate()
            .filter(|(_, b)| !b.is_ascii_whitespace())
        {
            let mut damaged = whole.clone();
            damaged[at] = byte ^ 1;
            fs::write(&path, &damaged).unwrap();
            assert!(
                Identity::load_or_create(dir.path(), "a", true).is_err(),
                "byte {at}"
            );
        }
    }
}
