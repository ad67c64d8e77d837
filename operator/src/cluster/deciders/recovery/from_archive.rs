//! A recovery without any volume: the archive takes the place of a survivor. All pods are stopped, the
//! cluster starts again in a new lineage with one empty voter that restores the archive, and the others join
//! it.
//!
//! It is the last resort: it is refused while any member may have data, however unlikely its return is,
//! unless that data is known to be older than the archive.
use operator_api::{
    RqliteCluster, RqliteClusterStatus, RqliteRecovery,
    cluster::ArchivePoint,
    lineage::Lineage,
    names,
    recovery::{Candidate, LogPosition, RecoveryPhase, RecoveryRecord},
    status::{
        BootstrapRestoreState, BootstrapRestoreStatus, Member, MemberState, Operation,
        OperationType, Pool, RetiredClaim, Role,
    },
};

use super::{
    fence::stop_all,
    record::{admitted, incarnation, with_outcome, with_phase},
    verdict::{Admission, PATIENCE_SECONDS, given_up_but_alive},
};
use crate::cluster::{
    action::{Action, Decision, begin},
    facts::{
        archiving, beginning, claims,
        observation::{NodeStatus, PrepareReport},
        quorum::member_state,
        view::{View, seconds_between},
    },
};

/// Checks that nothing but the archive is left, and that what is lost by it has been accepted.
pub(super) fn check(view: &View<'_>, recovery: &RqliteRecovery) -> Admission {
    if view.spec.archive.is_none() {
        return Admission::rejected(
            "the cluster has no archive (spec.archive): begin another cluster from a backup with spec.bootstrap.restore",
        );
    }
    if let Some(contradiction) = given_up_but_alive(view, &recovery.spec.ignore_members) {
        return Admission::rejected(contradiction);
    }
    let created = recovery.metadata.creation_timestamp.as_ref();
    let waits = created.is_some_and(|at| seconds_between(at, view.now()) < PATIENCE_SECONDS);
    let (candidates, alive) = inspect(view, &recovery.spec.ignore_members);
    // After a failed restore there are no members: the evidence was given before.
    let again = is_again(view);
    let doubt = match (candidates.is_empty(), alive.is_empty()) {
        (true, _) if !again => Some("no member of the cluster is known".to_owned()),
        (_, false) => Some(alive.join("; ")),
        _ => None,
    };
    let mut admission = match doubt {
        Some(doubt) if waits => {
            let text = format!("{doubt}. Waiting {PATIENCE_SECONDS} s for evidence");
            Admission::inspecting(text)
        }
        Some(doubt) => Admission::rejected(format!(
            "the archive is the last resort, and data may be left: {doubt}. Bring it back, or recover from it (mode SingleSurvivor), which loses no more than it lacks. \
             If it is gone for good, delete its claim (or the Node object of its machine), or list the member in ignoreMembers of another RqliteRecovery. Nothing was changed"
        )),
        None => match occupied(view) {
            Some(text) => Admission::rejected(text),
            None => consent(view, recovery),
        },
    };
    admission.candidates = candidates;
    admission
}

/// Is this another attempt, after a restore that failed?
pub(super) fn is_again(view: &View<'_>) -> bool {
    let record = beginning::unfinished(view);
    record.is_some_and(|record| record.recovery.is_some()) && beginning::failure(view).is_some()
}

fn consent(view: &View<'_>, recovery: &RqliteRecovery) -> Admission {
    let spec = &recovery.spec;
    let to_time = spec.to_time.as_ref().map(|time| time.0.as_str());
    let point = describe(view, to_time, spec.to_index);
    let reach = archiving::announce(view);
    let older = match spec.to_time.is_some() || spec.to_index.is_some() {
        true => " What the archive has after that point is not restored.",
        false => "",
    };
    let summary = format!(
        "{point}. {reach}.{older} All pods are stopped, and the cluster begins again with new, empty volumes"
    );
    let lost = archiving::lost_entries(view);
    let mut admission = if spec.dry_run {
        let text = format!("dry run, nothing was changed: would restore {summary}");
        Admission::new(RecoveryPhase::Succeeded, text)
    } else if !spec.accept_data_loss {
        let text = format!(
            "would restore {summary}. To proceed, create another RqliteRecovery with acceptDataLoss: true"
        );
        Admission::new(RecoveryPhase::AwaitingApproval, text)
    } else {
        let text = format!("restoring {summary}");
        let mut begins = Admission::new(RecoveryPhase::Fencing, text);
        let first = names::pod(&view.set_name(Pool::Voter), 0);
        let nothing = LogPosition { term: 0, index: 0 };
        let record = admitted(view, recovery, (&first, "", nothing), lost);
        begins.record = Some(Box::new(record));
        begins
    };
    admission.possibly_lost_entries = lost;
    admission
}

