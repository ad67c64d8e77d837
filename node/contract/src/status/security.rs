//! `security` of the reply: certificates and credentials in force. Absent in replies of earlier versions.
use serde::{Deserialize, Serialize};

/// `security`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityStatus {
    /// TLS of the HTTP API; absent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_tls: Option<TlsStatus>,
    /// TLS between nodes; absent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_tls: Option<TlsStatus>,
    /// Users.
    pub credentials: CredentialsStatus,
}

/// TLS of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsStatus {
    /// `accept`, `use` or `require`; only between nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The port also accepts connections without TLS; only of the HTTP API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
    /// SHA-256 of the certificate in use (DER), in hex.
    pub leaf_sha256: String,
    /// When it expires, RFC 3339.
    pub leaf_not_after: String,
    /// SHA-256 of each trusted CA certificate (DER), in hex.
    pub trusted_sha256: Vec<String>,
    /// When the files in force were read, RFC 3339.
    pub loaded_at: String,
    /// Why changed files were not taken; absent if none were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The credentials file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CredentialsStatus {
    /// Users are checked.
    pub enabled: bool,
    /// SHA-256 of the file in force, in hex; empty without users.
    pub file_sha256: String,
    /// When it was read, RFC 3339; empty without users.
    pub loaded_at: String,
    /// Why a changed file was not taken; absent if none was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
