//! How nodes are configured for the continuous archive.
use operator_api::{
    Span,
    cluster::{Archive, KeySelector},
    names,
};
use serde_json::{Map, Value, json};

use crate::stores::{Access, access};

/// Name of the mounted file with the keys.
const KEYS: &str = "keys";
/// Name of the mounted configuration.
const CONFIG: &str = "archive.json";

/// What the pod template has for the archive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InPods {
    /// Flags of the node.
    pub flags: Vec<String>,
    /// The configuration, an annotation of the pod.
    pub config: String,
    /// Variables, volumes and mounts.
    pub access: Access,
}

/// Is an archive with this configuration, an annotation of a pod, where this spec says? Which claim a folder
/// is on is not in the configuration.
pub fn is_there(config: &str, wanted: &Archive) -> bool {
    let place = |config: &str| -> Option<(Value, Value)> {
        let config: Value = serde_json::from_str(config).ok()?;
        Some((config.get("type")?.clone(), config.get("sub")?.clone()))
    };
    let now = place(config);
    now.is_some() && now == place(&of(wanted).config)
}

/// What the pods of this archive have.
pub fn of(archive: &Archive) -> InPods {
    let mut access = access(&archive.target, "", "archive");
    let path = access.annotation("archive-config", names::ARCHIVE_ANNOTATION, CONFIG);
    let mut flags = vec![format!("-archive={path}")];
    if let Some(encryption) = &archive.encryption {
        let KeySelector { name, key } = encryption.key_secret.clone();
        let path = access.file("archive-key", &KeySelector { name, key }, KEYS);
        flags.push(format!("-archive-key-file={path}"));
    }
    InPods {
        flags,
        config: Value::Object(settings(archive, access.config.clone())).to_string(),
        access,
    }
}

/// Adds the settings to the configuration of the target. What the spec leaves out gets the node's default.
fn settings(archive: &Archive, mut config: Map<String, Value>) -> Map<String, Value> {
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            config.insert(key.to_owned(), value);
        }
    };
    set("every", archive.every.as_ref().map(|every| json!(every.0)));
    set("base_interval", seconds(archive.base_interval.as_ref()));
    set("retention", seconds(archive.retention.as_ref()));
    let limit = archive
        .log_limit
        .as_ref()
        .and_then(|limit| limit.bytes().ok());
    set("log_limit_bytes", limit.map(|bytes| json!(bytes)));
    config
}

/// A duration in the node's notation, which has no days.
fn seconds(span: Option<&Span>) -> Option<Value> {
    let span = span?.duration().ok()?;
    Some(json!(format!("{}s", span.as_secs())))
}

#[cfg(test)]
mod tests {
    use operator_api::{
        cluster::Encryption,
        store::{S3, SecretName, StoreTarget},
    };

    use super::*;

    #[test]
    fn flags_files_and_no_secret() {
        let archive = Archive {
            target: StoreTarget {
                s3: Some(S3 {
                    bucket: "bkt".to_owned(),
                    credentials_secret: Some(SecretName {
                        name: "keys".to_owned(),
                    }),
                    ..S3::default()
                }),
                ..StoreTarget::default()
            },
            every: Some("10s".into()),
            base_interval: Some("1d".into()),
            retention: Some("7d".into()),
            log_limit: Some("1Gi".into()),
            encryption: Some(Encryption {
                key_secret: KeySelector {
                    name: "crypt".to_owned(),
                    key: "k".to_owned(),
                },
            }),
            drill: None,
        };
        let pods = of(&archive);
        assert_eq!(
            pods.flags,
            [
                "-archive=/etc/rqlite/archive-config/archive.json",
                "-archive-key-file=/etc/rqlite/archive-key/keys"
            ]
        );
        let config: Value = serde_json::from_str(&pods.config).unwrap();
        assert_eq!(config["every"], "10s");
        assert_eq!(config["base_interval"], "86400s");
        assert_eq!(config["retention"], "604800s");
        assert_eq!(config["log_limit_bytes"], 1 << 30);
        assert_eq!(
            config["sub"]["access_key_id"],
            "${RQLITE_ARCHIVE_ACCESS_KEY_ID}"
        );
        assert_eq!(pods.access.env.len(), 2);
        assert_eq!(pods.access.volumes.len(), 2);
    }
}
