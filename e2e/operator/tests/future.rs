//! A status that a newer operator wrote, on a real API server: accepted, read, kept, and left alone.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    operator_fixture::{OperatorFixture, condition},
};
use serde_json::json;

/// Limit for a report.
const LIMIT: Duration = Duration::from_secs(60);

fn run(fixture: &OperatorFixture) -> Result<()> {
    let server = &fixture.server;
    let get = || server.get(&["rqlitecluster", "demo", "-n", "default"]);
    // The definition of the newer operator has a field more.
    let field = json!([{ "op": "add", "value": { "type": "string" },
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/forecast" }]);
    let crd = "rqliteclusters.rqlite.dev";
    server.run(&["patch", "crd", crd, "--type=json", "-p", &field.to_string()])?;
    let spec = json!({ "apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster",
        "metadata": { "name": "demo" }, "spec": { "replicas": 1 } });
    server.send(&["create", "-n", "default"], &spec)?;
    until("a StatefulSet", LIMIT, || {
        server.get(&["statefulset", "demo", "-n", "default"])
    })?;
    let at = "2026-01-01T00:00:00Z";
    let operation =
        json!({ "id": "o", "type": "Defragment", "step": "Weigh", "startedAt": at, "stepAt": at });
    let written = json!({ "status": { "phase": "Dreaming", "forecast": "sunny", "operatorVersion": "9.0.0",
        "operation": operation } });
    let patch = written.to_string();
    until("the status to be written", LIMIT, || {
        server.run(&[
            "patch",
            "rqlitecluster",
            "demo",
            "-n",
            "default",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])?;
        let now = get()?;
        ensure!(now["status"]["forecast"] == "sunny", "{}", now["status"]);
        Ok(())
    })?;
    let edit = json!({ "spec": { "replicas": 3 } }).to_string();
    server.run(&[
        "patch",
        "rqlitecluster",
        "demo",
        "-n",
        "default",
        "--type=merge",
        "-p",
        &edit,
    ])?;
    until("WrittenByNewerOperator", LIMIT, || {
        let now = get()?;
        let degraded = condition(&now, "Degraded");
        ensure!(degraded["reason"] == "WrittenByNewerOperator", "{degraded}");
        ensure!(
            degraded["observedGeneration"] == now["metadata"]["generation"],
            "{degraded}"
        );
        Ok(())
    })?;
    let now = get()?;
    let status = &now["status"];
    for field in ["id", "type", "step"] {
        ensure!(status["operation"][field] == operation[field], "{status}");
    }
    ensure!(
        status["forecast"] == "sunny" && status["operatorVersion"] == "9.0.0",
        "{status}"
    );
    Ok(())
}

#[test]
fn a_status_of_the_future_is_left_alone() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    run(&fixture).with_context(|| fixture.tail())
}
