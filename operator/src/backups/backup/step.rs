//! What the decisions about an RqliteBackup depend on, the steps, and how statuses are written.
use k8s_openapi::{
    api::batch::v1::Job,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::ResourceExt as _;
use operator_api::{RqliteBackup, RqliteBackupStatus, RqliteCluster, cluster::Deletion};

use crate::backups::job_seen::{JobRef, JobSeen};

/// Finalizer of a backup whose file is deleted with it.
pub const FINALIZER: &str = concat!(operator_api::group!(), "/backup");
/// Annotation of an RqliteBackup that is being deleted: `"true"` leaves its file in the store, for example
/// because the store no longer exists.
pub const ABANDON_ANNOTATION: &str = concat!(operator_api::group!(), "/abandon-object");
/// Advice for a backup whose file cannot be deleted.
pub(super) const LET_GO: &str = concat!(
    "To leave the file in the store, set spec.deletionPolicy: Retain, or the annotation ",
    operator_api::group!(),
    "/abandon-object: \"true\""
);
/// Seconds until the next step while waiting for something that no watch reports.
pub(super) const WAIT_SECONDS: u64 = 15;
/// Longest message in a status, in characters.
const MAX_TEXT_CHARS: usize = 1024;

/// What a decision depends on.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The present time.
    pub now: Time,
    /// The backup.
    pub backup: &'a RqliteBackup,
    /// The cluster that it names, if that exists.
    pub cluster: Option<&'a RqliteCluster>,
    /// The Job of the backup.
    pub job: Option<JobSeen>,
    /// Pods of its Job that have not ended, also if the Job is deleted. Only read if the backup is being
    /// deleted.
    pub pods: &'a [String],
    /// The Job that deletes its file.
    pub deletion: Option<JobSeen>,
    /// The operator's default image, for a cluster that is gone.
    pub node_image: &'a str,
    /// DNS domain of the Kubernetes cluster, if the RqliteCluster's status has none.
    pub domain: &'a str,
    /// Whether the platform assigns users to pods (OpenShift).
    pub assigns_users: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Add or remove the finalizer.
    Finalizer(bool),
    /// Write the status.
    Record(Box<RqliteBackupStatus>),
    /// Create a Job, unless one of the same name exists.
    Create(Box<Job>),
    /// Delete a Job that runs.
    Stop(JobRef),
    /// Decide again after so many seconds.
    Wait(u64),
    /// Nothing is left to do.
    Done,
}

/// Whether its deletion waits for that of its file.
pub fn has_finalizer(backup: &RqliteBackup) -> bool {
    backup.finalizers().iter().any(|one| one == FINALIZER)
}

pub(super) fn is_deleted_with_object(backup: &RqliteBackup) -> bool {
    backup.spec.how.deletion_policy == Some(Deletion::Delete)
}

/// Writes the status if it differs from the present one, or waits.
pub(super) fn record_news(seen: &Seen<'_>, next: RqliteBackupStatus) -> Step {
    match seen.backup.status.as_ref() == Some(&next) {
        true => Step::Wait(WAIT_SECONDS),
        false => record(next),
    }
}

/// Sets a condition. Its transition time changes only with its status.
pub(super) fn put(
    mut status: RqliteBackupStatus,
    now: &Time,
    (kind, is, reason): (&str, &str, &str),
    message: &str,
) -> RqliteBackupStatus {
    let all = &mut status.conditions;
    let before = all.iter().find(|one| one.type_ == kind && one.status == is);
    let since = before.map_or_else(|| now.clone(), |one| one.last_transition_time.clone());
    all.retain(|one| one.type_ != kind);
    all.push(Condition {
        type_: kind.to_owned(),
        status: is.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since,
        observed_generation: None,
    });
    status
}

/// The end of a text, at most [`MAX_TEXT_CHARS`] long: programs print the reason last.
pub(super) fn short(text: String) -> String {
    let text = operator_api::failure::one_line(&text);
    let count = text.chars().count();
    text.chars()
        .skip(count.saturating_sub(MAX_TEXT_CHARS))
        .collect()
}

pub(super) fn record(status: RqliteBackupStatus) -> Step {
    Step::Record(Box::new(status))
}
