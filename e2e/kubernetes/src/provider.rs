//! What a cluster to test on must be able to do, wherever it comes from.
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{kind::Kind, local::Local};

/// A way to have a cluster. There is at most one cluster of each provider on a machine.
pub trait Provider {
    /// Makes a cluster with so many worker nodes, all Ready, with DNS, a default StorageClass and the
    /// image `localhost/busybox:1` on each. A cluster of that size
    /// that works is left as it is; anything else that is there, also what a killed run has left, is taken away first.
    ///
    /// # Errors
    /// When a part is missing on this machine or does not start; says which and where its log is.
    fn up(&self, nodes: u8) -> Result<()>;

    /// Takes everything away. Does nothing if there is nothing.
    ///
    /// # Errors
    /// When something stays, with its names.
    fn down(&self) -> Result<()>;

    /// Puts an image (a docker-archive) on every node.
    ///
    /// # Errors
    /// When there is no cluster or a node does not take it.
    fn load(&self, archive: &Path) -> Result<()>;

    /// Takes a node off the network: nothing reaches it, it reaches nothing; its pods keep running.
    ///
    /// # Errors
    /// When there is no such node.
    fn cut(&self, node: &str) -> Result<()>;

    /// Ends a cut; does nothing to a node that is on the network.
    ///
    /// # Errors
    /// When there is no such node.
    fn heal(&self, node: &str) -> Result<()>;

    /// Ends the cluster's DNS and starts it again: for seconds, no name resolves.
    ///
    /// # Errors
    /// When there is no cluster or DNS does not come back.
    fn restart_dns(&self) -> Result<()>;

    /// Administrator's kubeconfig; exists while the cluster does.
    fn kubeconfig(&self) -> PathBuf;

    /// Where the provider keeps logs that tell why a part of the cluster failed.
    fn logs(&self) -> PathBuf;
}

/// The provider of this name: `local` or `kind`.
///
/// # Errors
/// For any other name, or when its folder cannot be named.
pub fn named(name: &str) -> Result<Box<dyn Provider>> {
    match name {
        "local" => Ok(Box::new(Local::new()?)),
        "kind" => Ok(Box::new(Kind::new()?)),
        _ => bail!("there is no provider {name:?}: use local or kind"),
    }
}
