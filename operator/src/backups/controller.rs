//! The control loops of backups and their schedules: read, decide, carry out one step, repeat. Decisions
//! depend only on objects read from the API server; watches only trigger reconciles.
use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _};
use k8s_openapi::{NamespaceResourceScope, api::batch::v1::Job};
use kube::{
    Api, Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{
        Controller, PredicateConfig, WatchStreamExt as _,
        controller::{Action, Config},
        predicates,
        reflector::ObjectRef,
        watcher,
    },
};
use operator_api::{RqliteBackup, RqliteCluster, RqliteScheduledBackup, names};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{
    carry_out::{self, Look},
    job::BACKUP_LABEL,
    scheduling,
};
use crate::{
    backoff::{Backoff, varied},
    caches::{self, Scope},
    error::{Class, Error},
    reconcile::Context,
};

/// Objects of one kind that are reconciled in parallel.
const CONCURRENCY: u16 = 4;
/// Time limit of one reconcile; what it did before it is cancelled remains.
const LIMIT: Duration = Duration::from_secs(60);

/// What the reconciles of one loop share.
pub(super) struct Shared {
    /// What all loops share.
    pub(super) context: Arc<Context>,
    /// Pauses after failures.
    pub(super) backoff: Backoff,
}

impl Shared {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            backoff: Backoff::default(),
        }
    }

    /// Reconciles an object within [`LIMIT`]; returns when to do so again.
    pub(super) async fn look<O: Resource>(
        &self,
        object: &O,
        looked: impl Future<Output = Result<Look, Error>>,
    ) -> Result<Action, Error> {
        let look = tokio::time::timeout(LIMIT, looked)
            .await
            .unwrap_or(Err(Error::TooLong(LIMIT)))?;
        self.backoff.forget(&key(object));
        Ok(next(look, rand::random::<f64>()))
    }
}

/// When to reconcile again. Jitter keeps objects from being reconciled at the same moment.
fn next(look: Look, chance: f64) -> Action {
    match look {
        Look::After(wait) => Action::requeue(varied(wait, chance)),
        Look::Within(wait) => Action::requeue(wait),
        Look::OnChange => Action::await_change(),
    }
}

