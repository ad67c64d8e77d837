//! Replacing a wrong copy of the data: the data directory is parked, and the node joins its cluster again
//! like one that lost its disk.
//!
//! A file requests it, so that it happens before anything is opened and continues after a crash.
use std::{fs, io, path::Path};

use node_db::durable;
use serde::{Deserialize, Serialize};

use crate::{
    data_dir::{self, ParkedMark, REJOIN_FILE},
    identity::Cluster,
};

/// Prefix of the directories below `parked/` that this module creates.
const PARKED_PREFIX: &str = "copy-";

/// What to do at the next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejoin {
    /// The reason, for a person.
    pub reason: String,
    /// Index of the entry at which the copy was found to differ.
    pub index: u64,
    /// The cluster to join.
    pub cluster: Cluster,
    /// Raft addresses of the other members.
    pub addresses: Vec<String>,
}

/// Requests the replacement, durably.
///
/// # Errors
/// The disk refused.
pub fn request(data_dir: &Path, rejoin: &Rejoin) -> io::Result<()> {
    let content = serde_json::to_vec_pretty(rejoin).map_err(io::Error::other)?;
    durable::write(&data_dir.join(REJOIN_FILE), &content)
}

/// Called at start, before anything else is read: parks the data if that was requested and is not done yet.
/// Returns the request while the node still has to join. Only one parked copy is kept.
///
/// # Errors
/// An I/O error, or the file is not one of this module.
pub fn carry_out(data_dir: &Path, name: &str) -> io::Result<Option<Rejoin>> {
    let path = data_dir.join(REJOIN_FILE);
    let content = match fs::read(&path) {
        Ok(content) => content,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let rejoin: Rejoin = serde_json::from_slice(&content)
        .map_err(|e| io::Error::other(format!("{}: {e}", path.display())))?;
    let plan = format!("{PARKED_PREFIX}{}", rejoin.index);
    if !data_dir::is_parked(data_dir, &plan) {
        remove_former(data_dir, &plan)?;
        data_dir::park(
            data_dir,
            &plan,
            name,
            rejoin.cluster.clone(),
            ParkedMark::Replicated,
        )
        .map_err(io::Error::other)?;
        tracing::warn!(
            target: "store",
            "{}: the data is parked in {}/parked/{plan} (it may be deleted), and the node joins again",
            rejoin.reason, data_dir.display()
        );
    }
    Ok(Some(rejoin))
}

/// The node has joined.
///
/// # Errors
/// The disk refused.
pub fn finished(data_dir: &Path) -> io::Result<()> {
    match fs::remove_file(data_dir.join(REJOIN_FILE)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn remove_former(data_dir: &Path, plan: &str) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(data_dir.join("parked")) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name
            .to_str()
            .is_some_and(|name| name.starts_with(PARKED_PREFIX) && name != plan);
        if ours {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{FormingRight, Identity, Lineage};

    #[test]
    fn parked_once_and_joined_until_it_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let raft_dir = dir.path().join("raft");
        fs::create_dir_all(raft_dir.join("log")).unwrap();
        let former = Identity::load_or_create(&raft_dir, "a", false).unwrap();
        fs::write(dir.path().join("db.sqlite"), "wrong").unwrap();
        assert_eq!(carry_out(dir.path(), "a").unwrap(), None);
        let cluster = Cluster {
            id: "c".into(),
            lineage: Lineage {
                id: "l".into(),
                epoch: 0,
            },
        };
        let rejoin = Rejoin {
            reason: "differs".into(),
            index: 7,
            cluster: cluster.clone(),
            addresses: vec!["b:4002".into()],
        };
        request(dir.path(), &rejoin).unwrap();
        for _ in 0..2 {
            assert_eq!(carry_out(dir.path(), "a").unwrap(), Some(rejoin.clone()));
            assert_eq!(
                fs::read(dir.path().join("parked/copy-7/db.sqlite")).unwrap(),
                b"wrong"
            );
            let identity = Identity::load(&raft_dir).unwrap().unwrap();
            assert_ne!(identity.incarnation, former.incarnation);
            assert_eq!(
                identity.forming_right(),
                FormingRight::JoinOnly(cluster.clone())
            );
            // What was received since stays.
            fs::write(dir.path().join("db.sqlite"), "right").unwrap();
        }
        assert_eq!(fs::read(dir.path().join("db.sqlite")).unwrap(), b"right");
        finished(dir.path()).unwrap();
        assert_eq!(carry_out(dir.path(), "a").unwrap(), None);
    }
}
