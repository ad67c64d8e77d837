//! Builds the product's programs if they are older than their sources, with the profile with which the caller
//! was built.
use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};
use e2e_kubernetes::command::run;

use crate::root;

/// A directory of programs that have been built already.
const PROGRAMS: &str = "E2E_PROGRAMS";

/// Path of the program with this name. With `E2E_PROGRAMS` it is taken from there, and not built.
///
/// # Errors
/// If it cannot be built.
pub fn built(program: &str) -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(PROGRAMS) {
        return Ok(PathBuf::from(folder).join(program));
    }
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
    // Same flags as a build of the whole workspace, so that Cargo unifies features in the same way and reuses
    // what `cargo test --workspace` has compiled.
    command.args(["build", "--quiet", "--workspace", "--bin", program]);
    command.current_dir(root());
    // The outer Cargo's variables about this package would make build scripts rerun and everything after them
    // recompile.
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
