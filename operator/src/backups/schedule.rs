//! Decides what a schedule does now: which backup to create, which to delete, and when to decide again.
mod ready;
mod seen;

use std::collections::BTreeSet;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use operator_api::{
    RqliteScheduledBackupStatus, backup::BackupPhase, scheduled_backup::Concurrency,
};

pub use self::{
    ready::Ready,
    seen::{Made, Seen},
};
use super::{
    cron::{Schedule, is_ahead},
    retention::{Kept, outdated},
};
use crate::cluster::deciders::manager;

/// Default number of failed backups that are kept.
const FAILED_KEPT: i32 = 3;
/// Longest list of running backups in the status.
const MAX_ACTIVE: usize = 16;
/// Longest pause while nothing is due, in seconds.
const CALM_SECONDS: i64 = 300;

/// What to do, in this order: create the backup, write the status, delete backups.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Name of the backup to create. It is derived from the scheduled time, so that the backup is created
    /// once.
    pub create: Option<String>,
    /// Names of own backups to delete.
    pub delete: BTreeSet<String>,
    /// The status to write.
    pub status: RqliteScheduledBackupStatus,
    /// The condition Ready.
    pub ready: Ready,
    /// Seconds until the next decision.
    pub again_after_seconds: i64,
}

/// Decides what to do now.
pub fn decide(seen: &Seen<'_>) -> Decision {
    let zone = seen.spec.time_zone.as_ref().map(|zone| zone.0.as_str());
    let schedule = match Schedule::parse(&seen.spec.schedule.0, zone) {
        Ok(schedule) => schedule,
        Err(mistake) => return refused(seen, mistake),
    };
    let mut status = seen.status.clone();
    let mut delete = BTreeSet::new();
    let mut create = None;
    let was_off = status.observed_generation.is_some() && status.next_schedule_time.is_none();
    if was_off && !seen.spec.suspend {
        status.resumed_at = Some(Time(seen.now));
    }
    if let Some((due, name)) = due(seen, &schedule) {
        status.last_schedule_time = Some(Time(due));
        match admitted(seen, due) {
            Ok(replaced) => {
                delete.extend(replaced);
                status.message = None;
                status.last_backup = Some(name.clone());
                create = Some(name);
            }
            Err(why) => status.message = Some(why),
        }
    } else if is_ahead(anchor(seen), seen.now) {
        // The time of its creation is in the future, too.
        status.last_schedule_time = Some(Time(seen.now));
    } else if seen.spec.suspend {
        // What would have been due meanwhile is not made up for.
        let missed = schedule.newest(anchor(seen), seen.now);
        if let Some(missed) = missed {
            status.last_schedule_time = Some(Time(missed));
        }
    }
    delete.extend(gone(seen, &schedule));
    let next = schedule.next(seen.now).filter(|_| !seen.spec.suspend);
    status.next_schedule_time = next.map(Time);
    summarize(seen, &mut status, &delete);
    let wait = next.map_or(CALM_SECONDS, |next| next.as_second() - seen.now.as_second());
    Decision {
        create,
        delete,
        ready: ready::verdict(seen, &schedule, &status),
        status,
        again_after_seconds: wait.clamp(1, CALM_SECONDS),
    }
}

/// An invalid spec creates and deletes nothing.
fn refused(seen: &Seen<'_>, mistake: String) -> Decision {
    let mut status = seen.status.clone();
    status.next_schedule_time = None;
    status.message = Some(mistake.clone());
    summarize(seen, &mut status, &BTreeSet::new());
    Decision {
        create: None,
        delete: BTreeSet::new(),
        status,
        ready: Ready::no("InvalidSchedule", mistake),
        again_after_seconds: CALM_SECONDS,
    }
}

/// The time after which times of the schedule count.
fn anchor(seen: &Seen<'_>) -> Timestamp {
    let last = seen.status.last_schedule_time.as_ref();
    let last = last.filter(|last| !is_ahead(last.0, seen.now));
    last.map_or(seen.created, |last| last.0)
}

