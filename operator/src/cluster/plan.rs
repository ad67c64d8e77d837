//! The plan of one reconcile. It is carried out in this order: finalizer, status, objects, pod labels,
//! action. Each step may fail or be cut off; the next reconcile starts from what it then observes.
mod about;

use std::collections::BTreeMap;

use operator_api::{
    RqliteClusterStatus, names,
    status::{AVAILABLE, OperationType, Pool},
};
use serde::Serialize;

use crate::cluster::{
    action::{Action, Decision, Event, finish},
    deciders::{
        approval::Gate,
        authentication, beginning, blocked, bootstrap, certificates, deletion, drain, hibernate,
        membership, names_taken, outage, readers, reap, recovered_by_hand,
        recovery::{self, NamedRecovery, StatusUpdate},
        replace, restore, rollback, rollout, scale, storage, tls, unknown, unstick,
    },
    facts::{
        archiving, authentication as access, claims, hash,
        hold::{self, Hold},
        newer,
        observation::{Edit, Observation, ObservedPod},
        secrets,
        stages::PodTls,
        validate,
        view::{View, seconds_between},
    },
    render::{
        blockers,
        build::{self, Object},
        edits, report,
        secrets::SecretsPlan,
        strays, unknown_members,
    },
};

pub use about::RestoresPlan;

/// Seconds until the next reconcile while something is under way. Changes within Raft cause no Kubernetes
/// event.
const SOON_SECONDS: u64 = 2;
/// Seconds after a status was recorded: the next reconcile acts on the record at once.
const AT_ONCE_SECONDS: u64 = 0;
/// Seconds while something is wrong.
const UNHEALTHY_SECONDS: u64 = 15;
/// Seconds while objects of others have names of this cluster's.
const TAKEN_SECONDS: u64 = 5;
/// Seconds in a namespace that is being deleted: there is nothing to do but to wait for its end.
const ENDING_SECONDS: u64 = 60;
/// Seconds while everything is as the spec asks.
const CALM_SECONDS: u64 = 45;
/// The same for a cluster with Secrets, which no watch shows: how long one that was deleted or changed by
/// hand stays unnoticed.
const SECRETS_SECONDS: u64 = 25;

/// What one reconcile does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What was decided, for people.
    pub summary: String,
    /// Should the finalizer be on the object? None: leave it as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finalizer: Option<bool>,
    /// Finalizers of others to remove first: the garbage collector must not delete what is protected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop_finalizers: Vec<&'static str>,
    /// The status to write before anything else, if it differs from what is there.
    pub status: Box<RqliteClusterStatus>,
    /// Secrets to make before the objects, and to delete after them.
    #[serde(skip_serializing_if = "SecretsPlan::is_empty")]
    pub secrets: SecretsPlan,
    /// Objects to apply, in this order. Applying them never disrupts a running cluster.
    pub objects: Vec<Object>,
    /// Statuses of RqliteRecovery objects to write together with the cluster's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recoveries: Vec<StatusUpdate>,
    /// What to write about RqliteRestore objects.
    #[serde(skip_serializing_if = "RestoresPlan::is_empty")]
    pub restores: RestoresPlan,
    /// RqliteRecovery objects that lack the owner reference to this cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unowned: Vec<NamedRecovery>,
    /// RqliteRecovery objects that ended long ago and are deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expired: Vec<NamedRecovery>,
    /// Labels that pods lack.
    pub labels: Vec<PodLabels>,
    /// Names of claims that pods of the cluster use and that lack the cluster's label, such as those that a
    /// person created for moved volumes. Without the label the operator does not watch them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<String>,
    /// The action, at most one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// The event to publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// Events to publish besides that of the decision.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Event>,
    /// Changes by others to the operator's objects that this plan reverts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<Edit>,
    /// Seconds until the next reconcile, if nothing triggers one before.
    pub again_after_seconds: u64,
}

/// Labels for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodLabels {
    /// The pod.
    pub pod: String,
    /// Its uid, so that a successor of the same name is not changed.
    pub uid: String,
    /// Labels to set; None removes the label.
    pub labels: BTreeMap<String, Option<String>>,
}

/// Plans one reconcile of one cluster.
pub fn plan(seen: &Observation) -> Plan {
    let asked = View::of(seen);
    // A kept template takes the place of the present spec's, for all that follows.
    let hold = hold::decide(&asked);
    let planned = hold.as_ref().and_then(|hold| hold::applied(hold, seen));
    let mut view = View::of(planned.as_ref().unwrap_or(seen));
    view.kept_image = hold
        .as_ref()
        .filter(|_| planned.is_some())
        .map(|h| h.image.as_str());
    let adopts = hold.is_none() || planned.is_some();
    plan_kept(&asked, &view, hold.as_ref(), adopts)
}

