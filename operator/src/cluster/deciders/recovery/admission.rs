//! A recovery before its admission: is the quorum really lost, which members are left, which has the newest
//! log, which writes may be lost, and has that been accepted? Nothing is changed here, so nothing needs to be
//! recorded first.
use operator_api::{
    RqliteRecovery, names,
    recovery::{
        Candidate, LogPosition, RecoveryCheck, RecoveryCheckState, RecoveryMode, RecoveryPhase,
    },
    status::{Member, MemberState, OperationType, Pool, Role},
};

use super::{
    belonging::other_cluster,
    check::{CheckState, NeededCheck},
    from_archive,
    record::{admitted, incarnation},
    verdict::{Admission, PATIENCE_SECONDS, given_up_but_alive},
};
use crate::cluster::facts::{
    observation::NodeStatus,
    quorum::{Assessment, assess, highest_commit_index, may_lose_writes, member_state},
    view::{View, seconds_between},
};

/// A member that responds with usable data.
struct UsableMember<'a> {
    member: &'a Member,
    node: &'a NodeStatus,
    last: LogPosition,
}

/// Checks whether a recovery can be admitted, as far as the present observation allows.
pub fn check_admission(view: &View<'_>, recovery: &RqliteRecovery) -> Admission {
    if let Some(refused) = refused(view, recovery) {
        return refused;
    }
    let spec = &recovery.spec;
    if spec.mode == RecoveryMode::FromArchive {
        return from_archive::check(view, recovery);
    }
    let assessment = assess(view, &spec.ignore_members);
    let patience = || {
        let created = recovery.metadata.creation_timestamp.as_ref();
        created.is_some_and(|at| seconds_between(at, view.now()) < PATIENCE_SECONDS)
    };
    if let Some(contradiction) = given_up_but_alive(view, &spec.ignore_members) {
        return Admission::rejected(contradiction);
    }
    if assessment.voters.is_empty() && patience() {
        let text = "the voters are not known yet: waiting until one of them answers";
        return Admission::inspecting(text);
    }
    let possible = match spec.mode {
        RecoveryMode::SingleSurvivor => assessment.is_permanent(),
        RecoveryMode::RewriteAddresses => assessment.voters.iter().all(|v| !v.is_lost()),
        RecoveryMode::FromArchive => true,
        RecoveryMode::Other(mode) => {
            return Admission::rejected(format!(
                "this version of the operator knows no mode {mode:?}: upgrade it, or use SingleSurvivor or RewriteAddresses"
            ));
        }
    };
    if !possible {
        let text = not_lost(&assessment, spec.mode);
        return if patience() {
            Admission::inspecting(format!("{text} Waiting {PATIENCE_SECONDS} s for evidence"))
        } else {
            Admission::rejected(text)
        };
    }
    let (found, mut candidates, missing) = inspect(view, recovery);
    let former = match found.is_empty() && missing.is_empty() {
        true => former(view, recovery),
        false => Vec::new(),
    };
    candidates.extend(former.iter().map(usable));
    let mut admission = if missing.is_empty() {
        choose_survivor(view, recovery, &assessment, &found, &former)
    } else {
        Admission::inspecting(format!(
            "waiting for a response from {}. If one of them is gone for good, create another RqliteRecovery that lists it in ignoreMembers",
            missing.join(", ")
        ))
    };
    admission.candidates = candidates;
    admission
}

