//! Leader election among operators by a Lease. Only local monotonic times are compared, so clock skew between
//! machines does not matter (the algorithm of client-go's `leaderelection`).
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use operator_api::names;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{error::Error, metrics::Metrics};

/// A holder that has not renewed the Lease for this time has lost it.
const LEASE: Duration = Duration::from_secs(15);
/// Interval of renewals.
const RENEW: Duration = Duration::from_secs(5);
/// Wait after a failure, and between reads while another process holds the Lease.
const RETRY: Duration = Duration::from_secs(2);
/// Timeout of one request. Several attempts, with waits, fit into the rest of a Lease.
const REQUEST: Duration = Duration::from_secs(4);
/// Minimum remaining time of the Lease for starting an operation.
const MARGIN: Duration = Duration::from_secs(3);

/// Whether the Lease is held, and until when at least. Shared with all code that acts.
#[derive(Clone, Debug)]
pub struct LeaseGuard {
    until: Arc<Mutex<Option<Instant>>>,
    /// False if there can be only one operator, such as in tests.
    needed: bool,
}

impl LeaseGuard {
    /// A guard that always permits.
    pub fn always() -> Self {
        Self {
            until: Arc::default(),
            needed: false,
        }
    }

    /// Checks that an operation may be started.
    ///
    /// # Errors
    /// The Lease is not held, or expires too soon.
    pub fn check(&self) -> Result<(), Error> {
        let until = *self.until.lock();
        let safe = until.is_some_and(|until| Instant::now() + MARGIN < until);
        if safe || !self.needed {
            Ok(())
        } else {
            Err(Error::NotLeading)
        }
    }

    fn set(&self, until: Option<Instant>) {
        *self.until.lock() = until;
    }
}

/// This process's part in the election.
#[derive(Debug)]
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    guard: LeaseGuard,
    metrics: Metrics,
}

