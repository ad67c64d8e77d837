//! Decides the next step of the drills of a cluster's archive. What a step relies on (the Job, and what the
//! cluster had committed) is written to the status before it.
mod outcome;
mod proven;
mod seen;

use k8s_openapi::{
    api::batch::v1::Job,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{Resource as _, ResourceExt as _};
use operator_api::{
    RqliteCluster,
    cluster::Archive,
    names,
    status::{BACKUPS_PROVEN, DrillStatus},
};

use self::outcome::Ended;
pub use self::seen::Seen;
use super::{
    cron::{Schedule, is_ahead},
    drill_job,
    job_seen::{JobRef, JobSeen},
};
use crate::cluster::action::Event;

/// Drills of all clusters that may run at once: with a common schedule, such as every night at three,
/// hundreds of them would otherwise read one store at the same time.
const MAX_RUNNING: usize = 8;
/// Number of ended Jobs that are kept for each cluster, for their logs.
const MAX_KEPT: usize = 3;
/// Seconds until the next step while waiting for something that no watch reports.
const WAIT_SECONDS: u64 = 15;
/// Longest pause while nothing is due, in seconds.
const CALM_SECONDS: u64 = 300;

/// What a step writes into the cluster's status.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The status of drills; `None` removes it.
    pub drill: Option<DrillStatus>,
    /// The condition `BackupsProven`; `None` removes it.
    pub condition: Option<Condition>,
    /// An event to emit.
    pub event: Option<Event>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write the status.
    Record(Box<Record>),
    /// Create a Job, unless one of the same name exists.
    Create(Box<Job>),
    /// Delete a Job of this cluster's drills.
    Delete(JobRef),
    /// Decide again after so many seconds.
    Wait(u64),
    /// Nothing to do before the cluster changes.
    Done,
}

/// Has this cluster anything to do with drills?
pub fn concerns(cluster: &RqliteCluster) -> bool {
    let status = cluster.status.as_ref();
    let known = status.is_some_and(|status| {
        let archive = status.archive.as_ref();
        archive.is_some_and(|archive| archive.drill.is_some())
            || status.condition(BACKUPS_PROVEN).is_some()
    });
    let archive = cluster.spec.archive.as_ref();
    let asked = request(cluster).is_some();
    known || archive.is_some_and(|archive| archive.drill.is_some() || asked)
}

/// The Job on record.
pub fn job_on_record(cluster: &RqliteCluster) -> Option<&str> {
    let archive = cluster.status.as_ref()?.archive.as_ref()?;
    archive.drill.as_ref()?.job.as_deref()
}

/// The value of the annotation that requests a drill.
fn request(cluster: &RqliteCluster) -> Option<&str> {
    let annotations = cluster.metadata.annotations.as_ref()?;
    let value = annotations.get(names::DRILL_NOW_ANNOTATION)?;
    Some(value.as_str()).filter(|value| !value.is_empty())
}

/// Decides the next step.
pub fn decide(seen: &Seen<'_>) -> Step {
    let Some(status) = &seen.cluster.status else {
        return Step::Wait(WAIT_SECONDS);
    };
    if seen.cluster.meta().deletion_timestamp.is_some() {
        return Step::Done;
    }
    let before = status.archive.as_ref();
    let before = before.and_then(|archive| archive.drill.clone());
    let Some(archive) = &seen.cluster.spec.archive else {
        return forget(seen, before);
    };
    let drill = before.unwrap_or_default();
    let schedule = match schedule_of(archive) {
        Ok(schedule) => schedule,
        Err(mistake) if drill.job.is_none() => return refused(seen, drill, mistake),
        // A drill that is running is still brought to its end.
        Err(_) => None,
    };
    let look = Look {
        seen,
        archive,
        schedule: schedule.as_ref(),
    };
    look.step(drill)
}

fn schedule_of(archive: &Archive) -> Result<Option<Schedule>, String> {
    let Some(drill) = &archive.drill else {
        return Ok(None);
    };
    let zone = drill.time_zone.as_ref().map(|zone| zone.0.as_str());
    Schedule::parse(&drill.schedule.0, zone).map(Some)
}

/// There is no archive any more: nothing is proven by what was.
fn forget(seen: &Seen<'_>, before: Option<DrillStatus>) -> Step {
    let job = before.as_ref().and_then(|drill| drill.job.clone());
    let runs = seen.job.as_ref();
    if let (Some(name), Some(runs)) = (job, runs.filter(|job| job.is_ours)) {
        let uid = runs.uid.clone();
        return Step::Delete(JobRef { name, uid });
    }
    let status = seen.cluster.status.as_ref();
    let reported = status.is_some_and(|status| status.condition(BACKUPS_PROVEN).is_some());
    if before.is_none() && !reported {
        return Step::Done;
    }
    Step::Record(Box::new(Record {
        drill: None,
        condition: None,
        event: None,
    }))
}

