//! A file system that hangs on demand without failing: ext4 on a loop device, suspended by `fsfreeze`.
//!
//! Needs root; without it a test prints a message and is skipped.
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// Size of the file system: well above the reserve that a node keeps free.
const MEBIBYTES: u64 = 512;

/// The mounted file system; thawed and unmounted when the value is dropped.
#[derive(Debug)]
pub struct FrozenDisk {
    root: TempDir,
}

impl FrozenDisk {
    /// Creates and mounts it, not frozen.
    ///
    /// # Errors
    /// Without the right to mount or without `mkfs.ext4`; the error says why.
    pub fn mount() -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("rq-frozen-")
            .tempdir()
            .context("create the mount point")?;
        let image = root.path().join("image");
        File::create(&image)
            .and_then(|file| file.set_len(MEBIBYTES << 20))
            .context("create the image")?;
        run(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        let disk = Self { root };
        std::fs::create_dir(disk.path()).context("create the mount point")?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(disk.path()))?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.root.path().join("disk")
    }

    /// From now on every write and sync blocks.
    ///
    /// # Errors
    /// If `fsfreeze` fails.
    pub fn freeze(&self) -> Result<()> {
        fsfreeze("--freeze", &self.path())
    }

    /// Lets blocked operations continue.
    ///
    /// # Errors
    /// If `fsfreeze` fails, or the file system is not frozen.
    pub fn thaw(&self) -> Result<()> {
        fsfreeze("--unfreeze", &self.path())
    }
}

impl Drop for FrozenDisk {
    fn drop(&mut self) {
        let _ = self.thaw();
        // Lazy unmount: a node that is still shutting down may hold open files.
        let _ = run(Command::new("umount").arg("-l").arg(self.path()));
    }
}

fn fsfreeze(what: &str, path: &Path) -> Result<()> {
    run(Command::new("fsfreeze").arg(what).arg(path))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
