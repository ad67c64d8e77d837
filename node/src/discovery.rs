//! Discovery of other nodes: their addresses (DNS), or the leader (a key in Consul or etcd).
//!
//! This module only looks them up; `cluster` decides what to do with the result. Reading order: this file →
//! `found` (results) → `setting` (the text of `-disco-config`) → `dns` → `key` with `consul` and `etcd` →
//! `http` and `tls`, which those two share. DESIGN.md describes limits, caching and the differences from
//! rqlite.
use serde_json::Value;

use crate::config::DiscoMode;

mod consul;
mod dns;
mod etcd;
mod found;
mod http;
mod key;
mod setting;
mod tls;

pub use dns::AddressLookup;
pub use found::{Found, LeaderRecord, LookupError, VersionedRecord};
pub use key::LeaderKey;

/// How other nodes are discovered.
#[derive(Clone, Debug)]
pub enum Discovery {
    /// Addresses of nodes: modes `dns` and `dns-srv`.
    Addresses(AddressLookup),
    /// The leader: modes `consul-kv` and `etcd-kv`.
    LeaderKey(LeaderKey),
}

/// An invalid `-disco-config`. The text holds no secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DiscoveryError(String);

impl Discovery {
    /// Reads the configuration without looking anything up. `config_text` is `-disco-config`: JSON, or the
    /// path of a file with it; empty for the defaults. `key` is `-disco-key`; `raft_port` is the port of the
    /// bind address `-raft-addr`.
    ///
    /// # Errors
    /// The text names the invalid field and what is expected.
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

    /// As [`Self::open`], with these environment variables.
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

    /// The part `disco` of `/status`.
    pub fn status(&self) -> Value {
        match self {
            Self::Addresses(lookup) => lookup.status(),
            Self::LeaderKey(key) => key.status(),
        }
    }
}

#[cfg(test)]
mod tests;