/// An invalid schedule begins no drill.
fn refused(seen: &Seen<'_>, drill: DrillStatus, mistake: String) -> Step {
    let text = format!("spec.archive.drill: {mistake}");
    let condition = proven::condition(seen, "False", "InvalidSchedule", text);
    record_or_wait(seen, drill, Some(condition), CALM_SECONDS)
}

/// Writes the status if it differs from the present one, or waits.
fn record_or_wait(
    seen: &Seen<'_>,
    drill: DrillStatus,
    condition: Option<Condition>,
    wait: u64,
) -> Step {
    let status = seen.cluster.status.clone().unwrap_or_default();
    let reported = status.condition(BACKUPS_PROVEN).cloned();
    let known = status.archive.and_then(|archive| archive.drill);
    let is_same = known.unwrap_or_default() == drill && reported == condition;
    if is_same {
        return Step::Wait(wait);
    }
    Step::Record(Box::new(Record {
        drill: Some(drill).filter(|drill| *drill != DrillStatus::default()),
        condition,
        event: None,
    }))
}

/// The decision about a cluster with an archive.
struct Look<'a> {
    seen: &'a Seen<'a>,
    archive: &'a Archive,
    schedule: Option<&'a Schedule>,
}

impl Look<'_> {
    fn now(&self) -> Timestamp {
        self.seen.now.0
    }

    fn step(&self, drill: DrillStatus) -> Step {
        if let Some(job) = drill.job.clone() {
            return self.follow(drill, &job);
        }
        match self.due(&drill) {
            Due::Now(scheduled) if self.seen.others < MAX_RUNNING => {
                return self.begin(drill, scheduled);
            }
            Due::Now(_) => return self.settle(drill, WAIT_SECONDS),
            Due::Later => {}
        }
        if let Some(old) = self.seen.ended.get(MAX_KEPT) {
            return Step::Delete(old.clone());
        }
        let wait = self.next(&drill);
        self.settle(drill, wait)
    }

    /// A recorded time, unless it is in the future.
    fn past<'t>(&self, at: Option<&'t Time>) -> Option<&'t Time> {
        at.filter(|at| !is_ahead(at.0, self.now()))
    }

    /// Writes the condition for this time if it differs, or waits.
    fn settle(&self, drill: DrillStatus, wait: u64) -> Step {
        let condition = proven::verdict(self.seen, self.archive, self.schedule, &drill);
        record_or_wait(self.seen, drill, condition, wait)
    }

    fn record(&self, drill: DrillStatus, event: Event) -> Step {
        Step::Record(Box::new(Record {
            condition: proven::verdict(self.seen, self.archive, self.schedule, &drill),
            drill: Some(drill),
            event: Some(event),
        }))
    }

    /// Whether anything is known to be archived. Before that, a drill could only fail.
    fn has_archive(&self) -> bool {
        let status = self.seen.cluster.status.as_ref();
        let recorded = status.and_then(|status| status.archive.as_ref()?.archived_index);
        let seen = self.seen.leader.and_then(|leader| leader.archived.as_ref());
        recorded.is_some() || seen.is_some()
    }

    /// Which drill is due: none in a paused cluster; one that a person requested, whatever is archived; the
    /// first one of a schedule as soon as something is archived; of several missed times, the newest.
    fn due(&self, drill: &DrillStatus) -> Due {
        if self.seen.cluster.is_paused() {
            return Due::Later;
        }
        let scheduled = self.schedule.and_then(|schedule| {
            let last = drill.last_schedule_time.as_ref();
            let due = match self.past(last) {
                Some(last) => schedule.newest(last.0, self.now()),
                None => Some(self.now()),
            };
            due.filter(|_| self.has_archive())
        });
        let asked = request(self.seen.cluster);
        if asked.is_some() && asked != drill.requested.as_deref() {
            return Due::Now(scheduled);
        }
        scheduled.map_or(Due::Later, |at| Due::Now(Some(at)))
    }

    fn begin(&self, drill: DrillStatus, scheduled: Option<Timestamp>) -> Step {
        let cluster = self.seen.cluster;
        let name = drill_job::name(&cluster.name_any(), self.now());
        let event = Event {
            warning: false,
            reason: "DrillStarted".to_owned(),
            message: format!(
                "Job {name} restores the archive in {} to prove that it works",
                self.archive.target.uri()
            ),
        };
        let asked = request(cluster).map(str::to_owned);
        let next = DrillStatus {
            last_schedule_time: scheduled.map(Time).or(drill.last_schedule_time),
            requested: asked.or(drill.requested),
            job: Some(name),
            started_at: None,
            committed_index: self.committed(),
            progress: None,
            ..drill
        };
        self.record(next, event)
    }

    /// The index that is known to be committed in the cluster's present lineage.
    fn committed(&self) -> Option<i64> {
        let status = self.seen.cluster.status.as_ref()?;
        let leader = self.seen.leader?;
        let lineage = status.lineage.as_ref()?;
        let is_present = lineage.id == leader.lineage;
        i64::try_from(leader.commit_index)
            .ok()
            .filter(|_| is_present)
    }

    /// Once the Job is recorded: creates it, or reports its progress or its end.
    fn follow(&self, drill: DrillStatus, name: &str) -> Step {
        let Some(job) = &self.seen.job else {
            return match drill.started_at {
                None => Step::Create(Box::new(self.job(name))),
                Some(_) => {
                    let text = format!("its Job {name} was deleted before its end was seen");
                    self.fail(drill, text)
                }
            };
        };
        if !job.is_ours {
            let text = format!("another Job is called {name}: delete it");
            return self.fail(drill, text);
        }
        match outcome::of(job) {
            Ended::NotYet(text) => {
                let next = DrillStatus {
                    started_at: drill.started_at.clone().or_else(|| job.started.clone()),
                    progress: text.or_else(|| drill.progress.clone()),
                    ..drill
                };
                self.settle(next, WAIT_SECONDS)
            }
            Ended::Badly(text) => self.fail(drill, text),
            Ended::Well(outcome) => {
                let cluster_id = self.seen.cluster.status.as_ref();
                let cluster_id = cluster_id.and_then(|status| status.cluster_id.clone());
                match outcome.foreign(cluster_id.as_deref()) {
                    Some(text) => self.fail(drill, text),
                    None => self.succeed(drill, &outcome, job),
                }
            }
        }
    }

    fn job(&self, name: &str) -> Job {
        let seen = self.seen;
        let mut job = drill_job::drill(seen.cluster, self.archive, name, seen.assigns_users);
        let spec = job.spec.as_mut();
        let pod = spec.and_then(|spec| spec.template.spec.as_mut());
        for container in pod.into_iter().flat_map(|pod| &mut pod.containers) {
            if container.image.as_deref().unwrap_or_default().is_empty() {
                container.image = Some(seen.node_image.to_owned());
            }
        }
        job
    }

    fn succeed(&self, drill: DrillStatus, outcome: &outcome::Outcome, job: &JobSeen) -> Step {
        let next = DrillStatus {
            job: None,
            started_at: None,
            committed_index: None,
            progress: None,
            // By another clock than the failure before it.
            proven_at: job
                .ended
                .clone()
                .or_else(|| Some(self.seen.now.clone()))
                .max(self.past(drill.failed_at.as_ref()).cloned()),
            failed_at: self.past(drill.failed_at.as_ref()).cloned(),
            proven_index: outcome.index,
            proven_time: outcome.time.clone(),
            behind_entries: drill.committed_index.map(|committed| {
                let restored = outcome.index.unwrap_or(0);
                committed.saturating_sub(restored).max(0)
            }),
            hashes_compared: outcome.hashes_compared,
            bytes: outcome.bytes,
            seconds: outcome.whole_seconds(),
            message: Some(outcome.text()),
            ..drill
        };
        let event = Event {
            warning: false,
            reason: "DrillSucceeded".to_owned(),
            message: outcome.text(),
        };
        self.record(next, event)
    }

    fn fail(&self, drill: DrillStatus, text: String) -> Step {
        let next = DrillStatus {
            job: None,
            started_at: None,
            committed_index: None,
            progress: None,
            proven_at: self.past(drill.proven_at.as_ref()).cloned(),
            failed_at: Some(self.seen.now.clone()),
            message: Some(text.clone()),
            ..drill
        };
        let event = Event {
            warning: true,
            reason: proven::FAILED.to_owned(),
            message: text,
        };
        self.record(next, event)
    }

    /// Seconds until a drill is due, or until the last successful one is too old.
    fn next(&self, drill: &DrillStatus) -> u64 {
        let Some(schedule) = self.schedule else {
            return CALM_SECONDS;
        };
        let due = schedule.next(self.now());
        let stale = proven::valid_until(self.archive, schedule, drill);
        let first = [due, stale].into_iter().flatten();
        let first = first.filter(|at| *at > self.now()).min();
        first.map_or(CALM_SECONDS, |at| {
            let seconds = at.as_second().saturating_sub(self.now().as_second());
            u64::try_from(seconds).unwrap_or(1).clamp(1, CALM_SECONDS)
        })
    }
}

/// The step while the Job cannot run because `missing` is missing: reports it, and waits.
pub fn lacking(seen: &Seen<'_>, missing: String) -> Step {
    let (Some(archive), Some(drill)) = (
        &seen.cluster.spec.archive,
        seen.cluster
            .status
            .as_ref()
            .and_then(|status| status.archive.as_ref()?.drill.clone()),
    ) else {
        return Step::Wait(WAIT_SECONDS);
    };
    let schedule = schedule_of(archive).ok().flatten();
    let look = Look {
        seen,
        archive,
        schedule: schedule.as_ref(),
    };
    look.fail(drill, missing)
}

/// Whether a drill is due.
enum Due {
    /// Yes; with its scheduled time, unless a person requested it.
    Now(Option<Timestamp>),
    Later,
}

#[cfg(test)]
mod tests;