/// The observed Lease, and since when it has been unchanged.
#[derive(Clone, Debug, PartialEq)]
struct ObservedLease {
    version: Option<String>,
    holder: Option<String>,
    since: Instant,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextStep {
    /// The Lease does not exist.
    Create,
    /// It has no holder, or it has expired.
    Take,
    /// This process holds it.
    Renew,
    /// Another process holds it.
    Wait,
}

fn decide(observed: Option<&ObservedLease>, identity: &str, now: Instant) -> NextStep {
    match observed {
        None => NextStep::Create,
        Some(observed) => match observed.holder.as_deref() {
            None | Some("") => NextStep::Take,
            Some(holder) if holder == identity => NextStep::Renew,
            Some(_) if now.saturating_duration_since(observed.since) >= LEASE => NextStep::Take,
            Some(_) => NextStep::Wait,
        },
    }
}

impl Election {
    /// Election for the Lease of this name. `identity` must be unique among all processes, including former
    /// ones.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        metrics: Metrics,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            guard: LeaseGuard {
                until: Arc::default(),
                needed: true,
            },
            metrics,
        }
    }

    /// The guard for code that acts.
    pub fn guard(&self) -> LeaseGuard {
        self.guard.clone()
    }

    /// Waits until the Lease is acquired. Calls `standby` whenever another process holds it.
    pub async fn win(&mut self, standby: impl Fn()) {
        let mut observed = None;
        loop {
            match self.round(&mut observed).await {
                Ok(true) => return,
                Ok(false) => standby(),
                Err(error) => tracing::warn!(lease = self.name, "acquiring the Lease: {error}"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews the Lease until the stop signal, then releases it.
    ///
    /// # Errors
    /// The Lease is lost: this process must stop acting at once.
    pub async fn keep(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
        let mut observed = None;
        let mut pause = RENEW;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopped(&mut stop) => break,
            }
            match self.round(&mut observed).await {
                Ok(true) => pause = RENEW,
                Ok(false) => return self.lost("another process holds it"),
                Err(error) => {
                    tracing::warn!(lease = self.name, "renewing the Lease: {error}");
                    pause = RETRY;
                    if self.guard.check().is_err() {
                        return self.lost("it could not be renewed in time");
                    }
                }
            }
        }
        self.release().await;
        Ok(())
    }

    fn lost(&self, why: &str) -> Result<(), Error> {
        self.guard.set(None);
        self.metrics.leads(false);
        tracing::error!(lease = self.name, "the Lease is lost: {why}");
        Err(Error::NotLeading)
    }

    /// One read and at most one write. True if this process holds the Lease.
    async fn round(&self, observed: &mut Option<ObservedLease>) -> Result<bool, Error> {
        let doing = || Error::kubernetes(format!("Lease {}", self.name));
        // The Lease is counted from before the write; other processes cannot count from earlier.
        let begun = Instant::now();
        let limited = async {
            let live = self.api.get_opt(&self.name).await.map_err(doing())?;
            *observed = live
                .as_ref()
                .map(|lease| observe(lease, observed.as_ref(), begun));
            let next = match decide(observed.as_ref(), &self.identity, begun) {
                NextStep::Wait => return Ok(false),
                NextStep::Create => self.lease(None),
                NextStep::Take | NextStep::Renew => self.lease(live),
            };
            let written = match &next.metadata.resource_version {
                None => self.api.create(&params(), &next).await,
                Some(_) => self.api.replace(&self.name, &params(), &next).await,
            };
            match written {
                Ok(_) => Ok(true),
                // Another process was faster; the next read shows which.
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    Err(Error::Changed(format!("Lease {}", self.name)))
                }
                Err(error) => Err(doing()(error)),
            }
        };
        let ours = tokio::time::timeout(REQUEST, limited)
            .await
            .unwrap_or(Err(Error::TooLong(REQUEST)))?;
        if ours {
            if self.guard.until.lock().is_none() {
                tracing::info!(
                    lease = self.name,
                    identity = self.identity,
                    "acquired the Lease"
                );
            }
            self.guard.set(Some(begun + LEASE));
            self.metrics.leads(true);
        }
        Ok(ours)
    }

    /// The Lease object to write.
    fn lease(&self, live: Option<Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = live
            .as_ref()
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let ours = old.holder_identity.as_deref() == Some(&self.identity);
        let metadata = live
            .map(|lease| lease.metadata)
            .unwrap_or_else(|| ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            });
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
                acquire_time: old.acquire_time.filter(|_| ours).or(Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!ours)),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Releases the Lease, so that the next process need not wait for its expiry.
    async fn release(&self) {
        self.guard.set(None);
        self.metrics.leads(false);
        let back = async {
            let mut lease = self.api.get(&self.name).await?;
            let Some(spec) = &mut lease.spec else {
                return Ok(());
            };
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
                self.api.replace(&self.name, &params(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        match tokio::time::timeout(REQUEST, back).await {
            Ok(Ok(())) => tracing::info!(lease = self.name, "released the Lease"),
            Ok(Err(error)) => tracing::warn!(lease = self.name, "releasing the Lease: {error}"),
            Err(_) => tracing::warn!(lease = self.name, "releasing the Lease took too long"),
        }
    }
}

/// Waits for the stop signal. A dropped sender counts as one.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// The observed Lease; `since` is kept if it is unchanged.
fn observe(lease: &Lease, before: Option<&ObservedLease>, now: Instant) -> ObservedLease {
    let version = lease.metadata.resource_version.clone();
    let since = before
        .filter(|before| before.version == version)
        .map_or(now, |before| before.since);
    ObservedLease {
        version,
        holder: lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.clone()),
        since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_it_is() {
        let start = Instant::now();
        let observed = |holder: Option<&str>| ObservedLease {
            version: Some("1".to_owned()),
            holder: holder.map(str::to_owned),
            since: start,
        };
        let cases = [
            (None, 0, NextStep::Create),
            (Some(observed(None)), 0, NextStep::Take),
            (Some(observed(Some(""))), 0, NextStep::Take),
            (Some(observed(Some("me"))), 0, NextStep::Renew),
            (Some(observed(Some("me"))), 100, NextStep::Renew),
            (Some(observed(Some("other"))), 0, NextStep::Wait),
            (Some(observed(Some("other"))), 14, NextStep::Wait),
            (Some(observed(Some("other"))), 15, NextStep::Take),
        ];
        for (observed, after, expected) in cases {
            let now = start + Duration::from_secs(after);
            assert_eq!(
                decide(observed.as_ref(), "me", now),
                expected,
                "{observed:?} {after}"
            );
        }
    }

    #[test]
    fn silence_is_counted_from_the_last_change() {
        let start = Instant::now();
        let later = start + Duration::from_secs(9);
        let lease = |version: &str| Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: None,
        };
        let first = observe(&lease("1"), None, start);
        assert_eq!(observe(&lease("1"), Some(&first), later).since, start);
        assert_eq!(observe(&lease("2"), Some(&first), later).since, later);
    }

    #[test]
    fn nothing_is_begun_shortly_before_the_end() {
        let guard = LeaseGuard {
            until: Arc::default(),
            needed: true,
        };
        assert!(guard.check().is_err());
        guard.set(Some(Instant::now() + LEASE));
        assert!(guard.check().is_ok());
        guard.set(Some(Instant::now() + MARGIN));
        assert!(guard.check().is_err());
        assert!(LeaseGuard::always().check().is_ok());
    }
}
