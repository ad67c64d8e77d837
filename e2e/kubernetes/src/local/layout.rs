//! Names, addresses and files of the cluster. All names begin with `rqk`, so that they can be recognized and
//! removed.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::network::{Family, Network};

/// Maximum number of nodes of a cluster: their addresses end in 11 to 30.
pub const MAX_NODES: u8 = 20;
/// The bridge between the nodes and the host.
pub const BRIDGE: &str = "rqk0";
/// DNS domain of Services and pods.
pub const DOMAIN: &str = "cluster.local";

/// Paths of the cluster's files, which are removed with the cluster.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Absolute.
    pub root: PathBuf,
    /// Its IP family.
    pub family: Family,
}

impl Layout {
    /// A cluster of IPv4 below `root`; creates nothing.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            family: Family::Ipv4,
        }
    }

    /// The network of the control plane and of DNS.
    #[must_use]
    pub fn primary(&self) -> Network {
        self.family.primary()
    }

    /// Creates the directories.
    ///
    /// # Errors
    /// If they cannot be created.
    pub fn create(&self) -> Result<()> {
        for folder in [self.logs(), self.root.join("pki"), self.volumes()] {
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        }
        Ok(())
    }

    /// Directory of the logs, one for each process.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Directory of all nodes' persistent volumes.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Exists, with the number of nodes and the IP family as content, once the cluster is complete.
    #[must_use]
    pub fn ready(&self) -> PathBuf {
        self.root.join("ready")
    }

    /// Path of a certificate or key.
    #[must_use]
    pub fn pki(&self, file: &str) -> PathBuf {
        self.root.join("pki").join(file)
    }

    /// The kubeconfig of a user: `admin`, `node-1`, …
    #[must_use]
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.root.join(format!("{user}.kubeconfig"))
    }

    /// Directory of a node.
    #[must_use]
    pub fn node(&self, number: u8) -> PathBuf {
        self.root.join(node_name(number))
    }

    /// Socket of a node's containerd.
    #[must_use]
    pub fn containerd(&self, number: u8) -> PathBuf {
        self.node(number).join("containerd.sock")
    }

    /// Writes a file and returns its path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

/// Name of a node in Kubernetes.
#[must_use]
pub fn node_name(number: u8) -> String {
    format!("node-{number}")
}

/// Network namespace and control group of a node.
#[must_use]
pub fn space(number: u8) -> String {
    format!("rqk{number}")
}

/// The bridge's end of a node's link.
#[must_use]
pub fn link(number: u8) -> String {
    format!("rqk{number}v")
}
