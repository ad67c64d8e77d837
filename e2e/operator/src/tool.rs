//! Programs that tests need. Without one, a test says that it did not run; under `CI=true` it fails.
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
use e2e_kubernetes::command::run;

/// The folder of a tool of `e2e/tools`, if it has been built. Builds nothing.
#[must_use]
pub fn built(tool: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/build");
    let printed = run(Command::new(script).args(["--where", tool])).ok()?;
    let folder = PathBuf::from(printed.trim());
    folder.is_dir().then_some(folder)
}

/// Helm: the one of `e2e/tools`, so that everybody generates the same.
#[must_use]
pub fn helm() -> Option<PathBuf> {
    built("helm").map(|folder| folder.join("helm"))
}

/// The cluster to test on, as `KUBECONFIG` names it.
#[must_use]
pub fn kubeconfig() -> Option<PathBuf> {
    let path = std::env::var_os("KUBECONFIG")?;
    (!path.is_empty()).then(|| path.into())
}

/// What a test that lacks something returns: an error under `CI=true`, else a line that no capture of output hides.
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
