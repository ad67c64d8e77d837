//! Metrics of the operator in OpenMetrics format. The prefix of all names is `rqlite_operator_`.
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator_api::{RqliteCluster, RqliteScheduledBackupStatus, status};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::error::Class;

/// Histogram buckets in seconds: from a reconcile without changes to one that reaches its time limit.
const RECONCILE_BUCKETS_SECONDS: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0];
/// Histogram buckets in seconds: from a response in the same data centre to the probe's timeout.
const PROBE_BUCKETS_SECONDS: [f64; 7] = [0.002, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0];
/// Conditions that only clusters with an archive have: without it, 0 would be a false alarm.
const OF_ARCHIVES: [&str; 2] = [status::ARCHIVING, status::BACKUPS_PROVEN];
/// Conditions that are exported as metrics.
const CONDITIONS: [&str; 9] = [
    status::READY,
    status::AVAILABLE,
    status::PROGRESSING,
    status::DEGRADED,
    status::QUORUM_LOST,
    status::HIBERNATED,
    status::DELETION_BLOCKED,
    status::ARCHIVING,
    status::BACKUPS_PROVEN,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByAction {
    action: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByVerb {
    verb: String,
}

/// Labels of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCluster {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCondition {
    namespace: String,
    name: String,
    condition: &'static str,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    reconciles: Family<ByResult, Counter>,
    reconcile_seconds: Histogram,
    actions: Family<ByAction, Counter>,
    requests: Family<ByVerb, Counter>,
    probes: Family<ByResult, Counter>,
    probe_seconds: Histogram,
    leads: Gauge,
    elsewhere: Family<OfCluster, Gauge>,
    conditions: Family<ByCondition, Gauge>,
    voters_desired: Family<OfCluster, Gauge>,
    voters_ready: Family<OfCluster, Gauge>,
    epoch: Family<OfCluster, Gauge>,
    operation_seconds: Family<OfCluster, Gauge>,
    archive: Archives,
    schedules: Schedules,
}

/// What is known of schedules of backups.
#[derive(Debug, Default)]
struct Schedules {
    ready: Family<OfCluster, Gauge>,
    succeeded: Family<OfCluster, Gauge>,
}

impl Schedules {
    fn register(&self, all: &mut Registry) {
        all.register(
            "scheduled_backup_ready",
            "1 if the RqliteScheduledBackup makes backups, 0 if not; absent before its first one",
            self.ready.clone(),
        );
        all.register_with_unit(
            "scheduled_backup_success_timestamp",
            "When the newest successful backup of an RqliteScheduledBackup was complete; 0 if there is none",
            Unit::Seconds,
            self.succeeded.clone(),
        );
    }
}

/// Metrics of archives and their drills, only of clusters that have them.
#[derive(Debug, Default)]
struct Archives {
    archived: Family<OfCluster, Gauge>,
    proven: Family<OfCluster, Gauge>,
    failed: Family<OfCluster, Gauge>,
    drill_seconds: Family<OfCluster, Gauge>,
    drill_behind: Family<OfCluster, Gauge>,
}

impl Archives {
    fn register(&self, all: &mut Registry) {
        all.register_with_unit(
            "cluster_archived_timestamp",
            "Time of the newest archived entry, as of the last change of the status",
            Unit::Seconds,
            self.archived.clone(),
        );
        all.register_with_unit(
            "cluster_drill_success_timestamp",
            "When a drill last restored the archive; 0 if none has, of clusters with drills",
            Unit::Seconds,
            self.proven.clone(),
        );
        all.register_with_unit(
            "cluster_drill_failure_timestamp",
            "When a drill last failed; 0 if none has",
            Unit::Seconds,
            self.failed.clone(),
        );
        all.register_with_unit(
            "cluster_drill_duration",
            "How long the last successful drill took",
            Unit::Seconds,
            self.drill_seconds.clone(),
        );
        all.register(
            "cluster_drill_behind_entries",
            "Entries that the archive was behind in the last successful drill",
            self.drill_behind.clone(),
        );
    }

    fn all(&self) -> [&Family<OfCluster, Gauge>; 5] {
        [
            &self.archived,
            &self.proven,
            &self.failed,
            &self.drill_seconds,
            &self.drill_behind,
        ]
    }

    /// Sets the metrics of this cluster that are known, and removes the others.
    fn set(&self, of: &OfCluster, cluster: &RqliteCluster) {
        let status = cluster.status.as_ref();
        let archive = status.and_then(|status| status.archive.as_ref());
        let spec = cluster.spec.archive.as_ref();
        let archive = archive.filter(|_| spec.is_some());
        let archived = archive.and_then(|archive| archive.archived_time.as_ref());
        let archived = archived.and_then(|time| time.timestamp().ok());
        let drill = archive.and_then(|archive| archive.drill.clone());
        let has_drills = drill.is_some() || spec.is_some_and(|archive| archive.drill.is_some());
        let drill = drill.unwrap_or_default();
        let at = |time: Option<&Time>| time.map_or(0, |time| time.0.as_second());
        let put = |family: &Family<OfCluster, Gauge>, value: Option<i64>| match value {
            Some(value) => drop(family.get_or_create(of).set(value)),
            None => drop(family.remove(of)),
        };
        put(&self.archived, archived.map(|time| time.as_second()));
        let if_drilled = |value: i64| has_drills.then_some(value);
        put(&self.proven, if_drilled(at(drill.proven_at.as_ref())));
        put(&self.failed, if_drilled(at(drill.failed_at.as_ref())));
        put(&self.drill_seconds, drill.seconds);
        put(&self.drill_behind, drill.behind_entries);
    }
}

/// All metrics; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

impl Default for Metrics {
    fn default() -> Self {
        let mut inner = Inner {
            registry: Registry::with_prefix("rqlite_operator"),
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(RECONCILE_BUCKETS_SECONDS),
            actions: Family::default(),
            requests: Family::default(),
            probes: Family::default(),
            probe_seconds: Histogram::new(PROBE_BUCKETS_SECONDS),
            leads: Gauge::default(),
            elsewhere: Family::default(),
            conditions: Family::default(),
            voters_desired: Family::default(),
            voters_ready: Family::default(),
            epoch: Family::default(),
            operation_seconds: Family::default(),
            archive: Archives::default(),
            schedules: Schedules::default(),
        };
        inner.register();
        Self(Arc::new(inner))
    }
}

impl Inner {
    fn register(&mut self) {
        let all = &mut self.registry;
        all.register(
            "reconciles",
            "Reconciles of a cluster, by result",
            self.reconciles.clone(),
        );
        all.register_with_unit(
            "reconcile",
            "Duration of a reconcile",
            Unit::Seconds,
            self.reconcile_seconds.clone(),
        );
        all.register("actions", "Executed actions", self.actions.clone());
        all.register(
            "api_requests",
            "Requests to the API server",
            self.requests.clone(),
        );
        all.register(
            "node_probes",
            "Status requests to nodes, by result",
            self.probes.clone(),
        );
        all.register_with_unit(
            "node_probe",
            "Duration of a status request to a node",
            Unit::Seconds,
            self.probe_seconds.clone(),
        );
        all.register(
            "leading",
            "1 if this process holds the Lease",
            self.leads.clone(),
        );
        all.register(
            "cluster_managed_elsewhere",
            "1 if another installation of the same class manages the cluster, which is then left alone",
            self.elsewhere.clone(),
        );
        all.register(
            "cluster_condition",
            "1 if the condition is true",
            self.conditions.clone(),
        );
        all.register(
            "cluster_voters_desired",
            "Desired voters (spec.replicas)",
            self.voters_desired.clone(),
        );
        all.register(
            "cluster_voters_ready",
            "Voters that are ready",
            self.voters_ready.clone(),
        );
        all.register(
            "cluster_lineage_epoch",
            "Recoveries from a lost quorum",
            self.epoch.clone(),
        );
        all.register_with_unit(
            "cluster_operation_age",
            "Age of the operation in progress; 0 if there is none",
            Unit::Seconds,
            self.operation_seconds.clone(),
        );
        self.archive.register(all);
        self.schedules.register(all);
    }
}

impl Metrics {
    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// None in practice: writing to a String cannot fail.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        Ok(text)
    }

    /// Counts a finished reconcile.
    pub fn reconciled(&self, time: Duration, error: Option<Class>) {
        let result = error.map_or("ok", Class::as_str);
        self.0.reconciles.get_or_create(&ByResult { result }).inc();
        self.0.reconcile_seconds.observe(time.as_secs_f64());
    }

    /// Counts an executed action.
    pub fn acted(&self, action: &str) {
        let action = action.to_owned();
        self.0.actions.get_or_create(&ByAction { action }).inc();
    }

    /// Counts a request to the API server.
    pub fn requested(&self, verb: &str) {
        let verb = verb.to_owned();
        self.0.requests.get_or_create(&ByVerb { verb }).inc();
    }

    /// Counts a status request to a node.
    pub fn probed(&self, time: Duration, answered: bool) {
        let result = if answered { "ok" } else { "failed" };
        self.0.probes.get_or_create(&ByResult { result }).inc();
        self.0.probe_seconds.observe(time.as_secs_f64());
    }

    /// Sets whether this process holds the Lease.
    pub fn leads(&self, leads: bool) {
        self.0.leads.set(i64::from(leads));
    }

    /// Sets whether another installation manages a cluster of this class.
    pub fn set_elsewhere(&self, namespace: &str, name: &str, elsewhere: bool) {
        if elsewhere {
            self.forget(namespace, name);
        }
        let of = of(&Some(namespace.to_owned()), &Some(name.to_owned()));
        let gauge = self.0.elsewhere.get_or_create(&of);
        gauge.set(i64::from(elsewhere));
    }

    /// Sets the metrics of a cluster.
    pub fn set_cluster(&self, cluster: &RqliteCluster) {
        let of = of(&cluster.metadata.namespace, &cluster.metadata.name);
        let status = cluster.status.clone().unwrap_or_default();
        for condition in CONDITIONS {
            let by = ByCondition {
                namespace: of.namespace.clone(),
                name: of.name.clone(),
                condition,
            };
            let known = status.condition(condition);
            let is_known = known.is_some_and(|one| one.status != "Unknown");
            if !is_known && OF_ARCHIVES.contains(&condition) {
                self.0.conditions.remove(&by);
                continue;
            }
            let value = i64::from(status.is(condition));
            self.0.conditions.get_or_create(&by).set(value);
        }
        self.0.archive.set(&of, cluster);
        let put = |family: &Family<OfCluster, Gauge>, value: i64| {
            family.get_or_create(&of).set(value);
        };
        put(&self.0.voters_desired, cluster.spec.replicas.into());
        put(&self.0.voters_ready, status.ready_replicas.into());
        put(&self.0.epoch, status.lineage.map_or(0, |l| l.epoch));
        let started = status.operation.map(|o| SystemTime::from(o.started_at.0));
        let age = started.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        put(
            &self.0.operation_seconds,
            i64::try_from(age.as_secs()).unwrap_or(i64::MAX),
        );
    }

    /// Sets the metrics of an RqliteScheduledBackup.
    pub fn set_schedule(&self, namespace: &str, name: &str, status: &RqliteScheduledBackupStatus) {
        let of = of(&Some(namespace.to_owned()), &Some(name.to_owned()));
        let ready = status.conditions.iter().find(|one| one.type_ == "Ready");
        let known = ready.filter(|one| one.status != "Unknown");
        match known {
            Some(ready) => {
                let gauge = self.0.schedules.ready.get_or_create(&of);
                gauge.set(i64::from(ready.status == "True"));
            }
            None => drop(self.0.schedules.ready.remove(&of)),
        }
        let last = status.last_successful_time.as_ref();
        let gauge = self.0.schedules.succeeded.get_or_create(&of);
        gauge.set(last.map_or(0, |time| time.0.as_second()));
    }

    /// Removes the metrics of an RqliteScheduledBackup that is deleted, or that others look after.
    pub fn forget_schedule(&self, namespace: &str, name: &str) {
        let of = of(&Some(namespace.to_owned()), &Some(name.to_owned()));
        self.0.schedules.ready.remove(&of);
        self.0.schedules.succeeded.remove(&of);
    }

    /// Removes the metrics of a deleted cluster.
    pub fn forget(&self, namespace: &str, name: &str) {
        let of = of(&Some(namespace.to_owned()), &Some(name.to_owned()));
        for condition in CONDITIONS {
            self.0.conditions.remove(&ByCondition {
                namespace: of.namespace.clone(),
                name: of.name.clone(),
                condition,
            });
        }
        for family in [
            &self.0.elsewhere,
            &self.0.voters_desired,
            &self.0.voters_ready,
            &self.0.epoch,
            &self.0.operation_seconds,
        ] {
            family.remove(&of);
        }
        for family in self.0.archive.all() {
            family.remove(&of);
        }
    }
}

