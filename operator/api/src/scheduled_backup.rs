//! `RqliteScheduledBackup`: backups again and again, and which of them are kept.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{
    backup::BackupOptions,
    scalar::Span,
    schedule::{Cron, ZoneName},
    store::ObjectName,
};

/// A schedule of backups.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rqlite.dev",
    version = "v1alpha1",
    kind = "RqliteScheduledBackup",
    plural = "rqlitescheduledbackups",
    shortname = "rqsb",
    category = "databases",
    namespaced,
    doc = "Backups of a cluster by a schedule, and which of them are kept. It creates RqliteBackups, and deletes none but its own.",
    status = "RqliteScheduledBackupStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterRef.name"
    ),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.timeZone", priority = 1),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(
        name = "Last success",
        type_ = "date",
        json_path = ".status.lastSuccessfulTime"
    ),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime"),
    printcolumn(name = "Kept", type_ = "integer", json_path = ".status.kept"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.size() <= 37").message("the name may have at most 37 characters, because the names of backups and Jobs are derived from it: choose a shorter name")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.clusterRef == oldSelf.clusterRef").message("clusterRef cannot be changed, because retention counts this cluster's backups: create another RqliteScheduledBackup")
)]
pub struct RqliteScheduledBackupSpec {
    /// The cluster, in the same namespace.
    pub cluster_ref: ObjectName,
    /// When: five fields of cron (minute, hour, day of the month, month, day of the week), or @hourly,
    /// @daily, @weekly, @monthly, @yearly. If both days are restricted, either suffices, as in cron.
    pub schedule: Cron,
    /// Time zone of the schedule, such as Europe/Zurich. A time that daylight saving skips is carried out
    /// later by the length of the gap; one that it repeats is carried out once. Defaults to UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<ZoneName>,
    /// No new backups while true; retention goes on. Defaults to false.
    #[serde(default)]
    pub suspend: bool,
    /// What happens if a backup is due while another one of this schedule runs: Forbid (it is left out),
    /// Allow, or Replace (the running one is given up). Defaults to Forbid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<Concurrency>,
    /// How late a backup may begin, for example after the operator was away. What is later is left out; of
    /// several missed ones only the newest is made. Defaults to any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline: Option<Span>,
    /// Whether the first backup is made at once. Defaults to false.
    #[serde(default)]
    pub immediate: bool,
    /// Which backups are kept. Defaults to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<BackupRetention>,
    /// How many failed backups of this schedule are kept to look at. Defaults to 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub failed_history_limit: Option<i32>,
    /// Where, how, and for how long.
    #[serde(flatten)]
    pub how: BackupOptions,
}

impl RqliteScheduledBackupSpec {
    /// A schedule for this cluster with the default of everything else.
    pub fn new(cluster: impl Into<String>, schedule: &str) -> Self {
        Self {
            cluster_ref: ObjectName {
                name: cluster.into(),
            },
            schedule: Cron::from(schedule),
            time_zone: None,
            suspend: false,
            concurrency_policy: None,
            starting_deadline: None,
            immediate: false,
            retention: None,
            failed_history_limit: None,
            how: BackupOptions::new(),
        }
    }
}

/// What happens if two backups meet.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum Concurrency {
    /// The later one is left out.
    #[default]
    Forbid,
    /// Both run.
    Allow,
    /// The earlier one is given up.
    Replace,
}

/// Which backups are kept: all that any of the rules keeps. The newest successful one is always kept.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.count) || has(self.age) || has(self.hourly) || has(self.daily) || has(self.weekly) || has(self.monthly) || has(self.yearly)").message("retention without a rule says nothing: give count, age, hourly, daily, weekly, monthly or yearly, or leave retention out to keep all"))]
pub struct BackupRetention {
    /// The newest so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub count: Option<i32>,
    /// Those younger than this, such as 30d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<Span>,
    /// The newest of each of the last so many hours that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub hourly: Option<i32>,
    /// The newest of each of the last so many days, in the schedule's time zone, that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub daily: Option<i32>,
    /// The newest of each of the last so many weeks (Monday to Sunday) that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub weekly: Option<i32>,
    /// The newest of each of the last so many months that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub monthly: Option<i32>,
    /// The newest of each of the last so many years that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub yearly: Option<i32>,
}

/// The state of a schedule.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RqliteScheduledBackupStatus {
    /// Generation of the spec that this status refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The newest time of the schedule that was dealt with, whether by a backup or by leaving it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// The backup that was created last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<String>,
    /// When the newest successful backup was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// When the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// Since when it is carried out again, after it was suspended or could not be understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Time>,
    /// Class of the operators that look after it once the cluster is gone; absent for the class default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_class: Option<String>,
    /// Backups that are being made; at most 16 are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub active: Vec<String>,
    /// Number of successful backups that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<i32>,
    /// What was left out last and why, or what is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Ready: the newest backup succeeded. False with BackupFailed, Overdue (two times of the schedule have
    /// passed since the last success), ClusterMissing or InvalidSchedule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
