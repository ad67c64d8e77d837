//! Conversion of a JSON value to a type, with an error that names the key.
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What is wrong with a configuration, and what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// What a target's `path`, `name` or `prefix` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// One object, which must be named.
    Object,
    /// Objects below a prefix, which may be empty.
    Prefix,
}

/// Converts a value. An error names the key below `within`, not its value, which may be a secret.
///
/// # Errors
/// A key is missing, unknown or of another type.
pub fn from_value<T: DeserializeOwned>(value: Value, within: &str) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        let place = match (within, path.as_str()) {
            ("", "." | "") => String::new(),
            (within, "." | "") => format!("{within}: "),
            ("", path) => format!("{path}: "),
            (within, path) => format!("{within}.{path}: "),
        };
        ConfigError(format!("{place}{}", e.inner()))
    })
}