/// Plans with a spec of which parts may be kept from before. `asked` has the spec as the user wrote it;
/// `adopts`: whether a new template may become the target.
fn plan_kept(asked: &View<'_>, view: &View<'_>, hold: Option<&Hold>, adopts: bool) -> Plan {
    let seen = view.seen;
    let wanted = build::wanted_target(view);
    let gate = Gate::new(view, hold);
    let deleting = seen.cluster.metadata.deletion_timestamp.is_some();
    let paused = seen.cluster.is_paused();
    let mistakes = validate::mistakes(asked);
    let leaving = deleting && !deletion::is_protected(view);
    let newer = newer::unknown_work(view.status);
    let untouched =
        leaving || paused || !mistakes.is_empty() || newer.is_some() || view.seen.namespace_ends;
    let unpaused = || match (&newer, mistakes.is_empty()) {
        _ if view.seen.namespace_ends => blocked::namespace_ends(view),
        (Some(work), _) => Decision::Blocked(newer::REASON, newer::explain(view, work)),
        (None, true) => gate.finish(match rollback::decide(view, asked, hold) {
            Decision::Continue => decide(view, &wanted, &gate, adopts),
            back => back,
        }),
        (None, false) => Decision::Blocked("InvalidSpec", mistakes.join("; ")),
    };
    let held = (paused && !leaving).then(unpaused);
    let decision = if leaving {
        deletion::decide(view)
    } else if paused {
        Decision::Wait("paused: the operator changes nothing".to_owned())
    } else {
        unpaused()
    };
    let named = view.target().filter(|_| view.status.cluster_id.is_some());
    let objects = unless(untouched, || {
        named.map_or_else(Vec::new, |target| build::objects(view, target, &wanted))
    });
    let mut status = report::status(view, &wanted, &decision, held.as_ref());
    if newer.is_none() {
        gate.write(held.as_ref().unwrap_or(&decision), &mut status);
        report::add_updates(view, asked, &wanted, hold, &mut status);
    }
    let standstill = about::standstill(leaving, paused, &mistakes);
    let recoveries = match &standstill {
        Some(why) => recovery::held_updates(view, why),
        None => unless(untouched, || {
            recovery::status_updates(view, &status, message(&decision))
        }),
    };
    let event = event(view, &decision);
    let again_after_seconds = requeue_seconds(view, &decision);
    let (action, summary) = summarized(decision);
    Plan {
        summary,
        finalizer: (!deleting && !paused).then(|| deletion::needs_finalizer(view)),
        drop_finalizers: blocked::collector_finalizers(view),
        status: Box::new(status),
        secrets: SecretsPlan::unless(untouched || named.is_none(), view),
        objects,
        recoveries,
        // Clients must find the leader, even during work of a newer operator.
        labels: unless(untouched && newer.is_none(), || labels(view)),
        restores: RestoresPlan::of(view, untouched, standstill.as_deref()),
        unowned: unless(untouched, || recovery::unowned(view)),
        expired: unless(untouched, || recovery::expired(view)),
        claims: unless(untouched, || unlabelled_claims(view)),
        action,
        event,
        notices: notices(view),
        edits: reverted(view, untouched),
        again_after_seconds,
    }
}

/// The action of a decision, and its text.
fn summarized(decision: Decision) -> (Option<Action>, String) {
    match decision {
        Decision::Act(action, text) => (Some(action), text),
        Decision::Continue => (None, "the cluster matches its spec".to_owned()),
        Decision::Wait(text) | Decision::Blocked(_, text) | Decision::Record(_, text) => {
            (None, text)
        }
    }
}

/// The result of `what`, or nothing if nothing may be changed.
fn unless<T>(untouched: bool, what: impl FnOnce() -> Vec<T>) -> Vec<T> {
    if untouched { Vec::new() } else { what() }
}

/// Changes by others that the plan reverts.
fn reverted(view: &View<'_>, untouched: bool) -> Vec<Edit> {
    let edit = (!untouched).then(|| edits::changed_replicas(view));
    edit.flatten().into_iter().collect()
}

