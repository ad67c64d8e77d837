//! Whether tests may use a cluster, which one, and the locks between tests.
use std::{fs::File, io::Write, path::PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{probe::Kubectl, provider::Provider, providers};

/// A cluster that tests may disrupt.
#[derive(Debug)]
pub struct Access {
    /// Access to it.
    pub kubectl: Kubectl,
    provider: String,
    _turn: File,
}

impl Access {
    /// Shared with other tests: for one that affects nothing outside its namespaces. Prints a message and
    /// returns `None` if there is no cluster to test on.
    ///
    /// # Errors
    /// If there should be a cluster and there is none.
    pub fn shared() -> Result<Option<Self>> {
        Self::take(File::lock_shared)
    }

    /// Exclusive: for a test that cuts nodes off, drains them or restarts DNS. Otherwise like
    /// [`Self::shared`].
    ///
    /// # Errors
    /// See [`Self::shared`].
    pub fn exclusive() -> Result<Option<Self>> {
        Self::take(File::lock)
    }

    fn take(lock: impl Fn(&File) -> std::io::Result<()>) -> Result<Option<Self>> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        // Both are required, because a developer's KUBECONFIG may name a cluster that matters.
        let (Some(kubeconfig), Some(_)) = (set("KUBECONFIG"), set("E2E_KUBERNETES")) else {
            // Written past the capture of test output: a skipped test must be visible.
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

    /// The provider, which can cut nodes off and restart DNS.
    ///
    /// # Errors
    /// If `E2E_PROVIDER` names none, or another cluster than `KUBECONFIG`.
    pub fn provider(&self) -> Result<Box<dyn Provider>> {
        providers::named(&self.provider)
    }
}
