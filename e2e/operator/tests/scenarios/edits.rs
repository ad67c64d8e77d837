//! Foreign changes to the operator's objects, and objects that cannot be parsed.
use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, spec},
    fixture::{Fixture, text},
    report::Measurements,
};

pub(crate) fn conflicting(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("conflict", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let members = cluster.configuration()?;
        let state = cluster.state()?;
        extra_pod(cluster)?;
        missing_pods(cluster)?;
        foreign_state(cluster, &state)?;
        for object in [
            "service/demo-leader",
            "pdb/demo-rqlite",
            "networkpolicy/demo-rqlite",
        ] {
            cluster.namespace.run(&["delete", object])?;
            until(&format!("another {object}"), LIMIT, || {
                cluster.namespace.run(&["get", object, "-o", "name"])
            })?;
        }
        let outcome = cluster.verify_intact(writer)?;
        ensure!(cluster.configuration()? == members, "members have changed");
        Ok(outcome)
    })
}

pub(crate) fn scale_manually(cluster: &Cluster<'_>, replicas: u8) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    let args = ["scale", "statefulset/demo", &replicas];
    cluster.namespace.run(&args).map(drop)
}

/// A pod added by scaling the StatefulSet is removed again, and leaves no member behind.
fn extra_pod(cluster: &Cluster<'_>) -> Result<()> {
    scale_manually(cluster, 4)?;
    until("the set to be of three again", LONG, || {
        let replicas = cluster.set(NAME)?["spec"]["replicas"].clone();
        ensure!(replicas == 3, "{replicas}");
        Ok(())
    })?;
    cluster.ready(LONG)
}

/// A pod removed by scaling the StatefulSet returns with its data.
fn missing_pods(cluster: &Cluster<'_>) -> Result<()> {
    scale_manually(cluster, 2)?;
    until("the set to be of three again", LONG, || {
        let replicas = cluster.set(NAME)?["spec"]["replicas"].clone();
        ensure!(replicas == 3, "{replicas}");
        Ok(())
    })?;
    cluster.ready(LONG)
}

/// A state file changed to allow formation is restored.
fn foreign_state(cluster: &Cluster<'_>, state: &Value) -> Result<()> {
    let mut other = state.clone();
    other["phase"] = json!("Forming");
    let patch = json!({"data": {"state.json": other.to_string()}}).to_string();
    let args = [
        "patch",
        "configmap",
        "demo-state",
        "--type=merge",
        "-p",
        &patch,
    ];
    cluster.namespace.run(&args)?;
    until("the state file to be as it was", LIMIT, || {
        let now = cluster.state()?;
        ensure!(now == *state, "{now}");
        Ok(())
    })
}

const DEFINITION: &str = "customresourcedefinition/rqliteclusters.rqlite.dev";

/// Path of `spec` in the definition's schema.
const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";

pub(crate) fn unreadable(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("unreadable", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let args = ["get", DEFINITION, "-o", "json"];
        let definition: Value = serde_json::from_str(&fixture.kubectl.run(&args)?)?;
        let before = definition.pointer(SPEC).context("no schema")?.clone();
        let patch = |schema: &Value| {
            let patch = json!([{"op": "replace", "path": SPEC, "value": schema}]).to_string();
            fixture
                .kubectl
                .run(&["patch", DEFINITION, "--type=json", "-p", &patch])
        };
        // Like after a downgrade: the stored object has a different schema than this operator's.
        patch(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))?;
        let checked = reported_and_others_unaffected(cluster);
        let bad = [
            "delete",
            "rqlitecluster",
            "odd",
            "--ignore-not-found",
            "--wait=false",
        ];
        cluster.namespace.run(&bad)?;
        patch(&before)?;
        checked?;
        cluster.verify_intact(writer)
    })
}

fn reported_and_others_unaffected(cluster: &Cluster<'_>) -> Result<()> {
    let odd = json!({
        "apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster",
        "metadata": {"name": "odd"}, "spec": {"replicas": 3, "storage": "much"},
    });
    until("an object that cannot be read", LIMIT, || {
        // The server takes some seconds to use another schema.
        cluster.namespace.apply(&odd.to_string())
    })?;
    until("an event that says so", LIMIT, || {
        let args = ["get", "events", "-o", "json"];
        let events: Value = serde_json::from_str(&cluster.namespace.run(&args)?)?;
        let all = events["items"].as_array().cloned().unwrap_or_default();
        let event = all.iter().find(|e| e["involvedObject"]["name"] == "odd");
        let event = event.context("no event on it")?;
        println!(
            "event: {} {}",
            text(&event["reason"]),
            text(&event["message"])
        );
        Ok(())
    })?;
    cluster.scale(4)?;
    cluster
        .ready(LONG)
        .context("another cluster, beside one that cannot be read")?;
    cluster.scale(3)?;
    cluster.ready(LONG)
}