/// Events beside that of the decision. None can be created in a namespace that ends.
fn notices(view: &View<'_>) -> Vec<Event> {
    let blocked = blocked::explain(view).filter(|_| !view.seen.namespace_ends);
    let blocked = blocked.map(|(_, message)| Event::warning("DeletionBlocked", message));
    let certificates = certificates::plan(view);
    let bad = certificates.problems().map(|problem| Event {
        warning: true,
        reason: problem.reason.to_owned(),
        message: problem.text.clone(),
    });
    let archive = archiving::failure(view).map(|(_, reason, text)| Event::warning(reason, text));
    strays::event(view)
        .into_iter()
        .chain(archive)
        .chain(blocked)
        .chain(bad)
        .collect()
}

/// The text of a decision.
fn message(decision: &Decision) -> Option<&str> {
    match decision {
        Decision::Continue => None,
        Decision::Wait(text)
        | Decision::Blocked(_, text)
        | Decision::Record(_, text)
        | Decision::Act(_, text) => Some(text),
    }
}

/// Asks the deciders in order of urgency; the first decision other than `Continue` is taken.
fn decide(
    view: &View<'_>,
    wanted: &operator_api::status::Target,
    gate: &Gate<'_, '_>,
    adopts: bool,
) -> Decision {
    let first = |all: &[&dyn Fn() -> Decision]| first(gate, all);
    let urgent = first(&[
        &|| names_taken::decide(view),
        &|| beginning::resolve(view),
        &|| bootstrap::identity(view, wanted),
        &|| membership::adopt_configuration(view),
        &|| bootstrap::correct(view, wanted),
        // Also during a recovery: a corrected template may be what lets its survivor start.
        &|| match adopts {
            true => rollout::adopt(view, wanted),
            false => Decision::Continue,
        },
        &|| recover(view),
        &|| unstick_during(view, restore::decide(view)),
        &|| unknown::remove(view),
        &|| drain::move_leader(view),
        &|| hibernate::decide(view),
        &|| recovered_by_hand::decide(view),
        &|| recovered_by_hand::restart_ended_lineage(view),
        &|| membership::foreign(view),
        &|| tls::await_first(view),
        &|| continue_bootstrap(view),
        &|| await_stateful_set(view),
        &|| recovery::automatic(view),
        &|| recovery::report_stalled(view, outage::outage(view)),
        &|| recovery::rejoin(view),
    ]);
    if urgent != Decision::Continue {
        return urgent;
    }
    let decision = first(&[
        &|| replace::interrupt(view),
        &|| reap_during(view, scale::resume(view)),
        &|| replace::resume(view),
        &|| storage::resume(view),
        &|| rollout::resume(view),
        &|| drop_leftover(view),
        &|| replace::start(view),
        &|| rollout::start(view, true),
        &|| reap::start(view),
        &|| replace::rejoin_removed(view),
        &|| scale::start(view),
        &|| storage::start(view),
        &|| rollout::start(view, false),
        &|| tls::decide(view),
        &|| authentication::decide(view),
    ]);
    match decision {
        // Read replicas are in no quorum: their number need not wait for what the voters wait for.
        Decision::Continue | Decision::Wait(_) | Decision::Blocked(..) => {
            match first(&[&|| scale::readers(view), &|| readers::leave(view)]) {
                Decision::Continue => match gate.admit(unstick_during(view, decision.clone())) {
                    Decision::Continue => decision,
                    decision => decision,
                },
                readers => readers,
            }
        }
        decision => decision,
    }
}

/// An operation that waits because a pod cannot start must not keep that pod from being repaired.
fn unstick_during(view: &View<'_>, decision: Decision) -> Decision {
    match decision {
        Decision::Wait(_) | Decision::Blocked(..) => match unstick::unstick(view) {
            Decision::Continue => decision,
            repair => repair,
        },
        decision => decision,
    }
}

/// A scaling that the remaining voters cannot support must not wait for configuration entries without a node:
/// removing one of them may be what makes it possible.
fn reap_during(view: &View<'_>, decision: Decision) -> Decision {
    match decision {
        Decision::Blocked(..) => match reap::start(view) {
            Decision::Continue => decision,
            removal => removal,
        },
        decision => decision,
    }
}

fn first(gate: &Gate<'_, '_>, deciders: &[&dyn Fn() -> Decision]) -> Decision {
    deciders
        .iter()
        .map(|decider| gate.admit(decider()))
        .find(|decision| *decision != Decision::Continue)
        .unwrap_or(Decision::Continue)
}

fn recover(view: &View<'_>) -> Decision {
    unstick_during(view, recovery::decide(view))
}

fn continue_bootstrap(view: &View<'_>) -> Decision {
    unstick_during(view, bootstrap::forming(view))
}

