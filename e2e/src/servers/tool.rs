//! Where the servers' programs are, and whether a test is skipped without them.
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

/// If set to `1`, a missing server fails the test instead of skipping it. `CI=true` has the same effect.
pub const REQUIRE: &str = "E2E_REQUIRE_SERVERS";

/// A program built by `e2e/tools/build`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tool {
    /// DNS server; the program is `coredns`.
    CoreDns,
    /// Key-value store; the program is `etcd`.
    Etcd,
    /// Service catalogue with a key-value store; the program is `consul`.
    Consul,
    /// The last `rqlited` with format version 1.
    NodeV1,
    /// S3 server; the program is `versitygw`.
    VersityGw,
    /// Google Cloud Storage server; the program is `fake-gcs-server`.
    FakeGcs,
    /// Azure Blob Storage server; the program is `azurite-blob`, which needs node(1).
    Azurite,
    /// A program with rqlite's Go client library, gorqlite.
    GoClient,
    /// A program with rqlite's Python client library, pyrqlite.
    PythonClient,
}

impl Tool {
    /// Name of its folder in `e2e/tools`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CoreDns => "coredns",
            Self::Etcd => "etcd",
            Self::Consul => "consul",
            Self::NodeV1 => "node-v1",
            Self::GoClient => "go-client",
            Self::PythonClient => "python-client",
            Self::VersityGw => "versitygw",
            Self::FakeGcs => "fake-gcs",
            Self::Azurite => "azurite",
        }
    }

    /// Name of its program.
    fn file(self) -> &'static str {
        match self {
            Self::FakeGcs => "fake-gcs-server",
            Self::Azurite => "azurite-blob",
            other => other.name(),
        }
    }

    /// Path of the program, which may not exist.
    ///
    /// # Errors
    /// If the path of the cache cannot be computed.
    pub fn program(self) -> Result<PathBuf> {
        static KNOWN: Mutex<Option<HashMap<Tool, PathBuf>>> = Mutex::new(None);
        let mut known = KNOWN.lock();
        let known = known.get_or_insert_default();
        if let Some(path) = known.get(&self) {
            return Ok(path.clone());
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build");
        let output = Command::new(&script)
            .args(["--where", self.name()])
            .output()
            .with_context(|| format!("run {}", script.display()))?;
        if !output.status.success() {
            bail!(
                "{} --where {}: {}",
                script.display(),
                self.name(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let path = Path::new(&folder).join(self.file());
        known.insert(self, path.clone());
        Ok(path)
    }
}

/// Whether all `tools` are built. If not, prints how to build them, or fails where they are required.
///
/// ```no_run
/// # use e2e::servers::{Tool, present};
/// # fn test() -> anyhow::Result<()> {
/// if !present(&[Tool::Etcd])? {
///     return Ok(());
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// If one is missing under `CI=true` or [`REQUIRE`]`=1`.
pub fn present(tools: &[Tool]) -> Result<bool> {
    let mut missing = Vec::new();
    for tool in tools {
        if !tool.program().is_ok_and(|program| program.is_file()) {
            missing.push(tool.name());
        }
    }
    let required = |name: &str| std::env::var(name).is_ok_and(|value| is_true(&value));
    verdict(&missing, required("CI") || required(REQUIRE))
}

fn is_true(value: &str) -> bool {
    value == "1" || value.eq_ignore_ascii_case("true")
}

fn verdict(missing: &[&str], required: bool) -> Result<bool> {
    if missing.is_empty() {
        return Ok(true);
    }
    let names = missing.join(" ");
    if required {
        bail!("the test needs {names}, which is not built here: run e2e/tools/build {names}");
    }
    // Written to standard error directly, past the capture of test output: a skipped test must be visible.
    let line = format!("SKIPPED, NOT TESTED: needs {names}; run e2e/tools/build {names}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_server_skips_or_fails() {
        assert!(verdict(&[], true).unwrap() && verdict(&[], false).unwrap());
        assert!(!verdict(&["etcd"], false).unwrap());
        let error = verdict(&["etcd", "consul"], true).unwrap_err().to_string();
        assert!(
            error.ends_with("run e2e/tools/build etcd consul"),
            "{error}"
        );
        assert!(is_true("1") && is_true("true") && !is_true("0") && !is_true(""));
    }

    #[test]
    fn every_tool_has_a_folder() {
        for tool in [
            Tool::CoreDns,
            Tool::Etcd,
            Tool::Consul,
            Tool::NodeV1,
            Tool::VersityGw,
            Tool::FakeGcs,
            Tool::Azurite,
        ] {
            let path = tool.program().unwrap();
            assert!(
                path.ends_with(Path::new("bin").join(tool.file())),
                "{path:?}"
            );
        }
    }
}
