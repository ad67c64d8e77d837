//! Replaces outdated pods, one at a time: first those that take no part, then read replicas, then followers,
//! and last the leader, after a leadership transfer.
use operator_api::{
    cluster::{OperatorChanges, UpdateStrategy},
    status::{Operation, OperationType, Pool, Step, Target},
};

use crate::cluster::{
    action::{Action, Decision, begin, finish},
    deciders::{
        drain,
        membership::is_foreign,
        scale::{TRANSFER_SECONDS, wait_or_blocked},
    },
    facts::{
        claims, inputs,
        observation::ObservedPod,
        quorum::is_disk_needed,
        view::{View, quorum, seconds_between},
    },
};

/// Seconds that a leader must have led before another pod is replaced.
pub const STABLE_LEADER_SECONDS: u64 = 10;

/// Do the targets differ only because another version of the operator renders the same spec differently, and
/// is that deferred?
pub fn is_deferred(view: &View<'_>, wanted: &Target) -> bool {
    let update = view.spec.update.clone().unwrap_or_default();
    let deferred = update.operator_changes.unwrap_or_default() == OperatorChanges::Deferred;
    view.target().is_some_and(|now| {
        deferred
            && now.image == wanted.image
            && inputs::are_same(now, wanted)
            && !same_templates(now, wanted)
    })
}

/// Do both targets have the same pod templates? A pool that is no longer wanted has none.
pub fn same_templates(now: &Target, wanted: &Target) -> bool {
    let readers = wanted.read_template_hash.as_ref();
    now.template_hash == wanted.template_hash
        && readers.is_none_or(|hash| now.read_template_hash.as_ref() == Some(hash))
}

/// Adopts a new template as the target. Also during operations that a bad template can block, so that a
/// corrected one unblocks them.
pub fn adopt(view: &View<'_>, wanted: &Target) -> Decision {
    let Some(now) = view.target() else {
        return Decision::Continue;
    };
    // A StatefulSet is recreated from the target.
    let remade = view.operating(OperationType::Resize).is_some();
    let gone = view.seen.voters.is_none() || (remade && view.seen.readers.is_none());
    if same_templates(now, wanted) || (is_deferred(view, wanted) && !gone) {
        return Decision::Continue;
    }
    let busy = view.operation().is_some_and(|o| {
        use OperationType::{Hibernate, Resize, ScaleDown};
        // Before its last step a scale-down may wait for a pod that starts only with a corrected template.
        let waits = o.kind == ScaleDown && o.step == Step::Start;
        matches!(o.kind, Resize | Hibernate | ScaleDown) && !waits
    });
    // Without a leader these operations cannot continue, and a corrected template may be what brings one
    // back.
    let hibernates = view.operating(OperationType::Hibernate).is_some();
    if busy && !gone && (view.leader.is_some() || hibernates) {
        return Decision::Continue;
    }
    let mut next = view.status.clone();
    if now.worked_at.is_some() && !inputs::differ_in_tls_only(now, wanted) {
        next.last_good_target = Some(now.clone());
    }
    next.target = Some(Target {
        replicas: now.replicas,
        bootstrap_replicas: now.bootstrap_replicas,
        newer: now.newer.clone(),
        ..wanted.clone()
    });
    let text = format!("the pods' new template is {}", wanted.template_hash);
    Decision::Record(Box::new(next), text)
}

fn wanted_hash(target: &Target, pool: Pool) -> Option<&str> {
    match pool {
        Pool::Voter => Some(&target.template_hash),
        Pool::Read => target.read_template_hash.as_deref(),
    }
}

/// Is a pod older than its StatefulSet's present template, or does its file system need a restart to
/// grow, or does it have to leave its machine?
pub fn is_outdated(view: &View<'_>, pod: &ObservedPod) -> bool {
    let Some(target) = view.target() else {
        return false;
    };
    let wanted = wanted_hash(target, pod.pool);
    let applied = view
        .set(pod.pool)
        .is_some_and(|set| Some(set.template_hash.as_str()) == wanted);
    let grown = claims::needs_restart(view, pod);
    let leaves = drain::must_move(view, pod);
    applied && (Some(pod.template_hash.as_str()) != wanted || grown || leaves)
}

