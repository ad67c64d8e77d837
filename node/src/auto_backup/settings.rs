//! The configuration file of `-auto-backup`, checked.
use std::{path::Path, time::Duration};

use node_contract::duration::parse_nanos;
use node_objects::{Config, Target, Use};
use serde::Deserialize;
use serde_json::Value;

/// Name of the file with the id of the newest copy in a folder (as in rqlite).
pub(crate) const METADATA_FILE: &str = "METADATA.json";

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoBackupSettings {
    /// Where the copy goes.
    pub target: Target,
    /// Interval between two uploads.
    pub interval: Duration,
    /// Store the file as it is, not as gzip.
    pub no_compress: bool,
    /// Write a new object each time, with the time before its name.
    pub timestamp: bool,
    /// Vacuum the copy.
    pub vacuum: bool,
}

/// The keys beside `version`, `type` and `sub`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupKeys {
    /// A Go duration, or nanoseconds.
    pub interval: Option<Value>,
    /// See [`AutoBackupSettings::no_compress`].
    pub no_compress: bool,
    /// See [`AutoBackupSettings::timestamp`].
    pub timestamp: bool,
    /// See [`AutoBackupSettings::vacuum`].
    pub vacuum: bool,
}

impl AutoBackupSettings {
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let config = Config::<BackupKeys>::read(path, Use::Object).map_err(|e| e.0)?;
        Self::of(config).map_err(|why| format!("{}: {why}", path.display()))
    }

    fn of(config: Config<BackupKeys>) -> Result<Self, String> {
        let Config { target, rest } = config;
        let is_folder = matches!(target, Target::File(_));
        if is_folder
            && target
                .folder_and_name()
                .1
                .eq_ignore_ascii_case(METADATA_FILE)
        {
            return Err(format!(
                "sub.name: {METADATA_FILE} is where the id of the newest copy is kept: choose another name"
            ));
        }
        Ok(Self {
            target,
            interval: interval(rest.interval.as_ref())?,
            no_compress: rest.no_compress,
            timestamp: rest.timestamp,
            vacuum: rest.vacuum,
        })
    }
}

fn interval(given: Option<&Value>) -> Result<Duration, String> {
    let nanos = match given {
        None | Some(Value::Null) => {
            return Err("invalid interval: \"interval\" is missing, such as \"5m\"".into());
        }
        Some(Value::String(text)) => parse_nanos(text).ok(),
        Some(Value::Number(nanos)) => nanos.as_i64(),
        Some(_) => None,
    };
    match nanos.and_then(|nanos| u64::try_from(nanos).ok()) {
        Some(nanos) if nanos > 0 => Ok(Duration::from_nanos(nanos)),
        _ => Err(format!(
            "invalid interval {}: expected a duration above zero, such as \"5m\"",
            given.unwrap_or(&Value::Null)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(keys: &str) -> Result<AutoBackupSettings, String> {
        let text = format!(r#"{{"type":"file","sub":{{"dir":"/x","name":"n"}}{keys}}}"#);
        let config = Config::parse(&text, Use::Object, &|_| None).map_err(|e| e.0)?;
        AutoBackupSettings::of(config)
    }

    #[test]
    fn intervals() {
        for (keys, seconds) in [
            (r#","interval":"5m""#, 300),
            (r#","interval":2000000000"#, 2),
        ] {
            let settings = parse(keys).unwrap();
            assert_eq!(settings.interval, Duration::from_secs(seconds));
            assert!(!settings.no_compress && !settings.timestamp && !settings.vacuum);
        }
        for keys in [
            "",
            r#","interval":"0s""#,
            r#","interval":"-1s""#,
            r#","interval":0"#,
            r#","interval":"5""#,
            r#","interval":true"#,
            r#","interval":1.5"#,
        ] {
            assert!(
                parse(keys).unwrap_err().contains("invalid interval"),
                "{keys}"
            );
        }
        let text = r#"{"type":"file","sub":{"dir":"/x","name":"METADATA.json"},"interval":"1s"}"#;
        let config = Config::parse(text, Use::Object, &|_| None).unwrap();
        let refused = AutoBackupSettings::of(config).unwrap_err();
        assert!(refused.starts_with("sub.name: METADATA.json"), "{refused}");
        assert!(
            parse(r#","interval":"1s","vaccum":true"#)
                .unwrap_err()
                .contains("vaccum")
        );
    }
}
