//! The condition Ready of a schedule: whether it makes backups.
use k8s_openapi::jiff::{Timestamp, ToSpan as _};
use operator_api::{RqliteScheduledBackupStatus, backup::BackupPhase};

use super::seen::{Made, Seen};
use crate::backups::{
    cron::{Schedule, is_ahead},
    job,
};

/// Number of times of the schedule since the last success after which backups are overdue. One missed backup
/// is not reported, because the next one may succeed.
const TIMES: usize = 2;
/// Allowed duration of a due backup, as a multiple of the last one's.
const SLOWER: i64 = 3;
/// Minimum of the allowed duration in seconds: a pod must be scheduled, an image pulled.
const AT_LEAST_SECONDS: i64 = 600;

/// The condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its status.
    pub is: &'static str,
    /// Its reason.
    pub reason: &'static str,
    /// Its text.
    pub message: String,
}

impl Ready {
    pub(super) fn no(reason: &'static str, message: String) -> Self {
        Self {
            is: "False",
            reason,
            message,
        }
    }
}

/// The condition of a schedule that could be parsed.
pub(super) fn verdict(
    seen: &Seen<'_>,
    schedule: &Schedule,
    next: &RqliteScheduledBackupStatus,
) -> Ready {
    if seen.class.is_none() {
        let name = &seen.spec.cluster_ref.name;
        let text = format!("there is no RqliteCluster {name} in this namespace");
        return Ready::no("ClusterMissing", text);
    }
    let ended = seen.made.iter().filter(|one| one.phase.is_final());
    let newest = ended.max_by_key(|one| one.completed.unwrap_or(one.created));
    if let Some(one) = newest.filter(|one| one.phase == BackupPhase::Failed) {
        let text = match one.unseen {
            true => format!("how the newest backup, {}, ended is unknown", one.name),
            false => format!("the newest backup, {}, failed", one.name),
        };
        return Ready::no("BackupFailed", text);
    }
    if let Some((since, until)) = overdue(seen, schedule, next) {
        let why = next.message.as_ref();
        let why = why.map_or_else(String::new, |why| format!(". {why}"));
        let text = format!(
            "no backup has succeeded since {since}; by the schedule another one should have before {until}{why}"
        );
        return Ready::no("Overdue", text);
    }
    match newest {
        Some(one) => Ready {
            is: "True",
            reason: "BackupSucceeded",
            message: format!("the newest backup is {}", one.name),
        },
        None => Ready {
            is: "Unknown",
            reason: "NoBackupYet",
            message: "no backup has ended yet".to_owned(),
        },
    }
}

/// The last success and the time until which the next one was expected, if that has passed: the second time
/// of the schedule, and the allowed duration. A suspended schedule is never overdue, and the time in which it
/// was suspended does not count.
fn overdue(
    seen: &Seen<'_>,
    schedule: &Schedule,
    next: &RqliteScheduledBackupStatus,
) -> Option<(Timestamp, Timestamp)> {
    if seen.spec.suspend {
        return None;
    }
    let good = seen.made.iter();
    let good = good.filter(|one| one.phase == BackupPhase::Succeeded);
    let last = good.max_by_key(|one| one.completed);
    let times = [
        last.and_then(|one| one.completed),
        next.last_successful_time.as_ref().map(|time| time.0),
        next.resumed_at.as_ref().map(|time| time.0),
        Some(seen.created),
    ];
    let past = times.into_iter().flatten();
    let since = past.filter(|at| !is_ahead(*at, seen.now)).max()?;
    let mut due = since;
    for _ in 0..TIMES {
        due = schedule.next(due)?;
    }
    let until = due.checked_add(allowance(seen, last).seconds()).ok()?;
    (until <= seen.now).then_some((since, until))
}

/// Allowed duration of a due backup in seconds, at most the limit of its Job.
fn allowance(seen: &Seen<'_>, last: Option<&Made>) -> i64 {
    let took = last.and_then(|one| {
        let completed = one.completed?.as_second();
        completed.checked_sub(one.created.as_second())
    });
    let usual = took.unwrap_or(0).saturating_mul(SLOWER);
    usual.max(AT_LEAST_SECONDS).min(job::limit(&seen.spec.how))
}
