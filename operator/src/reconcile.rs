//! One reconcile of one cluster: observe, plan, then execute in an order that makes an interruption harmless
//! at any point: finalizer, status, objects, labels, action.
use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use k8s_openapi::{NamespaceResourceScope, api::apps::v1::StatefulSet};
use kube::{Api, Client, Resource, ResourceExt, api::PostParams};
use operator_api::{RqliteCluster, RqliteRecovery, RqliteRestore, names};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    act::{ActionOutcome, Actor, drop_finalizers, set_finalizer},
    apply::{Accepted, Applied, apply_all, apply_secrets, delete_secrets, look_first},
    carried::{CarriedState, Checks, Ending, Leaders, Refused, Restores, Taken},
    cert_manager,
    cluster::{
        Plan,
        action::Event,
        facts::{observation::Edit, ownership, secrets::ObservedSecret, view::View},
        plan,
        render::edits,
    },
    edits::{Edits, last_manager},
    error::Error,
    events::Events,
    installations::Installations,
    lease::LeaseGuard,
    live::{Live, named},
    managed::Managed,
    metrics::Metrics,
    node_client::Http,
    observe::{Environment, addresses, observe},
    secrets::SecretCache,
};

/// Wait after a deferred action, such as an eviction that a budget does not allow.
const DEFERRED_WAIT: Duration = Duration::from_secs(5);

/// Dependencies of all reconciles.
pub struct Context {
    /// Client of the API server.
    pub client: Client,
    /// Client of the nodes.
    pub nodes: Http,
    /// Inputs of observations that do not come from objects.
    pub environment: Environment,
    /// Other installations of the operator.
    pub installations: Installations,
    /// The clusters that this one manages.
    pub managed: Managed,
    /// Whether this process may act.
    pub lease: LeaseGuard,
    /// Publisher of events.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// What the API server refused in the last reconcile.
    pub refused: Refused,
    /// Clusters whose namespace is being deleted.
    pub ending: Ending,
    /// Results of database checks.
    pub checks: Checks,
    /// Leaders' reports about restores in place.
    pub restores: Restores,
    /// External edits of the operator's objects.
    pub edits: Edits,
    /// Leaders as last confirmed.
    pub leaders: Leaders,
    /// Differences of applied objects that the API server makes and the operator accepts.
    pub accepted: Accepted,
    /// Objects of others that have names of clusters' objects.
    pub taken: Taken,
    /// Secrets as last read.
    pub secrets: SecretCache,
}

impl Context {
    /// Removes all state of a deleted cluster.
    pub fn forget(&self, uid: &str) {
        self.refused.forget(uid);
        self.ending.forget(uid);
        self.installations.forget(uid);
        self.checks.forget(uid);
        self.restores.forget(uid);
        self.edits.forget(uid);
        self.leaders.note(uid, None);
        self.accepted.forget(uid);
        self.taken.forget(uid);
        self.secrets.forget(uid);
        self.nodes.accesses().forget(uid);
        self.events.forget(uid);
    }
}

/// Reconciles a cluster; returns the time until the next reconcile.
///
/// # Errors
/// The step that failed. All steps before it have been executed.
pub async fn reconcile(
    context: &Context,
    cluster: RqliteCluster,
    live: &Live,
) -> Result<Duration, Error> {
    context.lease.check()?;
    let uid = cluster.uid().unwrap_or_default();
    find_identity(context, &cluster, live).await?;
    let carried = CarriedState {
        namespace_ends: context.ending.get(&uid),
        refused: context.refused.get(&uid),
        checks: context.checks.get(&uid),
        restores: context.restores.get(&uid),
        edits: context.edits.get(&uid),
        leader_seen: context.leaders.get(&uid),
        taken: context.taken.get(&uid),
        secrets: context.secrets.get(&context.client, &cluster).await?,
        issued: cert_manager::observe(&context.client, &cluster).await,
    };
    let domain = &context.environment.operator.platform.cluster_domain;
    let pods = addresses(&cluster, live, &context.environment);
    let accesses = context.nodes.accesses();
    accesses.note(&cluster, domain, &pods, &carried.secrets);
    let observation = observe(cluster, live, &context.nodes, &context.environment, carried).await;
    let plan = plan(&observation);
    let leader = View::of(&observation).leader_seen();
    context.leaders.note(&uid, leader);
    tracing::debug!(summary = plan.summary, action = ?plan.action, "decided");
    context.lease.check()?;
    let secrets = observation.secrets;
    let cluster = settle_finalizers(context, observation.cluster, &plan).await?;
    let cluster = write_status(context, cluster, &plan).await?;
    for update in &plan.recoveries {
        let which = (update.name.as_str(), update.uid.as_str());
        let status = Some((*update.status).clone());
        let next = |one| RqliteRecovery { status, ..one };
        write_about(context, &cluster, &live.recoveries, which, next).await?;
    }
    for update in &plan.restores.statuses {
        let which = (update.name.as_str(), update.uid.as_str());
        let status = Some((*update.status).clone());
        let next = |one| RqliteRestore { status, ..one };
        write_about(context, &cluster, &live.restores, which, next).await?;
    }
    context.metrics.set_cluster(&cluster);
    report_plan(context, &cluster, live, &plan).await;
    let is_news = write_objects(context, &cluster, live, &secrets, &plan).await?;
    let actor = Actor {
        client: &context.client,
        nodes: &context.nodes,
        addressing: context.environment.addressing,
        domain: &context.environment.operator.platform.cluster_domain,
        cluster: &cluster,
        live,
        checks: &context.checks,
        restores: &context.restores,
    };
    tidy_up(&actor, &plan).await?;
    set_labels(&actor, &plan).await?;
    let outcome = perform(context, &actor, &plan).await?;
    let wait = report_outcome(context, &cluster, &plan, outcome).await;
    // The next reconcile reports it in the status, at once.
    Ok(if is_news { Duration::ZERO } else { wait })
}

