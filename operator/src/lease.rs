//! Who acts, if several operators run: whoever holds the Lease. Times are this process's own, so that a wrong clock elsewhere does not matter.
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

/// A holder that was silent this long has lost it.
const LEASE: Duration = Duration::from_secs(15);
/// A holder renews this often.
const RENEW: Duration = Duration::from_secs(5);
/// Pause after a failure, and between looks at somebody else's Lease.
const RETRY: Duration = Duration::from_secs(2);
/// Limit of one request; together with the pause several fit into what is left of a Lease.
const REQUEST: Duration = Duration::from_secs(4);
/// Nothing is begun with less than this left.
const MARGIN: Duration = Duration::from_secs(3);

/// Is the Lease held, and until when at least? Shared with whoever acts.
#[derive(Clone, Debug)]
pub struct LeaseGuard {
    until: Arc<Mutex<Option<Instant>>>,
    /// False where there is only one operator by construction, such as in tests.
    needed: bool,
}

impl LeaseGuard {
    /// Always.
    pub fn always() -> Self {
        Self {
            until: Arc::default(),
            needed: false,
        }
    }

    /// May something be begun?
    ///
    /// # Errors
    /// The Lease is not held, or ends too soon.
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

/// The Lease as one process sees it.
#[derive(Debug)]
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    held: LeaseGuard,
    metrics: Metrics,
}

/// What was seen of the Lease, and since when it has not changed.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    version: Option<String>,
    holder: Option<String>,
    since: Instant,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// Nobody has ever had it.
    Create,
    /// It is free, or its holder is silent.
    Take,
    /// It is ours.
    Renew,
    /// It is somebody else's.
    Wait,
}

fn decide(seen: Option<&Seen>, identity: &str, now: Instant) -> Move {
    match seen {
        None => Move::Create,
        Some(seen) => match seen.holder.as_deref() {
            None | Some("") => Move::Take,
            Some(holder) if holder == identity => Move::Renew,
            Some(_) if now.saturating_duration_since(seen.since) >= LEASE => Move::Take,
            Some(_) => Move::Wait,
        },
    }
}

impl Election {
    /// For the Lease of this name; `identity` tells this process from all others that ever were.
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
            held: LeaseGuard {
                until: Arc::default(),
                needed: true,
            },
            metrics,
        }
    }

    /// Whether it is held, for whoever acts.
    pub fn held(&self) -> LeaseGuard {
        self.held.clone()
    }

    /// Waits until the Lease is held. Tells whenever it is somebody else's.
    pub async fn win(&mut self, standby: impl Fn()) {
        let mut seen = None;
        loop {
            match self.round(&mut seen).await {
                Ok(true) => return,
                Ok(false) => standby(),
                Err(error) => tracing::warn!(lease = self.name, "taking the Lease: {error}"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Keeps it until told to stop, then gives it back.
    ///
    /// # Errors
    /// It is lost: this process must stop acting at once.
    pub async fn keep(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
        let mut seen = None;
        let mut pause = RENEW;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopped(&mut stop) => break,
            }
            match self.round(&mut seen).await {
                Ok(true) => pause = RENEW,
                Ok(false) => return self.lost("somebody else holds it"),
                Err(error) => {
                    tracing::warn!(lease = self.name, "renewing the Lease: {error}");
                    pause = RETRY;
                    if self.held.check().is_err() {
                        return self.lost("it could not be renewed in time");
                    }
                }
            }
        }
        self.give_back().await;
        Ok(())
    }

    fn lost(&self, why: &str) -> Result<(), Error> {
        self.held.set(None);
        self.metrics.leads(false);
        tracing::error!(lease = self.name, "the Lease is lost: {why}");
        Err(Error::NotLeading)
    }

    /// One look and at most one write. True if it is ours.
    async fn round(&self, seen: &mut Option<Seen>) -> Result<bool, Error> {
        let doing = || Error::kubernetes(format!("Lease {}", self.name));
        // Counted from before the write: the others cannot count from earlier.
        let begun = Instant::now();
        let limited = async {
            let live = self.api.get_opt(&self.name).await.map_err(doing())?;
            *seen = live.as_ref().map(|lease| look(lease, seen.as_ref(), begun));
            let next = match decide(seen.as_ref(), &self.identity, begun) {
                Move::Wait => return Ok(false),
                Move::Create => self.lease(None),
                Move::Take | Move::Renew => self.lease(live),
            };
            let written = match &next.metadata.resource_version {
                None => self.api.create(&params(), &next).await,
                Some(_) => self.api.replace(&self.name, &params(), &next).await,
            };
            match written {
                Ok(_) => Ok(true),
                // Somebody was faster; who, the next look tells.
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
            if self.held.until.lock().is_none() {
                tracing::info!(
                    lease = self.name,
                    identity = self.identity,
                    "holds the Lease"
                );
            }
            self.held.set(Some(begun + LEASE));
            self.metrics.leads(true);
        }
        Ok(ours)
    }

    /// The Lease as it shall be.
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

    /// So that the next one need not wait until it runs out.
    async fn give_back(&self) {
        self.held.set(None);
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
            Ok(Ok(())) => tracing::info!(lease = self.name, "gave the Lease back"),
            Ok(Err(error)) => tracing::warn!(lease = self.name, "giving the Lease back: {error}"),
            Err(_) => tracing::warn!(lease = self.name, "giving the Lease back took too long"),
        }
    }
}

/// A sender that is gone means the same as a stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// What is seen now; the time since which it is so stays if nothing has changed.
fn look(lease: &Lease, before: Option<&Seen>, now: Instant) -> Seen {
    let version = lease.metadata.resource_version.clone();
    let since = before
        .filter(|before| before.version == version)
        .map_or(now, |before| before.since);
    Seen {
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
        let seen = |holder: Option<&str>| Seen {
            version: Some("1".to_owned()),
            holder: holder.map(str::to_owned),
            since: start,
        };
        let cases = [
            (None, 0, Move::Create),
            (Some(seen(None)), 0, Move::Take),
            (Some(seen(Some(""))), 0, Move::Take),
            (Some(seen(Some("me"))), 0, Move::Renew),
            (Some(seen(Some("me"))), 100, Move::Renew),
            (Some(seen(Some("other"))), 0, Move::Wait),
            (Some(seen(Some("other"))), 14, Move::Wait),
            (Some(seen(Some("other"))), 15, Move::Take),
        ];
        for (seen, after, expected) in cases {
            let now = start + Duration::from_secs(after);
            assert_eq!(
                decide(seen.as_ref(), "me", now),
                expected,
                "{seen:?} {after}"
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
        let first = look(&lease("1"), None, start);
        assert_eq!(look(&lease("1"), Some(&first), later).since, start);
        assert_eq!(look(&lease("2"), Some(&first), later).since, later);
    }

    #[test]
    fn nothing_is_begun_shortly_before_the_end() {
        let held = LeaseGuard {
            until: Arc::default(),
            needed: true,
        };
        assert!(held.check().is_err());
        held.set(Some(Instant::now() + LEASE));
        assert!(held.check().is_ok());
        held.set(Some(Instant::now() + MARGIN));
        assert!(held.check().is_err());
        assert!(LeaseGuard::always().check().is_ok());
    }
}
