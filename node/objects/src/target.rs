//! The target of a configuration (`type` and `sub`): where objects are kept, as a checked value.
use std::{fmt, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    json::{ConfigError, Use, from_value},
    secret::Secret,
};

/// A place for one object, or for all objects below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Amazon S3 and compatible stores.
    S3(S3),
    /// Google Cloud Storage.
    Gcs(Gcs),
    /// Azure Blob Storage.
    Azure(Azure),
    /// A folder.
    File(Folder),
}

/// `sub` of type `s3`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3 {
    /// Region. Most S3-compatible stores accept any. Defaults to `us-east-1`.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// The object's key, or the prefix.
    #[serde(alias = "prefix")]
    pub path: String,
    /// Access key. Without it, AWS's default credential chain is used.
    pub access_key_id: String,
    /// Secret key.
    pub secret_access_key: Secret,
    /// Session token of temporary credentials.
    pub session_token: Secret,
    /// Address of an S3-compatible store; `https` if no scheme is given.
    pub endpoint: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub force_path_style: bool,
    /// PEM file of the certificate authorities that are trusted for the endpoint, instead of the system's.
    pub ca_file: String,
}

/// `sub` of type `gcs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gcs {
    /// The bucket.
    pub bucket: String,
    /// The object's name, or the prefix.
    #[serde(alias = "path", alias = "prefix")]
    pub name: String,
    /// The project. Not needed, and accepted for compatibility with rqlite.
    pub project_id: String,
    /// JSON file of a service account. Without it, Google's default credentials are used.
    pub credentials_path: String,
    /// Address to use instead of Google's, for an emulator.
    pub endpoint: String,
    /// See [`S3::ca_file`].
    pub ca_file: String,
}

/// `sub` of type `azure`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Azure {
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
    /// The blob's name, or the prefix.
    #[serde(alias = "path", alias = "prefix")]
    pub name: String,
    /// The account's key. With neither key nor SAS token, Azure's default credential chain is used.
    pub access_key: Secret,
    /// A shared access signature (`sv=…&sig=…`).
    pub sas_token: Secret,
    /// The account's URL instead of `https://ACCOUNT.blob.core.windows.net`.
    pub endpoint: String,
    /// See [`S3::ca_file`].
    pub ca_file: String,
}

/// `sub` of type `file`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Folder {
    /// The folder; absolute. The first write creates it.
    pub dir: PathBuf,
    /// Name of the file in it, or the prefix.
    #[serde(alias = "file", alias = "path", alias = "prefix")]
    pub name: String,
}

impl Target {
    /// Reads `type` and `sub`.
    ///
    /// # Errors
    /// A key is missing, unknown or invalid; the text names it and says what to change.
    pub fn from_json(kind: &str, sub: Value, used_for: Use) -> Result<Self, ConfigError> {
        let target = match kind {
            "s3" => Self::S3(from_value(sub, "sub")?),
            "gcs" => Self::Gcs(from_value(sub, "sub")?),
            "azure" => Self::Azure(from_value(sub, "sub")?),
            "file" => Self::File(from_value(sub, "sub")?),
            other => {
                return Err(ConfigError(format!(
                    "unsupported storage type '{other}': expected s3, gcs, azure or file"
                )));
            }
        };
        target.check(used_for)?;
        Ok(target)
    }

    fn check(&self, used_for: Use) -> Result<(), ConfigError> {
        let required: &[(&str, &str)] = match self {
            Self::S3(s3) => &[("bucket", &s3.bucket)],
            Self::Gcs(gcs) => &[("bucket", &gcs.bucket)],
            Self::Azure(azure) => &[("account", &azure.account), ("container", &azure.container)],
            Self::File(folder) => {
                if !folder.dir.is_absolute() {
                    return Err(ConfigError(format!(
                        "sub.dir: '{}' must be an absolute path",
                        folder.dir.display()
                    )));
                }
                &[]
            }
        };
        for (key, value) in required {
            if value.is_empty() {
                return Err(ConfigError(format!("sub.{key} is missing or empty")));
            }
            if value.contains('/') {
                return Err(ConfigError(format!(
                    "sub.{key}: '{value}' must not contain '/'"
                )));
            }
        }
        self.check_credentials()?;
        self.check_path(used_for)
    }

