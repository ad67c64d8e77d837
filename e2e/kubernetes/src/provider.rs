//! The interface of a test cluster, whatever provides it.
use std::path::{Path, PathBuf};

use anyhow::Result;

/// A provider of test clusters. There is at most one cluster of each provider on a machine.
pub trait Provider {
    /// Creates a cluster with this many worker nodes, all Ready, with DNS, a default StorageClass and the
    /// image `localhost/busybox:1` on each node. A working cluster of that size is kept; anything else,
    /// including the remains of a killed run, is removed first.
    ///
    /// # Errors
    /// If a component is missing on this machine or does not start; names it and its log.
    fn up(&self, nodes: u8) -> Result<()>;

    /// Removes everything. Does nothing if there is nothing.
    ///
    /// # Errors
    /// If something remains; names it.
    fn down(&self) -> Result<()>;

    /// Loads an image (a docker-archive) onto every node.
    ///
    /// # Errors
    /// If there is no cluster or a node rejects the image.
    fn load(&self, archive: &Path) -> Result<()>;

    /// Takes a node off the network: it can neither be reached nor reach anything, and its pods keep running.
    ///
    /// # Errors
    /// If there is no such node.
    fn cut(&self, node: &str) -> Result<()>;

    /// Reconnects a node; does nothing if it is connected.
    ///
    /// # Errors
    /// If there is no such node.
    fn heal(&self, node: &str) -> Result<()>;

    /// Restarts the cluster's DNS: for seconds, no name resolves.
    ///
    /// # Errors
    /// If there is no cluster or DNS does not start again.
    fn restart_dns(&self) -> Result<()>;

    /// Starts a storage driver whose volumes grow: StorageClasses `growing` and, for file systems that grow
    /// only while no pod uses them, `growing-when-stopped`. False if this provider has none.
    ///
    /// # Errors
    /// If there is no cluster or the driver does not start.
    fn start_growing_volumes(&self) -> Result<bool>;

    /// The administrator's kubeconfig; exists while the cluster does.
    fn kubeconfig(&self) -> PathBuf;

    /// Directory with logs that explain why a component failed.
    fn logs(&self) -> PathBuf;
}