/// The object's name in logs and as the key of its pauses after failures.
fn key<O: Resource>(object: &O) -> String {
    format!(
        "{}/{}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}

/// Runs both loops of one scope until the stop signal.
pub async fn run(scope: Scope, context: Arc<Context>, stop: watch::Receiver<bool>) {
    let config = watcher::Config::default().labels(BACKUP_LABEL);
    let (_, jobs) = caches::watch(scope.api::<Job>(&context.client), config);
    let jobs = jobs.touched_objects().filter_map(|job| {
        let of = job.ok().and_then(|job| referred(&job, BACKUP_LABEL));
        std::future::ready(of)
    });
    let backups = of_kind(&scope, &context, stop.clone()).reconcile_on(jobs);
    let config = watcher::Config::default().labels(names::SCHEDULE_LABEL);
    let (_, made) = caches::watch(
        scope.api::<DeserializeGuard<RqliteBackup>>(&context.client),
        config,
    );
    let made = made.touched_objects().filter_map(|one| {
        let of = one
            .ok()
            .and_then(|one| referred(&one, names::SCHEDULE_LABEL));
        std::future::ready(of)
    });
    let (mut present, shown) = (Present::default(), Arc::clone(&context));
    let schedules = of_kind_with(&scope, &context, stop, move |event| {
        for (namespace, name) in present.gone(event) {
            shown.metrics.forget_schedule(&namespace, &name);
        }
    });
    let schedules = schedules.reconcile_on(made);
    futures_util::join!(
        drive::<RqliteBackup, _, _>(backups, Arc::clone(&context), carry_out::backup),
        drive::<RqliteScheduledBackup, _, _>(schedules, context, scheduling::schedule),
    );
}

/// Namespaces and names of the objects of a watch.
#[derive(Debug, Default)]
struct Present {
    now: BTreeSet<(String, String)>,
    /// Those of a list that has not ended.
    listed: BTreeSet<(String, String)>,
}

impl Present {
    /// Objects whose deletion this event shows; they are not reconciled any more.
    fn gone<O: Resource>(&mut self, event: &watcher::Event<O>) -> Vec<(String, String)> {
        let key = |object: &O| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(object) => drop(self.listed.insert(key(object))),
            watcher::Event::Apply(object) => drop(self.now.insert(key(object))),
            watcher::Event::Delete(object) => {
                let key = key(object);
                self.now.remove(&key);
                return vec![key];
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let before = std::mem::replace(&mut self.now, listed);
                return before.difference(&self.now).cloned().collect();
            }
        }
        Vec::new()
    }
}

/// The object that a label of another one names.
fn referred<K, O>(object: &K, label: &str) -> Option<ObjectRef<DeserializeGuard<O>>>
where
    K: Resource,
    O: Resource<DynamicType = ()>,
    DeserializeGuard<O>: Resource<DynamicType = ()>,
{
    let name = object.labels().get(label)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

/// What both kinds of objects have in common.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl Kind for RqliteBackup {}
impl Kind for RqliteScheduledBackup {}
impl Kind for RqliteCluster {}

fn of_kind<O: Kind>(
    scope: &Scope,
    context: &Arc<Context>,
    stop: watch::Receiver<bool>,
) -> Controller<DeserializeGuard<O>> {
    of_kind_with(scope, context, stop, |_| {})
}

/// Like [`of_kind`]; `seen` is called with each event of the watch.
fn of_kind_with<O: Kind>(
    scope: &Scope,
    context: &Arc<Context>,
    mut stop: watch::Receiver<bool>,
    mut seen: impl FnMut(&watcher::Event<DeserializeGuard<O>>) + Send + 'static,
) -> Controller<DeserializeGuard<O>> {
    let api: Api<DeserializeGuard<O>> = scope.api(&context.client);
    let (store, stream) = caches::watch(api, watcher::Config::default());
    let changed = stream
        .inspect(move |event| {
            if let Ok(event) = event {
                seen(event);
            }
        })
        .applied_objects()
        .predicate_filter(predicates::resource_version, PredicateConfig::default());
    Controller::for_stream(changed, store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(async move {
            // A dropped sender also means stop.
            let _ = stop.wait_for(|stop| *stop).await;
        })
}

async fn drive<O, F, R>(controller: Controller<DeserializeGuard<O>>, context: Arc<Context>, look: F)
where
    O: Kind,
    F: Fn(Arc<Context>, Arc<O>) -> R + Copy + Send + Sync + 'static,
    R: Future<Output = Result<Look, Error>> + Send + 'static,
{
    let shared = Arc::new(Shared::new(context));
    let run = move |object: Arc<DeserializeGuard<O>>, shared: Arc<Shared>| {
        async move {
            let object = match &object.0 {
                Ok(object) => Arc::new(object.clone()),
                Err(unreadable) => return Err(Error::Unreadable(unreadable.error.clone())),
            };
            shared.context.lease.check()?;
            let looked = look(Arc::clone(&shared.context), Arc::clone(&object));
            shared.look(object.as_ref(), looked).await
        }
        .boxed()
    };
    controller
        .run(run, failed::<O>, shared)
        .for_each(|_| std::future::ready(()))
        .await;
}

/// Logs a failed reconcile, emits an event if a person has to change something, and returns when to try
/// again.
pub(super) fn failed<O: Kind>(
    object: Arc<DeserializeGuard<O>>,
    error: &Error,
    shared: Arc<Shared>,
) -> Action {
    let class = error.class();
    let key = key(object.as_ref());
    let (wait, failures) = shared.backoff.failed(&key, class);
    match class {
        Class::Conflict | Class::NotLeading => tracing::debug!("{key}: {error}"),
        Class::Transient | Class::Refused => tracing::warn!(failures, "{key}: {error}"),
    }
    if class == Class::Refused && !error.namespace_ends() {
        let event = crate::cluster::action::Event {
            warning: true,
            reason: "KubernetesRefused".to_owned(),
            message: error.to_string(),
        };
        let about = object.object_ref(&());
        tokio::spawn(async move { shared.context.events.publish(&about, &event).await });
    }
    Action::requeue(wait)
}

#[cfg(test)]
mod tests {
    use operator_api::RqliteScheduledBackupSpec;

    use super::*;

    #[test]
    fn what_is_due_is_not_looked_at_later() {
        let wait = Duration::from_secs(100);
        for chance in [0.0, 0.5, 1.0] {
            assert_eq!(next(Look::Within(wait), chance), Action::requeue(wait));
        }
        assert_eq!(
            next(Look::After(wait), 1.0),
            Action::requeue(Duration::from_secs(120))
        );
    }

    #[test]
    fn what_a_watch_does_not_show_any_more_is_gone() {
        let object = |name: &str| {
            let spec = RqliteScheduledBackupSpec::new("demo", "@daily");
            let mut one = RqliteScheduledBackup::new(name, spec);
            one.metadata.namespace = Some("shop".to_owned());
            one
        };
        let mut present = Present::default();
        let mut gone = |event| -> Vec<String> {
            let gone = present.gone(&event).into_iter();
            gone.map(|(_, name)| name).collect()
        };
        let none: [&str; 0] = [];
        assert_eq!(gone(watcher::Event::Init), none);
        assert_eq!(gone(watcher::Event::InitApply(object("a"))), none);
        assert_eq!(gone(watcher::Event::InitApply(object("b"))), none);
        assert_eq!(gone(watcher::Event::InitDone), none);
        assert_eq!(gone(watcher::Event::Apply(object("c"))), none);
        assert_eq!(gone(watcher::Event::Delete(object("b"))), ["b"]);
        // The watch was interrupted: what went meanwhile is not in the next list.
        assert_eq!(gone(watcher::Event::Init), none);
        assert_eq!(gone(watcher::Event::InitApply(object("c"))), none);
        assert_eq!(gone(watcher::Event::InitDone), ["a"]);
    }
}
