//! The continuous archive: how nodes are configured for it, and which images support it.
use operator_api::{
    Span,
    cluster::{Archive, KeySelector},
    names,
};
use serde_json::{Map, Value, json};

use crate::{
    cluster::facts::{
        authentication::is_known_by,
        image::{self, Parts},
        observation::Archived,
        view::{Leader, View},
    },
    stores::{Access, access},
};

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

/// What the pod template of the present spec has; None without an archive.
pub fn in_pods(view: &View<'_>) -> Option<InPods> {
    view.spec.archive.as_ref().map(of)
}

/// Does this leader archive where the spec says? After a change of the spec it does not before its pod is
/// replaced.
pub fn is_of_spec(view: &View<'_>, leader: Leader<'_>) -> bool {
    let (Some(wanted), Some(pod)) = (view.spec.archive.as_ref(), view.pod(leader.name)) else {
        return false;
    };
    // Which claim a folder is on is not in the configuration.
    let current = view
        .target()
        .is_some_and(|t| t.template_hash == pod.template_hash);
    let place = |config: &str| -> Option<(Value, Value)> {
        let config: Value = serde_json::from_str(config).ok()?;
        Some((config.get("type")?.clone(), config.get("sub")?.clone()))
    };
    let now = pod.archive.as_deref().and_then(place);
    now.is_some() && now == place(&of(wanted).config) && (current || wanted.target.volume.is_none())
}

/// How far the archive of this leader reaches, if it is the one of the spec.
pub fn archived_by(view: &View<'_>, leader: Leader<'_>) -> Option<Archived> {
    let archive = leader.status.archive.as_ref()?;
    let uri = view.spec.archive.as_ref()?.target.uri();
    let known = is_of_spec(view, leader);
    Some(Archived {
        index: archive.archived_index.filter(|_| known)?,
        time: archive.archived_time.clone()?,
        uri,
    })
}

fn of(archive: &Archive) -> InPods {
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

/// What is wrong with the spec's archive, as texts for people.
pub fn mistakes(view: &View<'_>) -> Vec<String> {
    let Some(archive) = &view.spec.archive else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let image = image::resolve(view).reference;
    if !is_known_by(Parts::of(&image).release()) {
        found.push(format!(
            "the nodes of the image {image} know no archive: choose a newer image, or remove spec.archive"
        ));
    }
    let spans = [&archive.base_interval, &archive.retention];
    let wrong = spans
        .into_iter()
        .flatten()
        .filter_map(|span| span.duration().err());
    found.extend(wrong.map(|e| format!("archive: {e}")));
    let every = archive
        .every
        .as_ref()
        .and_then(|every| every.duration().err());
    found.extend(every.map(|e| format!("archive.every: {e}")));
    let limit = archive
        .log_limit
        .as_ref()
        .and_then(|limit| limit.bytes().err());
    found.extend(limit.map(|e| format!("archive.logLimit: {e}")));
    found
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
