//! Folders: where the programs and images built by `e2e/tools` are, and where a cluster keeps its state.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::command::run;

/// What the local provider needs from `e2e/tools`.
pub const LOCAL: [&str; 5] = ["etcd", "coredns", "kubernetes", "local-path", "pod-images"];

/// Builds the tool unless it is built, and gives its folder.
///
/// # Errors
/// When it cannot be built; says what is missing.
pub fn folder(tool: &str) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/build");
    let printed = run(Command::new(script).arg(tool))?;
    Ok(PathBuf::from(printed.trim()))
}

/// Folder of a provider's state, below the user's cache.
///
/// # Errors
/// When there is neither `XDG_CACHE_HOME` nor `HOME`.
pub fn state(provider: &str) -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = cache.or_else(home).context("HOME is not set")?;
    Ok(cache.join("rqlited-e2e").join(provider))
}
