//! The check of the survivor's database, which its node carries out in the background: its state, what must
//! be requested, and when a recovery stops waiting for it.
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use node_contract::status::CheckStatus;
use operator_api::{
    Period, RqliteRecovery, names,
    recovery::{RecoveryCheck, RecoveryCheckState, RecoveryPhase, RecoveryRecord},
    status::{Operation, OperationType, Step},
};

use super::record::is_open;
use crate::cluster::{
    action::Action,
    facts::{
        observation::NodeStatus,
        view::{View, seconds_between},
    },
};

/// Seconds that every check may take, whatever the size of the database: for a throttled processor or a cold
/// disk.
const BASE_SECONDS: u64 = 600;
/// Further seconds for each GiB. A check reads the database at most twice, so this is 17 MiB/s, which is
/// slower than the smallest volumes of the large cloud providers.
const SECONDS_PER_GIB: u64 = 120;
const GIB: u64 = 1 << 30;
/// Seconds that the operator waits for the end of a check beyond the limit that its node has.
const GRACE_SECONDS: u64 = 30;
/// A check that makes no progress for this fraction (1/50) of its limit is reported as stalled.
const STALLED_SHARE: u64 = 50;
/// Beginning of the ids of the checks that recoveries request.
const ID_PREFIX: &str = "recovery-";

/// What a check is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The survivor's data, before anything is changed.
    Inspect,
    /// The running survivor, after its membership was rewritten.
    Verify,
}

/// A check that a recovery needs.
pub(super) struct NeededCheck<'a> {
    purpose: Purpose,
    uid: &'a str,
    member: &'a str,
    node: &'a NodeStatus,
    limit_seconds: u64,
    began: Time,
    is_skipped: bool,
    /// The check in the recovery's status.
    known: Option<&'a RecoveryCheck>,
}

/// The state of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CheckState {
    /// No problem was found.
    Passed,
    /// A person has waived it.
    Skipped,
    /// The database is damaged.
    Faulty(String),
    /// It is running; percent done.
    Running(u64),
    /// Another check has to end first.
    Busy(String),
    /// It must be requested.
    Missing,
    /// It was not finished within its limit.
    Late,
}

impl<'a> NeededCheck<'a> {
    /// The check of a recovery that has not been admitted.
    pub(super) fn before_admission(
        view: &View<'_>,
        recovery: &'a RqliteRecovery,
        member: &'a str,
        node: &'a NodeStatus,
    ) -> Self {
        let mut check = Self {
            purpose: Purpose::Inspect,
            uid: recovery.metadata.uid.as_deref().unwrap_or_default(),
            member,
            node,
            limit_seconds: limit_seconds(
                recovery.spec.database_check_timeout.as_ref(),
                node.database_bytes,
            ),
            began: view.now().clone(),
            is_skipped: recovery.spec.skip_database_check || is_waived(recovery),
            known: None,
        };
        let known = recovery.status.as_ref().and_then(|s| s.check.as_ref());
        check.known = known.filter(|k| k.id == check.id() && k.member == member);
        if let Some(known) = check.known {
            check.began = known.started_at.clone();
        }
        check
    }

    /// The check of the survivor that runs in the new lineage.
    pub(super) fn of_survivor(
        view: &View<'a>,
        operation: &Operation,
        record: &'a RecoveryRecord,
        node: &'a NodeStatus,
    ) -> Self {
        let mut objects = view.seen.recoveries.iter();
        let object = objects.find(|r| r.metadata.uid.as_ref() == Some(&record.uid));
        let known = object.and_then(|r| r.status.as_ref()?.check.as_ref());
        Self {
            purpose: Purpose::Verify,
            uid: &record.uid,
            member: &record.survivor,
            node,
            limit_seconds: limit_seconds(
                record.database_check_timeout.as_ref(),
                node.database_bytes,
            ),
            began: operation.step_at.clone(),
            is_skipped: record.skip_database_check || object.is_some_and(is_waived),
            known: known.filter(|k| k.id == id(&record.uid, Purpose::Verify)),
        }
    }

    /// Id of the check: a result for another recovery, or for an earlier step, never counts.
    pub(super) fn id(&self) -> String {
        id(self.uid, self.purpose)
    }

