//! The control loop of drills: reconciles a cluster when its object or a Job of it changes, or its schedule
//! is due.
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use futures_util::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, Resource as _, ResourceExt as _,
    runtime::{
        Controller, PredicateConfig, WatchStreamExt as _,
        controller::{Action, Config},
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use operator_api::names;
use tokio::sync::watch;

use super::{
    controller::{Shared, failed},
    drill_job::DRILL_LABEL,
    drilling,
};
use crate::{
    caches::{self, Guarded, Scope},
    error::Error,
    reconcile::Context,
};

/// Clusters that are reconciled in parallel.
const CONCURRENCY: u16 = 4;

/// Runs the loop of one scope until the stop signal.
pub async fn run(scope: Scope, context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let config = watcher::Config::default().labels(DRILL_LABEL);
    let (jobs, stream) = caches::watch(scope.api::<Job>(&context.client), config);
    let touched = stream.touched_objects().filter_map(|job| {
        let of = job.ok().and_then(|job| {
            let name = job.labels().get(DRILL_LABEL)?;
            Some(ObjectRef::new(name).within(&job.namespace()?))
        });
        std::future::ready(of)
    });
    let api: Api<Guarded> = scope.api(&context.client);
    let (store, writer) = reflector::store();
    let clusters = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(trim)
        .reflect(writer)
        .applied_objects()
        .predicate_filter(trigger_hash, PredicateConfig::default());
    let controller = Controller::for_stream(clusters, store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(async move {
            // A dropped sender also means stop.
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .reconcile_on(touched);
    let shared = Arc::new(Shared::new(context));
    let look = move |cluster: Arc<Guarded>, shared: Arc<Shared>| {
        look(cluster, shared, jobs.clone()).boxed()
    };
    controller
        .run(look, failed, shared)
        .for_each(|_| std::future::ready(()))
        .await;
}

/// Keeps of the status only what drills need: this cache is the operator's second copy of all clusters.
fn trim(cluster: &mut Guarded) {
    cluster.managed_fields_mut().clear();
    let Ok(cluster) = &mut cluster.0 else {
        return;
    };
    if let Some(status) = &mut cluster.status {
        status.members.clear();
        status.claims.clear();
        status.target = None;
        status.operation = None;
    }
}

/// Hash of the parts of a cluster that trigger a reconcile. The loop's own writes do not.
fn trigger_hash(cluster: &Guarded) -> Option<u64> {
    let meta = cluster.meta();
    let mut hasher = DefaultHasher::new();
    meta.generation.hash(&mut hasher);
    let annotations = meta.annotations.as_ref();
    for name in [names::DRILL_NOW_ANNOTATION, names::PAUSED_ANNOTATION] {
        annotations.and_then(|all| all.get(name)).hash(&mut hasher);
    }
    meta.deletion_timestamp.is_some().hash(&mut hasher);
    let status = cluster.0.as_ref().ok().map(|cluster| &cluster.status);
    let status = status.and_then(Option::as_ref);
    status.is_some().hash(&mut hasher);
    let archive = status.and_then(|status| status.archive.as_ref());
    let archived = archive.is_some_and(|archive| archive.archived_index.is_some());
    archived.hash(&mut hasher);
    Some(hasher.finish())
}

async fn look(
    cluster: Arc<Guarded>,
    shared: Arc<Shared>,
    jobs: Store<Job>,
) -> Result<Action, Error> {
    let cluster = match &cluster.0 {
        Ok(cluster) => Arc::new(cluster.clone()),
        // The clusters' own controller reports it.
        Err(_) => return Ok(Action::await_change()),
    };
    shared.context.lease.check()?;
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let others = running(&jobs, &namespace, &name);
    let looked = drilling::look(Arc::clone(&shared.context), Arc::clone(&cluster), others);
    shared.look(cluster.as_ref(), looked).await
}

/// Drills of other clusters that have not ended.
fn running(jobs: &Store<Job>, namespace: &str, cluster: &str) -> usize {
    let all = jobs.state();
    let others = all.iter().filter(|job| {
        let of = job.labels().get(DRILL_LABEL).map(String::as_str);
        of != Some(cluster) || job.namespace().as_deref() != Some(namespace)
    });
    let open = others.filter(|job| {
        let status = job.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref());
        let mut conditions = conditions.unwrap_or_default().iter();
        !conditions
            .any(|one| ["Complete", "Failed"].contains(&one.type_.as_str()) && one.status == "True")
    });
    open.count()
}
