//! Results of a lookup: addresses, the leader's record, or an error.
use serde::{Deserialize, Serialize};

/// A lookup failed; the next one may succeed. The text holds no secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LookupError(pub(super) String);

/// Addresses of other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// `host:port`, distinct and sorted; IPv6 in brackets.
    pub addresses: Vec<String>,
    /// The least number of distinct nodes that these addresses can belong to: a node may have an address in
    /// each address family.
    pub nodes: usize,
}

/// The value of the leader's key. The first three fields are rqlite's. The others let a node recognize its
/// cluster, and its own record from before it lost its data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// Node id (`-node-id`).
    pub id: String,
    /// URL of the HTTP API.
    pub api_addr: String,
    /// Advertised Raft address.
    pub addr: String,
    /// Raft id, which identifies one data directory; empty if written by rqlite.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub raft_id: String,
    /// Cluster id; empty in a claim and if written by rqlite.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_id: String,
}

/// The content of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedRecord {
    /// The leader, or the node that claims to become it.
    pub record: LeaderRecord,
    /// Consul's ModifyIndex or etcd's mod_revision, for [`super::LeaderKey::replace`].
    pub version: u64,
}

/// A value with its version in Consul or etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Versioned {
    pub(super) bytes: Vec<u8>,
    pub(super) version: u64,
}

/// The key of a cluster without slashes at its ends.
pub(super) fn key_of(disco_key: &str) -> Result<&str, String> {
    let key = disco_key.trim_matches('/');
    if key.is_empty() || key.split('/').any(str::is_empty) {
        return Err(format!(
            "-disco-key \"{disco_key}\" is not a name; give each cluster one, such as \"rqlite\""
        ));
    }
    Ok(key)
}