    pub(super) fn state(&self, view: &View<'_>) -> CheckState {
        if self.is_skipped {
            return CheckState::Skipped;
        }
        // The node reports its last check only, and that may be of another recovery by now.
        let passed = self.known.filter(|k| k.state == RecoveryCheckState::Passed);
        if passed.is_some_and(|k| k.raft_id == self.node.raft_id) {
            return CheckState::Passed;
        }
        let waited = seconds_between(&self.began, view.now());
        let is_over = waited > self.limit_seconds + GRACE_SECONDS;
        let reported = self.node.check.as_ref();
        let (own, id) = (reported.filter(|c| c.id == self.id()), self.id());
        match own.map(|check| (check.state.as_str(), check)) {
            Some((CheckStatus::SOUND, _)) => return CheckState::Passed,
            Some((CheckStatus::DAMAGED, check)) => {
                return CheckState::Faulty(check.message.clone());
            }
            Some((CheckStatus::TIMED_OUT, _)) => return CheckState::Late,
            Some((CheckStatus::RUNNING, check)) if !is_over => {
                return CheckState::Running(check.percent());
            }
            _ => {}
        }
        // Nodes of earlier versions check while the operator waits, which remembers the result.
        let remembered = view.seen.checks.get(self.member);
        let remembered = remembered.filter(|c| c.id == id && c.raft_id == self.node.raft_id);
        if let Some(result) = remembered {
            return match &result.fault {
                Some(fault) => CheckState::Faulty(fault.clone()),
                None => CheckState::Passed,
            };
        }
        match reported.filter(|check| check.state == CheckStatus::RUNNING) {
            _ if is_over => CheckState::Late,
            Some(other) => CheckState::Busy(other.id.clone()),
            None => CheckState::Missing,
        }
    }

    /// Requests the check. Repeating the request changes nothing.
    pub(super) fn action(&self) -> Action {
        Action::CheckMember {
            name: self.member.to_owned(),
            raft_id: self.node.raft_id.clone(),
            id: self.id(),
            limit_seconds: self.limit_seconds,
            as_leader: self.purpose == Purpose::Verify,
        }
    }

    /// What is waited for; None if it is not waited for.
    pub(super) fn waits_for(&self, state: &CheckState) -> Option<String> {
        let member = self.member;
        let (limit, word) = (shown(self.limit_seconds), names::SKIP_CHECK_ANNOTATION);
        let go_on =
            format!("To go on without it, set the annotation {word}=true on this RqliteRecovery");
        Some(match state {
            CheckState::Passed | CheckState::Skipped => return None,
            CheckState::Faulty(fault) => {
                format!("the database of {member} does not pass its check: {fault}")
            }
            CheckState::Missing => format!("checking the database of {member}"),
            CheckState::Busy(other) => {
                format!("waiting until the check {other} of the database of {member} has ended")
            }
            CheckState::Running(percent) => format!(
                "checking the database of {member}: {percent} %{}, since {}, for at most {limit}. {go_on}",
                self.size(),
                self.began.0
            ),
            CheckState::Late => format!(
                "the check of the database of {member}{} was not finished within {limit}",
                self.size()
            ),
        })
    }

    /// ` of 2.9 GiB`, or nothing.
    fn size(&self) -> String {
        let bytes = self.node.database_bytes.filter(|bytes| *bytes >= GIB / 10);
        let tenths = bytes.map(|bytes| bytes / (GIB / 10));
        tenths.map_or_else(String::new, |t| format!(" of {}.{} GiB", t / 10, t % 10))
    }

    /// The check for the recovery's status.
    pub(super) fn report(&self, view: &View<'_>, state: &CheckState) -> RecoveryCheck {
        let (shown, percent) = match state {
            CheckState::Passed => (RecoveryCheckState::Passed, 100),
            CheckState::Skipped => (RecoveryCheckState::Skipped, 0),
            CheckState::Faulty(_) => (RecoveryCheckState::Failed, 100),
            CheckState::Running(percent) => (RecoveryCheckState::Running, *percent),
            CheckState::Busy(_) | CheckState::Missing => (RecoveryCheckState::Pending, 0),
            CheckState::Late => (RecoveryCheckState::TimedOut, 0),
        };
        let former = self.known;
        let percent = i32::try_from(percent).unwrap_or(0);
        let percent = match (state, former) {
            // The progress that it had made.
            (CheckState::Late, Some(former)) => former.percent,
            _ => percent,
        };
        let same = former.filter(|f| f.state == shown && f.percent == percent);
        let limit = i64::try_from(self.limit_seconds).unwrap_or(i64::MAX);
        let deadline = self.began.0.checked_add(SignedDuration::from_secs(limit));
        RecoveryCheck {
            member: self.member.to_owned(),
            raft_id: self.node.raft_id.clone(),
            id: self.id(),
            state: shown,
            started_at: self.began.clone(),
            deadline: deadline.map_or_else(|_| self.began.clone(), Time),
            percent,
            progress_at: same.map_or_else(|| view.now().clone(), |f| f.progress_at.clone()),
            database_bytes: self.node.database_bytes.and_then(|b| i64::try_from(b).ok()),
        }
    }
}

