//! The record of which recovery plan was carried out in a data directory.
use std::{fs, io, path::Path};

use node_db::durable;
use serde::{Deserialize, Serialize};

/// In `<data>/raft/`: the plan that was carried out.
const DONE_FILE: &str = "recovery-done.json";

#[derive(Serialize, Deserialize)]
struct Done {
    plan_id: String,
}

/// The plan that was carried out completely.
pub(super) fn plan_done(data_dir: &Path) -> Option<String> {
    let content = fs::read(data_dir.join("raft").join(DONE_FILE)).ok()?;
    serde_json::from_slice::<Done>(&content)
        .ok()
        .map(|done| done.plan_id)
}

/// Records a plan as carried out.
pub(super) fn mark_done(data_dir: &Path, plan_id: &str) -> io::Result<()> {
    let done = Done {
        plan_id: plan_id.to_owned(),
    };
    let content = serde_json::to_vec(&done).map_err(io::Error::other)?;
    durable::write(&data_dir.join("raft").join(DONE_FILE), &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_marked() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("raft")).unwrap();
        assert_eq!(plan_done(dir.path()), None);
        mark_done(dir.path(), "p").unwrap();
        assert_eq!(plan_done(dir.path()), Some("p".into()));
    }
}
