//! The status: the decision, the present state, and conditions that say what a user can do.
mod condition;
mod conditions;
mod members;
mod ready;
mod tls;
mod updates;
mod users;

use operator_api::{
    RqliteClusterStatus, names,
    status::{
        Endpoints, HIBERNATED, OperationType, Phase, Pool, QUORUM_LOST, READY, Target, TlsStage,
    },
};

use crate::cluster::{
    action::Decision,
    deciders::{deletion, manager},
    facts::{
        archiving, beginning, claims, doors,
        hold::Hold,
        network, newer,
        quorum::{Outage, classify_outage},
        tls as facts_tls,
        view::{View, seconds_between},
    },
    render::build::{has_readers, selecting},
};

/// The commit index of a cluster that has nothing else to report is written at most this often, in seconds.
/// In between it is kept in memory; an operator that restarts in the moment in which a quorum is lost knows
/// it as of the last write, and says so.
const COMMIT_SECONDS: u64 = 600;

/// Returns the status to write. `held`: while the cluster is paused, what the operator would do otherwise.
pub fn status(
    view: &View<'_>,
    wanted: &Target,
    decision: &Decision,
    held: Option<&Decision>,
) -> RqliteClusterStatus {
    let mut next = match decision {
        Decision::Record(recorded, _) => (**recorded).clone(),
        _ => view.status.clone(),
    };
    next.observed_generation = view.seen.cluster.metadata.generation;
    let us = &view.seen.operator;
    let before = next.managed_by.take();
    let record = manager::record(before.as_ref(), &view.seen.cluster, us, view.now());
    next.managed_by = Some(record);
    let newer = newer::unknown_work(view.status).is_some();
    if !newer {
        next.operator_version = Some(view.seen.operator.version.clone());
    }
    if let Some(operation) = next.operation.as_mut().filter(|_| !newer) {
        operation.message = match decision {
            Decision::Wait(text) | Decision::Blocked(_, text) | Decision::Act(_, text) => {
                Some(text.clone())
            }
            Decision::Record(..) | Decision::Continue => operation.message.take(),
        };
    }
    // During a recovery, the configuration confirmed before it stays recorded: it may be needed again.
    let operation = next.operation.as_ref().map(|operation| operation.kind);
    let recovers = operation == Some(OperationType::Recover);
    set_leader(view, &mut next);
    if let Some(leader) = view.leader.filter(|_| !recovers) {
        next.configuration_index = i64::try_from(leader.status.config_index).ok();
    }
    let pods = view.pods(Pool::Voter).len();
    next.replicas = i32::try_from(pods).unwrap_or(i32::MAX);
    next.ready_replicas = i32::try_from(view.participants().len()).unwrap_or(i32::MAX);
    if view.leader.is_some() && !recovers {
        next.voters = i32::try_from(view.config_voters()).unwrap_or(i32::MAX);
    }
    let selector = selecting(view, Some(Pool::Voter));
    let selector: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
    next.selector = Some(selector.join(","));
    next.read_replicas = members::readers(view);
    next.unknown_members = members::unknown(view);
    next.members = members::members(view, &next.members, recovers);
    next.claims = claims::recorded(view);
    next.endpoints = Some(endpoints(view));
    if next.cluster_domain.is_none() && next.cluster_id.is_some() {
        next.cluster_domain = Some(view.cluster_domain().to_owned());
    }
    record_access(view, &mut next);
    beginning::record(view, &mut next);
    let outage = if view.is_formed() {
        classify_outage(view)
    } else {
        Outage::None
    };
    conditions::write(view, wanted, decision, held, &outage, &mut next);
    next.phase = Some(phase(view, decision, held.is_some(), &outage, &next));
    if !recovers {
        remember_leader(view, &mut next);
    }
    next
}

/// Records the decisions about access that are made once: network, users, TLS.
fn record_access(view: &View<'_>, next: &mut RqliteClusterStatus) {
    if next.cluster_id.is_some() {
        let exposed = doors::is_exposed(view);
        next.network = Some(network::recorded(view, next.network.take(), exposed));
        users::record(view, next);
    }
    tls::record(view, next);
}

