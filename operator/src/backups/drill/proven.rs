//! The condition `BackupsProven`: what the drills have shown, and whether that is too long ago.
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Condition,
    jiff::{Timestamp, ToSpan as _},
};
use operator_api::{
    cluster::Archive,
    status::{BACKUPS_PROVEN, DrillStatus},
};

use super::seen::Seen;
use crate::{
    backups::{cron::Schedule, drill_job},
    cluster::render::runbook,
};

/// Reason, and reason of the event.
pub(super) const FAILED: &str = "DrillFailed";
/// Times of the schedule that may pass since the last success. One missed drill is no alarm: its successor
/// may be on its way. After a second one the proof says nothing about what was archived since.
const TIMES: usize = 2;
/// How many times as long as the last drill the one that is due may take.
const SLOWER: i64 = 3;
/// What it may take at least, in seconds: a pod has to be scheduled, an image to be pulled.
const AT_LEAST_SECONDS: i64 = 600;

/// Until when the last success counts: the second time of the schedule after it, and what a drill takes.
pub(super) fn valid_until(
    archive: &Archive,
    schedule: &Schedule,
    drill: &DrillStatus,
) -> Option<Timestamp> {
    let mut at = drill.proven_at.as_ref()?.0;
    for _ in 0..TIMES {
        at = schedule.next(at)?;
    }
    let usual = drill.seconds.unwrap_or(0).saturating_mul(SLOWER);
    let limit = drill_job::limit(archive.drill.as_ref());
    let grace = usual.max(AT_LEAST_SECONDS).min(limit);
    at.checked_add(grace.seconds()).ok()
}

/// The condition. None where no drill was ever asked for.
pub(super) fn verdict(
    seen: &Seen<'_>,
    archive: &Archive,
    schedule: Option<&Schedule>,
    drill: &DrillStatus,
) -> Option<Condition> {
    if schedule.is_none() && *drill == DrillStatus::default() {
        return None;
    }
    let uri = archive.target.uri();
    let said = drill.message.clone().unwrap_or_default();
    let failed = drill.failed_at.as_ref().filter(|failed| {
        let proven = drill.proven_at.as_ref();
        proven.is_none_or(|proven| failed.0 > proven.0)
    });
    if let Some(failed) = failed {
        let text = format!("the drill of {} of {uri} failed: {said}", failed.0);
        return Some(condition(seen, "False", FAILED, text));
    }
    let Some(proven) = &drill.proven_at else {
        let text = match (&drill.job, &drill.progress) {
            (Some(_), Some(why)) => format!("the first drill of {uri} has not ended: {why}"),
            (Some(_), None) => format!("the first drill of {uri} has not ended yet"),
            (None, _) => {
                format!("no drill of {uri} has run yet: it begins once something is archived")
            }
        };
        return Some(condition(seen, "Unknown", "NeverProven", text));
    };
    let until = schedule.and_then(|schedule| valid_until(archive, schedule, drill));
    let index = drill.proven_index.unwrap_or(0);
    if let Some(until) = until.filter(|until| *until <= seen.now.0) {
        let text = format!(
            "no drill of {uri} has succeeded since {}, when it was restored up to index {index}; by its schedule another one should have before {until}{}",
            proven.0,
            drill
                .progress
                .as_ref()
                .map_or_else(String::new, |why| format!(". The one that runs: {why}"))
        );
        return Some(condition(seen, "False", "Stale", text));
    }
    // While the next one runs, its troubles are none of this condition's.
    let behind = drill.behind_entries.filter(|behind| *behind > 0);
    let behind = behind.map_or_else(String::new, |n| format!(", {n} entries behind the cluster"));
    let text = format!(
        "the archive in {uri} was restored up to index {index}{} and checked at {}{behind}",
        drill
            .proven_time
            .as_ref()
            .map_or_else(String::new, |time| format!(" ({time})")),
        proven.0
    );
    Some(condition(seen, "True", "DrillSucceeded", text))
}

/// The condition; its time of transition changes only with its status.
pub(super) fn condition(seen: &Seen<'_>, is: &str, reason: &str, text: String) -> Condition {
    let status = seen.cluster.status.as_ref();
    let before = status.and_then(|status| status.condition(BACKUPS_PROVEN));
    let before = before.filter(|before| before.status == is);
    Condition {
        type_: BACKUPS_PROVEN.to_owned(),
        status: is.to_owned(),
        reason: reason.to_owned(),
        message: runbook::refer(reason, text),
        last_transition_time: before.map_or_else(
            || seen.now.clone(),
            |before| before.last_transition_time.clone(),
        ),
        observed_generation: seen.cluster.metadata.generation,
    }
}
