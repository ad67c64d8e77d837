//! The programs that run the cluster, as built by `e2e/tools`.
use std::path::PathBuf;

use anyhow::Result;

use crate::tools;

/// Directories of the programs that run the cluster.
#[derive(Debug)]
pub struct Programs {
    /// API server, controller manager, scheduler, kubelet, kube-proxy, kubectl.
    pub kubernetes: PathBuf,
    /// The API server's store.
    pub etcd: PathBuf,
    /// The cluster's DNS server.
    pub coredns: PathBuf,
    /// The volume provisioner.
    pub local_path: PathBuf,
    /// The images `pause.tar` and `busybox.tar`.
    pub images: PathBuf,
}

impl Programs {
    /// Builds what is missing, and finds all of them.
    ///
    /// # Errors
    /// If one cannot be built.
    pub fn find() -> Result<Self> {
        let [etcd, coredns, kubernetes, local_path, images] = tools::LOCAL.map(tools::folder);
        Ok(Self {
            kubernetes: kubernetes?,
            etcd: etcd?,
            coredns: coredns?,
            local_path: local_path?,
            images: images?,
        })
    }
}