/// Was a pod created from an outdated template? A volume that waits for a restart is no reason to restart a
/// second time.
fn has_old_template(view: &View<'_>, pod: &ObservedPod) -> bool {
    let wanted = view.target().and_then(|t| wanted_hash(t, pod.pool));
    is_outdated(view, pod) && Some(pod.template_hash.as_str()) != wanted
}

/// Continues the replacement of one pod.
pub fn resume(view: &View<'_>) -> Decision {
    let Some(operation) = view.operating(OperationType::Update) else {
        return Decision::Continue;
    };
    let name = operation.member.as_deref().unwrap_or_default();
    let Some(pod) = view.pod(name) else {
        return pod_gone(view, operation, name);
    };
    if pod.deleting {
        return wait_or_blocked(
            view,
            operation,
            "UpdateStalled",
            format!("{name} is stopping"),
        );
    }
    if operation.uid.as_deref() == Some(pod.uid.as_str()) {
        if !is_outdated(view, pod) {
            let text = format!("{name} no longer needs to be replaced");
            return Decision::Record(finish(view.status), text);
        }
        return replace(view, operation, pod);
    }
    if has_old_template(view, pod) && !view.participates(name) {
        let mut next = begin(
            view.status,
            &view.seen.fresh_id,
            view.now(),
            OperationType::Update,
            Some(name),
            Some(&pod.uid),
        );
        if let Some(operation) = &mut next.operation {
            operation.message = Some("its replacement failed, and the template has changed".into());
        }
        return Decision::Record(next, format!("recreating {name} once more"));
    }
    let update = view.spec.update.clone().unwrap_or_default();
    let min_ready = update.min_ready.duration().map_or(10, |d| d.as_secs());
    let settled = pod.ready
        && pod
            .ready_since
            .as_ref()
            .is_some_and(|since| seconds_between(since, view.now()) >= min_ready);
    let back = view.participates(name) || (pod.pool == Pool::Read && pod.ready);
    if back && settled {
        return Decision::Record(finish(view.status), format!("{name} is up to date"));
    }
    if pod.stuck.is_some() && !is_wanted(view, pod) {
        let text = format!("the new {name} does not run, and the spec no longer asks for it");
        return Decision::Record(finish(view.status), text);
    }
    if pod.pool == Pool::Read && is_foreign(pod) {
        let text = format!("the volume of {name} belongs to another cluster: others go on");
        return Decision::Record(finish(view.status), text);
    }
    let text = match &pod.stuck {
        Some(stuck) => format!("the new {name} does not run: {stuck}"),
        None if back => format!("the new {name} is ready for less than update.minReady"),
        None => format!("the new {name} does not take part yet"),
    };
    wait_or_blocked(view, operation, "UpdateStalled", text)
}

/// Does the spec ask for this pod? An update must not wait for one that a scale-down is about to remove.
fn is_wanted(view: &View<'_>, pod: &ObservedPod) -> bool {
    let wanted = match pod.pool {
        Pool::Voter => Some(view.spec.replicas),
        Pool::Read => view.wanted_readers(),
    };
    let ordinal = view.ordinal(pod);
    wanted.is_none_or(|wanted| ordinal.is_some_and(|ordinal| ordinal < wanted))
}

fn pod_gone(view: &View<'_>, operation: &Operation, name: &str) -> Decision {
    let expected = [Pool::Voter, Pool::Read].into_iter().any(|pool| {
        let live = view.set(pool).map_or(0, |set| set.replicas);
        operator_api::names::ordinal(&view.set_name(pool), name).is_some_and(|o| o < live)
    });
    if expected {
        let text = format!("waiting for the new {name}");
        wait_or_blocked(view, operation, "UpdateStalled", text)
    } else {
        Decision::Record(
            finish(view.status),
            format!("the spec no longer asks for {name}"),
        )
    }
}

