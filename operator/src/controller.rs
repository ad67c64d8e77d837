//! The control loop of one scope: watches trigger reconciles, at most one at a time for each cluster, with a
//! backoff for each cluster after failures.
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        Controller, PredicateConfig, WatchStreamExt,
        controller::{Action, Config, Error as LoopError},
        watcher,
    },
};
use operator_api::RqliteCluster;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    backoff::{Backoff, varied},
    caches::{self, Caches, Guarded, Scope, Triggers},
    cluster::{
        action::Event,
        deciders::manager::{self, Manager},
    },
    error::{Class, Error},
    reconcile::{Context, reconcile},
};

/// Clusters that are reconciled in parallel. A reconcile waits for nodes and the API server, not for the CPU.
const CONCURRENCY: u16 = 16;
/// Changes of one cluster's objects within this time trigger one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// A reconcile that takes longer is cancelled. What it did remains, and the next one observes it.
const RECONCILE_LIMIT: Duration = Duration::from_secs(60);
/// Pause before checking again a cluster that another installation manages.
const ELSEWHERE_WAIT: Duration = Duration::from_secs(30);
/// After this many consecutive failures, transient errors are reported as events as well.
const REPORTED_FAILURES: u32 = 3;

/// Context of the reconciles of one scope.
struct ScopeContext {
    shared: Arc<Context>,
    caches: Caches,
    scope: Scope,
    backoff: Backoff,
    /// Uids of the known clusters, by namespace and name: a deletion is reported by name only.
    uids: Mutex<HashMap<String, String>>,
}

impl ScopeContext {
    /// Records the uid of a cluster. A cluster that was recreated under its name is a different one.
    fn remember(&self, cluster: &Guarded) {
        let uid = cluster.uid().unwrap_or_default();
        let mut uids = self.uids.lock();
        let before = uids.insert(key(cluster), uid.clone());
        if let Some(before) = before.filter(|before| *before != uid) {
            self.shared.forget(&before);
        }
    }

    fn forget(&self, key: &str) {
        self.backoff.forget(key);
        let mut uids = self.uids.lock();
        if let Some(uid) = uids.remove(key) {
            self.shared.forget(&uid);
        }
    }
}

/// The controller of one scope.
pub struct ScopeController {
    /// The watched namespaces.
    pub scope: Scope,
    /// Caches of its watches.
    pub caches: Caches,
    /// Triggers from its watches.
    pub triggers: Vec<Triggers>,
    /// Context shared by all scopes.
    pub shared: Arc<Context>,
}

impl ScopeController {
    /// Runs until the stop signal. Running reconciles are finished first.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let api: Api<Guarded> = self.scope.api(&self.shared.client);
        let (store, stream) = caches::watch(api, watcher::Config::default());
        let stream = stream
            .applied_objects()
            .predicate_filter(trigger_hash, PredicateConfig::default());
        let mut controller = Controller::for_stream(stream, store)
            .with_config(
                Config::default()
                    .debounce(DEBOUNCE)
                    .concurrency(CONCURRENCY),
            )
            .graceful_shutdown_on(async move {
                // A dropped sender also means stop.
                let _ = stop.wait_for(|stop| *stop).await;
            });
        for trigger in self.triggers {
            controller = controller.reconcile_on(trigger);
        }
        let context = Arc::new(ScopeContext {
            shared: self.shared,
            caches: self.caches,
            scope: self.scope,
            backoff: Backoff::default(),
            uids: Mutex::default(),
        });
        let for_results = Arc::clone(&context);
        controller
            .run(run_limited, error_policy, context)
            .for_each(|result| {
                handle_result(&for_results, result);
                std::future::ready(())
            })
            .await;
    }
}

/// Hash of those parts of a cluster's object that trigger a reconcile: all but the status, which reconciles
/// write themselves.
fn trigger_hash(cluster: &Guarded) -> Option<u64> {
    let meta = cluster.meta();
    let mut hasher = DefaultHasher::new();
    meta.generation.hash(&mut hasher);
    meta.annotations.hash(&mut hasher);
    meta.finalizers.hash(&mut hasher);
    meta.deletion_timestamp.is_some().hash(&mut hasher);
    // An object that cannot be parsed has no reliable generation.
    cluster.0.as_ref().err().map(|e| &e.error).hash(&mut hasher);
    Some(hasher.finish())
}

/// Runs one reconcile with a time limit, and records its result.
async fn run_limited(cluster: Arc<Guarded>, context: Arc<ScopeContext>) -> Result<Action, Error> {
    let started = Instant::now();
    let result = tokio::time::timeout(RECONCILE_LIMIT, read_and_reconcile(&cluster, &context))
        .await
        .unwrap_or(Err(Error::TooLong(RECONCILE_LIMIT)));
    let shared = &context.shared;
    let class = result.as_ref().err().map(Error::class);
    shared.metrics.reconciled(started.elapsed(), class);
    let uid = cluster.uid().unwrap_or_default();
    context.remember(&cluster);
    shared.refused.note(&uid, result.as_ref().map(|_| ()));
    if let Err(error) = &result {
        shared.ending.note(&uid, error);
    }
    let wait = result?;
    context.backoff.forget(&key(&cluster));
    Ok(Action::requeue(varied(wait, rand::random::<f64>())))
}

