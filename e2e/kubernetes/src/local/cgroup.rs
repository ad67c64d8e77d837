//! Control groups: each node's kubelet has its own tree, because two kubelets that share one remove each
//! other's pods.
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// Mount point of the kernel's control groups.
const ROOT: &str = "/sys/fs/cgroup";
/// Controllers that a kubelet needs; in version 1, each is a separate hierarchy (`systemd` is one without a
/// controller).
const V1: [&str; 10] = [
    "cpu", "cpuacct", "memory", "pids", "cpuset", "blkio", "devices", "freezer", "hugetlb",
    "systemd",
];
/// The same in version 2, with one hierarchy.
const V2: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "io"];
/// Attempts to remove a group whose last process is exiting.
const REMOVE_TRIES: usize = 100;

/// Creates a node's groups.
///
/// # Errors
/// If the kernel rejects it.
pub fn create(space: &str) -> Result<()> {
    if is_v2() {
        let args: Vec<_> = V2.iter().map(|name| format!("+{name}")).collect();
        fs::write(
            Path::new(ROOT).join("cgroup.subtree_control"),
            args.join(" "),
        )
        .context("hand controllers on to the nodes' groups")?;
    }
    for hierarchy in hierarchies() {
        let group = hierarchy.join(space);
        fs::create_dir_all(&group).with_context(|| format!("make {}", group.display()))?;
        // In version 1 they are empty initially, and a group without them accepts no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if hierarchy.ends_with("cpuset") {
                let all = fs::read(hierarchy.join(file)).context("read the root's cpuset")?;
                fs::write(group.join(file), all).context("set the node's cpuset")?;
            }
        }
    }
    Ok(())
}

/// Existing groups of all nodes.
#[must_use]
pub fn found() -> Vec<PathBuf> {
    let ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("rqk")
            .is_some_and(|n| n.parse::<u8>().is_ok())
    };
    hierarchies()
        .iter()
        .flat_map(|hierarchy| folders(hierarchy))
        .filter(ours)
        .collect()
}

/// Ids of all processes in a group and its descendants.
#[must_use]
pub fn processes(group: &Path) -> Vec<i32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut ids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    ids.extend(folders(group).iter().flat_map(|below| processes(below)));
    ids
}

/// Removes a group and its descendants; they must not contain processes.
pub fn remove(group: &Path) {
    for below in folders(group) {
        remove(&below);
    }
    for _ in 0..REMOVE_TRIES {
        if fs::remove_dir(group).is_ok() || !group.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn hierarchies() -> Vec<PathBuf> {
    if is_v2() {
        return vec![PathBuf::from(ROOT)];
    }
    let all = V1.iter().map(|name| Path::new(ROOT).join(name));
    all.filter(|hierarchy| hierarchy.is_dir()).collect()
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect()
}
