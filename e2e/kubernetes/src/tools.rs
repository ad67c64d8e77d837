//! Directories: of the programs and images built by `e2e/tools`, and of a cluster's state.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::command::run;

/// Tools that the local provider needs from `e2e/tools`.
pub const LOCAL: [&str; 5] = ["etcd", "coredns", "kubernetes", "local-path", "pod-images"];

/// Builds the tool if necessary, and returns its directory.
///
/// # Errors
/// If it cannot be built; names what is missing.
pub fn folder(tool: &str) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/build");
    let printed = run(Command::new(script).arg(tool))?;
    Ok(PathBuf::from(printed.trim()))
}

/// Directory of a provider's state, below the user's cache directory.
///
/// # Errors
/// If neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn state(provider: &str) -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = cache.or_else(home).context("HOME is not set")?;
    Ok(cache.join("rqlited-e2e").join(provider))
}