/// Replaces the recorded pod, which still is the old one.
fn replace(view: &View<'_>, operation: &Operation, pod: &ObservedPod) -> Decision {
    let name = pod.name.as_str();
    if is_disk_needed(view, pod) && !pod.update_now {
        let text = format!("the disk of {name} is needed while the others have no quorum");
        return Decision::Record(finish(view.status), text);
    }
    if pod.pool == Pool::Voter && view.participates(name) {
        if let Some(reason) = reason_to_wait(view, name) {
            // Nothing has been changed yet: more urgent decisions go first.
            return Decision::Record(finish(view.status), reason);
        }
        let may_transfer = seconds_between(&operation.step_at, view.now()) < TRANSFER_SECONDS;
        if view.leader.is_some_and(|leader| leader.name == name)
            && may_transfer
            && let Some(successor) = view.leadership_successor(name)
        {
            let transfer = Action::TransferLeader {
                from: name.to_owned(),
                to: successor.to_owned(),
            };
            return Decision::Act(
                transfer,
                format!("transferring leadership from {name} to {successor}"),
            );
        }
        return evict(pod);
    }
    if pod.pool == Pool::Read && pod.ready {
        return evict(pod);
    }
    // A pod that takes no part can be deleted at no cost; an eviction through the budget could only block its
    // repair.
    let text = format!("recreating {name}, which takes no part");
    Decision::Act(Action::delete_pod(pod), text)
}

fn evict(pod: &ObservedPod) -> Decision {
    let evict = Action::EvictPod {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
    };
    Decision::Act(evict, format!("replacing {}", pod.name))
}

/// A reason not to stop a voter that takes part at present. With one or two voters there is no spare one:
/// then it is done anyway, one at a time.
fn reason_to_wait(view: &View<'_>, name: &str) -> Option<String> {
    let voters = view.config_voters();
    let participants = view.participants().len();
    if participants < voters {
        return Some(format!(
            "{name} waits until all other voters take part ({participants} of {voters} do)"
        ));
    }
    let wanted = usize::try_from(view.spec.replicas).unwrap_or(1);
    if voters > 2 && participants - 1 < quorum(voters.max(wanted)) {
        return Some(format!("{name} is needed for a quorum"));
    }
    let since = view.status.leader_since.as_ref();
    let led = since.map_or(0, |since| seconds_between(since, view.now()));
    let same = view.leader.map(|l| l.name) == view.status.leader.as_deref();
    let is_leader = view.leader.is_some_and(|l| l.name == name);
    // After a leadership transfer the new leader counts as stable enough for its predecessor to stop.
    let transferred = view.operation().is_some() && !is_leader;
    if (!same || led < STABLE_LEADER_SECONDS) && !transferred {
        return Some(format!("{name} waits until the leader is stable"));
    }
    None
}

/// Begins the replacement of one pod, if any is outdated.
pub fn start(view: &View<'_>, only_broken: bool) -> Decision {
    let manual = view.spec.update.clone().unwrap_or_default().strategy;
    let manual = manual.unwrap_or_default() == UpdateStrategy::Manual;
    let mut outdated: Vec<&ObservedPod> = view
        .seen
        .pods
        .iter()
        .filter(|pod| !pod.deleting && is_outdated(view, pod))
        .collect();
    outdated.sort_by_key(|pod| replacement_order(view, pod));
    let may = |pod: &&ObservedPod| pod.update_now || !(manual || is_disk_needed(view, pod));
    let Some(pod) = outdated.into_iter().find(may) else {
        return Decision::Continue;
    };
    if only_broken && replacement_order(view, pod).0 != 0 {
        return Decision::Continue;
    }
    if pod.pool == Pool::Voter
        && view.participates(&pod.name)
        && let Some(reason) = reason_to_wait(view, &pod.name)
    {
        return Decision::Wait(reason);
    }
    let next = begin(
        view.status,
        &view.seen.fresh_id,
        view.now(),
        OperationType::Update,
        Some(&pod.name),
        Some(&pod.uid),
    );
    Decision::Record(next, format!("replacing {}", pod.name))
}

/// Sort key: pods that take no part, read replicas, followers (those on cordoned machines first, then from
/// the highest ordinal), the leader.
fn replacement_order<'a>(view: &View<'_>, pod: &'a ObservedPod) -> (u8, bool, i32, &'a str) {
    let takes_part = view.participates(&pod.name) || (pod.pool == Pool::Read && pod.ready);
    let leads = view.leader.is_some_and(|leader| leader.name == pod.name);
    let class = match (takes_part, pod.pool, leads) {
        (false, _, _) => 0,
        (true, Pool::Read, _) => 1,
        (true, Pool::Voter, false) => 2,
        (true, Pool::Voter, true) => 3,
    };
    let stays = !pod
        .machine
        .as_ref()
        .is_some_and(|m| view.seen.cordoned.contains(m));
    let ordinal = view.ordinal(pod).unwrap_or(0);
    (class, stays, -ordinal, &pod.name)
}

#[cfg(test)]
mod tests;
