//! Volumes that grow: a CSI driver on every node (`e2e/tools/csi-host-path`), with the field's own
//! provisioner and resizer beside it. Started on demand, because few tests need it.
use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{
    layout::{Layout, node_name},
    process,
};
use crate::{command::run, tools};

/// The driver's object and its two StorageClasses.
const MANIFEST: &str = include_str!("../../manifests/growing.yaml");

/// Starts the driver on this many nodes, the provisioner and the resizer, and creates the StorageClasses
/// `growing` and `growing-when-stopped`. Does nothing if they run.
///
/// # Errors
/// If a program cannot be built or started; its log is among the cluster's.
pub fn start(layout: &Layout, nodes: u8, kubectl: impl Fn() -> Command) -> Result<()> {
    let running = process::marked(&layout.root)?;
    if running.values().any(|name| name.starts_with("csi-resizer")) {
        return Ok(());
    }
    let programs = tools::folder("csi-host-path")?;
    let manifest = layout.root.join("growing.yaml");
    layout.write(&manifest, MANIFEST)?;
    run(kubectl().arg("apply").arg("-f").arg(manifest)).context("make the StorageClasses")?;
    for number in 1..=nodes {
        let name = node_name(number);
        let mut driver = Command::new(programs.join("csi-host-path"));
        driver
            .args(["-node", &name])
            .arg("-root")
            .arg(layout.volumes().join("growing"))
            .arg("-listen")
            .arg(socket(layout, number))
            .arg("-register")
            .arg(layout.node(number).join("kubelet").join("plugins_registry"));
        process::start(layout, &format!("{name}-csi-host-path"), &mut driver)?;
    }
    for (program, options) in [
        ("csi-provisioner", &["--extra-create-metadata"][..]),
        ("csi-resizer", &["--handle-volume-inuse-error=false"]),
    ] {
        let mut command = Command::new(programs.join(program));
        command
            .arg("--kubeconfig")
            .arg(layout.kubeconfig("admin"))
            .arg("--csi-address")
            .arg(socket(layout, 1))
            .args(options);
        process::start(layout, program, &mut command)?;
    }
    Ok(())
}

/// The driver's socket on a node. The path is short: sockets' paths have at most 107 bytes.
fn socket(layout: &Layout, number: u8) -> PathBuf {
    layout.node(number).join("csi.sock")
}
