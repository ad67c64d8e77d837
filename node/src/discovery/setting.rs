//! The text of `-disco-config`: from a file or the command line, with environment variables replaced, parsed
//! strictly as JSON.
use std::{borrow::Cow, fmt};

use node_contract::duration;
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

/// Largest configuration file. A configuration has a handful of fields, so a larger file is something else.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A password or token. `Debug` does not show it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Secret(String);

impl Secret {
    /// The secret itself, only for sending it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "\"\"" } else { "(secret)" })
    }
}

/// The configuration text with variables replaced. As in rqlite, `given` is a path if that file exists, else
/// the text itself.
pub(super) fn read(
    given: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let given = given.trim();
    if given.is_empty() {
        return Ok(String::new());
    }
    let text = match read_file(given) {
        Ok(text) => Cow::Owned(text),
        Err(_) if given.starts_with(['{', '$']) => Cow::Borrowed(given),
        Err(e) => {
            return Err(format!(
                "-disco-config is neither a JSON object nor a file that can be read: {e}"
            ));
        }
    };
    Ok(expand(&text, environment))
}

fn read_file(path: &str) -> std::io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    if metadata.len() > MAX_CONFIG_BYTES {
        return Err(std::io::Error::other(format!(
            "{path} is larger than {MAX_CONFIG_BYTES} bytes"
        )));
    }
    std::fs::read_to_string(path).map_err(|e| std::io::Error::new(e.kind(), format!("{path}: {e}")))
}

/// Replaces `$name` and `${name}` as Go's `os.Expand` does; unset variables are empty. A `$` before anything
/// else stays.
fn expand(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let after = &from[1..];
        let (name, width) = shell_name(after);
        match name {
            Some(name) => out.push_str(&environment(name).unwrap_or_default()),
            // Go drops `${` and `${}`.
            None if width > 0 => {}
            None => out.push('$'),
        }
        rest = &after[width..];
    }
    out.push_str(rest);
    out
}

/// The name after a `$`, and the number of bytes that it takes. `None` with a length is an invalid name,
/// without one no name.
fn shell_name(after: &str) -> (Option<&str>, usize) {
    let is_special = |c: char| c.is_ascii_digit() || "*#$@!?-".contains(c);
    if let Some(inner) = after.strip_prefix('{') {
        return match inner.find('}') {
            Some(0) => (None, 2),
            Some(end) => (Some(&inner[..end]), end + 2),
            None => (None, 1),
        };
    }
    if after.starts_with(is_special) {
        return (Some(&after[..1]), 1);
    }
    let end = after
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(after.len());
    ((end > 0).then(|| &after[..end]), end)
}

/// Parses the fields; an empty text has none. Unknown fields are errors, because a misspelled one would go
/// unnoticed.
pub(super) fn parse<T: DeserializeOwned + Default>(text: &str) -> Result<T, String> {
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    // serde would accept a list as the fields in their order.
    if text.trim_start().starts_with(['[', '"']) {
        return Err("expected a JSON object".into());
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        let inner = e.into_inner();
        if inner.is_data() {
            describe(&path, &inner.to_string())
        } else {
            format!("not valid JSON: {inner}")
        }
    })?;
    json.end().map_err(|e| format!("not valid JSON: {e}"))?;
    Ok(parsed)
}

/// An error text that says what is expected of the field, without its value, which may be a misplaced secret.
fn describe(path: &str, mistake: &str) -> String {
    let without_position = mistake
        .rsplit_once(" at line ")
        .map_or(mistake, |(text, _)| text);
    let expected = if mistake.starts_with("invalid ") {
        without_position
            .rsplit_once(", expected ")
            .map_or("not the right type".to_owned(), |(_, what)| {
                format!("expected {what}")
            })
    } else {
        without_position.to_owned()
    };
    if path == "." {
        expected
    } else {
        format!("{path}: {expected}")
    }
}

/// A TCP port.
pub(super) fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(None);
    }
    value
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
        .map(Some)
        .ok_or_else(|| D::Error::custom("expected a port number from 1 to 65535"))
}

/// A duration: nanoseconds, or text such as `5s`.
pub(super) fn nanos<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<std::time::Duration>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let parsed = match &value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_u64(),
        Value::String(text) => duration::parse_nanos(text)
            .ok()
            .and_then(|nanos| u64::try_from(nanos).ok()),
        _ => None,
    };
    parsed
        .map(|nanos| Some(std::time::Duration::from_nanos(nanos)))
        .ok_or_else(|| {
            D::Error::custom("expected a duration: nanoseconds as a number, or text such as \"5s\"")
        })
}

#[cfg(test)]
mod tests;