/// Makes the cluster the owner of recoveries and restores that a person created, and deletes those that ended
/// long ago.
async fn tidy_up(actor: &Actor<'_, Http>, plan: &Plan) -> Result<(), Error> {
    for recovery in &plan.unowned {
        actor.own(&actor.live.recoveries, recovery).await?;
    }
    for recovery in &plan.expired {
        actor.delete_ended::<RqliteRecovery>(recovery).await?;
    }
    for restore in &plan.restores.unowned {
        actor.own(&actor.live.restores, restore).await?;
    }
    for restore in &plan.restores.expired {
        actor.delete_ended::<RqliteRestore>(restore).await?;
    }
    Ok(())
}

async fn set_labels(actor: &Actor<'_, Http>, plan: &Plan) -> Result<(), Error> {
    for labels in &plan.labels {
        actor.label(labels).await?;
    }
    for claim in &plan.claims {
        actor.label_claim(claim).await?;
    }
    Ok(())
}

/// Writes Secrets, then the objects that refer to them; returns whether the set of names that others have has
/// changed.
async fn write_objects(
    context: &Context,
    cluster: &RqliteCluster,
    live: &Live,
    secrets: &BTreeMap<String, ObservedSecret>,
    plan: &Plan,
) -> Result<bool, Error> {
    let uid = cluster.uid().unwrap_or_default();
    let mut applied = Applied::default();
    let result = apply_both(context, cluster, live, secrets, plan, &mut applied).await;
    let is_news = !plan.objects.is_empty() && context.taken.note(&uid, &applied.taken);
    report_applied(context, cluster, applied).await;
    result.map(|()| is_news)
}

async fn apply_both(
    context: &Context,
    cluster: &RqliteCluster,
    live: &Live,
    secrets: &BTreeMap<String, ObservedSecret>,
    plan: &Plan,
    applied: &mut Applied,
) -> Result<(), Error> {
    let client = &context.client;
    let uid = cluster.uid().unwrap_or_default();
    let changed = apply_secrets(client, cluster, secrets, &plan.secrets.make, applied).await;
    if !matches!(changed, Ok(false)) {
        context.secrets.forget(&uid);
    }
    changed?;
    cert_manager::apply(client, cluster, &plan.secrets.requests).await?;
    cert_manager::delete(client, cluster, &plan.secrets.withdrawn).await?;
    let accepted = &context.accepted;
    apply_all(client, cluster, live, &plan.objects, accepted, applied).await?;
    if !plan.secrets.delete.is_empty() {
        context.secrets.forget(&uid);
        delete_secrets(client, cluster, &plan.secrets.delete).await?;
    }
    Ok(())
}

/// Publishes a plan's events besides that of the decision, and the edits by others that it reverts.
async fn report_plan(context: &Context, cluster: &RqliteCluster, live: &Live, plan: &Plan) {
    for notice in &plan.notices {
        let about = cluster.object_ref(&());
        context.events.publish(&about, notice).await;
    }
    let namespace = cluster.namespace().unwrap_or_default();
    for edit in &plan.edits {
        let by =
            last_manager::<StatefulSet>(&context.client, &namespace, &edit.name, &edit.field).await;
        let set = named(&live.sets, &edit.name);
        let version = set
            .and_then(|set| set.metadata.generation)
            .map(|g| g.to_string());
        report_edit(context, cluster, Edit { by, ..edit.clone() }, version).await;
    }
}

/// Before a cluster gets an identity: whether others have the names of the objects that contain one.
async fn find_identity(
    context: &Context,
    cluster: &RqliteCluster,
    live: &Live,
) -> Result<(), Error> {
    let has_one = |cluster: &RqliteCluster| {
        let status = cluster.status.as_ref();
        status.is_some_and(|status| status.cluster_id.is_some())
    };
    let going = cluster.meta().deletion_timestamp.is_some();
    if going || has_one(cluster) || cluster.is_paused() {
        return Ok(());
    }
    let found = look_first(&context.client, cluster, live).await?;
    let uid = cluster.uid().unwrap_or_default();
    context.taken.note(&uid, &found.taken);
    let adopted = found.adopted.clone();
    report_applied(context, cluster, found).await;
    match adopted.first() {
        // Continue once the caches have it.
        Some(object) => Err(Error::Changed(object.clone())),
        None => Ok(()),
    }
}

