//! Where backups and archives are kept: an object store, or a volume. One type for all kinds. Descriptions
//! are short: they are repeated wherever a target is.
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Where objects are kept: exactly one of s3, gcs, azure and volume.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(has(self.s3) ? 1 : 0) + (has(self.gcs) ? 1 : 0) + (has(self.azure) ? 1 : 0) + (has(self.volume) ? 1 : 0) == 1").message("a target is one place: give exactly one of s3, gcs, azure and volume"))]
#[x_kube(validation = Rule::new("[has(self.s3) && has(self.s3.prefix) ? self.s3.prefix : '', has(self.gcs) && has(self.gcs.prefix) ? self.gcs.prefix : '', has(self.azure) && has(self.azure.prefix) ? self.azure.prefix : ''].all(p, !p.matches('(^|/)[.]{1,2}(/|$)|//|[[:cntrl:]]'))").message("a prefix is a path of names separated by '/': write it without '.', '..', empty parts and control characters"))]
pub struct StoreTarget {
    /// S3, or a store that speaks its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// Google Cloud Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<Gcs>,
    /// Azure Blob Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<Azure>,
    /// A volume claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeTarget>,
}

/// A bucket of S3.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// The bucket.
    #[schemars(
        length(min = 3, max = 255),
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    )]
    pub bucket: String,
    /// Prefix of all objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub prefix: Option<String>,
    /// URL of a store other than Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^https?://[^@\s]+$"))]
    pub endpoint: Option<String>,
    /// Region. Defaults to us-east-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub region: Option<String>,
    /// The bucket in the path, not in the host name; most other stores need it. Defaults to true with an
    /// endpoint, else false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// Secret with the keys access-key-id and secret-access-key. Without it: workload identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<SecretName>,
}

/// A bucket of Google Cloud Storage.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gcs {
    /// The bucket.
    #[schemars(
        length(min = 3, max = 255),
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    )]
    pub bucket: String,
    /// Prefix of all objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub prefix: Option<String>,
    /// URL of a store other than Google's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^https?://[^@\s]+$"))]
    pub endpoint: Option<String>,
    /// Secret with the key credentials.json. Without it: workload identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<SecretName>,
}

/// A container of Azure Blob Storage.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Azure {
    /// The storage account.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9-]+$"))]
    pub account: String,
    /// The container.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[$a-z0-9-]+$"))]
    pub container: String,
    /// Prefix of all objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub prefix: Option<String>,
    /// URL of a store other than Azure's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^https?://[^@\s]+$"))]
    pub endpoint: Option<String>,
    /// Secret with the key access-key. Without it: workload identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<SecretName>,
}

/// A volume claim in the cluster's namespace, which every pod that uses it must be able to mount
/// (ReadWriteMany, unless all run on one machine).
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeTarget {
    /// Name of the PersistentVolumeClaim; all pods that use it must be able to mount it.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    )]
    pub claim_name: String,
    /// Directory in it. Defaults to its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')").message("volume.path is a directory within the claim: write it without a leading '/' and without '..'"))]
    pub path: Option<String>,
}

/// A Secret in the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretName {
    /// Its name.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// An object of the same namespace by name.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectName {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl StoreTarget {
    /// The Secret with its credentials.
    pub fn credentials(&self) -> Option<&str> {
        let s3 = self.s3.as_ref().and_then(|s| s.credentials_secret.as_ref());
        let gcs = self
            .gcs
            .as_ref()
            .and_then(|s| s.credentials_secret.as_ref());
        let azure = self
            .azure
            .as_ref()
            .and_then(|s| s.credentials_secret.as_ref());
        s3.or(gcs).or(azure).map(|secret| secret.name.as_str())
    }

    /// Where it is, for people: `s3://bucket/prefix`.
    pub fn uri(&self) -> String {
        let join = |scheme: &str, place: &str, prefix: Option<&String>| {
            let prefix = prefix.map(|p| p.trim_matches('/')).unwrap_or_default();
            let slash = if prefix.is_empty() { "" } else { "/" };
            format!("{scheme}://{place}{slash}{prefix}")
        };
        if let Some(s3) = &self.s3 {
            return join("s3", &s3.bucket, s3.prefix.as_ref());
        }
        if let Some(gcs) = &self.gcs {
            return join("gs", &gcs.bucket, gcs.prefix.as_ref());
        }
        if let Some(azure) = &self.azure {
            let place = format!("{}/{}", azure.account, azure.container);
            return join("azure", &place, azure.prefix.as_ref());
        }
        let volume = self.volume.clone().unwrap_or_default();
        join("volume", &volume.claim_name, volume.path.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_as_text() {
        let s3 = S3 {
            bucket: "b".to_owned(),
            prefix: Some("/a/b/".to_owned()),
            credentials_secret: Some(SecretName {
                name: "keys".to_owned(),
            }),
            ..S3::default()
        };
        let target = StoreTarget {
            s3: Some(s3),
            ..StoreTarget::default()
        };
        assert_eq!(target.uri(), "s3://b/a/b");
        assert_eq!(target.credentials(), Some("keys"));
        let target = StoreTarget {
            volume: Some(VolumeTarget {
                claim_name: "c".to_owned(),
                path: None,
            }),
            ..StoreTarget::default()
        };
        assert_eq!(
            (target.uri().as_str(), target.credentials()),
            ("volume://c", None)
        );
    }
}
