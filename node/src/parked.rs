//! Parked copies of data: which there are, and which are deleted.
//!
//! Of a deleted copy the marker stays: `prepare` must not park the present data under the same name again.
pub mod retention;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use node_contract::parked::{ParkedCopy, ParkedPolicy, ParkedStatus};
use node_db::durable;

use self::retention::{Copy, surplus};
use crate::{
    clock::rfc3339,
    data_dir::{PARKED_DIR, PARKED_FILE, PARKING_FILE, ParkedMark},
};

/// In `parked`: the policy, as an operator gave it to `prepare`.
const POLICY_FILE: &str = "policy.json";
/// Interval of a running node between two looks.
const INTERVAL: Duration = Duration::from_secs(3600);

/// The copies, the newest first.
pub(crate) fn list(data_dir: &Path) -> Vec<Copy> {
    let Ok(entries) = fs::read_dir(data_dir.join(PARKED_DIR)) else {
        return Vec::new();
    };
    let mut copies: Vec<Copy> = entries
        .flatten()
        .filter_map(|entry| copy(&entry.path()))
        .collect();
    copies.sort_by(|a, b| (b.parked_at, &b.name).cmp(&(a.parked_at, &a.name)));
    copies
}

fn copy(dir: &Path) -> Option<Copy> {
    let name = dir.file_name()?.to_str()?.to_owned();
    let mark = dir.join(PARKED_FILE);
    let parked_at = fs::metadata(&mark).ok()?.modified().ok()?;
    if dir.join(PARKING_FILE).exists() || content(dir).next().is_none() {
        return None;
    }
    Some(Copy {
        bytes: content(dir).map(|path| bytes_of(&path)).sum(),
        mark: ParkedMark::read(&mark),
        name,
        parked_at,
    })
}

/// What a copy consists of, without its marker.
fn content(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.file_name() != PARKED_FILE);
    entries.map(|entry| entry.path())
}

fn bytes_of(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| bytes_of(&entry.path())).sum()
        }
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}

/// Deletes a copy, except its marker.
pub(crate) fn delete(data_dir: &Path, name: &str) -> io::Result<()> {
    let dir = data_dir.join(PARKED_DIR).join(name);
    for path in content(&dir) {
        if fs::symlink_metadata(&path)?.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    durable::sync(&dir)
}

/// The policy that an operator gave, if it gave one.
pub(crate) fn policy(data_dir: &Path) -> Option<ParkedPolicy> {
    let text = fs::read(data_dir.join(PARKED_DIR).join(POLICY_FILE)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Records the operator's policy, or that it has none.
pub(crate) fn set_policy(data_dir: &Path, policy: Option<ParkedPolicy>) -> io::Result<()> {
    if self::policy(data_dir) == policy {
        return Ok(());
    }
    let dir = data_dir.join(PARKED_DIR);
    let Some(policy) = policy else {
        fs::remove_file(dir.join(POLICY_FILE))?;
        return durable::sync(&dir);
    };
    durable::create_dir_all(&dir)?;
    let text = serde_json::to_vec(&policy).map_err(io::Error::other)?;
    durable::write(&dir.join(POLICY_FILE), &text)
}

/// Deletes the copies that are not to be kept. Errors are logged: a node must not fail over old data.
pub(crate) fn sweep(data_dir: &Path, policy: ParkedPolicy) {
    let copies = list(data_dir);
    if copies.is_empty() {
        return;
    }
    let (free, total) = (
        fs4::available_space(data_dir).unwrap_or(u64::MAX),
        fs4::total_space(data_dir).unwrap_or(0),
    );
    for (copy, why) in surplus(&copies, policy, crate::clock::now(), free, total) {
        let (name, bytes) = (&copy.name, copy.bytes);
        match delete(data_dir, name) {
            Ok(()) => {
                tracing::info!(target: "store", "the parked copy {name} ({bytes} bytes) is deleted: {why}");
            }
            Err(e) => tracing::warn!(target: "store", "deleting the parked copy {name}: {e}"),
        }
    }
}

/// Sweeps now and every hour, on a thread that may wait for the disk.
pub async fn keep_sweeping(data_dir: PathBuf, flags: ParkedPolicy) {
    loop {
        let dir = data_dir.clone();
        let swept = tokio::task::spawn_blocking(move || {
            sweep(&dir, policy(&dir).unwrap_or(flags));
        });
        if let Err(e) = swept.await {
            tracing::warn!(target: "store", "looking at parked copies: {e}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// For `/status`; `None` without copies.
pub(crate) fn status(data_dir: &Path, flags: ParkedPolicy) -> Option<ParkedStatus> {
    let copies = list(data_dir);
    (!copies.is_empty()).then(|| ParkedStatus {
        bytes: copies.iter().map(|copy| copy.bytes).sum(),
        copies: copies.iter().map(shown).collect(),
        policy: policy(data_dir).unwrap_or(flags),
    })
}

fn shown(copy: &Copy) -> ParkedCopy {
    ParkedCopy {
        name: copy.name.clone(),
        bytes: copy.bytes,
        parked_at: rfc3339(copy.parked_at),
        may_hold_lost_writes: copy.mark == ParkedMark::MayHoldLostWrites,
    }
}
