//! Starts the cluster's processes such that they can be found again, whatever happens to the program that
//! started them.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::layout::Layout;
use crate::command::run;

/// Environment variable of every process of the cluster, inherited by the processes they start (containerd's
/// shims); its value is the cluster's directory. A list of process ids would be incomplete after a crash.
const MARK: &str = "RQLITED_E2E_CLUSTER";

/// Starts a process of the cluster in its own session, with its output in a log of that name.
///
/// # Errors
/// If it cannot be started.
pub fn start(layout: &Layout, name: &str, command: &mut Command) -> Result<()> {
    let path = layout.logs().join(format!("{name}.log"));
    let log = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    let mut detached = Command::new("setsid");
    detached
        .arg("--fork")
        .arg(command.get_program())
        .args(command.get_args());
    let status = detached
        .env(MARK, &layout.root)
        .current_dir(&layout.root)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log)
        .status()
        .with_context(|| format!("start {name}"))?;
    anyhow::ensure!(status.success(), "setsid {name}: {status}");
    Ok(())
}

/// A command that runs in a node's network namespace. `ip netns exec` is not used because it hides the
/// control groups.
#[must_use]
pub fn inside(space: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{space}"))
        .arg("--")
        .arg(program);
    command
}

/// The end of a process's log.
#[must_use]
pub fn log_tail(layout: &Layout, name: &str) -> String {
    let text = fs::read(layout.logs().join(format!("{name}.log"))).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Ids and names of processes that carry the mark.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn marked(root: &Path) -> Result<BTreeMap<i32, String>> {
    let mark = format!("{MARK}={}", root.display()).into_bytes();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process that has exited meanwhile, or is a zombie, has no environment.
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|word| word == mark)
        {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.insert(id, name.trim().to_owned());
        }
    }
    Ok(found)
}

/// Kills a process; does nothing if it has exited.
pub fn kill(id: i32) {
    if let Some(pid) = Pid::from_raw(id) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Sets a kernel parameter in a node's network namespace, such as `net.ipv4.ip_forward=1`.
///
/// # Errors
/// If the namespace does not exist or the kernel rejects it.
pub fn sysctl(space: &str, setting: &str) -> Result<()> {
    run(inside(space, Path::new("sysctl")).args(["-qw", setting])).map(drop)
}
