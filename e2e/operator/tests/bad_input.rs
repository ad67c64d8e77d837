//! Invalid input: every user error results in a condition and an event that name the remedy, and that
//! disappear once it is corrected.
//!
//! API server, controllers and operator are real; what kubelets would report is simulated.
#[path = "bad_input/cases.rs"]
mod cases;
#[path = "bad_input/edits.rs"]
mod edits;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    objects::Objects,
    operator_fixture::{OperatorFixture, condition, events},
    root,
};
use serde_json::{Value, json};

/// Limit for a report: one reconcile and the controllers' own delays.
const LIMIT: Duration = Duration::from_secs(60);
/// Name of the cluster in each namespace.
const NAME: &str = "demo";

fn object(kind: &str, api: &str, name: &str, more: Value) -> Value {
    let mut all = json!({ "apiVersion": api, "kind": kind, "metadata": { "name": name } });
    for (key, value) in more.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    all
}

fn cluster(name: &str, spec: &Value) -> Value {
    object(
        "RqliteCluster",
        "rqlite.dev/v1alpha1",
        name,
        json!({ "spec": spec }),
    )
}

/// Waits until the condition has this reason and contains these texts, and an event has the same reason.
fn await_reported(
    server: &Objects,
    namespace: &str,
    kind: &str,
    reason: &str,
    parts: &[&str],
) -> Result<String> {
    let what = format!("{kind} of {namespace}/{NAME} to say {reason}");
    let message = until(&what, LIMIT, || {
        let object = server.get(&["rqlitecluster", NAME, "-n", namespace])?;
        let found = condition(&object, kind);
        ensure!(
            found["status"] == "True" && found["reason"] == reason,
            "{found}"
        );
        let message = found["message"].as_str().unwrap_or_default().to_owned();
        for part in parts {
            ensure!(message.contains(part), "{part:?} is not in {message:?}");
        }
        Ok(message)
    })?;
    ensure!(message.contains("Runbook: "), "no page is named: {message}");
    until(&format!("an event {reason} in {namespace}"), LIMIT, || {
        let all = events(server, namespace, NAME)?;
        let note = all
            .iter()
            .find(|(found, note)| found == reason && parts.iter().all(|part| note.contains(part)));
        note.with_context(|| format!("{all:?}"))?;
        Ok(())
    })?;
    Ok(message)
}

/// Waits until the condition no longer has this reason.
fn await_cleared(server: &Objects, namespace: &str, reason: &str) -> Result<()> {
    until(
        &format!("{reason} to be cleared in {namespace}"),
        LIMIT,
        || {
            let object = server.get(&["rqlitecluster", NAME, "-n", namespace])?;
            let found = condition(&object, "Degraded");
            ensure!(found["reason"] != reason, "{found}");
            Ok(())
        },
    )
}

/// A cluster created before a validation rule existed: the API server accepts it, and the operator reports
/// the remedy.
fn from_before_the_rules(server: &Objects) -> Result<()> {
    let long = "a-name-that-is-much-too-long-for-a-statefulset-and-its-pods";
    let spec = json!({ "replicas": 1 });
    let refused = server.send(&["create", "-n", "default"], &cluster(long, &spec));
    let said = refused.map_or_else(|error| format!("{error:#}"), |made| made.to_string());
    ensure!(said.contains("at most 45 characters"), "{said}");
    let definition = "rqliteclusters.rqlite.dev";
    let rules = "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-validations";
    let patch = json!([{ "op": "remove", "path": rules }]).to_string();
    server.run(&["patch", "crd", definition, "--type=json", "-p", &patch])?;
    until("the definition without rules to be in force", LIMIT, || {
        server.send(&["create", "-n", "default"], &cluster(long, &spec))
    })?;
    let crd = root()
        .join("crds/rqliteclusters.yaml")
        .display()
        .to_string();
    server.run(&["apply", "--server-side", "--force-conflicts", "-f", &crd])?;
    let message = until("InvalidSpec", LIMIT, || {
        let found = server.get(&["rqlitecluster", long, "-n", "default"])?;
        ensure!(found["status"]["phase"] == "Invalid", "{}", found["status"]);
        let degraded = condition(&found, "Degraded");
        ensure!(degraded["reason"] == "InvalidSpec", "{degraded}");
        let reported = events(server, "default", long)?;
        ensure!(
            reported.iter().any(|(reason, _)| reason == "InvalidSpec"),
            "{reported:?}"
        );
        Ok(degraded["message"].as_str().unwrap_or_default().to_owned())
    })?;
    ensure!(
        message.contains("create the cluster under another name"),
        "{message}"
    );
    let made = server.get(&["statefulset", "-n", "default"])?;
    ensure!(made["items"] == json!([]), "something was made of it");
    Ok(())
}

#[test]
fn what_is_wrong_is_told_with_what_to_type() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    let result = cases::run(&fixture.server)
        .and_then(|()| from_before_the_rules(&fixture.server))
        .and_then(|()| edits::run(&fixture));
    result.with_context(|| fixture.tail())
}
