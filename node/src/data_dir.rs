//! The data directory as a whole: its lock, writing an identity into it, and parking what it holds. Parking
//! can be repeated after a crash.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use node_db::durable;

use crate::identity::{Birth, Cluster, Identity};

/// In the data directory: the request to park the data and join again (`rejoin.rs`).
pub(crate) const REJOIN_FILE: &str = "rejoin.json";
/// In the data directory: parked data, one directory per plan.
pub(crate) const PARKED_DIR: &str = "parked";
/// In such a directory while data is being moved into it.
pub(crate) const PARKING_FILE: &str = ".parking";
/// In such a directory when all data has been moved.
pub(crate) const PARKED_FILE: &str = ".parked";
/// Never moved: parked data, the held lock, the request to rejoin, and what file systems put into their root.
const STAYS: [&str; 4] = [PARKED_DIR, "lock", "lost+found", REJOIN_FILE];

/// What a parked copy may contain: the content of its marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkedMark {
    /// Everything in it is on other members, too.
    Replicated,
    /// It may hold acknowledged writes that a recovery has lost.
    MayHoldLostWrites,
    /// Unknown: it was parked by an earlier version.
    Unknown,
}

impl ParkedMark {
    fn text(self) -> &'static [u8] {
        match self {
            Self::Replicated => b"replicated",
            Self::MayHoldLostWrites => b"may-hold-lost-writes",
            Self::Unknown => b"",
        }
    }

    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read(path).unwrap_or_default();
        let all = [Self::Replicated, Self::MayHoldLostWrites];
        let known = all.into_iter().find(|mark| text == mark.text());
        known.unwrap_or(Self::Unknown)
    }
}

/// Takes the lock on the data directory, which a node or a subcommand holds while it works there. Dropping
/// the file releases it.
///
/// # Errors
/// Another process holds the lock, or the directory cannot be written to.
pub(crate) fn lock(data_dir: &Path) -> anyhow::Result<fs::File> {
    let path = data_dir.join("lock");
    let file = fs::File::create(&path)
        .with_context(|| format!("cannot write in the data directory {}", data_dir.display()))?;
    file.try_lock().map_err(|_| {
        anyhow::anyhow!("the data directory {} is in use by another rqlited; stop it, or name another directory", data_dir.display())
    })?;
    Ok(file)
}

/// Whether parking under this plan was begun and not finished.
pub(crate) fn is_parking(data_dir: &Path, plan_id: &str) -> bool {
    parked(data_dir, plan_id).join(PARKING_FILE).exists()
}

/// Whether parking under this plan was finished.
pub(crate) fn is_parked(data_dir: &Path, plan_id: &str) -> bool {
    parked(data_dir, plan_id).join(PARKED_FILE).exists()
}

fn parked(data_dir: &Path, plan_id: &str) -> PathBuf {
    data_dir.join(PARKED_DIR).join(plan_id)
}

/// Writes an identity for `cluster` into a directory without data. An existing one keeps its incarnation.
pub(crate) fn create(
    data_dir: &Path,
    name: &str,
    cluster: Cluster,
    may_form: bool,
) -> Result<(), String> {
    let raft_dir = data_dir.join("raft");
    let failed = |e: &dyn std::fmt::Display| format!("writing the identity: {e}");
    durable::create_dir_all(&raft_dir).map_err(|e| failed(&e))?;
    let birth = Birth { cluster, may_form };
    let identity = match Identity::load(&raft_dir).map_err(|e| failed(&e))? {
        Some(former) => former.reborn(name, birth),
        None => Identity::born(name, birth),
    };
    identity.save(&raft_dir).map_err(|e| failed(&e))
}

/// Moves everything in the data directory to `parked/<plan>` and writes an identity that can only join. A
/// file that the parked directory already has was created after the move, and stays.
pub(crate) fn park(
    data_dir: &Path,
    plan_id: &str,
    name: &str,
    cluster: Cluster,
    mark: ParkedMark,
) -> Result<(), String> {
    let target = parked(data_dir, plan_id);
    let failed = |e: io::Error| format!("moving the data to {}: {e}", target.display());
    durable::create_dir_all(&target).map_err(failed)?;
    let parking = target.join(PARKING_FILE);
    durable::write(&parking, b"").map_err(failed)?;
    for entry in fs::read_dir(data_dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let to = target.join(entry.file_name());
        if STAYS.iter().any(|name| entry.file_name() == *name) || to.exists() {
            continue;
        }
        fs::rename(entry.path(), &to).map_err(failed)?;
    }
    durable::sync(data_dir).map_err(failed)?;
    durable::sync_parent(&parking).map_err(failed)?;
    create(data_dir, name, cluster, false)?;
    durable::write(&target.join(PARKED_FILE), mark.text()).map_err(failed)?;
    fs::remove_file(&parking)
        .and_then(|()| durable::sync_parent(&parking))
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{FormingRight, Lineage};

    fn cluster() -> Cluster {
        Cluster {
            id: "c".into(),
            lineage: Lineage {
                id: "l".into(),
                epoch: 1,
            },
        }
    }

    fn filled() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("raft/log")).unwrap();
        for name in [
            "raft/identity.json",
            "raft/log/1",
            "state",
            "db.sqlite",
            "lock",
        ] {
            fs::write(dir.path().join(name), "old").unwrap();
        }
        dir
    }

    fn check(data_dir: &Path) {
        let parked = data_dir.join("parked/p");
        for name in ["raft/identity.json", "raft/log/1", "state", "db.sqlite"] {
            assert_eq!(fs::read(parked.join(name)).unwrap(), b"old", "{name}");
        }
        assert!(!is_parking(data_dir, "p") && is_parked(data_dir, "p"));
        assert!(data_dir.join("lock").exists() && !data_dir.join("db.sqlite").exists());
        assert!(!data_dir.join("raft/log").exists());
        let identity = Identity::load(&data_dir.join("raft")).unwrap().unwrap();
        assert_eq!(identity.forming_right(), FormingRight::JoinOnly(cluster()));
    }

    #[test]
    fn parked_whole_and_again() {
        let dir = filled();
        park(dir.path(), "p", "a", cluster(), ParkedMark::Replicated).unwrap();
        check(dir.path());
        let incarnation = Identity::load(&dir.path().join("raft"))
            .unwrap()
            .unwrap()
            .incarnation;
        // A crash before the marker was removed.
        durable::write(&dir.path().join("parked/p").join(PARKING_FILE), b"").unwrap();
        assert!(is_parking(dir.path(), "p"));
        park(dir.path(), "p", "a", cluster(), ParkedMark::Replicated).unwrap();
        check(dir.path());
        let again = Identity::load(&dir.path().join("raft"))
            .unwrap()
            .unwrap()
            .incarnation;
        assert_eq!(again, incarnation);
    }

    #[test]
    fn parking_goes_on_where_it_was() {
        for moved in [&["state"][..], &["db.sqlite", "raft"], &["raft"]] {
            let dir = filled();
            let target = dir.path().join("parked/p");
            fs::create_dir_all(&target).unwrap();
            fs::write(target.join(PARKING_FILE), "").unwrap();
            for name in moved {
                fs::rename(dir.path().join(name), target.join(name)).unwrap();
            }
            park(dir.path(), "p", "a", cluster(), ParkedMark::Replicated).unwrap();
            check(dir.path());
        }
    }
}
