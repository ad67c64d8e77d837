//! The configuration file of `-archive`, checked, with its defaults.
use std::{path::Path, time::Duration};

use node_archive::keys::Keys;
use node_contract::duration;
use serde::Deserialize;

use super::decide::Limits;

const EVERY: Duration = Duration::from_secs(10);
const SEGMENT_BYTES: u64 = 8 << 20;
const BASE_INTERVAL: Duration = Duration::from_secs(24 * 3600);
const BASE_BYTES: u64 = 1 << 30;
const RETENTION: Duration = Duration::from_secs(168 * 3600);
const LOG_LIMIT_BYTES: u64 = 1 << 30;
/// Largest `segment_bytes`: a segment is in memory while it is built.
const MAX_SEGMENT_BYTES: u64 = 64 << 20;
/// Least `every`: a shorter one would send more requests than there are entries.
const SHORTEST_EVERY: Duration = Duration::from_millis(100);
/// Least `log_limit_bytes`: the log keeps about this much between two checkpoints anyway.
const LEAST_LOG_LIMIT_BYTES: u64 = 16 << 20;
/// Largest key file.
const MAX_KEY_FILE_BYTES: u64 = 1 << 20;

/// A configuration that cannot be used; the text names the file and the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

/// The keys of the configuration beside `version`, `type` and `sub`. Durations are strings such as `10s`
/// (Go's format).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keywords {
    every: Option<String>,
    segment_bytes: Option<u64>,
    base_interval: Option<String>,
    base_bytes: Option<u64>,
    retention: Option<String>,
    log_limit_bytes: Option<u64>,
}

/// How the archive is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub(super) limits: Limits,
    /// How far back every time can be restored.
    pub(super) retention: Duration,
    /// Bytes up to which the log is kept for the archive.
    pub log_limit_bytes: u64,
}

fn period(
    key: &str,
    text: Option<&String>,
    default: Duration,
    least: Duration,
) -> Result<Duration, SettingsError> {
    let Some(text) = text else {
        return Ok(default);
    };
    let wrong = |why: &str| {
        SettingsError(format!(
            "{key}: {text:?} {why}; write a duration such as \"10s\" or \"24h\""
        ))
    };
    let parsed = duration::parse(text).map_err(|_| match is_too_large(text) {
        true => wrong("is too large"),
        false => wrong("is no duration"),
    })?;
    if parsed < least {
        return Err(wrong(&format!("is less than {}", duration::format(least))));
    }
    Ok(parsed)
}

/// Whether this would be a duration if its numbers were small.
fn is_too_large(text: &str) -> bool {
    let words: Vec<&str> = text.split(|c: char| c.is_ascii_digit()).collect();
    let units = words.into_iter().filter(|word| !word.is_empty());
    let small: String = units.map(|unit| format!("1{unit}")).collect();
    duration::parse(&small).is_ok() && text.starts_with(|c: char| c.is_ascii_digit())
}

fn size(
    key: &str,
    given: Option<u64>,
    default: u64,
    (least, most): (u64, u64),
) -> Result<u64, SettingsError> {
    let value = given.unwrap_or(default);
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(SettingsError(format!(
        "{key}: {value} is not from {least} to {most} bytes"
    )))
}

impl Settings {
    /// Checks the keys and fills in the defaults.
    ///
    /// # Errors
    /// The first invalid key, and what is expected.
    pub fn new(words: &Keywords) -> Result<Self, SettingsError> {
        let minute = Duration::from_secs(60);
        let limits = Limits {
            every: period("every", words.every.as_ref(), EVERY, SHORTEST_EVERY)?,
            segment_bytes: size(
                "segment_bytes",
                words.segment_bytes,
                SEGMENT_BYTES,
                (1, MAX_SEGMENT_BYTES),
            )?,
            base_interval: period(
                "base_interval",
                words.base_interval.as_ref(),
                BASE_INTERVAL,
                Duration::from_secs(1),
            )?,
            base_bytes: size("base_bytes", words.base_bytes, BASE_BYTES, (1, u64::MAX))?,
        };
        let retention = period("retention", words.retention.as_ref(), RETENTION, minute)?;
        let most = (LEAST_LOG_LIMIT_BYTES, u64::MAX);
        let log_limit_bytes = size(
            "log_limit_bytes",
            words.log_limit_bytes,
            LOG_LIMIT_BYTES,
            most,
        )?;
        Ok(Self {
            limits,
            retention,
            log_limit_bytes,
        })
    }
}

/// Reads the key file.
///
/// # Errors
/// It cannot be read or used; never shows a key.
pub fn read_keys(path: &Path) -> Result<Keys, SettingsError> {
    use std::io::Read as _;
    let wrong = |why: String| SettingsError(format!("{}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| wrong(e.to_string()))?;
    let mut text = String::new();
    let read = file.take(MAX_KEY_FILE_BYTES + 1).read_to_string(&mut text);
    if read.map_err(|e| wrong(e.to_string()))? as u64 > MAX_KEY_FILE_BYTES {
        return Err(wrong("too large for a key file".to_owned()));
    }
    Keys::parse(&text).map_err(|e| wrong(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Settings, String> {
        let words: Keywords = serde_json::from_str(json).map_err(|e| e.to_string())?;
        Settings::new(&words).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_and_what_is_refused() {
        let settings = parse("{}").unwrap();
        assert_eq!(settings.limits.every, Duration::from_secs(10));
        assert_eq!(settings.log_limit_bytes, 1 << 30);
        let given = parse(r#"{"every":"1s","retention":"48h","segment_bytes":5}"#).unwrap();
        assert_eq!(given.limits.segment_bytes, 5);
        assert_eq!(given.retention, Duration::from_secs(48 * 3600));
        for (json, want) in [
            (r#"{"every":"soon"}"#, "every: \"soon\" is no duration"),
            (
                r#"{"every":"999999999h"}"#,
                "every: \"999999999h\" is too large",
            ),
            (r#"{"every":"1ms"}"#, "every: \"1ms\" is less than 100ms"),
            (
                r#"{"retention":"0s"}"#,
                "retention: \"0s\" is less than 1m0s",
            ),
            (r#"{"segment_bytes":0}"#, "segment_bytes: 0 is not from 1"),
            (
                r#"{"log_limit_bytes":5}"#,
                "log_limit_bytes: 5 is not from 16777216",
            ),
            (r#"{"evry":"1s"}"#, "unknown field `evry`"),
        ] {
            let got = parse(json).unwrap_err();
            assert!(got.starts_with(want), "{json}: {got}");
        }
    }
}