/// Reasons to reject a recovery, or to wait, that do not depend on its members' data.
fn refused(view: &View<'_>, recovery: &RqliteRecovery) -> Option<Admission> {
    let own = recovery.metadata.uid.as_deref();
    let from_archive = recovery.spec.mode == RecoveryMode::FromArchive;
    let again = from_archive && from_archive::is_again(view);
    if !view.is_formed() && !again {
        let text = "the cluster has not formed yet: there is nothing to recover";
        return Some(Admission::rejected(text));
    }
    if view.spec.storage.ephemeral.is_some() && !from_archive {
        let text = "the cluster is ephemeral: a recovery stops all pods, and with them goes their data. Read what you need from the nodes that still answer, with level=none, then delete the RqliteCluster and create it again";
        return Some(Admission::rejected(text));
    }
    if view.is_hibernating() || view.spec.hibernated {
        let text = "the cluster is hibernated: set hibernated to false first, and check whether it comes back";
        return Some(Admission::rejected(text));
    }
    if let Some(record) = &view.status.recovery
        && view.operating(OperationType::Recover).is_some()
        && own != Some(record.uid.as_str())
    {
        let text = format!("another recovery, {}, is under way", record.name);
        return Some(Admission::rejected(text));
    }
    if !recovery.spec.dry_run
        && let Some(newer) = newer(view, recovery)
    {
        return Some(Admission::rejected(format!("{newer} takes precedence")));
    }
    if let Some(leader) = view.leader {
        let text = format!(
            "{} leads, confirmed by a quorum: there is nothing to recover. A single lost member is replaced by memberReplacement",
            leader.name
        );
        return Some(Admission::rejected(text));
    }
    if view.operating(OperationType::Resize).is_some() || view.set(Pool::Voter).is_none() {
        return Some(Admission::inspecting("waiting for the StatefulSet"));
    }
    let sees = view.seen.pods.iter().find_map(|pod| {
        let node = view.node(&pod.name)?;
        let leader = node.leader.as_deref()?;
        let believed = view.is_ours(node) && leader != pod.name && may_lead(view, recovery, leader);
        believed.then(|| format!("{} follows {leader}", pod.name))
    });
    sees.map(|sees| Admission::inspecting(format!("{sees}: waiting until that has ended")))
}

/// Could this node, which another one follows, really lead? A leader that has lost its quorum still sends
/// heartbeats to its followers, but reports that it does not lead.
fn may_lead(view: &View<'_>, recovery: &RqliteRecovery, name: &str) -> bool {
    if let Some(node) = view.node(name) {
        return node.is_leader;
    }
    let known = view.status.members.iter().find(|m| m.name == name);
    let lost = known.is_some_and(|m| member_state(view, m).0 == MemberState::Lost);
    !lost && !recovery.spec.ignore_members.iter().any(|m| m == name)
}

/// Name of a later recovery of the same cluster that takes precedence. Of two that were created in the same
/// second, the one without a status is the later one; one that has ended does not count. Otherwise each would
/// be rejected in favour of the other.
fn newer(view: &View<'_>, recovery: &RqliteRecovery) -> Option<String> {
    let order = |r: &RqliteRecovery| {
        let created = r.metadata.creation_timestamp.as_ref().map(|t| t.0);
        let unseen = r.status.as_ref().is_none_or(|s| s.phase.is_none());
        (created, unseen, r.metadata.name.clone())
    };
    let has_ended = |r: &RqliteRecovery| {
        let phase = r.status.as_ref().and_then(|status| status.phase);
        phase.is_some_and(RecoveryPhase::is_final)
    };
    let later = view.seen.recoveries.iter();
    let later = later.filter(|r| !r.spec.dry_run && !has_ended(r) && order(r) > order(recovery));
    let later = later.filter(|r| other_cluster(view, r).is_none());
    later
        .map(|r| r.metadata.name.clone().unwrap_or_default())
        .max()
}

fn not_lost(assessment: &Assessment<'_>, mode: RecoveryMode) -> String {
    let (all, possible) = (assessment.voters.len(), assessment.possible());
    match mode {
        RecoveryMode::SingleSurvivor | RecoveryMode::FromArchive | RecoveryMode::Other(_) => {
            format!(
                "{possible} of {all} voters may come back with their data and {} suffice: a quorum is not known to be lost ({}). Bring them back. If one is gone for good, \
             delete its claim (or the Node object of its machine), or list it in ignoreMembers of another RqliteRecovery.",
                assessment.needed(),
                assessment.describe()
            )
        }
        RecoveryMode::RewriteAddresses => format!(
            "mode RewriteAddresses needs all voters, and {} of {all} are lost ({}): use mode SingleSurvivor.",
            all - possible,
            assessment.describe()
        ),
    }
}