/// Reads the object from the API server, because a cached status may miss an operation that was already
/// recorded.
async fn read_and_reconcile(cluster: &Guarded, context: &ScopeContext) -> Result<Duration, Error> {
    let shared = &context.shared;
    if let Err(unreadable) = &cluster.0 {
        return Err(Error::Unreadable(unreadable.error.clone()));
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let name = cluster.name_any();
    // A change of the class triggers a reconcile, so the watch's copy is new enough to leave it alone.
    let us = &shared.environment.operator;
    if cluster
        .0
        .as_ref()
        .is_ok_and(|cached| manager::class(cached) != us.class)
    {
        shared.managed.note(&namespace, &name, false);
        shared.metrics.forget(&namespace, &name);
        return Ok(ELSEWHERE_WAIT);
    }
    context.caches.wait().await?;
    let api: Api<RqliteCluster> = Api::namespaced(shared.client.clone(), &namespace);
    let fresh = api
        .get_opt(&name)
        .await
        .map_err(Error::kubernetes(format!("reading {name}")))?;
    let Some(fresh) = fresh.filter(|fresh| fresh.uid() == cluster.uid()) else {
        return Err(Error::Changed(format!("RqliteCluster {name}")));
    };
    let elsewhere = shared.installations.manager(&fresh, us).await != Manager::Us;
    shared.managed.note(&namespace, &name, !elsewhere);
    shared.metrics.set_elsewhere(&namespace, &name, elsewhere);
    if elsewhere {
        return Ok(ELSEWHERE_WAIT);
    }
    let live = context.caches.of(&shared.client, &fresh).await;
    reconcile(shared, fresh, &live).await
}

fn key(cluster: &Guarded) -> String {
    format!(
        "{}/{}",
        cluster.namespace().unwrap_or_default(),
        cluster.name_any()
    )
}

/// Logs and reports a failed reconcile, and returns when to retry.
fn error_policy(cluster: Arc<Guarded>, error: &Error, context: Arc<ScopeContext>) -> Action {
    let class = error.class();
    let (wait, failures) = context.backoff.failed(&key(&cluster), class);
    match class {
        Class::Conflict => tracing::debug!("reconciles again: {error}"),
        Class::NotLeading => tracing::warn!("{error}"),
        Class::Transient | Class::Refused => {
            tracing::warn!(failures, "retrying in {wait:?}: {error}")
        }
    }
    // The next reconcile knows it and says so in the status; no event can be created there.
    if error.namespace_ends() {
        return Action::requeue(wait);
    }
    let reason = match class {
        Class::Refused if matches!(error, Error::Unreadable(_)) => "Unreadable",
        Class::Refused => "KubernetesRefused",
        Class::Transient if failures >= REPORTED_FAILURES => "Retrying",
        Class::Transient | Class::Conflict | Class::NotLeading => return Action::requeue(wait),
    };
    let event = Event {
        warning: true,
        reason: reason.to_owned(),
        message: error.to_string(),
    };
    let shared = Arc::clone(&context.shared);
    tokio::spawn(async move {
        shared
            .events
            .publish(&cluster.object_ref(&()), &event)
            .await
    });
    Action::requeue(wait)
}

/// Handles the controller's result of a reconcile. Errors of reconciles are handled in [`error_policy`].
fn handle_result(
    context: &ScopeContext,
    result: Result<(caches::ClusterRef, Action), LoopError<Error, watcher::Error>>,
) {
    match result {
        Ok(_) | Err(LoopError::ReconcilerFailed(..)) => {}
        Err(LoopError::ObjectNotFound(gone)) => {
            let namespace = gone.namespace.clone().unwrap_or_default();
            context.shared.managed.note(&namespace, &gone.name, false);
            context.shared.metrics.forget(&namespace, &gone.name);
            context.forget(&format!("{namespace}/{}", gone.name));
        }
        Err(LoopError::QueueError(error)) => {
            // Logged by the watch itself.
            tracing::debug!(scope = ?context.scope, "watching rqliteclusters: {error}");
        }
        Err(LoopError::RunnerError(error)) => tracing::error!("{error}"),
    }
}

/// Waits for the initial lists of all watches of all scopes.
pub async fn wait_until_synced(all: Vec<Caches>) {
    let each = all
        .into_iter()
        .map(|caches| async move { while caches.wait().await.is_err() {} });
    futures_util::future::join_all(each).map(drop).await;
}