fn describe(view: &View<'_>, to_time: Option<&str>, to_index: Option<i64>) -> String {
    let archive = view.spec.archive.as_ref();
    let uri = archive.map(|archive| archive.target.uri());
    let uri = uri.unwrap_or_default();
    match (to_time, to_index) {
        (Some(time), _) => format!("the archive in {uri} at {time}"),
        (None, Some(index)) => format!("the archive in {uri} at index {index}"),
        (None, None) => format!("the archive in {uri} at its end"),
    }
}

/// The state of each member, and for those that may have more data than the archive, why.
fn inspect(view: &View<'_>, ignored: &[String]) -> (Vec<Candidate>, Vec<String>) {
    let (mut all, mut alive) = (Vec::new(), Vec::new());
    let members = view.status.members.iter();
    for member in members.filter(|member| member.role != Role::Absent) {
        let (state, reason) = member_state(view, member);
        let reason = reason.unwrap_or_default();
        let is_ignored = ignored.contains(&member.name);
        let lost = is_ignored || matches!(state, MemberState::Lost | MemberState::Foreign);
        let node = view.node(&member.name).filter(|_| !lost);
        let older = node.and_then(|node| is_older(view, node));
        if !lost && older.is_none() {
            alive.push(format!("{} ({state:?}): {reason}", member.name));
        }
        all.push(candidate(member, node, older.unwrap_or(reason)));
    }
    alive.extend(unlisted(view));
    (all, alive)
}

fn candidate(member: &Member, node: Option<&NodeStatus>, reason: String) -> Candidate {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Candidate {
        member: member.name.clone(),
        last_log: node.map(|node| LogPosition {
            term: number(node.last_log_term),
            index: number(node.last_log_index),
        }),
        incarnation: node.map(|node| incarnation(&node.raft_id)),
        reason: Some(reason),
    }
}

/// Does the archive have more than this node, for certain? Both are then of one lineage.
fn is_older(view: &View<'_>, node: &NodeStatus) -> Option<String> {
    let archive = view.status.archive.as_ref()?;
    let archived = u64::try_from(archive.archived_index?).ok()?;
    let ours = node.lineage.as_ref().map(|lineage| &lineage.id);
    (ours == archive.lineage.as_ref() && node.last_log_index < archived).then(|| {
        format!(
            "its log ends at index {}, before the archive's {archived}: a recovery from it would lose more",
            node.last_log_index
        )
    })
}

/// Why the first node could not start with an empty volume: it may form a cluster only with a volume whose
/// data was never parked. Only a person may delete what is in the volume.
fn occupied(view: &View<'_>) -> Option<String> {
    let first = names::pod(&view.set_name(Pool::Voter), 0);
    let claim = view.claim(&first)?;
    let ephemeral = view.spec.storage.ephemeral.is_some();
    if ephemeral || claim.lost.is_some() || claim.deleting || is_again(view) {
        return None;
    }
    let member = view.status.members.iter().find(|m| m.name == first)?;
    let prepared = view.pod(&first).and_then(|pod| pod.prepared.as_ref());
    let raft_id = match view.node(&first) {
        Some(node) => Some(&node.raft_id),
        None => prepared.and_then(|report| report.raft_id.as_ref()),
    };
    let replaced = member
        .claim_uid
        .as_ref()
        .is_some_and(|uid| *uid != claim.uid);
    let wiped = raft_id.is_some() && raft_id != member.raft_id.as_ref();
    let unusable = prepared.is_some_and(PrepareReport::is_damaged);
    (!(replaced || wiped) || unusable).then(|| {
        format!(
            "{first} is the node that restores, and its volume has data that is of no use (see status.candidates). Once nothing in it is needed any more, delete its claim and its pod (kubectl delete pvc {} --wait=false; kubectl delete pod {first}), and create another RqliteRecovery. Nothing was changed",
            claim.name
        )
    })
}

/// Nodes with data of this cluster that are in no recorded configuration.
fn unlisted(view: &View<'_>) -> Vec<String> {
    let members = &view.status.members;
    let listed = |name: &str| {
        let mut all = members.iter().filter(|m| m.role != Role::Absent);
        all.any(|member| member.name == name)
    };
    let names = view.seen.nodes.keys().filter(|name| !listed(name));
    let found = names.filter_map(|name| {
        let node = view.node(name)?;
        let has_data = view.is_ours(node) && node.cluster_id.is_some() && node.last_log_index > 0;
        (has_data && is_older(view, node).is_none())
            .then(|| format!("{name}: it runs with data of the cluster"))
    });
    found.collect()
}