/// Every member of the last confirmed configuration that may have its data: those with usable data, all as
/// candidates, and the names of those that do not respond.
fn inspect<'a>(
    view: &View<'a>,
    recovery: &RqliteRecovery,
) -> (Vec<UsableMember<'a>>, Vec<Candidate>, Vec<String>) {
    let (mut found, mut candidates, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    let members = view.status.members.iter();
    for member in members.filter(|m| m.role != Role::Absent) {
        let (state, reason) = member_state(view, member);
        let ignored = recovery.spec.ignore_members.contains(&member.name);
        let unusable = |reason: String| Candidate {
            member: member.name.clone(),
            last_log: None,
            incarnation: None,
            reason: Some(reason),
        };
        if matches!(state, MemberState::Lost | MemberState::Foreign) {
            candidates.push(unusable(reason.unwrap_or_default()));
            continue;
        }
        match view.node(&member.name) {
            Some(node) => {
                let last = position(node);
                let one = UsableMember { member, node, last };
                let fault = fault(view, recovery, &member.name, node);
                candidates.push(Candidate {
                    reason: fault.clone(),
                    ..usable(&one)
                });
                if fault.is_none() {
                    found.push(one);
                }
            }
            None if ignored => candidates.push(unusable("ignored".to_owned())),
            // It is in no quorum, and no pod of it will be started.
            None if is_scaled_away(view, member) => {
                candidates.push(unusable(start_it(view, member)))
            }
            None => {
                missing.push(member.name.clone());
                candidates.push(unusable(reason.unwrap_or_default()));
            }
        }
    }
    (found, candidates, missing)
}

fn usable(one: &UsableMember<'_>) -> Candidate {
    Candidate {
        member: one.member.name.clone(),
        last_log: Some(one.last),
        incarnation: Some(incarnation(&one.node.raft_id)),
        reason: None,
    }
}

/// Nodes that run with data of this lineage and are not in the recorded configuration: they have left it, or
/// rejoined unobserved.
fn former<'a>(view: &View<'a>, recovery: &RqliteRecovery) -> Vec<UsableMember<'a>> {
    let members = view.status.members.iter();
    let absent = members.filter(|m| m.role == Role::Absent);
    let found = absent.filter_map(|member| {
        let node = view.node(&member.name)?;
        let has_data = node.cluster_id.is_some() && !node.config.is_empty() && view.is_ours(node);
        let sound = has_data && fault(view, recovery, &member.name, node).is_none();
        sound.then(|| UsableMember {
            member,
            node,
            last: position(node),
        })
    });
    found.collect()
}

/// Is this a read replica that the spec no longer asks for and that has no pod? No pod of it will be started.
fn is_scaled_away(view: &View<'_>, member: &Member) -> bool {
    let ordinal = names::ordinal(&view.set_name(Pool::Read), &member.name);
    let surplus = ordinal.is_some_and(|o| view.wanted_readers().is_some_and(|wanted| o >= wanted));
    surplus && view.pod(&member.name).is_none()
}

fn start_it(view: &View<'_>, member: &Member) -> String {
    let ordinal = names::ordinal(&view.set_name(Pool::Read), &member.name).unwrap_or(0);
    format!(
        "it has no pod: to have its data inspected, set readReplicas.replicas to {}",
        ordinal + 1
    )
}

/// A read replica without a pod whose volume exists: used only if no other data is left.
fn scaled_away<'a>(view: &View<'a>) -> Option<&'a Member> {
    let members = view.status.members.iter();
    let mut members = members.filter(|m| m.role != Role::Absent && is_scaled_away(view, m));
    members.find(|m| member_state(view, m).0 != MemberState::Lost)
}

