//! The Secrets of a cluster, as plain values: which are read, to whom they belong, and their contents. The
//! contents are never printed or stored.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator_api::{
    RqliteCluster,
    cluster::CertificateSource,
    names,
    status::{TlsMode, TlsStage},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cluster::facts::users;

/// Keys and values of a Secret.
pub type Contents = BTreeMap<String, SecretBytes>;

/// One value of a Secret. Neither printed nor serialized: a stored observation only says that there is one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Wraps bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are text.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// SHA-256 of the bytes, in hexadecimal: what nodes report of the files that they use.
    pub fn sha256(&self) -> String {
        let digest = Sha256::digest(&self.0);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Is it empty?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} secret bytes)", self.0.len())
    }
}

/// Serializes the keys of a Secret without their values.
mod keys_only {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::SecretBytes;

    pub(super) fn serialize<S: Serializer>(
        data: &BTreeMap<String, SecretBytes>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let keys: Vec<&String> = data.keys().collect();
        keys.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, SecretBytes>, D::Error> {
        let keys = Vec::<String>::deserialize(deserializer)?;
        let empty = keys.into_iter().map(|key| (key, SecretBytes::default()));
        Ok(empty.collect())
    }
}

/// To whom a Secret belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum SecretOwner {
    /// This cluster's, by the uid in its controller reference.
    Ours,
    /// A person offers it to this cluster.
    Offered,
    /// Not this cluster's: it is never changed. Its contents are kept only if the spec names it.
    Other {
        /// Kind and name of its controller, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
        /// Is that a former cluster of the same name?
        #[serde(default)]
        former: bool,
    },
}

/// A Secret that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedSecret {
    /// Its uid.
    pub uid: String,
    /// Its version: changes are bound to it.
    pub resource_version: String,
    /// Its type.
    #[serde(default)]
    pub secret_type: String,
    /// To whom it belongs.
    pub owner: SecretOwner,
    /// Is it immutable, so that it can only be deleted?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
    /// Has its deletion begun?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Those of its annotations that are the operator's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// When the operator last changed its contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Time>,
    /// Its contents; of a Secret that is not the cluster's only if the spec names it.
    #[serde(default, with = "keys_only", rename = "keys")]
    pub data: BTreeMap<String, SecretBytes>,
}

impl ObservedSecret {
    /// Is it this cluster's?
    pub fn is_ours(&self) -> bool {
        self.owner == SecretOwner::Ours
    }

    /// The value of a key; None if it is missing or empty.
    pub fn get(&self, key: &str) -> Option<&SecretBytes> {
        self.data.get(key).filter(|value| !value.is_empty())
    }
}

/// Names of the Secrets to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretNames {
    /// Names of the cluster's own.
    pub own: BTreeSet<String>,
    /// Names of those that the spec names and a person maintains.
    pub given: BTreeSet<String>,
}

impl SecretNames {
    /// All names.
    pub fn all(&self) -> BTreeSet<&String> {
        self.own.iter().chain(&self.given).collect()
    }
}

/// The Secrets to read: those that the cluster has or will have, and those that its spec names. Empty for a
/// cluster that uses no Secrets.
pub fn names(cluster: &RqliteCluster) -> SecretNames {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let mut all = SecretNames::default();
    let uses_users = users::uses_secrets(cluster);
    if uses_users {
        let users = users::connections(cluster).into_iter();
        all.own.extend(users.map(|user| user.secret_name));
        all.given.extend(users::given_secrets(cluster));
    }
    if uses_users || uses_secrets(cluster) {
        all.own.extend([
            names::authority_secret(name),
            names::node_tls_secret(name),
            names::http_tls_secret(name),
            names::users_secret(name),
            names::operator_secret(name),
            names::backup_secret(name),
            names::backup_tls_secret(name),
        ]);
    }
    all.given.extend(sources(cluster));
    all
}

/// Does the cluster use Secrets, or has it used some?
fn uses_secrets(cluster: &RqliteCluster) -> bool {
    has_certificates(cluster)
}

/// Has the cluster certificates, or will it get some? A new one does by default.
fn has_certificates(cluster: &RqliteCluster) -> bool {
    let status = cluster.status.as_ref();
    if status.is_none_or(|status| status.cluster_id.is_none()) || cluster.spec.tls.is_some() {
        return true;
    }
    let tls = status.and_then(|status| status.tls.as_ref());
    let sides = tls.into_iter().flat_map(|tls| [&tls.nodes, &tls.clients]);
    sides.into_iter().any(|side| {
        let is_used = side.mode != TlsMode::Disabled || side.stage != TlsStage::Plain;
        is_used || side.certificate.is_some()
    })
}

/// Names of the Secrets that certificates are copied from.
fn sources(cluster: &RqliteCluster) -> Vec<String> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let tls = cluster.spec.tls.clone().unwrap_or_default();
    let nodes = tls.nodes.and_then(|nodes| nodes.certificate);
    let clients = tls.clients.and_then(|clients| clients.certificate);
    let named = |source: Option<CertificateSource>, copy: String| {
        let source = source?;
        let issued = source.issuer_ref.map(|_| names::issued_secret(&copy));
        source.secret_name.or(issued)
    };
    let nodes = named(nodes, names::node_tls_secret(name));
    let clients = named(clients, names::http_tls_secret(name));
    nodes.into_iter().chain(clients).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_neither_printed_nor_stored() {
        let secret = ObservedSecret {
            uid: "u".to_owned(),
            resource_version: "1".to_owned(),
            secret_type: "Opaque".to_owned(),
            owner: SecretOwner::Ours,
            immutable: false,
            deleting: false,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            changed_at: None,
            data: [("password".to_owned(), SecretBytes::new(*b"hunter2"))].into(),
        };
        let stored = serde_json::to_string(&secret).unwrap();
        for shown in [format!("{secret:?}"), stored.clone()] {
            let shows = shown.contains("hunter2") || shown.contains("104");
            assert!(!shows && shown.contains("password"), "{shown}");
        }
        let read: ObservedSecret = serde_json::from_str(&stored).unwrap();
        assert_eq!(read.get("password"), None, "a key without a value");
        assert!(read.data.contains_key("password"));
        let sha = SecretBytes::new(*b"abc").sha256();
        assert!(sha.starts_with("ba7816bf") && sha.len() == 64, "{sha}");
    }
}
