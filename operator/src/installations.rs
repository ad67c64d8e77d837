//! Other installations of the operator: which of their Leases are still renewed, and which clusters they
//! manage. [`manager::decide`] decides; this module reads and remembers.
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, ResourceExt};
use operator_api::RqliteCluster;
use parking_lot::Mutex;

use crate::cluster::{
    deciders::manager::{self, Manager, RecordedLease},
    facts::observation::OperatorFacts,
};

/// A Lease is read at most this often, however many clusters its holder manages.
const READ_EVERY: Duration = Duration::from_secs(10);
/// Timeout of reading a Lease.
const READ_TIMEOUT: Duration = Duration::from_secs(4);
/// How long this installation does not touch a cluster after an older operator has overwritten its record.
const STAND_BACK: Duration = Duration::from_secs(600);

/// The observed state of other installations.
pub struct Installations {
    client: Client,
    leases: Mutex<HashMap<String, Seen>>,
    clusters: Mutex<HashMap<String, Recorded>>,
}

impl std::fmt::Debug for Installations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installations").finish_non_exhaustive()
    }
}

/// What was seen of one cluster, by uid.
#[derive(Clone, Debug, Default)]
struct Recorded {
    /// The record of this installation was read back from the status.
    ours: bool,
    /// When it was found to be overwritten.
    overwritten: Option<Instant>,
    /// What was logged last.
    logged: String,
}

/// A Lease as last read: by its version; None if it does not exist.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    version: Option<String>,
    readable: bool,
    since: Instant,
    read: Instant,
}

impl Installations {
    /// Nothing is known yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            leases: Mutex::default(),
            clusters: Mutex::default(),
        }
    }

    /// Who manages this cluster, which was just read.
    pub async fn manager(&self, cluster: &RqliteCluster, us: &OperatorFacts) -> Manager {
        let overwritten = self.overwritten(cluster, us, Instant::now());
        let lease = match manager::recorded(cluster, us) {
            Some(installation) => self.lease(installation).await,
            None => RecordedLease::Unknown,
        };
        let decided = manager::decide(cluster, us, lease, overwritten);
        self.log(cluster, &decided);
        decided
    }

    /// Removes the record about a deleted cluster.
    pub fn forget(&self, uid: &str) {
        let mut clusters = self.clusters.lock();
        clusters.remove(uid);
    }

    /// Was the record of this installation removed by an operator that does not know it?
    fn overwritten(&self, cluster: &RqliteCluster, us: &OperatorFacts, now: Instant) -> bool {
        let mut clusters = self.clusters.lock();
        let known = clusters
            .entry(cluster.uid().unwrap_or_default())
            .or_default();
        let status = cluster.status.clone().unwrap_or_default();
        match &status.managed_by {
            Some(record) => known.ours = record.installation == us.installation,
            // An empty status was written by a person; an operator writes its version.
            None if known.ours && status.operator_version.is_some() => {
                known.ours = false;
                known.overwritten = Some(now);
            }
            None => {}
        }
        let at = known.overwritten;
        at.is_some_and(|at| now.saturating_duration_since(at) < STAND_BACK)
    }

    /// Logs a change of who manages a cluster, once.
    fn log(&self, cluster: &RqliteCluster, decided: &Manager) {
        let text = match decided {
            Manager::Us => String::new(),
            Manager::OtherClass => format!("left alone: its class is {}", manager::class(cluster)),
            Manager::Other(text) => format!("left alone: {text}"),
        };
        let mut clusters = self.clusters.lock();
        let known = clusters
            .entry(cluster.uid().unwrap_or_default())
            .or_default();
        if known.logged != text {
            let of = cluster.namespace().unwrap_or_default();
            let name = cluster.name_any();
            match decided {
                Manager::Us => tracing::info!("RqliteCluster {of}/{name} is managed from now on"),
                Manager::OtherClass => tracing::debug!("RqliteCluster {of}/{name} is {text}"),
                Manager::Other(_) => tracing::warn!("RqliteCluster {of}/{name} is {text}"),
            }
            known.logged = text;
        }
    }

    /// Reads the Lease of an installation, `<namespace>/<name>`.
    async fn lease(&self, installation: &str) -> RecordedLease {
        let now = Instant::now();
        let before = self.leases.lock().get(installation).cloned();
        let recent = before
            .as_ref()
            .filter(|seen| now.saturating_duration_since(seen.read) < READ_EVERY);
        if let Some(seen) = recent {
            return seen.means(now);
        }
        let Some((namespace, name)) = installation.split_once('/') else {
            return RecordedLease::Unknown;
        };
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let answer = tokio::time::timeout(READ_TIMEOUT, api.get_opt(name)).await;
        let read = answer.ok().and_then(|answer| match answer {
            Ok(lease) => Some(lease.and_then(|lease| lease.resource_version())),
            Err(error) => {
                tracing::debug!(installation, "reading its Lease: {error}");
                None
            }
        });
        let seen = Seen::next(before, read, now);
        let means = seen.means(now);
        self.leases.lock().insert(installation.to_owned(), seen);
        means
    }
}

impl Seen {
    /// What is known after a read: the version of the Lease, if it exists; None if it could not be read.
    fn next(before: Option<Self>, read: Option<Option<String>>, now: Instant) -> Self {
        let readable = read.is_some();
        let version = read.flatten();
        let same = before.filter(|old| old.readable == readable && old.version == version);
        Self {
            version,
            readable,
            since: same.map_or(now, |old| old.since),
            read: now,
        }
    }

    fn means(&self, now: Instant) -> RecordedLease {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        match (self.readable, &self.version) {
            (false, _) => RecordedLease::Unknown,
            (true, Some(_)) => RecordedLease::Unchanged(seconds),
            (true, None) => RecordedLease::Gone(seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_from_the_last_change() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let version = |text: &str| Some(Some(text.to_owned()));
        let steps = [
            (version("1"), 0, RecordedLease::Unchanged(0)),
            (version("1"), 20, RecordedLease::Unchanged(20)),
            (version("2"), 30, RecordedLease::Unchanged(0)),
            (None, 40, RecordedLease::Unknown),
            // What happened in between is not known.
            (version("2"), 50, RecordedLease::Unchanged(0)),
            (Some(None), 60, RecordedLease::Gone(0)),
            (Some(None), 130, RecordedLease::Gone(70)),
            (version("3"), 140, RecordedLease::Unchanged(0)),
        ];
        let mut seen = None;
        for (read, seconds, expected) in steps {
            let next = Seen::next(seen, read.clone(), at(seconds));
            assert_eq!(next.means(at(seconds)), expected, "{read:?} at {seconds}");
            seen = Some(next);
        }
    }
}