/// Sets the finalizers as the plan asks.
async fn settle_finalizers(
    context: &Context,
    cluster: RqliteCluster,
    plan: &Plan,
) -> Result<RqliteCluster, Error> {
    let client = &context.client;
    if !plan.drop_finalizers.is_empty() {
        return drop_finalizers(client, &cluster, &plan.drop_finalizers).await;
    }
    match plan.finalizer {
        Some(on) => set_finalizer(client, &cluster, on).await,
        None => Ok(cluster),
    }
}

/// Publishes events about the result of applying the objects.
async fn report_applied(context: &Context, cluster: &RqliteCluster, applied: Applied) {
    for (edit, version) in applied.reverted {
        report_edit(context, cluster, edit, version).await;
    }
    let about = cluster.object_ref(&());
    for message in context
        .accepted
        .take_news(&cluster.uid().unwrap_or_default())
    {
        let event = Event {
            warning: false,
            reason: "ChangedByAdmission".to_owned(),
            message,
        };
        context.events.publish(&about, &event).await;
    }
    for object in applied.adopted {
        let message = format!(
            "{object} was offered by the annotation {} and is managed by this cluster from now on",
            names::ADOPT_INTO_ANNOTATION
        );
        let event = Event {
            warning: false,
            reason: "ObjectAdopted".to_owned(),
            message,
        };
        context.events.publish(&about, &event).await;
    }
    let others = applied.taken.iter().any(|one| !one.former);
    if others {
        let event = Event {
            warning: true,
            reason: ownership::REASON.to_owned(),
            message: ownership::describe(cluster, &applied.taken),
        };
        context.events.publish(&about, &event).await;
    }
}

/// Publishes the event of a plan whose action has this outcome; returns the time until the next reconcile.
async fn report_outcome(
    context: &Context,
    cluster: &RqliteCluster,
    plan: &Plan,
    outcome: ActionOutcome,
) -> Duration {
    let about = cluster.object_ref(&());
    match outcome {
        ActionOutcome::Done => {
            if let Some(event) = &plan.event {
                context.events.publish(&about, event).await;
            }
            Duration::from_secs(plan.again_after_seconds)
        }
        ActionOutcome::Deferred(message) => {
            let event = Event {
                warning: false,
                reason: "Waiting".to_owned(),
                message,
            };
            context.events.publish(&about, &event).await;
            DEFERRED_WAIT
        }
    }
}

/// Records an external edit for the condition of the next reconciles, and publishes an event.
async fn report_edit(
    context: &Context,
    cluster: &RqliteCluster,
    edit: Edit,
    version: Option<String>,
) {
    let namespace = cluster.namespace().unwrap_or_default();
    let uid = cluster.uid().unwrap_or_default();
    let Some(noted) = context.edits.note(&uid, edit, version) else {
        return;
    };
    let event = Event {
        warning: true,
        reason: edits::REASON.to_owned(),
        message: edits::describe(&cluster.name_any(), &namespace, &noted),
    };
    context
        .events
        .publish(&cluster.object_ref(&()), &event)
        .await;
}

/// Writes the status if it differs. Bound to the observed resourceVersion, so that two operators cannot both
/// record an operation.
async fn write_status(
    context: &Context,
    cluster: RqliteCluster,
    plan: &Plan,
) -> Result<RqliteCluster, Error> {
    if cluster.status.as_ref() == Some(&*plan.status) {
        return Ok(cluster);
    }
    let name = cluster.name_any();
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<RqliteCluster> = Api::namespaced(context.client.clone(), &namespace);
    let params = PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let next = RqliteCluster {
        status: Some((*plan.status).clone()),
        ..cluster
    };
    api.replace_status(&name, &params, &next)
        .await
        .map_err(Error::kubernetes(format!("the status of {name}")))
}

/// Writes the status of an object that is about this cluster, if it is still the one that was read.
async fn write_about<K>(
    context: &Context,
    cluster: &RqliteCluster,
    known: &[Arc<K>],
    (name, uid): (&str, &str),
    with_status: impl FnOnce(K) -> K,
) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
{
    let what = format!("{} {name}", K::kind(&()));
    let known = named(known, name).filter(|known| known.uid().as_deref() == Some(uid));
    let Some(known) = known else {
        return Err(Error::Changed(what));
    };
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(context.client.clone(), &namespace);
    let next = with_status((**known).clone());
    api.replace_status(name, &PostParams::default(), &next)
        .await
        .map(drop)
        .map_err(Error::kubernetes(format!("the status of {what}")))
}

async fn perform(
    context: &Context,
    actor: &Actor<'_, Http>,
    plan: &Plan,
) -> Result<ActionOutcome, Error> {
    let Some(action) = &plan.action else {
        return Ok(ActionOutcome::Done);
    };
    context.lease.check()?;
    tracing::info!(?action, "{}", plan.summary);
    let outcome = actor.act(action).await?;
    if outcome == ActionOutcome::Done {
        context.metrics.acted(action.name());
    }
    Ok(outcome)
}
