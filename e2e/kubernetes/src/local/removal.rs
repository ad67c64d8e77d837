//! Removes a cluster in any state: complete, partly built, or left behind by a killed run.
//!
//! There is one procedure for all cases: kill, unmount, delete, and check that nothing is left. It makes no
//! request to the cluster.
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::mount::{UnmountFlags, unmount};

use super::{cgroup, layout::Layout, node::POD_NETWORK, process};
use crate::command::{ip, until};

/// How long killed processes may take to exit.
const END_LIMIT: Duration = Duration::from_secs(20);
/// Directories outside the cluster's own that its components write to, with fixed names.
const FIXED: [&str; 6] = [
    "/run/containerd",
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/log/containers",
    "/var/log/pods",
    "/usr/libexec/kubernetes",
];
/// Results of the network plugins: one file per pod, named after the network.
const CNI_RESULTS: &str = "/var/lib/cni/results";
/// Links to containers' logs.
const CONTAINER_LOGS: &str = "/var/log/containers";

/// Records, before the cluster writes anything, which fixed directories existed and how forwarding was set.
///
/// # Errors
/// If the record cannot be written.
pub fn note_what_was_there(layout: &Layout) -> Result<()> {
    let absent: Vec<_> = FIXED
        .into_iter()
        .filter(|path| !Path::new(path).exists())
        .collect();
    layout.write(&layout.root.join("absent"), &absent.join("\n"))?;
    let forward = fs::read_to_string(FORWARD).context("read the forwarding setting")?;
    layout.write(&layout.root.join("ip_forward"), &forward)
}

/// The host's setting for IP forwarding.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Removes the cluster and checks that nothing is left.
///
/// # Errors
/// If something remains; names it.
pub fn remove(layout: &Layout) -> Result<()> {
    until("the cluster's processes to end", END_LIMIT, || {
        let running = running(layout)?;
        running.iter().for_each(|(id, _)| process::kill(*id));
        ensure!(running.is_empty(), "{running:?}");
        Ok(())
    })?;
    for mount in mounts(layout)? {
        unmount(&mount, UnmountFlags::DETACH)
            .with_context(|| format!("unmount {}", mount.display()))?;
    }
    for space in namespaces()? {
        ip(&format!("netns del {space}"))?;
    }
    for link in links()? {
        // Deleting a namespace also deletes its link, but not always at once.
        let _ = ip(&format!("link del {link}"));
    }
    for group in cgroup::found() {
        cgroup::remove(&group);
    }
    remove_files(layout)?;
    until("nothing to be left", END_LIMIT, || {
        let left = leftovers(layout)?;
        ensure!(left.is_empty(), "left: {}", left.join(", "));
        Ok(())
    })
}

/// Everything of a cluster that exists on this machine, as descriptions; empty if there is nothing.
///
/// # Errors
/// If the machine's state cannot be read.
pub fn leftovers(layout: &Layout) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let named = |what: &str, path: &Path| format!("{what} {}", path.display());
    left.extend(
        running(layout)?
            .iter()
            .map(|(id, name)| format!("process {id} {name}")),
    );
    left.extend(mounts(layout)?.iter().map(|path| named("mount", path)));
    left.extend(namespaces()?.iter().map(|name| format!("namespace {name}")));
    left.extend(links()?.iter().map(|name| format!("link {name}")));
    left.extend(
        cgroup::found()
            .iter()
            .map(|path| named("control group", path)),
    );
    left.extend(strays(layout).iter().map(|path| named("file", path)));
    if layout.root.exists() {
        left.push(named("folder", &layout.root));
    }
    Ok(left)
}

/// Marked processes and everything in the nodes' control groups.
fn running(layout: &Layout) -> Result<Vec<(i32, String)>> {
    let mut found = process::marked(&layout.root)?;
    for group in cgroup::found() {
        for id in cgroup::processes(&group) {
            found.entry(id).or_insert_with(|| "in a pod".to_owned());
        }
    }
    Ok(found.into_iter().collect())
}

/// Mounts below the cluster's directory, innermost first.
fn mounts(layout: &Layout) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let mut found = mounts_below(&table, &layout.root);
    found.reverse();
    Ok(found)
}

fn mounts_below(table: &str, root: &Path) -> Vec<PathBuf> {
    // Field five is the mount point; spaces in it are written as \040.
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.map(|point| PathBuf::from(point.replace("\\040", " ")));
    points.filter(|point| point.starts_with(root)).collect()
}

fn namespaces() -> Result<Vec<String>> {
    Ok(ours(&ip("netns list")?))
}

fn links() -> Result<Vec<String>> {
    let listed = ip("-o link show")?;
    let names = listed.lines().filter_map(|line| line.split(": ").nth(1));
    let names: Vec<_> = names
        .map(|name| name.split('@').next().unwrap_or(name))
        .collect();
    Ok(ours(&names.join("\n")))
}

/// First args of lines that are names of ours: `rqk`, a number, and `v` for a link.
fn ours(listed: &str) -> Vec<String> {
    let args = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let is_ours = |word: &&str| {
        word.strip_prefix("rqk")
            .is_some_and(|rest| rest.strip_suffix('v').unwrap_or(rest).parse::<u8>().is_ok())
    };
    args.filter(is_ours).map(str::to_owned).collect()
}

/// Files outside the cluster's directory that only a cluster of ours can have created.
fn strays(layout: &Layout) -> Vec<PathBuf> {
    let listed = |folder: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let results = listed(CNI_RESULTS).into_iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(POD_NETWORK)
    });
    let logs = listed(CONTAINER_LOGS)
        .into_iter()
        .filter(|path| fs::read_link(path).is_ok_and(|target| target.starts_with(&layout.root)));
    results.chain(logs).collect()
}

fn remove_files(layout: &Layout) -> Result<()> {
    for stray in strays(layout) {
        fs::remove_file(&stray).with_context(|| format!("remove {}", stray.display()))?;
    }
    if !layout.root.exists() {
        return Ok(());
    }
    let absent = fs::read_to_string(layout.root.join("absent")).unwrap_or_default();
    for path in absent
        .lines()
        .filter(|path| FIXED.contains(path) && Path::new(path).exists())
    {
        fs::remove_dir_all(path).with_context(|| format!("remove {path}"))?;
    }
    if let Ok(forward) = fs::read(layout.root.join("ip_forward")) {
        fs::write(FORWARD, forward).context("set forwarding as it was")?;
    }
    fs::remove_dir_all(&layout.root).with_context(|| format!("remove {}", layout.root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_ours() {
        let listed = "rqk0\nrqk12v\nrqk1 (id: 3)\nrqkx\nrq1x0\ndocker0\nrqk\nrqkv\n";
        assert_eq!(ours(listed), ["rqk0", "rqk12v", "rqk1"]);
    }

    #[test]
    fn only_mounts_below_the_folder_are_ours() {
        let table = "20 1 0:1 / / rw - ext4 a rw\n21 20 0:2 / /c/local/node-1/x rw - tmpfs t rw\n\
                     22 20 0:3 / /c/local/a\\040b rw - tmpfs t rw\n23 20 0:4 / /c/locally rw - tmpfs t rw\n";
        assert_eq!(
            mounts_below(table, Path::new("/c/local")),
            [Path::new("/c/local/node-1/x"), Path::new("/c/local/a b")]
        );
    }
}
