//! The last resort for an entry that no node can apply: every node, while stopped, replaces it by an entry
//! without content. DESIGN.md explains the steps.
//!
//! This changes the cluster's lineage. The new one is derived from the old one and the entry, so all nodes
//! that have skipped the same entry have the same lineage, and the handshake refuses all others. Copies of
//! the database can therefore not differ by the entry unnoticed.
use std::{fs, io, path::Path};

use node_db::durable;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{PEERS_FILE, derive, error::RecoverError, journal, remove_directory};
use crate::{
    archive::parent,
    identity::{Cluster, Identity, IdentityError, Lineage, Skipped},
    raft::storage::{log::Log, rewrite::rewrite_without},
};

/// The journal of an unfinished skip, in `<data>/raft/`. While it exists the node does not start.
const JOURNAL_FILE: &str = "skip-entry.json";
/// The new log while it is being written, and the old one until everything is done.
const NEW_LOG: &str = "log.skipped";
const OLD_LOG: &str = "log.before-skip";
/// Domain separation for this hash. Never changed, because nodes of different versions must agree.
const LINEAGE_DOMAIN: &[u8] = b"rqlited skip-entry lineage 1";

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The entry has been skipped; the lineage is now this one.
    Skipped(Lineage),
    /// The log ends before the entry. The lineage is the same as on nodes that had the entry.
    BeyondLog(Lineage),
    /// The entry had already been skipped.
    AlreadySkipped(Lineage),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    entry: Skipped,
    to: Cluster,
}

/// The lineage of a cluster whose nodes have all skipped this entry.
fn lineage(from: &Cluster, entry: &Skipped) -> Lineage {
    let mut hash = Sha256::new();
    let fields = [
        from.id.as_str(),
        &from.lineage.id,
        &from.lineage.epoch.to_string(),
        &entry.name(),
    ];
    derive::field(&mut hash, LINEAGE_DOMAIN);
    for field_text in fields {
        derive::field(&mut hash, field_text.as_bytes());
    }
    let digest = derive::hex(hash.finalize().get(..8).unwrap_or_default());
    Lineage {
        id: format!("{}-{digest}", entry.name()),
        epoch: from.lineage.epoch.saturating_add(1),
    }
}

fn failed(reason: String) -> RecoverError {
    RecoverError::Failed(reason)
}

fn load(raft_dir: &Path) -> Result<Option<Journal>, RecoverError> {
    let path = raft_dir.join(JOURNAL_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(RecoverError::io("read", &path, &e)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        failed(format!(
            "{} is damaged ({e}): give this node an empty data directory and let it join",
            path.display()
        ))
    })
}

/// Refuses to start a node on which a skip was interrupted. The same command must finish it first.
///
/// # Errors
/// A skip was interrupted, or the journal cannot be read.
pub fn refuse_if_interrupted(data_dir: &Path) -> Result<(), RecoverError> {
    match load(&data_dir.join("raft"))? {
        None => Ok(()),
        Some(journal) => Err(failed(format!(
            "skipping entry {} of the log was interrupted: run {} again",
            journal.entry.index,
            journal.entry.command(&data_dir.display().to_string())
        ))),
    }
}

/// Skips `entry` in a stopped node's data directory. The caller holds the directory's lock. Repeating the
/// call after a crash continues where it stopped.
///
/// # Errors
/// The entry is a different one or has already taken effect here; nothing has been changed then. Or the disk
/// failed.
pub fn skip(data_dir: &Path, entry: &Skipped) -> Result<Done, RecoverError> {
    let raft_dir = data_dir.join("raft");
    let mut identity = Identity::load(&raft_dir)?.ok_or_else(|| IdentityError::Missing {
        path: raft_dir.join("identity.json"),
    })?;
    let journal = match load(&raft_dir)? {
        Some(journal) if journal.entry == *entry => journal,
        Some(journal) => {
            return Err(failed(format!(
                "skipping entry {} was interrupted here and has to be ended first",
                journal.entry.index
            )));
        }
        None => {
            let Some(from) = identity.cluster.clone() else {
                return Err(failed("this node was never a member of a cluster".into()));
            };
            if Skipped::of(&from.lineage).as_ref() == Some(entry) {
                return Ok(Done::AlreadySkipped(from.lineage));
            }
            let to = Cluster {
                lineage: lineage(&from, entry),
                id: from.id,
            };
            check(data_dir, &raft_dir, entry)?;
            let journal = Journal {
                entry: entry.clone(),
                to,
            };
            save(&raft_dir, &journal)?;
            journal
        }
    };
    let was_there = replace(&raft_dir, entry)?;
    if let Some(from) = identity
        .cluster
        .as_ref()
        .filter(|from| **from != journal.to)
    {
        let before = entry.index.checked_sub(1);
        let (to, from) = (&journal.to.lineage, &from.lineage);
        parent::note(&raft_dir, to, from, before, "skip-entry");
    }
    identity.cluster = Some(journal.to.clone());
    identity.save(&raft_dir)?;
    remove_directory(&raft_dir.join(OLD_LOG))?;
    remove_directory(&raft_dir.join(NEW_LOG))?;
    let path = raft_dir.join(JOURNAL_FILE);
    fs::remove_file(&path)
        .and_then(|()| durable::sync_parent(&path))
        .map_err(|e| RecoverError::io("remove", &path, &e))?;
    Ok(match was_there {
        true => Done::Skipped(journal.to.lineage),
        false => Done::BeyondLog(journal.to.lineage),
    })
}

