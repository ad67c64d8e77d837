//! Finding the other nodes: which addresses to ask (DNS), or which node leads (a key in Consul or etcd).
//!
//! This room looks up and reports; what a node does about an answer is decided in `cluster`. Reading order: this file → `setting`
//! (the text of `-disco-config`) → `dns` → `key`, with `consul` and `etcd` behind it → `http` and `tls`, which both share.
//! DESIGN.md tells limits, caching and what differs from rqlite.
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::DiscoMode;

mod consul;
mod dns;
mod etcd;
mod http;
mod key;
mod setting;
mod tls;

pub use dns::AddressLookup;
pub use key::LeaderKey;

/// How other nodes are found.
#[derive(Clone, Debug)]
pub enum Discovery {
    /// Whom to ask: `dns` and `dns-srv`.
    Addresses(AddressLookup),
    /// Who leads: `consul-kv` and `etcd-kv`.
    LeaderKey(LeaderKey),
}

/// A `-disco-config` that cannot be followed. Holds no secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DiscoveryError(String);

/// Nothing was found out this time; the next round may succeed. Holds no secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LookupError(String);

/// One answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// `host:port`, distinct, sorted; IPv6 in brackets.
    pub addresses: Vec<String>,
    /// How many distinct nodes they can be at least believed to be: an address family each may list the same nodes.
    pub nodes: usize,
}

/// The value of the leader's key. The first three fields are rqlite's; the others let a node recognise its own former self and its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// Node id (`-node-id`).
    pub id: String,
    /// URL of the HTTP API.
    pub api_addr: String,
    /// Advertised Raft address.
    pub addr: String,
    /// Raft id, which is that of one data directory; empty if written by rqlite.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub raft_id: String,
    /// Cluster id; empty in a claim and if written by rqlite.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_id: String,
}

/// What the key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The leader, or who claims to become it.
    pub record: LeaderRecord,
    /// Consul's ModifyIndex, etcd's mod_revision: for [`LeaderKey::replace`].
    pub version: u64,
}

impl Discovery {
    /// Reads the configuration; asks nobody yet. `config_text` is `-disco-config`: JSON or the path of a file with it, empty for the
    /// defaults; `key` is `-disco-key`; `raft_port` is the port of the bind address `-raft-addr`.
    ///
    /// # Errors
    /// Names the field that is wrong and what it should be.
    pub fn open(
        mode: DiscoMode,
        config_text: &str,
        key: &str,
        raft_port: u16,
    ) -> Result<Self, DiscoveryError> {
        Self::open_with(mode, config_text, key, raft_port, &|name| {
            std::env::var(name).ok()
        })
    }

    /// [`Self::open`] in a given environment.
    fn open_with(
        mode: DiscoMode,
        config_text: &str,
        key: &str,
        raft_port: u16,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, DiscoveryError> {
        let store = match mode {
            DiscoMode::Dns | DiscoMode::DnsSrv => "DNS",
            DiscoMode::ConsulKv => "Consul",
            DiscoMode::EtcdKv => "etcd",
        };
        setting::read(config_text, environment)
            .and_then(|text| match mode {
                DiscoMode::Dns => dns::open(&text, raft_port, environment).map(Self::Addresses),
                DiscoMode::DnsSrv => dns::open_srv(&text).map(Self::Addresses),
                DiscoMode::ConsulKv => consul::open(&text, key)
                    .map(|consul| Self::LeaderKey(LeaderKey::consul(consul))),
                DiscoMode::EtcdKv => {
                    etcd::open(&text, key).map(|etcd| Self::LeaderKey(LeaderKey::etcd(etcd)))
                }
            })
            .map_err(|e| DiscoveryError(format!("error reading {store} configuration: {e}")))
    }

    /// What `/status` shows under `disco`.
    pub fn status(&self) -> Value {
        match self {
            Self::Addresses(lookup) => lookup.status(),
            Self::LeaderKey(key) => key.status(),
        }
    }
}

#[cfg(test)]
mod tests;
