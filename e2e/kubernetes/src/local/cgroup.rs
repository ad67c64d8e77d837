//! Control groups: each node's kubelet has a tree of its own, because two kubelets that share one remove each other's pods.
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// Where the kernel's control groups are.
const ROOT: &str = "/sys/fs/cgroup";
/// What a kubelet needs; of version 1, each is a hierarchy of its own (`systemd` is one without a controller).
const V1: [&str; 10] = [
    "cpu", "cpuacct", "memory", "pids", "cpuset", "blkio", "devices", "freezer", "hugetlb",
    "systemd",
];
/// The same of version 2, one hierarchy.
const V2: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "io"];
/// Tries to remove a group whose last process is just ending.
const REMOVE_TRIES: usize = 100;

/// Makes a node's groups.
///
/// # Errors
/// When the kernel refuses.
pub fn create(space: &str) -> Result<()> {
    if is_v2() {
        let words: Vec<_> = V2.iter().map(|name| format!("+{name}")).collect();
        fs::write(
            Path::new(ROOT).join("cgroup.subtree_control"),
            words.join(" "),
        )
        .context("hand controllers on to the nodes' groups")?;
    }
    for hierarchy in hierarchies() {
        let group = hierarchy.join(space);
        fs::create_dir_all(&group).with_context(|| format!("make {}", group.display()))?;
        // Version 1 starts with none, and a process cannot be put into a group without them.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if hierarchy.ends_with("cpuset") {
                let all = fs::read(hierarchy.join(file)).context("read the root's cpuset")?;
                fs::write(group.join(file), all).context("set the node's cpuset")?;
            }
        }
    }
    Ok(())
}

/// Groups of all nodes that exist.
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

/// Ids of all processes in a group and those below.
#[must_use]
pub fn processes(group: &Path) -> Vec<i32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut ids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    ids.extend(folders(group).iter().flat_map(|below| processes(below)));
    ids
}

/// Removes a group and those below; nothing may run in them any more.
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