fn of(namespace: &Option<String>, name: &Option<String>) -> OfCluster {
    OfCluster {
        namespace: namespace.clone().unwrap_or_default(),
        name: name.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_comes_and_goes() {
        let metrics = Metrics::default();
        let mut cluster = RqliteCluster::new("demo", operator_api::RqliteClusterSpec::default());
        cluster.metadata.namespace = Some("shop".to_owned());
        metrics.set_cluster(&cluster);
        metrics.reconciled(Duration::from_millis(5), Some(Class::Transient));
        let text = metrics.text().unwrap();
        for line in [
            r#"rqlite_operator_cluster_voters_desired{namespace="shop",name="demo"} 3"#,
            r#"rqlite_operator_cluster_condition{namespace="shop",name="demo",condition="Ready"} 0"#,
            r#"rqlite_operator_reconciles_total{result="transient"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(
            !text.contains("BackupsProven") && !text.contains("drill_success_timestamp_seconds{"),
            "a cluster without an archive raises no alarm"
        );
        metrics.forget("shop", "demo");
        assert!(!metrics.text().unwrap().contains("shop"));
    }

    #[test]
    fn a_schedule_is_told_while_it_is_there() {
        let metrics = Metrics::default();
        let mut status = RqliteScheduledBackupStatus::default();
        let has = |line: &str| metrics.text().unwrap().lines().any(|one| one == line);
        let of = r#"{namespace="shop",name="nightly"}"#;
        let ready = |is: i64| format!("rqlite_operator_scheduled_backup_ready{of} {is}");
        let at = |time: i64| {
            format!("rqlite_operator_scheduled_backup_success_timestamp_seconds{of} {time}")
        };
        metrics.set_schedule("shop", "nightly", &status);
        assert!(has(&at(0)) && !has(&ready(0)), "0 would be an alarm");
        for (is, value) in [("False", 0), ("True", 1), ("False", 0)] {
            let text = format!(
                r#"{{"lastSuccessfulTime": "1970-01-01T00:01:00Z", "conditions": [{{"type": "Ready", "status": "{is}",
                "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}}]}}"#
            );
            status = serde_json::from_str(&text).unwrap();
            metrics.set_schedule("shop", "nightly", &status);
            assert!(has(&ready(value)) && has(&at(60)), "{is}");
        }
        metrics.forget_schedule("shop", "nightly");
        assert!(!metrics.text().unwrap().contains("nightly"));
    }

    #[test]
    fn drills_are_told_while_there_are_any() {
        let archive = r#"{"target": {"s3": {"bucket": "bkt"}}, "drill": {"schedule": "@daily"}}"#;
        let status = r#"{"conditions": [{"type": "BackupsProven", "status": "True", "reason": "DrillSucceeded", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}], "archive": {"archivedTime": "1970-01-01T00:00:09Z",
            "drill": {"provenAt": "1970-01-01T00:01:00Z", "behindEntries": 3, "seconds": 5}}}"#;
        let mut cluster = RqliteCluster::new("demo", operator_api::RqliteClusterSpec::default());
        cluster.metadata.namespace = Some("shop".to_owned());
        cluster.spec.archive = serde_json::from_str(archive).unwrap();
        let metrics = Metrics::default();
        let lines = |words: &[&str]| -> usize {
            let text = metrics.text().unwrap();
            let found = text.lines().filter(|line| words.contains(line));
            found.count()
        };
        metrics.set_cluster(&cluster);
        let of = r#"{namespace="shop",name="demo"}"#;
        let never = format!("rqlite_operator_cluster_drill_success_timestamp_seconds{of} 0");
        assert_eq!(lines(&[&never]), 1);
        cluster.status = serde_json::from_str(status).unwrap();
        metrics.set_cluster(&cluster);
        let all = [
            format!("rqlite_operator_cluster_archived_timestamp_seconds{of} 9"),
            format!("rqlite_operator_cluster_drill_success_timestamp_seconds{of} 60"),
            format!("rqlite_operator_cluster_drill_failure_timestamp_seconds{of} 0"),
            format!("rqlite_operator_cluster_drill_duration_seconds{of} 5"),
            format!("rqlite_operator_cluster_drill_behind_entries{of} 3"),
            r#"rqlite_operator_cluster_condition{namespace="shop",name="demo",condition="BackupsProven"} 1"#.to_owned(),
        ];
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(lines(&all), 6, "{}", metrics.text().unwrap());
        cluster.spec.archive = None;
        cluster.status = None;
        metrics.set_cluster(&cluster);
        assert_eq!(lines(&all), 0);
    }
}