fn save(raft_dir: &Path, journal: &Journal) -> Result<(), RecoverError> {
    let path = raft_dir.join(JOURNAL_FILE);
    let text = serde_json::to_vec_pretty(journal).map_err(|e| failed(e.to_string()))?;
    durable::write(&path, &text).map_err(|e| RecoverError::io("write", &path, &e))
}

fn open(path: &Path) -> Result<Log, RecoverError> {
    Log::open(path).map_err(|e| failed(format!("the Raft log in {}: {e}", path.display())))
}

/// Checks that the entry may be skipped.
fn check(data_dir: &Path, raft_dir: &Path, entry: &Skipped) -> Result<(), RecoverError> {
    for name in [PEERS_FILE, journal::FILE_NAME] {
        if raft_dir.join(name).exists() {
            return Err(failed(format!(
                "{} says that a recovery is to come or was interrupted: start the node, or take the file away, first",
                raft_dir.join(name).display()
            )));
        }
    }
    let stored = node_db::offline::stored(data_dir)?.unwrap_or_default();
    let at = stored.position.map_or(0, |position| position.index);
    if stored.position.is_some() && at >= entry.index {
        return Err(failed(format!(
            "entry {} has taken effect here for good: the database is at index {at}; if it is to be skipped by the others, \
             give this node an empty data directory to join with",
            entry.index
        )));
    }
    let log = open(&raft_dir.join("log"))?;
    log.check_continuity(stored.position).map_err(failed)?;
    if log.last().is_none_or(|last| last.1 < entry.index) {
        return Ok(());
    }
    let found = log
        .describe(entry.index)
        .map_err(|e| failed(e.to_string()))?
        .ok_or_else(|| failed(format!("the log does not hold entry {}", entry.index)))?;
    if (found.term, found.checksum.as_str()) != (entry.term, entry.checksum.as_str()) {
        return Err(failed(format!(
            "entry {} is of term {} with checksum {} here, not of term {} with checksum {}: it is another entry; \
             if the numbers are those that the other nodes show, give this node an empty data directory to join with",
            entry.index, found.term, found.checksum, entry.term, entry.checksum
        )));
    }
    if !found.can_be_skipped {
        return Err(failed(format!(
            "entry {} is {}: only what clients wrote can be skipped",
            entry.index, found.what
        )));
    }
    Ok(())
}

/// Builds the new log beside the old one and exchanges their names. Returns `false` if the log ends before
/// the entry. Whenever the old log has its temporary name, the new log is complete.
fn replace(raft_dir: &Path, entry: &Skipped) -> Result<bool, RecoverError> {
    let (log, new, old) = (
        raft_dir.join("log"),
        raft_dir.join(NEW_LOG),
        raft_dir.join(OLD_LOG),
    );
    let rename = |from: &Path, to: &Path| {
        durable::rename(from, to).map_err(|e| RecoverError::io("rename", from, &e))
    };
    if !old.exists() {
        let held = open(&log)?;
        let found = held
            .describe(entry.index)
            .map_err(|e| failed(e.to_string()))?;
        drop(held);
        let Some(found) = found else {
            return Ok(false);
        };
        if !found.can_be_skipped {
            // An earlier run has replaced the log and removed the old one.
            return Ok(true);
        }
        remove_directory(&new)?;
        rewrite_without(&log, &new, entry.index)
            .map_err(|e| failed(format!("rewriting the Raft log in {}: {e}", log.display())))?;
        durable::sync_parent(&new).map_err(|e| RecoverError::io("sync", &new, &e))?;
        rename(&log, &old)?;
    }
    if !log.exists() {
        rename(&new, &log)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
