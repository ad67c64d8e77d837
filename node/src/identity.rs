//! The identity of a data directory: its name, its incarnation, and its cluster. Created once; later changes
//! only bind it further, except in a recovery.
//!
//! A node's *name* is what users call it (`-node-id`). Its *Raft id* is the name plus the incarnation, a
//! random number drawn when the data directory is created. A recreated directory is therefore another Raft
//! member, and it cannot claim the votes and acknowledgements of the lost one.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use node_contract::Lineage;
use node_db::durable;
use serde::{Deserialize, Serialize};

/// Name of the file, in `<data>/raft/`.
const FILE_NAME: &str = "identity.json";
/// Version of the file's layout.
const FORMAT: u32 = 1;

/// Separates the name from the incarnation in a Raft id. Node names may contain anything, so the last one
/// counts.
pub const SEPARATOR: char = '#';

/// What all members of a cluster have in common. Data of another cluster id or lineage is never mixed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Drawn when the cluster formed.
    pub id: String,
    /// Changes with every recovery from a lost quorum, so that nodes left out stay out.
    pub lineage: Lineage,
}

/// Prefix of the id of a lineage that began with a skipped entry.
const SKIPPED_WORD: &str = "skip";

/// A log entry that is skipped on all nodes (`rqlited skip-entry`), with the proof that all mean the same
/// one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Checksum of its content: 16 hexadecimal digits.
    pub checksum: String,
}

impl Skipped {
    /// The entry whose skipping began `lineage`, if one did.
    pub fn of(lineage: &Lineage) -> Option<Self> {
        let mut words = lineage.id.split('-');
        if words.next() != Some(SKIPPED_WORD) {
            return None;
        }
        let index = words.next()?.parse().ok()?;
        let term = words.next()?.parse().ok()?;
        let checksum = words.next()?.to_owned();
        (words.count() == 1).then_some(Self {
            index,
            term,
            checksum,
        })
    }

    /// The beginning of the lineage's id.
    pub fn name(&self) -> String {
        format!(
            "{SKIPPED_WORD}-{}-{}-{}",
            self.index, self.term, self.checksum
        )
    }

    /// The command that skips it.
    pub fn command(&self, data_dir: &str) -> String {
        format!(
            "rqlited skip-entry --index {} --term {} --checksum {} {data_dir}",
            self.index, self.term, self.checksum
        )
    }
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
    /// `None` until a leader has admitted this node or it has taken part in forming the cluster.
    pub cluster: Option<Cluster>,
    /// Raft ids of the members with which this node has agreed to form a cluster. It agrees to at most one
    /// such set.
    #[serde(default)]
    pub pledged: Option<Vec<String>>,
    /// What `prepare` decided for this directory when it was created; `None` without an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birth: Option<Birth>,
    /// CRC-32 (IEEE) of everything above, as compact JSON without this field. Without it, a flipped bit would
    /// be another identity.
    #[serde(default)]
    crc32: u32,
}

/// The purpose for which a data directory was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Birth {
    /// The only cluster that it may join. The lineage is the one known then; a recovery may have changed it
    /// since.
    pub cluster: Cluster,
    /// It may take part in forming that cluster.
    pub may_form: bool,
}

/// Whether a node without a cluster may take part in forming one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormingRight {
    /// Not restricted: the coordinator draws the cluster's id.
    Any,
    /// Exactly this cluster.
    Only(Cluster),
    /// None: the cluster exists, so this node can only join it.
    JoinOnly(Cluster),
}