    fn check_credentials(&self) -> Result<(), ConfigError> {
        let both = match self {
            Self::S3(s3) => s3.access_key_id.is_empty() != s3.secret_access_key.is_empty(),
            Self::Azure(azure) => !azure.access_key.is_empty() && !azure.sas_token.is_empty(),
            Self::Gcs(_) | Self::File(_) => false,
        };
        match self {
            _ if !both => Ok(()),
            Self::Azure(_) => Err(ConfigError(
                "sub: give access_key or sas_token, not both".into(),
            )),
            _ => Err(ConfigError(
                "sub: access_key_id and secret_access_key must be given together, or neither (AWS's default chain)"
                    .into(),
            )),
        }
    }

    fn check_path(&self, used_for: Use) -> Result<(), ConfigError> {
        let (key, path) = (self.path_key(), self.path());
        let refuse = |why: &str| Err(ConfigError(format!("sub.{key}: '{path}' {why}")));
        if path.split('/').any(|part| part == "." || part == "..") {
            return refuse("must not contain '.' or '..' as a part");
        }
        if path.trim_matches('/').contains("//") {
            return refuse("must not have an empty part ('//')");
        }
        if path.chars().any(char::is_control) {
            return refuse("contains a control character");
        }
        if used_for == Use::Prefix {
            return Ok(());
        }
        if path.trim_matches('/').is_empty() {
            return Err(ConfigError(format!(
                "sub.{key} is missing or empty: the name of the object"
            )));
        }
        if path.ends_with('/') {
            return refuse("names a folder: add the object's name");
        }
        if matches!(self, Self::File(_)) && path.contains('/') {
            return refuse("must be a plain file name; folders belong into dir");
        }
        Ok(())
    }

    fn path_key(&self) -> &'static str {
        match self {
            Self::S3(_) => "path",
            Self::Gcs(_) | Self::Azure(_) | Self::File(_) => "name",
        }
    }

    /// The object's whole name, or the prefix, as given.
    pub fn path(&self) -> &str {
        match self {
            Self::S3(s3) => &s3.path,
            Self::Gcs(gcs) => &gcs.name,
            Self::Azure(azure) => &azure.name,
            Self::File(folder) => &folder.name,
        }
    }

    /// The prefix above the object and its last segment: `a/b/c` is (`a/b`, `c`).
    pub fn folder_and_name(&self) -> (&str, &str) {
        let path = self.path().trim_matches('/');
        path.rsplit_once('/').unwrap_or(("", path))
    }

    /// The name of a metadata key at this target: Azure does not allow hyphens.
    pub fn metadata_key(&self, name: &str) -> String {
        match self {
            Self::S3(_) => format!("x-{name}"),
            Self::Azure(_) => name.replace('-', "_"),
            Self::Gcs(_) | Self::File(_) => name.to_owned(),
        }
    }

    /// `s3`, `gcs`, `azure` or `file`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::S3(_) => "s3",
            Self::Gcs(_) => "gcs",
            Self::Azure(_) => "azure",
            Self::File(_) => "file",
        }
    }
}

/// Without secrets (rqlite's texts): `s3://bucket/path`, `gs://bucket/name`,
/// `azure://account/container/name`, `dir:…, file:…`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path();
        match self {
            Self::S3(s3) => write!(f, "s3://{}/{path}", s3.bucket),
            Self::Gcs(gcs) => write!(f, "gs://{}/{path}", gcs.bucket),
            Self::Azure(azure) => write!(f, "azure://{}/{}/{path}", azure.account, azure.container),
            Self::File(folder) => write!(f, "dir:{}, file:{path}", folder.dir.display()),
        }
    }
}

#[cfg(test)]
mod tests;
