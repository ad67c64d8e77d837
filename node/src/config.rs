//! The command line, parsed and checked.
//!
//! This module does not print or exit, and only checks whether extensions exist; `main` acts on the result of
//! [`parse`]. Reading order: `values` (the result) → `flag` (types of flags) → `table` (all flags) → `flags`
//! (parser and usage text) → `validate` (rules between values) → `unsupported` (flags that the program does
//! not implement yet).
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

mod address;
mod flag;
mod flags;
mod table;
mod unsupported;
mod validate;
mod values;

pub use address::split_host_port;
pub use unsupported::unsupported;
pub use values::{Config, DiscoMode, NodeTlsStage, Tls};

/// What the program is to do.
#[derive(Debug)]
pub enum Parsed {
    /// Start a node.
    Run(Box<Config>),
    /// Print this usage text to stderr and exit 0.
    Help(String),
    /// Print the version line to stderr and exit 0.
    Version,
}

/// An invalid command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ConfigError {
    /// 2 for invalid flags or values, 1 for values that contradict each other.
    pub exit_code: u8,
    /// All errors, one per line, in rqlite's order; with exit code 2 followed by the usage. No newline at the
    /// end.
    pub text: String,
}

/// Prefix of errors in values.
const FATAL: &str = "fatal: ";

/// Parses the arguments after the program's name.
///
/// # Errors
/// See [`ConfigError`]. All errors are reported at once, unless the meaning of later arguments is unclear
/// after one.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, ConfigError> {
    let mut config = table::defaults();
    let words = match flags::read(args, &mut config) {
        Ok(flags::Read::Words(words)) => words,
        Ok(flags::Read::Help) => return Ok(Parsed::Help(flags::usage())),
        Err(errors) => {
            let text = format!("{}\n{}", errors.join("\n"), flags::usage());
            return Err(ConfigError { exit_code: 2, text });
        }
    };
    if config.version {
        return Ok(Parsed::Version);
    }
    let mut errors = Vec::new();
    if words.is_empty() {
        errors.push(
            "failed to parse command-line flags: missing required argument: DataPath".to_owned(),
        );
    }
    errors.extend(
        validate::reaping(&config)
            .iter()
            .map(|error| format!("{FATAL}{error}")),
    );
    if let [dir, surplus @ ..] = words.as_slice() {
        if !surplus.is_empty() {
            let surplus = surplus.join(" ");
            errors.push(format!(
                "arguments after data directory ({dir}) are not accepted ([{surplus}])"
            ));
        }
        match absolute(dir) {
            Ok(dir) => config.data_dir = dir,
            Err(error) => errors.push(format!("{FATAL}{error}")),
        }
    }
    let values = validate::values(&config, &|path| Path::new(path).exists());
    errors.extend(values.iter().map(|error| format!("{FATAL}{error}")));
    if errors.is_empty() {
        Ok(Parsed::Run(Box::new(config)))
    } else {
        Err(ConfigError {
            exit_code: 1,
            text: errors.join("\n"),
        })
    }
}

fn absolute(dir: &str) -> Result<PathBuf, String> {
    let dir = dir.trim();
    if dir.is_empty() {
        return Err("data directory path is required".to_owned());
    }
    std::path::absolute(dir)
        .map_err(|error| format!("failed to determine absolute data path: {error}"))
}

#[cfg(test)]
mod tests;