/// Between the deletion of a StatefulSet and its recreation nothing else may happen: the new one is created
/// with the objects of this reconcile.
fn await_stateful_set(view: &View<'_>) -> Decision {
    match storage::resume(view) {
        Decision::Wait(text) => Decision::Wait(text),
        // Needs no leader. Waiting here would keep a corrected template from being adopted, which may be what
        // brings a leader back.
        begun @ (Decision::Act(..) | Decision::Record(..)) if view.leader.is_none() => begun,
        _ if view.set(Pool::Voter).is_none() => {
            Decision::Wait("waiting for the StatefulSet".to_owned())
        }
        _ => Decision::Continue,
    }
}

/// Drops an operation that no decider has handled, such as a bootstrap of a cluster that has formed.
fn drop_leftover(view: &View<'_>) -> Decision {
    match view.operation() {
        Some(operation) => {
            let text = format!(
                "dropping the operation {:?}, which has ended",
                operation.kind
            );
            Decision::Record(finish(view.status), text)
        }
        None => Decision::Continue,
    }
}

fn unlabelled_claims(view: &View<'_>) -> Vec<String> {
    let pods = view.seen.pods.iter().filter(|pod| !pod.deleting);
    let used = pods.map(claims::name_of);
    let unlabelled = used.filter(|name| !view.seen.claims.iter().any(|c| c.name == *name));
    unlabelled.collect()
}

/// Labels by which Services and disruption budgets select pods.
fn labels(view: &View<'_>) -> Vec<PodLabels> {
    let mut all = Vec::new();
    for pod in view.seen.pods.iter().filter(|pod| !pod.deleting) {
        let mut wanted = role_labels(view, pod);
        let owner = build::owner_label(view, pod);
        wanted.extend(owner.map(|uid| (names::OWNER_LABEL, Some(uid))));
        wanted.extend(secrets_label(view, pod));
        let labels: BTreeMap<_, _> = wanted
            .into_iter()
            .filter(|(key, value)| pod.labels.get(*key) != value.as_ref())
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        if !labels.is_empty() {
            all.push(PodLabels {
                pod: pod.name.clone(),
                uid: pod.uid.clone(),
                labels,
            });
        }
    }
    all
}

/// A label that changes with the Secrets that a pod mounts: otherwise the kubelet shows changed files only
/// when it next looks, which may take more than a minute.
fn secrets_label(view: &View<'_>, pod: &ObservedPod) -> Option<(&'static str, Option<String>)> {
    if pod.tls == PodTls::default() && !access::in_pods(view) {
        return None;
    }
    let mounted = [
        names::node_tls_secret(view.name),
        names::http_tls_secret(view.name),
        names::users_secret(view.name),
    ];
    let versions = mounted.map(|name| {
        let secret = view.seen.secrets.get(&name);
        secret.map(|secret| secret.resource_version.clone())
    });
    let is_there = versions.iter().any(Option::is_some);
    is_there.then(|| (names::SECRETS_LABEL, Some(hash::hash(&versions))))
}

/// Labels that depend on who leads. Without a leader the present ones are the best knowledge there is.
fn role_labels(view: &View<'_>, pod: &ObservedPod) -> Vec<(&'static str, Option<String>)> {
    if view.leader.is_none() || view.operating(OperationType::Recover).is_some() {
        return Vec::new();
    }
    let leaving = view
        .operating(OperationType::ScaleDown)
        .and_then(|o| o.member.as_deref());
    let leads = view.leader.is_some_and(|leader| leader.name == pod.name);
    let member = view.member(&pod.name);
    let role = if leads { "leader" } else { "follower" };
    // After a recovery pods wait for the changed state file: a changed label makes the kubelet refresh it.
    let epoch = view.status.lineage.as_ref().map_or(0, |l| l.epoch);
    let epoch = (epoch > 0).then(|| epoch.to_string());
    let serving = (leaving != Some(pod.name.as_str())).to_string();
    vec![
        (names::ROLE_LABEL, member.map(|_| role.to_owned())),
        (names::RAFT_LABEL, member.map(|_| "member".to_owned())),
        (names::SERVING_LABEL, Some(serving)),
        (names::EPOCH_LABEL, epoch),
    ]
}

