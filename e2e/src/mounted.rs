//! A directory of certificates whose files are exchanged all at once, as Kubernetes does it with mounted
//! Secrets: the files are symbolic links into a directory that is itself behind a symbolic link.
use std::{fs, os::unix::fs::symlink, path::PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::authority::Issued;

/// Files of a node: `tls.crt`, `tls.key` and `ca.crt`.
#[derive(Debug)]
pub struct Mounted {
    root: TempDir,
    version: u32,
}

const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

impl Mounted {
    /// A new directory with these files. `trusted` are authorities' certificates.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn new(pair: &Issued, trusted: &[&str]) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("rq-e2e-tls-").tempdir()?;
        let mut mounted = Self { root, version: 0 };
        mounted.put(pair, trusted)?;
        for name in FILES {
            symlink(format!("..data/{name}"), mounted.path(name))?;
        }
        Ok(mounted)
    }

    /// Exchanges all files at one moment.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn put(&mut self, pair: &Issued, trusted: &[&str]) -> Result<()> {
        self.version += 1;
        let name = format!("..{}", self.version);
        let dir = self.path(&name);
        fs::create_dir(&dir).context("create a version")?;
        let contents = [pair.cert.clone(), pair.key.clone(), trusted.concat()];
        for (name, text) in FILES.iter().zip(contents) {
            fs::write(dir.join(name), text).context("write a file")?;
        }
        let next = self.path("..data_next");
        symlink(&name, &next).context("link the version")?;
        fs::rename(&next, self.path("..data")).context("exchange the link")
    }

    /// Path of a file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// `-<prefix>-cert`, `-key` and `-ca-cert`.
    #[must_use]
    pub fn flags(&self, prefix: &str) -> Vec<String> {
        [
            ("cert", "tls.crt"),
            ("key", "tls.key"),
            ("ca-cert", "ca.crt"),
        ]
        .iter()
        .map(|(flag, file)| format!("-{prefix}-{flag}={}", self.path(file).display()))
        .collect()
    }
}
