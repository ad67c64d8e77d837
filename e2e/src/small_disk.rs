//! A file system that is easily filled: a tmpfs of a given size. Needs root; without it a test prints a
//! message and is skipped.
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// The mounted file system; unmounted when the value is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts `mebibytes` MiB.
    ///
    /// # Errors
    /// Without the right to mount; the error says why.
    pub fn mount(mebibytes: u64) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("rq-disk-")
            .tempdir()
            .context("create the mount point")?;
        let options = format!("size={mebibytes}m");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "rq-small"])
            .arg(dir.path()))?;
        Ok(Self { dir })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Fills the file system except for `leave` bytes; [`SmallDisk::make_room`] frees the space again.
    ///
    /// # Errors
    /// If the ballast cannot be written for another reason than a full disk.
    pub fn fill(&self, leave: u64) -> Result<()> {
        let mut file = File::create(self.ballast()).context("create the ballast")?;
        let block = vec![0xaa; 64 * 1024];
        let mut written: u64 = 0;
        loop {
            match file.write(&block) {
                Ok(count) => written += u64::try_from(count).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("write the ballast"),
            }
        }
        file.set_len(written.saturating_sub(leave))
            .context("shorten the ballast")
    }

    /// Deletes the ballast.
    ///
    /// # Errors
    /// If there is none.
    pub fn make_room(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("remove the ballast")
    }

    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy unmount: a node that is still shutting down may hold open files.
        let _ = run(Command::new("umount").arg("-l").arg(self.dir.path()));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_and_empties() {
        let disk = match SmallDisk::mount(1) {
            Ok(disk) => disk,
            Err(error) => {
                println!("skipped: {error:#}");
                return;
            }
        };
        disk.fill(0).unwrap();
        let file = disk.path().join("more");
        assert_eq!(
            fs::write(&file, [0; 8192]).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        disk.make_room().unwrap();
        fs::write(&file, [0; 8192]).unwrap();
    }
}
