//! What a pod needs to reach an object store: the node's configuration without secrets, and the environment
//! variables and volumes that provide the secrets. Secrets are never in arguments, nor in objects that the
//! operator writes.
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, EnvVar, EnvVarSource, KeyToPath,
    ObjectFieldSelector, PersistentVolumeClaimVolumeSource, SecretKeySelector, SecretVolumeSource,
    Volume, VolumeMount,
};
use operator_api::{cluster::KeySelector, store::StoreTarget};
use serde_json::{Map, Value, json};

/// File mode of mounted Secrets: readable by owner and group.
const SECRET_MODE: i32 = 0o440;
/// Key of the access key ID in a Secret for S3.
const ACCESS_KEY_ID: &str = "access-key-id";
/// Key of the secret access key in a Secret for S3.
const SECRET_ACCESS_KEY: &str = "secret-access-key";
/// Key of a Secret for Google Cloud Storage, and name of the mounted file.
const CREDENTIALS_FILE: &str = "credentials.json";
/// Key of a Secret for Azure.
const ACCESS_KEY: &str = "access-key";

/// What a pod needs to reach a store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// `version`, `type` and `sub` of the node's configuration, with variables in the place of secrets.
    pub config: Map<String, Value>,
    /// The environment variables that the configuration refers to.
    pub env: Vec<EnvVar>,
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// Their mounts.
    pub mounts: Vec<VolumeMount>,
}

/// How a pod reaches the objects below `suffix`, or the object of that name. `purpose` (`archive`, `restore`,
/// `backup`) keeps the variables and volumes of several stores of one pod apart.
pub fn access(target: &StoreTarget, suffix: &str, purpose: &str) -> Access {
    let mut found = Access::default();
    let (kind, sub) = if let Some(s3) = &target.s3 {
        let mut sub = json!({
            "bucket": literal(&s3.bucket),
            "path": joined(s3.prefix.as_deref(), suffix),
            "region": literal(s3.region.as_deref().unwrap_or("us-east-1")),
            "force_path_style": s3.path_style.unwrap_or(s3.endpoint.is_some()),
        });
        set(&mut sub, "endpoint", s3.endpoint.as_deref());
        if let Some(secret) = &s3.credentials_secret {
            let id = found.variable(purpose, "ACCESS_KEY_ID", &secret.name, ACCESS_KEY_ID);
            let key = found.variable(
                purpose,
                "SECRET_ACCESS_KEY",
                &secret.name,
                SECRET_ACCESS_KEY,
            );
            insert(&mut sub, "access_key_id", id);
            insert(&mut sub, "secret_access_key", key);
        }
        ("s3", sub)
    } else if let Some(gcs) = &target.gcs {
        let mut sub = json!({
            "bucket": literal(&gcs.bucket),
            "name": joined(gcs.prefix.as_deref(), suffix),
        });
        set(&mut sub, "endpoint", gcs.endpoint.as_deref());
        if let Some(secret) = &gcs.credentials_secret {
            let key = KeySelector {
                name: secret.name.clone(),
                key: CREDENTIALS_FILE.to_owned(),
            };
            let path = found.file(&format!("{purpose}-credentials"), &key, CREDENTIALS_FILE);
            insert(&mut sub, "credentials_path", path);
        }
        ("gcs", sub)
    } else if let Some(azure) = &target.azure {
        let mut sub = json!({
            "account": literal(&azure.account),
            "container": literal(&azure.container),
            "name": joined(azure.prefix.as_deref(), suffix),
        });
        set(&mut sub, "endpoint", azure.endpoint.as_deref());
        if let Some(secret) = &azure.credentials_secret {
            let key = found.variable(purpose, "ACCESS_KEY", &secret.name, ACCESS_KEY);
            insert(&mut sub, "access_key", key);
        }
        ("azure", sub)
    } else {
        let volume = target.volume.clone().unwrap_or_default();
        let dir = found.claim(purpose, &volume.claim_name);
        // A file's name is a plain one.
        let name = joined(volume.path.as_deref(), suffix);
        match name.rsplit_once('/') {
            Some((folder, name)) => (
                "file",
                json!({ "dir": format!("{dir}/{folder}"), "name": name }),
            ),
            None => ("file", json!({ "dir": dir, "name": name })),
        }
    };
    found.config.insert("version".to_owned(), json!(1));
    found.config.insert("type".to_owned(), json!(kind));
    found.config.insert("sub".to_owned(), sub);
    found
}

impl Access {
    /// Adds a variable from a Secret; returns the reference to it for the configuration.
    fn variable(&mut self, purpose: &str, what: &str, secret: &str, key: &str) -> String {
        let name = format!("RQLITE_{}_{what}", purpose.to_uppercase().replace('-', "_"));
        let reference = format!("${{{name}}}");
        self.env.push(EnvVar {
            name,
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: secret.to_owned(),
                    key: key.to_owned(),
                    optional: None,
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        });
        reference
    }

    /// Mounts one key of a Secret as a file; returns its path.
    pub fn file(&mut self, volume: &str, from: &KeySelector, file: &str) -> String {
        let folder = self.files(volume, &from.name, &[(&from.key, file)]);
        format!("{folder}/{file}")
    }

