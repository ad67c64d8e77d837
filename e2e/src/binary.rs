//! Finds the `rqlited` under test and rebuilds it if it is older than its sources.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

use anyhow::{Context, Result, bail};

/// Environment variable with the path of a binary to test instead of the workspace's own.
pub const OVERRIDE: &str = "RQLITED_BIN";

static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// Path of the `rqlited` under test: `RQLITED_BIN` if set, otherwise the workspace's binary for the profile
/// with which the caller was built.
///
/// # Errors
/// If no binary exists and it cannot be built.
pub fn rqlited() -> Result<PathBuf> {
    FOUND
        .get_or_init(|| find().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|text| anyhow::anyhow!(text))
}

fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(OVERRIDE) {
        return fs::canonicalize(&path)
            .with_context(|| format!("{OVERRIDE} names {}", path.display()));
    }
    let profile_dir = profile_dir()?;
    let path = profile_dir.join("rqlited");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node");
    let built = fs::metadata(&path).and_then(|meta| meta.modified()).ok();
    // `cargo test -p e2e` alone does not build `rqlited`; without this check it would test an outdated node.
    if built.is_none_or(|built| newest(&sources).is_some_and(|changed| changed > built)) {
        build(&profile_dir)?;
    }
    if !path.exists() {
        bail!(
            "{} does not exist even after building it; name a binary in {OVERRIDE}",
            path.display()
        );
    }
    Ok(path)
}

/// `target/<profile>`. Test binaries run from `deps` below it, the benchmark from the directory itself.
fn profile_dir() -> Result<PathBuf> {
    let own = std::env::current_exe().context("own path")?;
    let dir = own.parent().context("own directory")?;
    let dir = if dir.ends_with("deps") {
        dir.parent().context("target directory")?
    } else {
        dir
    };
    Ok(dir.to_path_buf())
}

fn build(profile_dir: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Same flags as a build of the whole workspace, so that Cargo unifies features in the same way and reuses
    // what `cargo test --workspace` has compiled.
    command.args(["build", "--quiet", "--workspace", "--bin", "rqlited"]);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    // The outer Cargo's variables about this package would make build scripts rerun and everything after them
    // recompile.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    if profile_dir.ends_with("release") {
        command.arg("--release");
    }
    if let Some(target_dir) = profile_dir.parent() {
        command.env("CARGO_TARGET_DIR", target_dir);
    }
    let output = command.output().context("run cargo build")?;
    if !output.status.success() {
        bail!(
            "cannot build rqlited:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Modification time of the newest Rust source or manifest below `dir`; `None` if `dir` does not exist.
fn newest(dir: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(dir).ok()?;
    entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return newest(&path);
            }
            let source = path
                .extension()
                .is_some_and(|ext| ext == "rs" || ext == "toml");
            source
                .then(|| entry.metadata().and_then(|meta| meta.modified()).ok())
                .flatten()
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_directory_is_above_the_test_binary() {
        let dir = profile_dir().unwrap();
        assert!(!dir.ends_with("deps"), "{}", dir.display());
        assert!(dir.join("deps").is_dir(), "{}", dir.display());
    }

    #[test]
    fn sources_have_an_age() {
        assert!(newest(Path::new(env!("CARGO_MANIFEST_DIR"))).is_some());
        assert!(newest(Path::new("/nonexistent")).is_none());
    }
}
