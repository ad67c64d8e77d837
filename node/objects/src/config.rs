//! The JSON of `-auto-backup`, `-auto-restore`, `-archive` and the subcommands: `version`, `type`, `sub`, and
//! what each of them adds.
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, error::Category};

pub use crate::json::{ConfigError, Use, from_value};
use crate::{expand::expand, target::Target, unique::Unique};

/// Largest configuration file. One has a handful of keys, so a larger file is something else.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// The newest version of the format (rqlite's).
const MAX_VERSION: u64 = 1;

/// A configuration file: a target and the keys beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config<R> {
    /// Where the objects are.
    pub target: Target,
    /// All keys but `version`, `type` and `sub`.
    pub rest: R,
}

impl<R: DeserializeOwned> Config<R> {
    /// Reads a file, with `$VAR` replaced from the environment.
    ///
    /// # Errors
    /// The file cannot be read, or a key is missing, unknown or invalid; the text names the file.
    pub fn read(path: &Path, used_for: Use) -> Result<Self, ConfigError> {
        let text = read_text(path)?;
        let environment = |name: &str| std::env::var(name).ok();
        Self::parse(&text, used_for, &environment)
            .map_err(|e| ConfigError(format!("{}: {e}", path.display())))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn parse(
        text: &str,
        used_for: Use,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut all = parse_object(text, environment)?;
        let (kind, sub) = take_target(&mut all)?;
        let target = Target::from_json(&kind, sub, used_for)?;
        let rest = from_value(Value::Object(all), "")?;
        Ok(Self { target, rest })
    }
}

/// The text of a configuration file.
///
/// # Errors
/// The file cannot be read, is larger than 1 MiB, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read as _;
    let failed = |e: std::io::Error| ConfigError(format!("{}: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        let why = format!(
            "{}: a directory, not a configuration file in JSON",
            path.display()
        );
        return Err(ConfigError(why));
    }
    let mut text = String::new();
    file.take(MAX_CONFIG_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        return Err(ConfigError(format!(
            "{}: larger than {MAX_CONFIG_BYTES} bytes, so it is no configuration file",
            path.display()
        )));
    }
    Ok(text)
}

/// A text as one JSON object, with variables replaced.
///
/// # Errors
/// A variable is not set, or the text is not a JSON object. The error shows no value, because it may be a
/// secret.
pub fn parse_object(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Map<String, Value>, ConfigError> {
    let text = expand(text.trim_start_matches('\u{feff}'), environment).map_err(ConfigError)?;
    match serde_json::from_str(&text).map(|Unique(value)| value) {
        Ok(Value::Object(all)) => Ok(all),
        Ok(_) => Err(ConfigError("expected a JSON object, {…}".into())),
        Err(e) => {
            // The library's own text may show a value.
            let why = match e.classify() {
                Category::Eof => "the JSON ends early",
                Category::Data => "a key occurs twice in an object",
                Category::Io | Category::Syntax => "not valid JSON",
            };
            let (line, column) = (e.line(), e.column());
            Err(ConfigError(format!(
                "{why} at line {line}, column {column}"
            )))
        }
    }
}

/// Takes `version`, `type` and `sub` out of a configuration, and checks the version.
///
/// # Errors
/// One of them is missing or invalid.
pub fn take_target(all: &mut Map<String, Value>) -> Result<(String, Value), ConfigError> {
    match all.remove("version") {
        None => {}
        Some(Value::Number(n)) if n.as_u64().is_some_and(|n| n <= MAX_VERSION) => {}
        Some(other) => {
            return Err(ConfigError(format!(
                "invalid version: {other}; this program reads version {MAX_VERSION}"
            )));
        }
    }
    let kind = match all.remove("type") {
        Some(Value::String(kind)) => kind,
        Some(_) => return Err(ConfigError("type: expected a string".into())),
        None => {
            return Err(ConfigError(
                "\"type\" is missing: s3, gcs, azure or file".into(),
            ));
        }
    };
    let sub = all.remove("sub").ok_or_else(|| {
        ConfigError("\"sub\" is missing: an object that says where (bucket, keys, …)".into())
    })?;
    Ok((kind, sub))
}
