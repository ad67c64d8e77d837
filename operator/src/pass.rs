//! One pass over one cluster: look, decide, then carry out in the order that makes every cut harmless: finalizer, status, objects, labels, action.
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::{Api, Client, Resource, ResourceExt, api::PostParams};
use operator_api::{RqliteCluster, RqliteRecovery, names};

use crate::{
    act::{Actor, Outcome, set_finalizer},
    apply::apply_all,
    cluster::{
        Plan,
        action::Event,
        deciders::recovery::StatusUpdate,
        facts::observation::{DatabaseCheck, Edit},
        plan,
        render::edits,
    },
    edits::{Edits, who},
    error::{Class, Error},
    events::Events,
    lease::Held,
    live::{Live, named},
    metrics::Metrics,
    node_api::Http,
    observe::{Circumstances, Memory, observe},
};

/// Wait after something that was not possible just now, such as an eviction against a budget.
const NOT_NOW: Duration = Duration::from_secs(5);

/// What passes need, whichever cluster they are about.
pub struct Means {
    /// The way to the API server.
    pub client: Client,
    /// The way to nodes.
    pub nodes: Http,
    /// What does not come from objects.
    pub around: Circumstances,
    /// May this process act?
    pub held: Held,
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

impl Means {
    /// A cluster is gone: nothing of it is remembered.
    pub fn forget(&self, uid: &str) {
        self.refused.forget(uid);
        self.checks.forget(uid);
        self.edits.forget(uid);
        self.events.forget(uid);
    }
}

/// What came of checking databases, by cluster's uid and pod.
#[derive(Debug, Default)]
pub struct Checks(Mutex<HashMap<String, BTreeMap<String, DatabaseCheck>>>);

impl Checks {
    /// Notes a check.
    pub fn note(&self, cluster: &RqliteCluster, pod: &str, checked: DatabaseCheck) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_cluster = all.entry(cluster.uid().unwrap_or_default()).or_default();
        of_cluster.insert(pod.to_owned(), checked);
    }

    fn get(&self, uid: &str) -> BTreeMap<String, DatabaseCheck> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(uid).cloned().unwrap_or_default()
    }

    /// A cluster is gone, or a recovery is over.
    pub fn forget(&self, uid: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(uid);
    }
}

/// What the API server refused in the last pass, by cluster's uid.
#[derive(Debug, Default)]
pub struct Refused(Mutex<HashMap<String, String>>);

impl Refused {
    fn get(&self, uid: &str) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(uid).cloned()
    }

    /// Notes how a pass ended. What passes by itself is not noted and changes nothing.
    pub fn note(&self, uid: &str, result: Result<(), &Error>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => {
                all.remove(uid);
            }
            Err(error) if error.class() == Class::Refused => {
                all.insert(uid.to_owned(), error.to_string());
            }
            Err(_) => {}
        }
    }

    /// A cluster is gone.
    pub fn forget(&self, uid: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(uid);
    }
}

/// Makes a pass; how long until the next one.
///
/// # Errors
/// Where it ended early. Everything up to there has happened.
pub async fn pass(means: &Means, cluster: RqliteCluster, live: &Live) -> Result<Duration, Error> {
    means.held.check()?;
    let uid = cluster.uid().unwrap_or_default();
    let memory = Memory {
        refused: means.refused.get(&uid),
        checks: means.checks.get(&uid),
        edits: means.edits.get(&uid),
    };
    let seen = observe(cluster, live, &means.nodes, &means.around, memory).await;
    let plan = plan(&seen);
    tracing::debug!(summary = plan.summary, action = ?plan.action, "decided");
    means.held.check()?;
    let mut cluster = seen.cluster;
    if let Some(on) = plan.finalizer {
        cluster = set_finalizer(&means.client, &cluster, on).await?;
    }
    let cluster = write_status(means, cluster, &plan).await?;
    for told in &plan.recoveries {
        write_recovery(means, &cluster, live, told).await?;
    }
    means.metrics.seen(&cluster);
    let namespace = cluster.namespace().unwrap_or_default();
    for edit in &plan.edits {
        let by = who::<StatefulSet>(&means.client, &namespace, &edit.name, &edit.field).await;
        tell_edit(means, &cluster, Edit { by, ..edit.clone() }).await;
    }
    let set_back = apply_all(&means.client, &namespace, &uid, live, &plan.objects).await?;
    for edit in set_back {
        tell_edit(means, &cluster, edit).await;
    }
    let actor = Actor {
        client: &means.client,
        nodes: &means.nodes,
        addressing: means.around.addressing,
        cluster: &cluster,
        live,
        checks: &means.checks,
    };
    for labels in &plan.labels {
        actor.label(labels).await?;
    }
    for claim in &plan.claims {
        actor.label_claim(claim).await?;
    }
    let outcome = act(means, &actor, &plan).await?;
    if let Some(event) = &plan.event
        && outcome == Outcome::Done
    {
        means.events.tell(&cluster.object_ref(&()), event).await;
    }
    match outcome {
        Outcome::Done => Ok(Duration::from_secs(plan.again_after_seconds)),
        Outcome::NotNow(why) => {
            let event = Event {
                warning: false,
                reason: "Waiting".to_owned(),
                message: why,
            };
            means.events.tell(&cluster.object_ref(&()), &event).await;
            Ok(NOT_NOW)
        }
    }
}

/// Notes what somebody did to an object, for the condition of the next passes, and tells it.
async fn tell_edit(means: &Means, cluster: &RqliteCluster, edit: Edit) {
    let namespace = cluster.namespace().unwrap_or_default();
    let noted = means.edits.note(&cluster.uid().unwrap_or_default(), edit);
    let event = Event {
        warning: true,
        reason: edits::REASON.to_owned(),
        message: edits::describe(&cluster.name_any(), &namespace, &noted),
    };
    means.events.tell(&cluster.object_ref(&()), &event).await;
}

/// Writes the status if it differs. Bound to the version that was looked at: two operators cannot both announce something.
async fn write_status(
    means: &Means,
    cluster: RqliteCluster,
    plan: &Plan,
) -> Result<RqliteCluster, Error> {
    if cluster.status.as_ref() == Some(&*plan.status) {
        return Ok(cluster);
    }
    let name = cluster.name_any();
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<RqliteCluster> = Api::namespaced(means.client.clone(), &namespace);
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
    means: &Means,
    cluster: &RqliteCluster,
    live: &Live,
    told: &StatusUpdate,
) -> Result<(), Error> {
    let known = named(&live.recoveries, &told.name).filter(|r| r.uid().as_ref() == Some(&told.uid));
    let Some(known) = known else {
        return Err(Error::Changed(format!("RqliteRecovery {}", told.name)));
    };
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<RqliteRecovery> = Api::namespaced(means.client.clone(), &namespace);
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

async fn act(means: &Means, actor: &Actor<'_, Http>, plan: &Plan) -> Result<Outcome, Error> {
    let Some(action) = &plan.action else {
        return Ok(Outcome::Done);
    };
    means.held.check()?;
    tracing::info!(?action, "{}", plan.summary);
    let outcome = actor.act(action).await?;
    if outcome == Outcome::Done {
        means.metrics.acted(action.name());
    }
    Ok(outcome)
}

/// Shared by all controllers.
pub type SharedMeans = Arc<Means>;