/// Stops all pods, deletes the claims of lost volumes, and starts again.
pub(super) fn advance(view: &View<'_>, operation: &Operation, record: &RecoveryRecord) -> Decision {
    if let Some(leader) = view.leader {
        let why = format!("{} leads after all: there is a quorum", leader.name);
        return fail(view, record, &why);
    }
    if view.spec.archive.is_none() {
        return fail(view, record, "spec.archive was removed");
    }
    if let Some(stop) = stop_all(view, operation, record) {
        return stop;
    }
    let lost = view.seen.claims.iter().find(|claim| claim.lost.is_some());
    if let Some(claim) = lost.filter(|_| view.spec.storage.ephemeral.is_none()) {
        let name = &claim.name;
        if claim.deleting {
            return Decision::Wait(format!("waiting for the claim {name} to be deleted"));
        }
        if !claims::is_own(view, claim) {
            let text = format!(
                "the volume of {name} is lost, and the claim is not known to be the cluster's: delete it, so that a new volume takes its place"
            );
            return Decision::Blocked("RecoveryStalled", text);
        }
        let delete = Action::DeleteClaim {
            name: name.clone(),
            uid: claim.uid.clone(),
        };
        return Decision::Act(delete, format!("deleting {name}, whose volume is lost"));
    }
    match begin_again(view, record) {
        Some(next) => {
            let text = format!(
                "all nodes have stopped; the cluster begins again from the archive in epoch {}",
                record.to.epoch
            );
            Decision::Record(next, text)
        }
        None => fail(view, record, "spec.archive was removed"),
    }
}

fn fail(view: &View<'_>, record: &RecoveryRecord, why: &str) -> Decision {
    let text = format!("{why}. No volume with data was touched; nodes start again as before");
    let next = with_outcome(view, record, RecoveryPhase::Failed, text.clone());
    Decision::Record(next, text)
}

/// The status of a cluster that has not formed, in the recovery's lineage. Data on the remaining volumes is
/// parked before their nodes start.
pub(super) fn begin_again(
    view: &View<'_>,
    record: &RecoveryRecord,
) -> Option<Box<RqliteClusterStatus>> {
    let mut cluster: RqliteCluster = view.seen.cluster.clone();
    cluster.spec = view.spec.clone();
    let point = ArchivePoint {
        to_time: record.to_time.clone(),
        to_index: record.to_index,
        ..ArchivePoint::default()
    };
    let source = beginning::of_archive(&cluster, point)?;
    let (mut next, mut record) = with_phase(view, record, RecoveryPhase::Restoring);
    record.message = None;
    next.lineage = Some(Lineage {
        since: Some(view.now().clone()),
        ..record.to.clone()
    });
    next.bootstrapped_at = None;
    let before = next.bootstrap_restore.take().unwrap_or_default();
    next.bootstrap_restore = Some(BootstrapRestoreStatus {
        state: BootstrapRestoreState::Restoring,
        source: Some(beginning::describe(&source)),
        request: before.request,
        resolved: serde_json::to_value(&source).ok(),
        recovery: Some(record.uid.clone()),
        ..BootstrapRestoreStatus::default()
    });
    next.recovery = Some(record);
    if let Some(target) = &mut next.target {
        (target.replicas, target.bootstrap_replicas) = (1, 1);
    }
    // Indexes and members of the former lineage have no meaning in the new one.
    next.members.clear();
    next.voters = 0;
    next.commit_index = None;
    next.configuration_index = None;
    next.last_leader_seen = None;
    retire(view, &mut next);
    Some(begin(
        &next,
        &view.seen.fresh_id,
        view.now(),
        OperationType::Bootstrap,
        None,
        None,
    ))
}

/// Parks the data on these volumes before nodes start with them. The first node's volume is empty: see
/// [`occupied`].
fn retire(view: &View<'_>, next: &mut RqliteClusterStatus) {
    let first = names::claim(&names::pod(&view.set_name(Pool::Voter), 0));
    let claims = view.seen.claims.iter();
    for claim in claims.filter(|claim| !claim.deleting && claim.name != first) {
        let member = claim.name.replacen(&names::claim(""), "", 1);
        next.retired_claims.retain(|old| old.name != claim.name);
        next.retired_claims.push(RetiredClaim {
            name: claim.name.clone(),
            uid: claim.uid.clone(),
            member,
            retired_at: view.now().clone(),
        });
    }
}