fn position(node: &NodeStatus) -> LogPosition {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    LogPosition {
        term: number(node.last_log_term),
        index: number(node.last_log_index),
    }
}

fn fault(
    view: &View<'_>,
    recovery: &RqliteRecovery,
    name: &str,
    node: &NodeStatus,
) -> Option<String> {
    match NeededCheck::before_admission(view, recovery, name, node).state(view) {
        CheckState::Faulty(fault) => Some(format!(
            "its database fails SQLite's integrity check: {fault}"
        )),
        _ => None,
    }
}

/// The member with the newest last entry, by term, then index; ties go to the higher applied index, then to
/// the lower name.
fn newest<'f, 'a>(found: &'f [UsableMember<'a>], pool: Pool) -> Option<&'f UsableMember<'a>> {
    let of_pool = found.iter().filter(|f| f.member.pool == pool);
    of_pool.max_by(|a, b| {
        let key = |f: &UsableMember<'_>| (f.last, f.node.applied_index);
        key(a)
            .cmp(&key(b))
            .then_with(|| b.member.name.cmp(&a.member.name))
    })
}

fn choose_survivor(
    view: &View<'_>,
    recovery: &RqliteRecovery,
    assessment: &Assessment<'_>,
    found: &[UsableMember<'_>],
    former: &[UsableMember<'_>],
) -> Admission {
    let spec = &recovery.spec;
    let mut all = found.iter().chain(former);
    let (voter, reader) = (newest(found, Pool::Voter), newest(found, Pool::Read));
    let survivor = match &spec.survivor {
        Some(name) => match all.find(|f| f.member.name == *name) {
            Some(named) => named,
            None => {
                return Admission::rejected(format!(
                    "{name} cannot be the survivor: see status.candidates"
                ));
            }
        },
        None => match (voter, reader) {
            (Some(voter), Some(reader)) if reader.last > voter.last => {
                return needs_named_survivor(format!(
                    "the read replica {} has a newer log (index {}, term {}) than the newest voter {} (index {}, term {})",
                    reader.member.name,
                    reader.last.index,
                    reader.last.term,
                    voter.member.name,
                    voter.last.index,
                    voter.last.term
                ));
            }
            (Some(voter), _) => voter,
            (None, Some(reader)) => {
                return needs_named_survivor(format!(
                    "no voter is left, but the read replica {} is (log ends at index {}, term {})",
                    reader.member.name, reader.last.index, reader.last.term
                ));
            }
            (None, None) => return fallback(view, former),
        },
    };
    let mut admission = check_data_loss(view, recovery, assessment, found, survivor);
    admission.chosen = Some(survivor.member.name.clone());
    admission
}

/// The result if no running member of the configuration has usable data.
fn fallback(view: &View<'_>, former: &[UsableMember<'_>]) -> Admission {
    if let Some(member) = scaled_away(view) {
        return Admission::inspecting(format!(
            "no running member has usable data, but {} may have some. {}",
            member.name,
            start_it(view, member)
        ));
    }
    match former.iter().max_by_key(|f| f.last) {
        Some(best) => needs_named_survivor(format!(
            "no member is left with usable data, but {} has some (index {}, term {}); it has left the configuration, or rejoined it unobserved",
            best.member.name, best.last.index, best.last.term
        )),
        None => Admission::rejected(
            "no member is left with usable data: with spec.archive, use mode FromArchive; otherwise create a new cluster and load a backup into it, or let it begin with one (spec.bootstrap.restore)",
        ),
    }
}

fn needs_named_survivor(text: String) -> Admission {
    Admission::new(
        RecoveryPhase::AwaitingApproval,
        format!(
            "{text}: a person has to choose. Create another RqliteRecovery that names the survivor"
        ),
    )
}

/// Before anything else the survivor's database is checked: what to wait for until the result is there, and
/// the state of the check.
fn check_database(
    view: &View<'_>,
    recovery: &RqliteRecovery,
    survivor: &UsableMember<'_>,
) -> (Option<Admission>, RecoveryCheck) {
    let name = &survivor.member.name;
    let check = NeededCheck::before_admission(view, recovery, name, survivor.node);
    let state = check.state(view);
    let report = check.report(view, &state);
    let waits = check.waits_for(&state).map(|text| match state {
        CheckState::Late => Admission::rejected(format!(
            "{text}; at {} % of the reading it was given up. Nothing was changed. Create another RqliteRecovery with a longer \
             databaseCheckTimeout, or with skipDatabaseCheck: true to go on without it",
            report.percent
        )),
        CheckState::Missing => {
            let mut waits = Admission::inspecting(text);
            waits.check = Some(check.action());
            waits
        }
        _ => Admission::inspecting(text),
    });
    (waits, report)
}

fn loss(left: usize, all: usize, possibly: i64) -> String {
    let known = match possibly {
        0 => "how many is not known",
        _ => "at least these",
    };
    format!("with {left} of {all} voters left, acknowledged writes may be lost: {known}")
}

fn unchecked(report: &RecoveryCheck) -> &'static str {
    match report.state {
        RecoveryCheckState::Skipped => "its database was not checked, as was asked; ",
        _ => "",
    }
}