fn id(uid: &str, purpose: Purpose) -> String {
    let purpose = match purpose {
        Purpose::Inspect => "inspect",
        Purpose::Verify => "verify",
    };
    format!("{ID_PREFIX}{uid}-{purpose}")
}

/// Has a person waived the check, on this object?
fn is_waived(recovery: &RqliteRecovery) -> bool {
    let annotations = recovery.metadata.annotations.as_ref();
    let word = annotations.and_then(|a| a.get(names::SKIP_CHECK_ANNOTATION));
    word.is_some_and(|word| word == "true")
}

/// Settles a check after which the recovery continued: it passed, or was skipped.
pub(super) fn settle(
    view: &View<'_>,
    recovery: &RqliteRecovery,
    record: &RecoveryRecord,
    check: &mut RecoveryCheck,
) {
    let open = [RecoveryCheckState::Pending, RecoveryCheckState::Running];
    let over = [RecoveryPhase::Verifying, RecoveryPhase::Failed];
    if !open.contains(&check.state) || over.contains(&record.phase) {
        return;
    }
    check.progress_at = view.now().clone();
    if record.skip_database_check || is_waived(recovery) {
        check.state = RecoveryCheckState::Skipped;
    } else {
        check.state = RecoveryCheckState::Passed;
        check.percent = 100;
    }
}

fn limit_seconds(asked: Option<&Period>, database_bytes: Option<u64>) -> u64 {
    let asked = asked.and_then(|period| period.duration().ok());
    let gib = database_bytes.unwrap_or(0).div_ceil(GIB);
    asked.map_or(BASE_SECONDS + gib * SECONDS_PER_GIB, |d| d.as_secs().max(1))
}

fn shown(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

/// Seconds without progress after which a running check counts as stalled.
pub(super) fn patience_seconds(check: &RecoveryCheck) -> u64 {
    seconds_between(&check.started_at, &check.deadline) / STALLED_SHARE
}

/// Does a node carry out a check for a recovery?
pub fn is_checking(view: &View<'_>) -> bool {
    running(view).next().is_some()
}

/// Names of nodes with the check that they carry out for a recovery.
fn running<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a String, &'a str)> {
    let nodes = view.seen.nodes.keys();
    let checks = nodes.filter_map(|name| Some((name, view.node(name)?.check.as_ref()?)));
    let running = checks.filter(|(_, check)| {
        check.state == CheckStatus::RUNNING && check.id.starts_with(ID_PREFIX)
    });
    running.map(|(name, check)| (name, check.id.as_str()))
}

/// Ends a check that no recovery waits for, because it was deleted, has ended, or continues without. A dry
/// run gives way to a recovery.
pub(super) fn end_obsolete(view: &View<'_>) -> Option<(Action, String)> {
    let open: Vec<&RqliteRecovery> = view
        .seen
        .recoveries
        .iter()
        .filter(|recovery| is_open(view, recovery))
        .collect();
    let real = open.iter().any(|recovery| !recovery.spec.dry_run);
    let mut needed: Vec<String> = open
        .iter()
        .filter(|r| !(real && r.spec.dry_run))
        .filter(|r| !r.spec.skip_database_check && !is_waived(r))
        .map(|r| {
            id(
                r.metadata.uid.as_deref().unwrap_or_default(),
                Purpose::Inspect,
            )
        })
        .collect();
    let verifying = view.operating(OperationType::Recover);
    if let Some(operation) = verifying.filter(|operation| operation.step == Step::Verify) {
        needed.push(id(&operation.id, Purpose::Verify));
    }
    let (name, id) = running(view).find(|(_, id)| !needed.iter().any(|needed| needed == id))?;
    let action = Action::EndCheck {
        name: name.clone(),
        id: id.to_owned(),
    };
    Some((
        action,
        format!("ending the check {id} of {name}, which no recovery needs"),
    ))
}
