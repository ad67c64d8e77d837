//! One pass over one cluster: look, decide, then carry out in the order that makes every cut harmless: finalizer, status, objects, labels, action.
use std::{sync::Arc, time::Duration};

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::{Api, Client, Resource, ResourceExt, api::PostParams};
use operator_api::{RqliteCluster, RqliteRecovery, names};

use crate::{
    act::{ActionOutcome, Actor, set_finalizer},
    apply::apply_all,
    carried::{CarriedState, Checks, Refused},
    cluster::{
        Plan, action::Event, deciders::recovery::StatusUpdate, facts::observation::Edit, plan,
        render::edits,
    },
    edits::{Edits, who},
    error::Error,
    events::Events,
    lease::LeaseGuard,
    live::{Live, named},
    metrics::Metrics,
    node_client::Http,
    observe::{Environment, observe},
};

/// Wait after something that was not possible just now, such as an eviction against a budget.
const DEFERRED_WAIT: Duration = Duration::from_secs(5);

/// What passes need, whichever cluster they are about.
pub struct Context {
    /// The way to the API server.
    pub client: Client,
    /// The way to nodes.
    pub nodes: Http,
    /// What does not come from objects.
    pub environment: Environment,
    /// May this process act?
    pub lease: LeaseGuard,
    /// Tells events.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
    /// What the API server refused in the last pass, by cluster's uid.
    pub refused: Refused,
    /// What came of checking databases.
    pub checks: Checks,
    /// What others did to the operator's objects.
    pub edits: Edits,
}

impl Context {
    /// A cluster is gone: nothing of it is remembered.
    pub fn forget(&self, uid: &str) {
        self.refused.forget(uid);
        self.checks.forget(uid);
        self.edits.forget(uid);
        self.events.forget(uid);
    }
}

/// Makes a pass; how long until the next one.
///
/// # Errors
/// Where it ended early. Everything up to there has happened.
pub async fn reconcile(
    context: &Context,
    cluster: RqliteCluster,
    live: &Live,
) -> Result<Duration, Error> {
    context.lease.check()?;
    let uid = cluster.uid().unwrap_or_default();
    let carried = CarriedState {
        refused: context.refused.get(&uid),
        checks: context.checks.get(&uid),
        edits: context.edits.get(&uid),
    };
    let seen = observe(cluster, live, &context.nodes, &context.environment, carried).await;
    let plan = plan(&seen);
    tracing::debug!(summary = plan.summary, action = ?plan.action, "decided");
    context.lease.check()?;
    let mut cluster = seen.cluster;
    if let Some(on) = plan.finalizer {
        cluster = set_finalizer(&context.client, &cluster, on).await?;
    }
    let cluster = write_status(context, cluster, &plan).await?;
    for told in &plan.recoveries {
        write_recovery(context, &cluster, live, told).await?;
    }
    context.metrics.seen(&cluster);
    let namespace = cluster.namespace().unwrap_or_default();
    for edit in &plan.edits {
        let by = who::<StatefulSet>(&context.client, &namespace, &edit.name, &edit.field).await;
        report_edit(context, &cluster, Edit { by, ..edit.clone() }).await;
    }
    let set_back = apply_all(&context.client, &namespace, &uid, live, &plan.objects).await?;
    for edit in set_back {
        report_edit(context, &cluster, edit).await;
    }
    let actor = Actor {
        client: &context.client,
        nodes: &context.nodes,
        addressing: context.environment.addressing,
        cluster: &cluster,
        live,
        checks: &context.checks,
    };
    for labels in &plan.labels {
        actor.label(labels).await?;
    }
    for claim in &plan.claims {
        actor.label_claim(claim).await?;
    }
    let outcome = perform(context, &actor, &plan).await?;
    if let Some(event) = &plan.event
        && outcome == ActionOutcome::Done
    {
        context
            .events
            .publish(&cluster.object_ref(&()), event)
            .await;
    }
    match outcome {
        ActionOutcome::Done => Ok(Duration::from_secs(plan.again_after_seconds)),
        ActionOutcome::Deferred(why) => {
            let event = Event {
                warning: false,
                reason: "Waiting".to_owned(),
                message: why,
            };
            context
                .events
                .publish(&cluster.object_ref(&()), &event)
                .await;
            Ok(DEFERRED_WAIT)
        }
    }
}

/// Notes what somebody did to an object, for the condition of the next passes, and tells it.
async fn report_edit(context: &Context, cluster: &RqliteCluster, edit: Edit) {
    let namespace = cluster.namespace().unwrap_or_default();
    let noted = context.edits.note(&cluster.uid().unwrap_or_default(), edit);
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

/// Writes the status if it differs. Bound to the version that was looked at: two operators cannot both announce something.
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

/// Writes what a recovery is told about itself.
async fn write_recovery(
    context: &Context,
    cluster: &RqliteCluster,
    live: &Live,
    told: &StatusUpdate,
) -> Result<(), Error> {
    let known = named(&live.recoveries, &told.name).filter(|r| r.uid().as_ref() == Some(&told.uid));
    let Some(known) = known else {
        return Err(Error::Changed(format!("RqliteRecovery {}", told.name)));
    };
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<RqliteRecovery> = Api::namespaced(context.client.clone(), &namespace);
    let next = RqliteRecovery {
        status: Some((*told.status).clone()),
        ..(**known).clone()
    };
    api.replace_status(&told.name, &PostParams::default(), &next)
        .await
        .map(drop)
        .map_err(Error::kubernetes(format!(
            "the status of RqliteRecovery {}",
            told.name
        )))
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

/// Shared by all controllers.
pub type SharedContext = Arc<Context>;