fn event(view: &View<'_>, decision: &Decision) -> Option<Event> {
    let event = |warning, reason: &str, message: &str| Event {
        warning,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    if let Some(text) = unknown_members::news(view) {
        return Some(event(true, unknown_members::REASON, &text));
    }
    match decision {
        Decision::Continue | Decision::Wait(_) => blockers::event(view),
        Decision::Blocked(blocked::NAMESPACE_ENDS, _) => None,
        Decision::Blocked(reason, text) => {
            Some(event(true, reason, &blockers::with_blocker(view, text)))
        }
        Decision::Record(next, text) if next.rolled_back != view.status.rolled_back => {
            Some(event(true, "UpdateRolledBack", text))
        }
        Decision::Record(next, text) if next.approved_plan != view.status.approved_plan => {
            Some(event(false, "PlanApproved", text))
        }
        Decision::Record(next, text) => {
            let kind = next.operation.as_ref().or(view.operation());
            let reason = kind.map_or("Planned".to_owned(), |o| format!("{:?}", o.kind));
            Some(event(false, &reason, text))
        }
        Decision::Act(action, text) => {
            let reason = match action {
                Action::ReleaseFinalizer if deletion::leaves_claims(view) => "ClaimsLeft",
                Action::ReleaseFinalizer => "FinalizerRemoved",
                Action::DeleteStatefulSet { .. } => "StatefulSetDeleted",
                Action::DeleteClaim { .. } => "ClaimDeleted",
                Action::SetReplicas { .. } => "PodsScaled",
                Action::TransferLeader { .. } => "LeaderTransfer",
                Action::RemoveMember { .. } => "MemberRemoved",
                Action::EvictPod { .. } | Action::DeletePod { .. } => "PodReplaced",
                Action::ExpandClaim { .. } => "ClaimExpanded",
                Action::CheckMember { .. } => "MemberChecked",
                Action::EndCheck { .. } => "CheckEnded",
                Action::CreateRecovery { .. } => "RecoveryCreated",
                Action::Restore { request, .. } if request.dry_run => "RestorePlanned",
                Action::Restore { .. } => "RestoreStarted",
            };
            Some(event(false, reason, text))
        }
    }
}

fn requeue_seconds(view: &View<'_>, decision: &Decision) -> u64 {
    // Most objects of others are not watched.
    let limit = if !view.seen.taken.is_empty() || is_exchanging(view) {
        TAKEN_SECONDS
    } else if secrets::names(&view.seen.cluster).all().is_empty() {
        CALM_SECONDS
    } else {
        SECRETS_SECONDS
    };
    match decision {
        Decision::Blocked(blocked::NAMESPACE_ENDS, _) => ENDING_SECONDS,
        _ => requeue_for(view, decision).min(limit),
    }
}

/// Is one authority being replaced by another? Nodes take each step within seconds.
fn is_exchanging(view: &View<'_>) -> bool {
    let tls = view.status.tls.iter();
    let mut sides = tls.flat_map(|tls| [&tls.nodes, &tls.clients]);
    sides.any(|side| side.trusted.len() > 1)
}

fn requeue_for(view: &View<'_>, decision: &Decision) -> u64 {
    match decision {
        Decision::Record(..) => AT_ONCE_SECONDS,
        Decision::Act(..) => SOON_SECONDS,
        _ if unknown::is_pending(view) => SOON_SECONDS,
        Decision::Wait(_) | Decision::Blocked(..)
            if view.operation().is_some()
                || recovery::is_checking(view)
                || restore::is_open(view) =>
        {
            SOON_SECONDS
        }
        Decision::Wait(_) | Decision::Blocked(..) if may_be_electing(view) => SOON_SECONDS,
        Decision::Wait(_) | Decision::Blocked(..) => UNHEALTHY_SECONDS,
        Decision::Continue if view.participants().len() < view.config_voters() => UNHEALTHY_SECONDS,
        Decision::Continue if restore::is_open(view) => SOON_SECONDS,
        Decision::Continue => CALM_SECONDS,
    }
}

/// For how long after the loss of a leader a new one is expected.
const ELECTION_SECONDS: u64 = 60;

/// Was there a leader not long ago, and do most pods respond? Then there will be one soon.
fn may_be_electing(view: &View<'_>) -> bool {
    let nodes = view.seen.nodes.keys();
    let responding = nodes.filter(|name| view.node(name).is_some()).count();
    let since = view.status.condition(AVAILABLE);
    let since = since.filter(|available| available.status == "False");
    let away = since.map_or(0, |c| seconds_between(&c.last_transition_time, view.now()));
    let electing = view.leader.is_none() && away < ELECTION_SECONDS;
    electing && view.is_formed() && responding * 2 > view.seen.pods.len()
}

#[cfg(test)]
mod tests;