/// Determines what would be lost, and whether that was accepted.
fn check_data_loss(
    view: &View<'_>,
    recovery: &RqliteRecovery,
    assessment: &Assessment<'_>,
    found: &[UsableMember<'_>],
    survivor: &UsableMember<'_>,
) -> Admission {
    let spec = &recovery.spec;
    let name = &survivor.member.name;
    let (waits, report) = check_database(view, recovery, survivor);
    if let Some(mut waits) = waits {
        waits.check_report = Some(report);
        return waits;
    }
    // A member without a vote has acknowledged nothing, whatever pool it belongs to.
    let votes = |name: &str| assessment.voters.iter().any(|v| v.member.name == name);
    let voted = |f: &&UsableMember<'_>| votes(&f.member.name);
    let (all, left) = (assessment.voters.len(), found.iter().filter(voted).count());
    let rewrite = spec.mode == RecoveryMode::RewriteAddresses;
    let best = found.iter().map(|f| f.last).max().unwrap_or(survivor.last);
    let commit = highest_commit_index(view);
    let possibly = if rewrite {
        0
    } else {
        commit
            .max(best.index)
            .saturating_sub(survivor.last.index)
            .max(0)
    };
    let loses = !rewrite && (possibly > 0 || may_lose_writes(all, left) || survivor.last < best);
    // Writes may be lost, but the number is not known: 0 would look like a promise.
    let known = (possibly > 0 || !loses).then_some(possibly);
    let summary = format!(
        "{name}, whose log ends at index {} of term {}; highest commit index seen: {commit}; entries that are known to be missing: {possibly}; {}{}",
        survivor.last.index,
        survivor.last.term,
        unchecked(&report),
        if loses {
            loss(left, all, possibly)
        } else {
            "no acknowledged write can be lost".to_owned()
        }
    );
    let mut admission = if spec.dry_run {
        Admission::new(
            RecoveryPhase::Succeeded,
            format!("dry run, nothing was changed: would recover from {summary}"),
        )
    } else if loses && !spec.accept_data_loss {
        Admission::new(
            RecoveryPhase::AwaitingApproval,
            format!(
                "would recover from {summary}. To proceed, create another RqliteRecovery with acceptDataLoss: true"
            ),
        )
    } else {
        let mut begins =
            Admission::new(RecoveryPhase::Fencing, format!("recovering from {summary}"));
        begins.record = {
            let of = (name.as_str(), survivor.node.raft_id.as_str(), survivor.last);
            Some(Box::new(admitted(view, recovery, of, known)))
        };
        begins
    };
    admission.possibly_lost_entries = known;
    admission.check_report = Some(report);
    admission
}
