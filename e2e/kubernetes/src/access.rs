//! Whether tests may use a cluster, which one, and whose turn it is.
use std::{fs::File, io::Write, path::PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{
    probe::Kubectl,
    provider::{self, Provider},
};

/// A cluster that tests may break.
#[derive(Debug)]
pub struct Access {
    /// Asks it.
    pub kubectl: Kubectl,
    provider: String,
    _turn: File,
}

impl Access {
    /// Beside other tests: for one that touches nothing outside of its namespaces. None, said loudly, if there is no cluster to test on.
    ///
    /// # Errors
    /// When there should be one and there is not.
    pub fn shared() -> Result<Option<Self>> {
        Self::take(File::lock_shared)
    }

    /// Alone: for one that cuts nodes off, drains them or restarts DNS. Otherwise as [`Self::shared`].
    ///
    /// # Errors
    /// As [`Self::shared`].
    pub fn alone() -> Result<Option<Self>> {
        Self::take(File::lock)
    }

    fn take(lock: impl Fn(&File) -> std::io::Result<()>) -> Result<Option<Self>> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        // Both, as a developer's KUBECONFIG may lead to something that matters.
        let (Some(kubeconfig), Some(_)) = (set("KUBECONFIG"), set("E2E_KUBERNETES")) else {
            // Past the capture of test output: a skipped test must be seen.
            let line = "SKIPPED, NOT TESTED: pods on a real cluster; run `just e2e`, or set KUBECONFIG and E2E_KUBERNETES=1\n";
            let _ = std::io::stderr().write_all(line.as_bytes());
            return Ok(None);
        };
        let turn = File::create(std::env::temp_dir().join("rqlited-e2e-turn.lock"))?;
        lock(&turn).context("wait for a turn")?;
        let kubeconfig = PathBuf::from(kubeconfig);
        ensure!(
            kubeconfig.is_file(),
            "KUBECONFIG names {}, which is no file",
            kubeconfig.display()
        );
        let provider = std::env::var("E2E_PROVIDER").unwrap_or_else(|_| "local".to_owned());
        Ok(Some(Self {
            kubectl: Kubectl::new(&kubeconfig)?,
            provider,
            _turn: turn,
        }))
    }

    /// What can cut nodes and restart DNS.
    ///
    /// # Errors
    /// When `E2E_PROVIDER` names none, or another cluster than that of `KUBECONFIG`.
    pub fn provider(&self) -> Result<Box<dyn Provider>> {
        provider::named(&self.provider)
    }
}