/// Adds what concerns images, kept templates and plans that wait for approval. `asked` has the spec as the
/// user wrote it, `view` what is kept instead.
pub fn add_updates(
    view: &View<'_>,
    asked: &View<'_>,
    wanted: &Target,
    hold: Option<&Hold>,
    next: &mut RqliteClusterStatus,
) {
    updates::record(view, asked, wanted, hold, next);
    for one in updates::conditions(asked, hold, next) {
        conditions::put(view, next, one);
    }
    if let Some((ready, phase)) = updates::correct_ready(hold, next) {
        conditions::put(view, next, ready);
        next.phase = phase
            .filter(|_| next.phase == Some(Phase::Running))
            .or(next.phase);
    }
}

fn set_leader(view: &View<'_>, next: &mut RqliteClusterStatus) {
    let Some(leader) = view.leader else {
        next.leader = None;
        next.leader_since = None;
        return;
    };
    if next.leader.as_deref() != Some(leader.name) || next.leader_since.is_none() {
        next.leader = Some(leader.name.to_owned());
        next.leader_since = Some(view.now().clone());
    }
}

/// Records when a leader was last seen and what it had committed: with every other change, when the leader is
/// lost, and now and then under writes. By itself the passing of time changes nothing.
fn remember_leader(view: &View<'_>, next: &mut RqliteClusterStatus) {
    let Some(seen) = view.leader_seen() else {
        return;
    };
    let index = i64::try_from(seen.commit_index).unwrap_or(i64::MAX);
    let known = next.last_leader_seen.as_ref();
    let is_new = known.is_none_or(|known| seconds_between(known, &seen.at) > 0);
    let is_due = known.is_none_or(|known| seconds_between(known, &seen.at) >= COMMIT_SECONDS);
    let moved = next.commit_index.is_none_or(|known| index > known);
    if is_new && (*next != *view.status || view.leader.is_none() || (is_due && moved)) {
        next.last_leader_seen = Some(seen.at);
        next.commit_index = Some(index.max(next.commit_index.unwrap_or(0)));
    }
    if *next != *view.status {
        archiving::record(view, next);
    }
}

fn endpoints(view: &View<'_>) -> Endpoints {
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    let namespace = namespace.unwrap_or("default");
    let only_tls = facts_tls::resolved(view).clients.stage == TlsStage::Require;
    let scheme = if only_tls { "https" } else { "http" };
    let url = |service: String, port: i32| {
        format!(
            "{scheme}://{service}.{namespace}.svc.{}:{port}",
            view.cluster_domain()
        )
    };
    let services = view.spec.services.clone().unwrap_or_default();
    let port = |port: Option<i32>| port.unwrap_or(names::HTTP_PORT);
    let client = services.client.unwrap_or_default();
    let leader = services.leader.unwrap_or_default();
    let read = services.read.unwrap_or_default();
    let reads = has_readers(view) && read.enabled;
    Endpoints {
        client: url(names::client(view.name), port(client.port)),
        leader: leader
            .enabled
            .then(|| url(names::leader(view.name), port(leader.port))),
        read: reads.then(|| url(names::read(view.name), port(read.port))),
    }
}

fn phase(
    view: &View<'_>,
    decision: &Decision,
    paused: bool,
    outage: &Outage,
    next: &RqliteClusterStatus,
) -> Phase {
    let metadata = &view.seen.cluster.metadata;
    if metadata.deletion_timestamp.is_some() && !deletion::is_protected(view) {
        return Phase::Deleting;
    }
    if paused {
        return Phase::Paused;
    }
    if matches!(decision, Decision::Blocked("InvalidSpec", _)) {
        return Phase::Invalid;
    }
    let stopping = next.operation.as_ref().map(|o| o.kind) == Some(OperationType::Hibernate);
    if stopping || next.is(HIBERNATED) {
        return Phase::Hibernated;
    }
    if next.bootstrapped_at.is_none() {
        return Phase::Forming;
    }
    if next.operation.as_ref().map(|o| o.kind) == Some(OperationType::Recover) {
        return Phase::Recovering;
    }
    if next.is(QUORUM_LOST) {
        return Phase::QuorumLost;
    }
    if *outage != Outage::None {
        return Phase::Unavailable;
    }
    if next.is(READY) {
        return Phase::Running;
    }
    let changes = next.operation.is_some()
        || matches!(decision, Decision::Record(..) | Decision::Act(..))
        || next
            .condition(READY)
            .is_some_and(|c| c.reason == "Changing");
    if changes {
        Phase::Changing
    } else {
        Phase::Degraded
    }
}

#[cfg(test)]
mod consistency_tests;
#[cfg(test)]
mod tests;
