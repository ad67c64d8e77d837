//! YAML, the only module that names `serde_yaml`. That crate is deprecated. serde_norway is a maintained fork
//! with the same API, and serde-saphyr (which kube uses) a maintained rewrite; DESIGN.md says what blocks a
//! change.
use anyhow::Context;
use serde::{Serialize, de::DeserializeOwned};

/// Serializes a value as one YAML document.
///
/// # Errors
/// The value has no representation in YAML, such as a map whose keys are sequences.
pub fn write(value: &impl Serialize) -> anyhow::Result<String> {
    serde_yaml::to_string(value).context("writing YAML")
}

/// Parses one YAML document. JSON is valid input.
///
/// # Errors
/// The text is malformed, or does not have the form of `T`.
pub fn read<T: DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    serde_yaml::from_str(text).context("reading YAML")
}
