//! Which operator manages a cluster, and whether a request will be carried out.
use std::time::{Duration, Instant};

use anyhow::ensure;
use operator_api::{RqliteCluster, cluster::Management, names, status::MANAGED};

/// Why no operator manages the cluster; None if one does.
pub(crate) fn unmanaged(cluster: &RqliteCluster) -> Option<String> {
    let status = cluster.status.as_ref();
    let Some(condition) = status.and_then(|status| status.condition(MANAGED)) else {
        let never = status.is_none_or(|status| status.cluster_id.is_none());
        return never.then(|| {
            let class = cluster.spec.operator_class.as_deref();
            format!(
                "no operator of the class {} has looked at it yet",
                class.unwrap_or(names::DEFAULT_CLASS)
            )
        });
    };
    (condition.status == "False").then(|| condition.message.clone())
}

/// If an object has no status after this time, no operator is running.
const OPERATOR_TIMEOUT: Duration = Duration::from_secs(60);

/// Fails if no operator has written the object's status within [`OPERATOR_TIMEOUT`] after `began`.
pub(crate) fn check_taken_up(name: &str, is_taken_up: bool, began: Instant) -> anyhow::Result<()> {
    ensure!(
        is_taken_up || began.elapsed() <= OPERATOR_TIMEOUT,
        "{name} is not processed: is the operator running, and does it watch this namespace?"
    );
    Ok(())
}

/// The installation that manages it, as text.
pub(crate) fn line(cluster: &RqliteCluster) -> Option<String> {
    if let Some(why) = unmanaged(cluster) {
        return Some(format!("NOT MANAGED: {why}"));
    }
    let by = cluster.status.as_ref()?.managed_by.as_ref()?;
    let paused = if cluster.is_paused() { ", paused" } else { "" };
    Some(format!(
        "managed by {} (class {}){paused}",
        by.installation, by.operator_class
    ))
}

/// What a request waits for that the operator does not carry out at once; None if it does.
pub(crate) fn waits_for(cluster: &RqliteCluster) -> Option<&'static str> {
    if cluster.is_paused() {
        return Some("the cluster is paused: it is done once it is not");
    }
    let manual = cluster.spec.management == Some(Management::Manual);
    manual.then_some("management is Manual: it is done after kubectl rqlite approve")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cluster(status: Value) -> RqliteCluster {
        serde_json::from_value(
            json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster",
            "metadata": {"name": "demo"}, "spec": {"replicas": 3}, "status": status}),
        )
        .unwrap()
    }

    #[test]
    fn who_looks_after_it() {
        let managed = |status: &str| {
            json!({"clusterId": "c", "managedBy": {"installation": "ops/rqlite", "operatorClass": "default",
                    "since": "2026-01-01T00:00:00Z"},
                "conditions": [{"type": "Managed", "status": status, "reason": "R", "message": "it was uninstalled",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
        };
        let none = "NOT MANAGED: no operator of the class default has looked at it yet";
        let cases = [
            (Value::Null, Some(none)),
            (json!({"clusterId": "c"}), None),
            (managed("False"), Some("NOT MANAGED: it was uninstalled")),
            (
                managed("True"),
                Some("managed by ops/rqlite (class default)"),
            ),
        ];
        for (status, expected) in cases {
            assert_eq!(
                line(&cluster(status.clone())).as_deref(),
                expected,
                "{status}"
            );
        }
    }

    #[test]
    fn what_a_request_waits_for() {
        let mut cluster = cluster(Value::Null);
        assert_eq!(waits_for(&cluster), None);
        cluster.spec.management = Some(Management::Manual);
        assert!(waits_for(&cluster).unwrap().contains("approve"));
        cluster.spec.paused = true;
        assert!(waits_for(&cluster).unwrap().contains("paused"));
    }
}
