//! Access to an API server through kubectl, with objects as JSON.
use std::{fs, time::Duration};

use anyhow::{Context, Result};
use e2e_kubernetes::{command::until, probe::Kubectl};
use serde_json::Value;
use tempfile::TempDir;

/// How long definitions may take to be served.
const SERVED_LIMIT: Duration = Duration::from_secs(60);

/// One API server, and a directory for the files passed to kubectl.
#[derive(Debug)]
pub struct Objects {
    kubectl: Kubectl,
    folder: TempDir,
}

impl Objects {
    /// Uses this kubectl.
    ///
    /// # Errors
    /// If no temporary directory can be created.
    pub fn new(kubectl: Kubectl) -> Result<Self> {
        Ok(Self {
            kubectl,
            folder: tempfile::tempdir().context("make a folder")?,
        })
    }

    /// Runs kubectl with these arguments and returns its output.
    ///
    /// # Errors
    /// If it fails; shows its output.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.kubectl.run(args)
    }

    /// The object or list that `kubectl get` returns for these arguments.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(args);
        Ok(serde_json::from_str(&self.run(&all)?)?)
    }

    /// Runs kubectl with these arguments and `object` as its input file; returns the object in the server's
    /// response.
    ///
    /// # Errors
    /// If the server rejects it; shows kubectl's output.
    pub fn send(&self, args: &[&str], object: &Value) -> Result<Value> {
        let file = self.folder.path().join("object.json");
        fs::write(&file, object.to_string()).context("write the object")?;
        let file = file.display().to_string();
        let mut all = args.to_vec();
        all.extend(["-o", "json", "-f", &file]);
        let said = self.run(&all)?;
        serde_json::from_str(&said).with_context(|| format!("kubectl printed {said:?}"))
    }

    /// Waits until all custom resource definitions are served.
    ///
    /// # Errors
    /// If one is still not served after a minute.
    pub fn definitions_served(&self) -> Result<()> {
        let args = [
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=60s",
        ];
        // kubectl fails at once for a definition that has no conditions at all yet.
        until("the definitions to be served", SERVED_LIMIT, || {
            self.run(&args).map(drop)
        })
    }
}
