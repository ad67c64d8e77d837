//! What the decisions about a schedule depend on.
use k8s_openapi::jiff::Timestamp;
use operator_api::{RqliteScheduledBackupSpec, RqliteScheduledBackupStatus, backup::BackupPhase};

/// A backup that this schedule has made.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// When it ended.
    pub completed: Option<Timestamp>,
    /// Its phase.
    pub phase: BackupPhase,
    /// Whether its Job was deleted before its end was seen: a good file may be in the store.
    pub unseen: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// What [`super::decide`] depends on.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The present time.
    pub now: Timestamp,
    /// Name of the schedule.
    pub name: &'a str,
    /// When it was created.
    pub created: Timestamp,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Its spec.
    pub spec: &'a RqliteScheduledBackupSpec,
    /// Its status.
    pub status: &'a RqliteScheduledBackupStatus,
    /// The backups that it has made.
    pub made: &'a [Made],
    /// Class of the cluster's operators; `None` if the cluster does not exist.
    pub class: Option<&'a str>,
}
