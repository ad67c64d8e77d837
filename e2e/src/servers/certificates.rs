//! Certificates for servers under test: a certificate authority, a server certificate for loopback, a client
//! certificate.
use std::path::PathBuf;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::authority::{Authority, Leaf, Pair};

/// A certificate authority and the certificates it signed; the files are deleted when the value is dropped.
#[derive(Debug)]
pub struct Certificates {
    /// The authority's own certificate.
    pub ca: PathBuf,
    /// Server certificate for `localhost`, `127.0.0.1` and `::1`.
    pub server: Pair,
    /// Client certificate with the common name `e2e-client`.
    pub client: Pair,
    _dir: TempDir,
}

impl Certificates {
    /// Creates new certificates; those of different values do not trust each other.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("rq-certs-")
            .tempdir()
            .context("create a directory for certificates")?;
        let authority = Authority::new("e2e-ca")?;
        // Both usages in both certificates: etcd's gateway connects to its own server with the server's.
        let issue = |name: &str, leaf: &Leaf| authority.issue(leaf)?.write(dir.path(), name);
        Ok(Self {
            server: issue("server", &Leaf::for_loopback("e2e-server"))?,
            client: issue("client", &Leaf::new("e2e-client", &[]))?,
            ca: authority.write(dir.path(), "ca")?,
            _dir: dir,
        })
    }
}
