//! The key that names the leader, in Consul or etcd, and its part of `/status`.
use std::{sync::Arc, time::SystemTime};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    consul::Consul,
    etcd::Etcd,
    found::{LeaderRecord, LookupError, Versioned, VersionedRecord},
};
use crate::clock::{NEVER, rfc3339};

/// Intervals that rqlite shows in `/status`. They are shown for clients that read them, and have no other
/// effect.
const REGISTER_INTERVAL_NANOS: u64 = 3_000_000_000;
const REPORT_INTERVAL_NANOS: u64 = 10_000_000_000;

/// Reads and writes the key. Cheap to clone; clones share connections and the values for `/status`.
#[derive(Clone, Debug)]
pub struct LeaderKey(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    name: String,
    last: Mutex<Last>,
}

#[derive(Debug)]
enum Store {
    Consul(Consul),
    Etcd(Etcd),
}

#[derive(Debug, Default)]
struct Last {
    contact: Option<SystemTime>,
    error: Option<String>,
}

impl LeaderKey {
    pub(super) fn consul(consul: Consul) -> Self {
        let name = format!("consul-kv {}", consul.key());
        Self::new(Store::Consul(consul), name)
    }

    pub(super) fn etcd(etcd: Etcd) -> Self {
        let name = format!("etcd-kv {}", etcd.key());
        Self::new(Store::Etcd(etcd), name)
    }

    fn new(store: Store, name: String) -> Self {
        Self(Arc::new(Inner {
            store,
            name,
            last: Mutex::default(),
        }))
    }

    /// The mode and the key, for logs.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Reads the key from a quorum of Consul or etcd. `None` if it is absent.
    ///
    /// # Errors
    /// The store does not respond or refuses, or the value is not a leader record.
    pub async fn read(&self) -> Result<Option<VersionedRecord>, LookupError> {
        let result = match &self.0.store {
            Store::Consul(consul) => consul.read().await,
            Store::Etcd(etcd) => etcd.read().await,
        };
        self.note(result.and_then(|value| value.map(|value| self.held(&value)).transpose()))
    }

    /// Writes the key if it is absent, atomically. False if it exists, possibly because an earlier attempt
    /// whose response was lost has written it: read it then.
    ///
    /// # Errors
    /// The store does not respond or refuses; the key may have been written.
    pub async fn create(&self, record: &LeaderRecord) -> Result<bool, LookupError> {
        self.write(record, 0).await
    }

    /// Writes the key if its version still is [`VersionedRecord::version`], atomically. False as with
    /// [`Self::create`].
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn replace(&self, record: &LeaderRecord, version: u64) -> Result<bool, LookupError> {
        self.write(record, version).await
    }

    /// In both stores, version 0 means that the key is absent.
    async fn write(&self, record: &LeaderRecord, version: u64) -> Result<bool, LookupError> {
        let value = serde_json::to_vec(record).map_err(|e| LookupError(e.to_string()))?;
        let result = match &self.0.store {
            Store::Consul(consul) => consul.write(value, version).await,
            Store::Etcd(etcd) => etcd.write(&value, version).await,
        };
        self.note(result)
    }

    fn held(&self, value: &Versioned) -> Result<VersionedRecord, String> {
        let record: LeaderRecord = serde_json::from_slice(&value.bytes).map_err(|e| {
            format!(
                "the key {} holds something else than a leader ({e}); give this cluster a -disco-key of its own, or delete the key",
                self.0.name
            )
        })?;
        if record.addr.is_empty() {
            return Err(format!(
                "the key {} names a leader without address; delete the key",
                self.0.name
            ));
        }
        Ok(VersionedRecord {
            record,
            version: value.version,
        })
    }

    fn note<T>(&self, result: Result<T, String>) -> Result<T, LookupError> {
        let mut last = self.0.last.lock();
        match &result {
            Ok(_) => {
                last.contact = Some(crate::clock::now());
                last.error = None;
            }
            Err(e) => last.error = Some(e.clone()),
        }
        result.map_err(LookupError)
    }

    /// The part `disco` of `/status`.
    pub fn status(&self) -> Value {
        let mode = match &self.0.store {
            Store::Consul(_) => "consul-kv",
            Store::Etcd(_) => "etcd-kv",
        };
        let last = self.0.last.lock();
        let mut shown = json!({
            "mode": mode,
            "register_interval": REGISTER_INTERVAL_NANOS,
            "report_interval": REPORT_INTERVAL_NANOS,
            "last_contact": last.contact.map_or_else(|| NEVER.to_owned(), rfc3339),
        });
        if let Some(error) = &last.error {
            shown["last_error"] = error.as_str().into();
        }
        shown
    }
}
