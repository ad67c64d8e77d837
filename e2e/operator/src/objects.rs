//! Asking an API server with kubectl: objects go in as JSON, answers come out as JSON.
use std::fs;

use anyhow::{Context, Result};
use e2e_kubernetes::probe::Kubectl;
use serde_json::Value;
use tempfile::TempDir;

/// One API server, and a folder for the files that kubectl reads.
#[derive(Debug)]
pub struct Objects {
    kubectl: Kubectl,
    folder: TempDir,
}

impl Objects {
    /// Asks through this kubectl.
    ///
    /// # Errors
    /// When no temporary folder can be made.
    pub fn new(kubectl: Kubectl) -> Result<Self> {
        Ok(Self {
            kubectl,
            folder: tempfile::tempdir().context("make a folder")?,
        })
    }

    /// kubectl with these words.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        self.kubectl.ask(words)
    }

    /// The object or list that these words get.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(words);
        Ok(serde_json::from_str(&self.ask(&all)?)?)
    }

    /// kubectl with these words and the object as its file; gives the object that the server answered with.
    ///
    /// # Errors
    /// When the server refuses it; with what it said.
    pub fn send(&self, words: &[&str], object: &Value) -> Result<Value> {
        let file = self.folder.path().join("object.json");
        fs::write(&file, object.to_string()).context("write the object")?;
        let file = file.display().to_string();
        let mut all = words.to_vec();
        all.extend(["-o", "json", "-f", &file]);
        let said = self.ask(&all)?;
        serde_json::from_str(&said).with_context(|| format!("kubectl printed {said:?}"))
    }

    /// Waits until all definitions of custom resources are served.
    ///
    /// # Errors
    /// When one still is not after a minute.
    pub fn definitions_served(&self) -> Result<()> {
        let words = [
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=60s",
        ];
        self.ask(&words).map(drop)
    }
}
