//! Programs that tests need. If one is missing, a test prints that it was skipped; under `CI=true` it fails.
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
use e2e_kubernetes::command::run;

/// Directory of a tool of `e2e/tools` if it has been built; builds nothing.
#[must_use]
pub fn built(tool: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/build");
    let printed = run(Command::new(script).args(["--where", tool])).ok()?;
    let folder = PathBuf::from(printed.trim());
    folder.is_dir().then_some(folder)
}

/// Helm as built by `e2e/tools`, so that everybody generates the same output.
#[must_use]
pub fn helm() -> Option<PathBuf> {
    built("helm").map(|folder| folder.join("helm"))
}

/// Kubeconfig of the cluster under test, from `KUBECONFIG`.
#[must_use]
pub fn kubeconfig() -> Option<PathBuf> {
    let path = std::env::var_os("KUBECONFIG")?;
    (!path.is_empty()).then(|| path.into())
}

/// Result of a test that lacks something: an error under `CI=true`, otherwise success after printing a line
/// past the capture of test output.
///
/// # Errors
/// Under `CI=true`.
pub fn skip(what: &str, remedy: &str) -> Result<()> {
    if std::env::var("CI").is_ok_and(|value| value == "true") {
        bail!("not tested: {what}: {remedy}");
    }
    let line = format!("SKIPPED, NOT TESTED: {what}: {remedy}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    Ok(())
}
