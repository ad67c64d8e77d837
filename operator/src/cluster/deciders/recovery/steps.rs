//! The steps of an admitted recovery. Each checks first, does one thing and can be repeated: the operator may
//! stop at any point.
use node_contract::FormingPhase;
use operator_api::{
    lineage::Lineage,
    names,
    recovery::{RecoveryMode, RecoveryPhase, RecoveryRecord},
    status::{Operation, Pool, Step},
};

use super::{
    check::{CheckState, NeededCheck},
    fence::stop_all,
    files, from_archive,
    record::{with_outcome, with_phase},
};
use crate::cluster::{
    action::{Action, Decision},
    deciders::scale::{set_replicas, wait_or_blocked},
    facts::{
        observation::NodeStatus,
        view::{Leader, View, seconds_between},
    },
};

/// Seconds after which a refusal by `rqlited prepare` is no longer taken for a temporary fault of the disk.
const REFUSED_SECONDS: u64 = 120;

pub(super) fn advance(view: &View<'_>, operation: &Operation, record: &RecoveryRecord) -> Decision {
    if record.mode == RecoveryMode::FromArchive {
        return from_archive::advance(view, operation, record);
    }
    let claim = view.claim(&record.survivor);
    if let Some(lost) = claim.and_then(|claim| claim.lost.as_ref()) {
        return fail(
            view,
            record,
            format!("the survivor was lost as well: {lost}"),
        );
    }
    if claim.is_none() {
        return fail(
            view,
            record,
            "the survivor's claim is gone as well".to_owned(),
        );
    }
    match operation.step {
        Step::Apply => apply(view, operation, record),
        Step::Verify => verify(view, operation, record),
        _ => fence(view, operation, record),
    }
}

/// Gives up. Nodes that still have data of the former lineage start again as before; their data was not
/// changed.
fn fail(view: &View<'_>, record: &RecoveryRecord, why: String) -> Decision {
    let text = format!(
        "{why}. All data directories are kept; nodes start again as before. Create another RqliteRecovery, perhaps with another survivor. Runbook: recovery-failed"
    );
    let next = with_outcome(view, record, RecoveryPhase::Failed, text.clone());
    Decision::Record(next, text)
}

/// Stops all nodes of both pools, and waits until none can be running.
fn fence(view: &View<'_>, operation: &Operation, record: &RecoveryRecord) -> Decision {
    if let Some(leader) = view.leader {
        let why = format!("{} leads after all: there is a quorum", leader.name);
        return fail(view, record, why);
    }
    if let Some(stop) = stop_all(view, operation, record) {
        return stop;
    }
    let text = format!(
        "all nodes have stopped; {} follows the plan",
        record.survivor
    );
    Decision::Record(
        next_step(view, record, Step::Apply, RecoveryPhase::Applying),
        text,
    )
}

fn next_step(
    view: &View<'_>,
    record: &RecoveryRecord,
    step: Step,
    phase: RecoveryPhase,
) -> Box<operator_api::RqliteClusterStatus> {
    let (mut next, record) = with_phase(view, record, phase);
    next.recovery = Some(record);
    if let Some(operation) = &mut next.operation {
        operation.step = step;
        operation.step_at = view.now().clone();
    }
    next
}

fn pool_of(view: &View<'_>, record: &RecoveryRecord) -> Pool {
    let reader = names::ordinal(&view.set_name(Pool::Read), &record.survivor);
    reader.map_or(Pool::Voter, |_| Pool::Read)
}

/// Starts the survivor with the plan. Pods of a lower ordinal start with it and are held by their
/// preparation.
fn apply(view: &View<'_>, operation: &Operation, record: &RecoveryRecord) -> Decision {
    let state = view.seen.state.as_ref().map(|state| state.phase);
    let plan = files::of(view, record);
    if state != Some(FormingPhase::Recovering) || view.seen.plan != plan {
        return Decision::Wait("publishing the plan to the pods".to_owned());
    }
    if let Some(again) = started_early(view, record) {
        return again;
    }
    match start_survivor(view, record) {
        Decision::Continue => {}
        decision => return decision,
    }
    let Some(pod) = view.pod(&record.survivor) else {
        let text = format!("waiting for the pod {}", record.survivor);
        return wait_or_blocked(view, operation, "RecoveryStalled", text);
    };
    if let Some(node) = view.node(&record.survivor) {
        return answered(view, record, node);
    }
    if let Some(report) = pod.prepared.as_ref().filter(|_| !pod.deleting) {
        let waited = seconds_between(&operation.step_at, view.now());
        let certain = matches!(
            report.state.as_str(),
            "Foreign" | "Damaged" | "StaleLineage" | "UnknownLineage"
        );
        let refused = report.state == "Refused" && waited > REFUSED_SECONDS;
        if certain || refused {
            let why = format!(
                "the preparation of {} does not follow the plan: {}",
                record.survivor, report.reason
            );
            return fail(view, record, why);
        }
    }
    let text = match &pod.stuck {
        Some(stuck) => format!("{} does not start: {stuck}", record.survivor),
        None => format!("{} is rewriting its membership", record.survivor),
    };
    wait_or_blocked(view, operation, "RecoveryStalled", text)
}

/// Creates the survivor's pod, and those of lower ordinals, as a StatefulSet requires.
fn start_survivor(view: &View<'_>, record: &RecoveryRecord) -> Decision {
    let pool = pool_of(view, record);
    let Some(set) = view.set(pool) else {
        return Decision::Wait("waiting for the StatefulSet".to_owned());
    };
    let ordinal = names::ordinal(&view.set_name(pool), &record.survivor).unwrap_or(0);
    let wanted = match (record.mode, view.target()) {
        (RecoveryMode::RewriteAddresses, Some(target)) => target.replicas.max(ordinal + 1),
        _ => ordinal + 1,
    };
    if set.replicas >= wanted {
        return Decision::Continue;
    }
    let text = format!("starting {} with the plan", record.survivor);
    Decision::Act(set_replicas(view, pool, set, wanted), text)
}