    /// Mounts keys of a Secret as files, all of the same version of it; returns their folder.
    pub fn files(&mut self, volume: &str, secret: &str, keys: &[(&str, &str)]) -> String {
        let folder = format!("/etc/rqlite/{volume}");
        let items = keys.iter().map(|(key, file)| KeyToPath {
            key: (*key).to_owned(),
            path: (*file).to_owned(),
            mode: None,
        });
        self.volumes.push(Volume {
            name: format!("rqlite-{volume}"),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.to_owned()),
                default_mode: Some(SECRET_MODE),
                items: Some(items.collect()),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        });
        self.mount(volume, &folder, true);
        folder
    }

    /// Mounts an annotation of the pod as a file, so that the configuration changes only with the pod
    /// template. Returns its path.
    pub fn annotation(&mut self, volume: &str, annotation: &str, file: &str) -> String {
        let folder = format!("/etc/rqlite/{volume}");
        self.volumes.push(Volume {
            name: format!("rqlite-{volume}"),
            downward_api: Some(DownwardAPIVolumeSource {
                items: Some(vec![DownwardAPIVolumeFile {
                    path: file.to_owned(),
                    field_ref: Some(ObjectFieldSelector {
                        field_path: format!("metadata.annotations['{annotation}']"),
                        api_version: None,
                    }),
                    ..DownwardAPIVolumeFile::default()
                }]),
                default_mode: None,
            }),
            ..Volume::default()
        });
        self.mount(volume, &folder, true);
        format!("{folder}/{file}")
    }

    /// Mounts a PersistentVolumeClaim; returns the mount path.
    fn claim(&mut self, purpose: &str, claim: &str) -> String {
        let volume = format!("{purpose}-store");
        let folder = format!("/var/lib/rqlite/{volume}");
        self.volumes.push(Volume {
            name: format!("rqlite-{volume}"),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.to_owned(),
                read_only: None,
            }),
            ..Volume::default()
        });
        self.mount(&volume, &folder, false);
        folder
    }

    fn mount(&mut self, volume: &str, path: &str, read_only: bool) {
        self.mounts.push(VolumeMount {
            name: format!("rqlite-{volume}"),
            mount_path: path.to_owned(),
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        });
    }
}

/// Escapes a text of the spec for the configuration, in which a dollar sign begins a variable.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn joined(prefix: Option<&str>, suffix: &str) -> String {
    let parts = [prefix.unwrap_or_default(), suffix];
    let parts = parts.map(|part| part.trim_matches('/'));
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    literal(&parts.join("/"))
}

fn set(sub: &mut Value, key: &str, text: Option<&str>) {
    if let Some(text) = text {
        insert(sub, key, literal(text));
    }
}

fn insert(sub: &mut Value, key: &str, text: String) {
    if let Some(all) = sub.as_object_mut() {
        all.insert(key.to_owned(), Value::String(text));
    }
}

#[cfg(test)]
mod tests {
    use operator_api::store::{Azure, Gcs, S3, SecretName, VolumeTarget};

    use super::*;

    fn secret(name: &str) -> Option<SecretName> {
        Some(SecretName {
            name: name.to_owned(),
        })
    }

    #[test]
    fn secrets_are_variables_or_files() {
        let s3 = S3 {
            bucket: "b$x".to_owned(),
            prefix: Some("/p/".to_owned()),
            endpoint: Some("http://minio:9000".to_owned()),
            credentials_secret: secret("keys"),
            ..S3::default()
        };
        let target = StoreTarget {
            s3: Some(s3),
            ..StoreTarget::default()
        };
        let found = access(&target, "backups/one", "backup");
        assert_eq!(
            Value::Object(found.config),
            json!({ "version": 1, "type": "s3", "sub": {
                "bucket": "b$$x", "path": "p/backups/one", "region": "us-east-1",
                "force_path_style": true, "endpoint": "http://minio:9000",
                "access_key_id": "${RQLITE_BACKUP_ACCESS_KEY_ID}",
                "secret_access_key": "${RQLITE_BACKUP_SECRET_ACCESS_KEY}",
            }})
        );
        let keys: Vec<_> = found.env.iter().map(|env| &env.value_from).collect();
        assert!(keys.iter().all(|from| from.is_some()) && keys.len() == 2);
        let target = StoreTarget {
            azure: Some(Azure {
                account: "a".to_owned(),
                container: "c".to_owned(),
                credentials_secret: secret("keys"),
                ..Azure::default()
            }),
            ..StoreTarget::default()
        };
        let found = access(&target, "", "archive");
        assert_eq!(
            found.config["sub"],
            json!({ "account": "a", "container": "c", "name": "",
                "access_key": "${RQLITE_ARCHIVE_ACCESS_KEY}" })
        );
        let target = StoreTarget {
            gcs: Some(Gcs {
                bucket: "bkt".to_owned(),
                credentials_secret: secret("keys"),
                ..Gcs::default()
            }),
            ..StoreTarget::default()
        };
        let found = access(&target, "x", "archive");
        assert_eq!(
            found.config["sub"]["credentials_path"],
            "/etc/rqlite/archive-credentials/credentials.json"
        );
        assert_eq!((found.volumes.len(), found.mounts.len()), (1, 1));
    }

    #[test]
    fn a_claim_is_mounted_and_workload_identity_needs_nothing() {
        let target = StoreTarget {
            volume: Some(VolumeTarget {
                claim_name: "nas".to_owned(),
                path: Some("demo".to_owned()),
            }),
            ..StoreTarget::default()
        };
        let found = access(&target, "", "archive");
        assert_eq!(
            found.config["sub"],
            json!({ "dir": "/var/lib/rqlite/archive-store", "name": "demo" })
        );
        assert_eq!(found.mounts[0].read_only, None);
        let target = StoreTarget {
            s3: Some(S3 {
                bucket: "bkt".to_owned(),
                ..S3::default()
            }),
            ..StoreTarget::default()
        };
        let found = access(&target, "", "archive");
        assert!(found.env.is_empty() && found.volumes.is_empty());
        assert_eq!(found.config["sub"]["force_path_style"], false);
    }
}
