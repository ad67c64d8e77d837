//! Runs after an installation was uninstalled, from the chart's Job, never at an upgrade: the clusters'
//! statuses say that no operator manages them, the Lease is deleted, and the finalizers of backups are
//! removed. An operator that is installed later overwrites all of it.
mod backups;

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use operator_api::{RqliteCluster, names, status};
use serde_json::{Value, json};

use crate::{metrics::Metrics, observe::now, run};

/// Time limit of the command: the uninstallation waits for it.
const LIMIT: Duration = Duration::from_secs(45);
/// Attempts to write one status.
const ATTEMPTS: usize = 3;
/// Reason of the conditions.
const REASON: &str = "OperatorUninstalled";
/// Phase of a cluster without an operator.
const PHASE: &str = "Unmanaged";

/// Options of the command.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Namespace of the operator that was uninstalled.
    #[arg(long)]
    namespace: String,
    /// Name of its Lease.
    #[arg(long)]
    lease: String,
    /// Its class.
    #[arg(long, default_value = names::DEFAULT_CLASS)]
    class: String,
}

/// Writes the statuses, deletes the Lease and removes the finalizers of backups.
///
/// # Errors
/// There is no access to the API server, or it took too long. Clusters that cannot be written are reported.
pub async fn run(options: Options) -> anyhow::Result<String> {
    let client = run::client(&Metrics::default()).await?;
    tokio::time::timeout(LIMIT, leave(&client, &options))
        .await
        .context("not done in time")?
}

async fn leave(client: &Client, options: &Options) -> anyhow::Result<String> {
    let installation = format!("{}/{}", options.namespace, options.lease);
    // Untyped, so that fields of another version stay.
    let resource = ApiResource::erase::<RqliteCluster>(&());
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut said = String::new();
    let mut known = backups::Known::default();
    match all.list(&ListParams::default()).await {
        Ok(clusters) => {
            for cluster in clusters {
                let namespace = cluster.namespace().unwrap_or_default();
                let name = cluster.name_any();
                let is_own = unmanaged(&cluster.data["status"], &installation, &json!(null));
                known.insert((namespace.clone(), name.clone()), is_own.is_some());
                let api = Api::namespaced_with(client.clone(), &namespace, &resource);
                let result = leave_word(&api, cluster, &installation).await;
                let text = result.map_or_else(|error| format!("{error:#}"), str::to_owned);
                said.push_str(&format!("{namespace}/{name}: {text}\n"));
            }
        }
        // The definitions were uninstalled as well.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error).context("listing RqliteClusters"),
    }
    let leases: Api<Lease> = Api::namespaced(client.clone(), &options.namespace);
    match leases
        .delete(&options.lease, &DeleteParams::default())
        .await
    {
        Ok(_) => said.push_str("the Lease is deleted\n"),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error).context("deleting the Lease"),
    }
    let text = backups::let_go(client, &known, &options.class).await;
    said.push_str(&text.unwrap_or_else(|error| format!("{error:#}\n")));
    Ok(said)
}

async fn leave_word(
    api: &Api<DynamicObject>,
    mut cluster: DynamicObject,
    installation: &str,
) -> anyhow::Result<&'static str> {
    let name = cluster.name_any();
    for _ in 0..ATTEMPTS {
        let Some(status) = unmanaged(&cluster.data["status"], installation, &json!(now())) else {
            return Ok("managed by another installation, or not managed yet");
        };
        let change =
            json!({"metadata": {"resourceVersion": cluster.resource_version()}, "status": status});
        let params = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match api
            .patch_status(&name, &params, &Patch::Merge(&change))
            .await
        {
            Ok(_) => return Ok("its status says that no operator runs"),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                cluster = api.get(&name).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("its status changes all the time: is an operator running?")
}

/// What to change in a status; None if it is not this installation's.
fn unmanaged(status: &Value, installation: &str, now: &Value) -> Option<Value> {
    let by = status["managedBy"]["installation"].as_str();
    if status["clusterId"].is_null() || by.is_some_and(|by| by != installation) {
        return None;
    }
    let message = format!(
        "the operator {installation} was uninstalled: no operator manages this cluster, and its status is outdated. Its pods keep running. Install an operator to have it managed again"
    );
    let kinds = [
        status::READY,
        status::AVAILABLE,
        status::PROGRESSING,
        status::DEGRADED,
        status::QUORUM_LOST,
        status::STORAGE_READY,
    ];
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|one| one["type"] != status::MANAGED);
    for one in &mut conditions {
        if kinds.iter().any(|kind| one["type"] == *kind) && one["status"] != "Unknown" {
            one["status"] = "Unknown".into();
            one["reason"] = REASON.into();
            one["message"] = message.clone().into();
            one["lastTransitionTime"] = now.clone();
        }
    }
    conditions.push(
        json!({"type": status::MANAGED, "status": "False", "reason": REASON,
        "message": message, "lastTransitionTime": now}),
    );
    Some(json!({"phase": PHASE, "conditions": conditions}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(by: &str) -> Value {
        json!({"clusterId": "c", "phase": "Running", "managedBy": {"installation": by}, "conditions": [
            {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "then"},
            {"type": "Paused", "status": "False", "reason": "NotRequested", "message": "", "lastTransitionTime": "then"},
        ]})
    }

    #[test]
    fn a_status_without_an_operator_claims_nothing() {
        let change = unmanaged(&status("ns/op"), "ns/op", &json!("now")).unwrap();
        assert_eq!(change["phase"], "Unmanaged");
        let conditions = change["conditions"].as_array().unwrap();
        let found: Vec<_> = conditions
            .iter()
            .map(|one| {
                (
                    one["type"].as_str().unwrap(),
                    one["status"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("Ready", "Unknown"),
                ("Paused", "False"),
                ("Managed", "False")
            ]
        );
        assert_eq!(conditions[0]["lastTransitionTime"], "now");
        // A second time, nothing but the time of the last condition changes.
        let mut again = status("ns/op");
        again["conditions"] = change["conditions"].clone();
        let change = unmanaged(&again, "ns/op", &json!("now")).unwrap();
        assert_eq!(change["conditions"], again["conditions"]);
    }

    #[test]
    fn clusters_of_others_are_left_alone() {
        assert_eq!(unmanaged(&status("ns/other"), "ns/op", &json!("now")), None);
        assert_eq!(unmanaged(&json!({}), "ns/op", &json!("now")), None);
    }
}
