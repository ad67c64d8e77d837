//! The product's own programs: built if they are older than their sources, of the profile that the caller was built with.
use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};
use e2e_kubernetes::command::run;

use crate::root;

/// The program of this name.
///
/// # Errors
/// When it cannot be built.
pub fn built(program: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("own path")?;
    let folder = own.parent().context("own folder")?;
    // Tests run from `deps`.
    let folder = if folder.ends_with("deps") {
        folder.parent().context("the target folder")?
    } else {
        folder
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // As for the whole workspace: the features, and so what is compiled already, are those of `cargo test --workspace`.
    command.args(["build", "--quiet", "--workspace", "--bin", program]);
    command.current_dir(root());
    // What the outer cargo says about this package would make build scripts run again, and everything after them.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    if folder.ends_with("release") {
        command.arg("--release");
    }
    if let Some(target) = folder.parent() {
        command.env("CARGO_TARGET_DIR", target);
    }
    run(&mut command)?;
    Ok(folder.join(program))
}
