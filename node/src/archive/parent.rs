//! The timeline that this one continues: recovery and `skip-entry`, which begin a new lineage, record it in a
//! file.
use std::{io, path::Path};

use node_archive::documents::Parent;
use node_contract::Lineage;
use node_db::durable;
use serde::{Deserialize, Serialize};

/// The file in `<data>/raft/`. Older versions ignore it.
const FILE_NAME: &str = "lineage-parent.json";

#[derive(Serialize, Deserialize)]
struct Record {
    /// The new lineage.
    lineage: Lineage,
    /// The one that it continues.
    parent: Lineage,
    /// Last index that both lineages have in common, if it is known.
    index: Option<u64>,
    /// `recovery` or `skip-entry`.
    how: String,
}

/// Records that `lineage` continues `parent`. Only the archive uses it, so a failed write is logged and does
/// not fail the recovery; an older version may delete the file.
pub fn note(raft_dir: &Path, lineage: &Lineage, parent: &Lineage, index: Option<u64>, how: &str) {
    let record = Record {
        lineage: lineage.clone(),
        parent: parent.clone(),
        index,
        how: how.to_owned(),
    };
    let text = serde_json::to_vec_pretty(&record).map_err(io::Error::other);
    let written = text.and_then(|text| durable::write(&raft_dir.join(FILE_NAME), &text));
    if let Err(e) = written {
        tracing::warn!(target: "store", "the archive will not know which timeline it continues: {e}");
    }
}

/// The parent of `lineage`, if it is known here.
pub fn of(raft_dir: &Path, lineage: &Lineage) -> Option<Parent> {
    let text = std::fs::read(raft_dir.join(FILE_NAME)).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    (record.lineage == *lineage).then_some(Parent {
        lineage: record.parent,
        index: record.index,
        how: record.how,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_of_its_own_lineage() {
        let dir = tempfile::tempdir().unwrap();
        let lineage = |id: &str, epoch| Lineage {
            id: id.to_owned(),
            epoch,
        };
        let (old, new) = (lineage("a", 0), lineage("b", 1));
        assert_eq!(of(dir.path(), &new), None);
        note(dir.path(), &new, &old, Some(7), "recovery");
        let parent = of(dir.path(), &new).unwrap();
        assert_eq!((parent.lineage, parent.index), (old, Some(7)));
        assert_eq!(of(dir.path(), &lineage("c", 2)), None);
    }
}
