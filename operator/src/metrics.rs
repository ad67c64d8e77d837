//! Metrics of the operator in OpenMetrics format. The prefix of all names is `rqlite_operator_`.
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use operator_api::{RqliteCluster, status};
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
            let value = i64::from(status.is(condition));
            self.0.conditions.get_or_create(&by).set(value);
        }
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
        metrics.forget("shop", "demo");
        assert!(!metrics.text().unwrap().contains("shop"));
    }
}