/// The scheduled time that is due and the name of its backup; of several missed ones the newest.
fn due(seen: &Seen<'_>, schedule: &Schedule) -> Option<(Timestamp, String)> {
    if seen.spec.suspend {
        return None;
    }
    let is_first = seen.status.last_schedule_time.is_none();
    let due = schedule.newest(anchor(seen), seen.now);
    let due = due.or_else(|| (is_first && seen.spec.immediate).then_some(seen.created))?;
    Some((
        due,
        format!("{}-{}", seen.name, due.strftime("%Y%m%d%H%M%S")),
    ))
}

/// Whether the due backup may be created: the names of running backups that it replaces
/// (`concurrencyPolicy`), or why it is skipped.
fn admitted(seen: &Seen<'_>, due: Timestamp) -> Result<Vec<String>, String> {
    let late = seen.now.as_second().saturating_sub(due.as_second());
    let limit = seen.spec.starting_deadline.as_ref();
    let limit = limit.and_then(|limit| limit.duration().ok());
    if let Some(limit) = limit
        && u64::try_from(late).unwrap_or(0) > limit.as_secs()
    {
        return Err(format!(
            "the backup of {due} was left out: it would have begun {late} s late, and startingDeadline is {} s",
            limit.as_secs()
        ));
    }
    let running: Vec<String> = running(seen).map(|one| one.name.clone()).collect();
    match seen.spec.concurrency_policy.unwrap_or_default() {
        Concurrency::Allow => Ok(Vec::new()),
        Concurrency::Replace => Ok(running),
        Concurrency::Forbid if running.is_empty() => Ok(running),
        Concurrency::Forbid => Err(format!(
            "the backup of {due} was left out, because {} is still being made (concurrencyPolicy Forbid)",
            running.join(", ")
        )),
    }
}

fn running<'a>(seen: &Seen<'a>) -> impl Iterator<Item = &'a Made> {
    let made = seen.made.iter();
    made.filter(|one| !one.deleting && !one.phase.is_final() && one.phase != BackupPhase::Deleting)
}

fn successful(seen: &Seen<'_>) -> Vec<Kept> {
    let made = seen.made.iter();
    let made = made.filter(|one| !one.deleting && one.phase == BackupPhase::Succeeded);
    made.map(|one| Kept {
        name: one.name.clone(),
        at: one.completed.unwrap_or(one.created),
    })
    .collect()
}

/// Own backups that no rule keeps, and failed ones beyond their number. One whose end nobody has seen is
/// neither: a person looks whether its file is there.
fn gone(seen: &Seen<'_>, schedule: &Schedule) -> BTreeSet<String> {
    let mut all = match &seen.spec.retention {
        Some(rules) => outdated(rules, schedule.zone(), seen.now, &successful(seen)),
        None => BTreeSet::new(),
    };
    let failed = seen.made.iter();
    let failed = failed.filter(|one| !one.deleting && !one.unseen);
    let failed = failed.filter(|one| one.phase == BackupPhase::Failed);
    let mut failed: Vec<_> = failed.collect();
    failed.sort_by_key(|one| std::cmp::Reverse(one.created));
    let kept = seen.spec.failed_history_limit.unwrap_or(FAILED_KEPT);
    let kept = usize::try_from(kept).unwrap_or(0);
    all.extend(failed.into_iter().skip(kept).map(|one| one.name.clone()));
    all
}

fn summarize(
    seen: &Seen<'_>,
    status: &mut RqliteScheduledBackupStatus,
    deleted: &BTreeSet<String>,
) {
    let good = successful(seen);
    let left = good.iter().filter(|one| !deleted.contains(&one.name));
    status.kept = i32::try_from(left.count()).ok();
    if let Some(newest) = good.iter().map(|one| one.at).max() {
        status.last_successful_time = Some(Time(newest));
    }
    let active = running(seen).filter(|one| !deleted.contains(&one.name));
    status.active = active
        .take(MAX_ACTIVE)
        .map(|one| one.name.clone())
        .collect();
    status.observed_generation = seen.generation;
    if let Some(class) = seen.class {
        status.operator_class = manager::recorded_class(class);
    }
}

#[cfg(test)]
mod tests;