fn answered(view: &View<'_>, record: &RecoveryRecord, node: &NodeStatus) -> Decision {
    let name = &record.survivor;
    if !runs_in(node, &record.to) {
        return Decision::Wait(format!("{name} is stopping"));
    }
    let next = next_step(view, record, Step::Verify, RecoveryPhase::Verifying);
    Decision::Record(next, format!("{name} runs in the new lineage"))
}

fn runs_in(node: &NodeStatus, lineage: &Lineage) -> bool {
    node.lineage.as_ref().map(|l| &l.id) == Some(&lineage.id)
}

/// A node that responds with another lineage has started with files from before the plan, for example because
/// a person raised a StatefulSet during the fencing. Its pod is recreated: it then follows the plan or is
/// held.
fn started_early(view: &View<'_>, record: &RecoveryRecord) -> Option<Decision> {
    let early = view.seen.pods.iter().find(|pod| {
        let node = view.node(&pod.name);
        !pod.deleting && node.is_some_and(|node| !runs_in(node, &record.to))
    })?;
    Some(Decision::Act(
        Action::delete_pod(early),
        format!("restarting {}, which started without the plan", early.name),
    ))
}

/// The survivor must lead alone, in the new lineage, with everything it had, and pass a linearizable read and
/// SQLite's integrity check.
fn verify(view: &View<'_>, operation: &Operation, record: &RecoveryRecord) -> Decision {
    if let Some(again) = started_early(view, record) {
        return again;
    }
    let wait = |text: String| wait_or_blocked(view, operation, "RecoveryStalled", text);
    let Some(leader) = view.leader else {
        // A person may have lowered the StatefulSet.
        match start_survivor(view, record) {
            Decision::Continue => {}
            decision => return decision,
        }
        let stuck = view.pod(&record.survivor).and_then(|p| p.stuck.clone());
        return wait(match stuck {
            Some(stuck) => format!("{} does not run: {stuck}", record.survivor),
            None => format!("waiting until {} leads", record.survivor),
        });
    };
    if let Some(wrong) = differs_from_plan(record, &leader) {
        return wait(wrong);
    }
    if let Some(behind) = straggler(view, record) {
        return wait(format!("waiting until {behind} has followed the plan"));
    }
    let check = NeededCheck::of_survivor(view, operation, record, leader.status);
    let state = check.state(view);
    let text = check.waits_for(&state).unwrap_or_default();
    match state {
        CheckState::Missing => Decision::Act(check.action(), text),
        CheckState::Faulty(_) => fail(view, record, text),
        CheckState::Running(_) | CheckState::Busy(_) => Decision::Wait(text),
        CheckState::Late => Decision::Blocked(
            "RecoveryStalled",
            format!(
                "{text}. {} leads alone with its data. To go on without the check, set the annotation {}=true on the RqliteRecovery {}",
                leader.name,
                names::SKIP_CHECK_ANNOTATION,
                record.name
            ),
        ),
        CheckState::Passed | CheckState::Skipped => {
            let (mut next, done) = with_phase(view, record, RecoveryPhase::Rejoining);
            let mut lineage = record.to.clone();
            lineage.since = Some(view.now().clone());
            next.lineage = Some(lineage);
            next.recovery = Some(done);
            next.operation = None;
            // Indexes of the former lineage have no meaning in the new one.
            next.commit_index = None;
            next.configuration_index = None;
            next.last_leader_seen = None;
            if let Some(archive) = &mut next.archive {
                (archive.archived_index, archive.archived_time) = (None, None);
            }
            let text = format!(
                "the cluster continues from {} in epoch {}; the others rejoin",
                record.survivor, record.to.epoch
            );
            Decision::Record(next, text)
        }
    }
}

/// A voter whose data the plan keeps and that has not followed the plan yet. Later it could not: its data
/// would belong to an ended lineage.
fn straggler<'a>(view: &View<'_>, record: &'a RecoveryRecord) -> Option<&'a str> {
    let voters = record.peers.iter().filter(|peer| peer.voter);
    let mut with_data = voters.filter(|peer| {
        let claim = view.claim(&peer.name);
        claim.is_some_and(|claim| claim.lost.is_none() && !claim.deleting)
    });
    let behind = with_data.find(|peer| {
        let node = view.node(&peer.name);
        node.is_none_or(|node| !runs_in(node, &record.to))
    });
    behind.map(|peer| peer.name.as_str())
}

fn differs_from_plan(record: &RecoveryRecord, leader: &Leader<'_>) -> Option<String> {
    let node = leader.status;
    if !runs_in(node, &record.to) {
        return Some(format!("{} leads in another lineage", leader.name));
    }
    let last = u64::try_from(record.last_log.index).unwrap_or(0);
    if node.applied_index < last {
        return Some(format!("{} is still applying its log", leader.name));
    }
    let mut planned: Vec<(&str, bool)> = vec![(record.survivor.as_str(), true)];
    planned.extend(record.peers.iter().map(|p| (p.name.as_str(), p.voter)));
    planned.sort_unstable();
    let mut members: Vec<(&str, bool)> = node
        .config
        .iter()
        .map(|m| (m.name.as_str(), m.voter))
        .collect();
    members.sort_unstable();
    (members != planned).then(|| format!("{} has other members than the plan", leader.name))
}