/// Why an identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is damaged or not an identity file.
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
        raft_id(&self.name, &self.incarnation)
    }

    /// Takes the identity that a recovery gives to this directory. Nothing that was promised under the former
    /// identity binds the new one.
    pub fn become_recovered(&mut self, name: &str, incarnation: String, cluster: Cluster) {
        name.clone_into(&mut self.name);
        self.incarnation = incarnation;
        self.cluster = Some(cluster);
        self.pledged = None;
        self.birth = None;
    }

    /// A new identity for an empty data directory.
    pub fn new(name: &str) -> Self {
        Self {
            format: FORMAT,
            name: name.to_owned(),
            incarnation: format!("{:016x}", rand::random::<u64>()),
            cluster: None,
            pledged: None,
            birth: None,
            crc32: 0,
        }
    }

    /// A new identity for an empty data directory that is meant for one cluster.
    pub fn born(name: &str, birth: Birth) -> Self {
        Self {
            birth: Some(birth),
            ..Self::new(name)
        }
    }

    /// The same directory, still without data, for a new purpose.
    #[must_use]
    pub fn reborn(mut self, name: &str, birth: Birth) -> Self {
        name.clone_into(&mut self.name);
        self.birth = Some(birth);
        self
    }

    /// The right to form a cluster while this node has none.
    pub fn forming_right(&self) -> FormingRight {
        match &self.birth {
            None => FormingRight::Any,
            Some(birth) if birth.may_form => FormingRight::Only(birth.cluster.clone()),
            Some(birth) => FormingRight::JoinOnly(birth.cluster.clone()),
        }
    }

    /// Whether this directory may become a member of `cluster`. The lineage does not matter: its data comes
    /// from the leader that admits it.
    pub fn may_enter(&self, cluster: &Cluster) -> bool {
        self.birth
            .as_ref()
            .is_none_or(|birth| birth.cluster.id == cluster.id)
    }

    fn checksum(&self) -> u32 {
        let plain = Self {
            crc32: 0,
            ..self.clone()
        };
        // These types always serialize; an empty text would only make the comparison fail.
        crc32fast::hash(&serde_json::to_vec(&plain).unwrap_or_default())
    }

    /// Reads the identity in `raft_dir`, or creates and saves a new one if the directory holds no log. A
    /// changed `-node-id` becomes the new name: the Raft id changes with it, so the node must join again (and
    /// the leader then replaces the old record).
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load_or_create(
        raft_dir: &Path,
        name: &str,
        log_exists: bool,
    ) -> Result<Self, IdentityError> {
        let Some(mut identity) = Self::load(raft_dir)? else {
            if log_exists {
                let path = raft_dir.join(FILE_NAME);
                return Err(IdentityError::Missing { path });
            }
            let identity = Self::new(name);
            identity.save(raft_dir)?;
            return Ok(identity);
        };
        if identity.name != name {
            tracing::warn!(target: "store", "node ID changed from {} to {name}: join the cluster again to replace the old record", identity.name);
            identity.name = name.to_owned();
            identity.save(raft_dir)?;
        }
        Ok(identity)
    }

    /// Reads the identity in `raft_dir`, if there is one. Changes nothing.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(raft_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = raft_dir.join(FILE_NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { path, source }),
        };
        let identity: Self = serde_json::from_slice(&text).map_err(|e| IdentityError::Damaged {
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
        Ok(Some(identity))
    }

    /// Saves the identity durably: written to a temporary file, synced, renamed, directory synced.
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
        durable::write(&path, &text).map_err(|source| IdentityError::Io { path, source })
    }
}

/// The Raft id of a name and an incarnation.
pub fn raft_id(name: &str, incarnation: &str) -> String {
    format!("{name}{SEPARATOR}{incarnation}")
}

/// The name part of a Raft id.
pub fn name_of(raft_id: &str) -> &str {
    raft_id
        .rsplit_once(SEPARATOR)
        .map_or(raft_id, |(name, _)| name)
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
    fn a_lineage_says_which_entry_was_skipped() {
        let entry = Skipped {
            index: 17,
            term: 3,
            checksum: "0123456789abcdef".into(),
        };
        let lineage = |id: String| Lineage { id, epoch: 1 };
        let named = lineage(format!("{}-00ff00ff00ff00ff", entry.name()));
        assert_eq!(Skipped::of(&named), Some(entry));
        for other in [
            "0123456789abcdef0123456789abcdef",
            "skip-1-2",
            "skip-a-b-c-d",
            "",
        ] {
            assert_eq!(Skipped::of(&lineage(other.into())), None);
        }
    }

    #[test]
    fn what_a_directory_was_made_for() {
        let cluster = |id: &str| Cluster {
            id: id.into(),
            lineage: Lineage {
                id: "l".into(),
                epoch: 0,
            },
        };
        let born = |may_form| {
            let cluster = cluster("x");
            Identity::born("a", Birth { cluster, may_form })
        };
        assert_eq!(Identity::new("a").forming_right(), FormingRight::Any);
        assert_eq!(born(true).forming_right(), FormingRight::Only(cluster("x")));
        assert_eq!(
            born(false).forming_right(),
            FormingRight::JoinOnly(cluster("x"))
        );
        assert!(Identity::new("a").may_enter(&cluster("y")));
        assert!(born(false).may_enter(&cluster("x")) && !born(true).may_enter(&cluster("y")));
        let dir = tempfile::tempdir().unwrap();
        born(true).save(dir.path()).unwrap();
        let kept = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!(kept.forming_right(), FormingRight::Only(cluster("x")));
    }

    /// A file written before `birth` existed keeps its checksum.
    #[test]
    fn an_older_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"format":1,"name":"a","incarnation":"0123456789abcdef","cluster":null,"pledged":null,"crc32":244077450}"#;
        fs::write(dir.path().join(FILE_NAME), text).unwrap();
        let identity = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!(
            (identity.raft_id().as_str(), identity.birth),
            ("a#0123456789abcdef", None)
        );
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
