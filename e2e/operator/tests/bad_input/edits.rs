//! Foreign changes to the operator's objects: reverted, and reported with their author.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    fleet::{self, NAMESPACE, machines, nodes::Nodes},
    operator_fixture::{OperatorFixture, condition, events},
};
use serde_json::{Value, json};

use super::{LIMIT, NAME, cluster};

/// Longer than a change takes to be noticed, and as long as a reconcile without changes.
const CALM: Duration = Duration::from_secs(3);

pub(crate) fn run(fixture: &OperatorFixture) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let admin = runtime.block_on(fleet::client(&fixture.api.kubeconfig("admin")))?;
    let server = &fixture.server;
    server.run(&["create", "namespace", NAMESPACE])?;
    let simulated = runtime.spawn(machines::simulate(admin, Nodes::new()));
    // Quantities that the API server normalizes do not count as foreign changes.
    let mut spec = fleet::plain();
    spec["resources"] = json!({ "requests": { "cpu": "1000m", "memory": "1024Mi" } });
    server.send(&["create", "-n", NAMESPACE], &cluster(NAME, &spec))?;
    until("the cluster to be Ready", LIMIT, || {
        let ready = condition(&look(fixture)?, "Ready");
        ensure!(ready["status"] == "True", "{ready}");
        Ok(())
    })?;
    quiet(fixture)?;
    let advisory = condition(&look(fixture)?, "Advisory");
    ensure!(advisory["reason"] != "EditedByOthers", "{advisory}");
    let patch = json!({ "spec": { "ports": [{ "name": "http", "port": 9999 }] } }).to_string();
    server.run(&[
        "patch",
        "service",
        "demo-client",
        "-n",
        NAMESPACE,
        "--field-manager=hands",
        "--type=merge",
        "-p",
        &patch,
    ])?;
    set_back(fixture, &["spec.ports", "Service demo-client", "by hands"])?;
    until("the port to be as it was", LIMIT, || {
        let service = server.get(&["service", "demo-client", "-n", NAMESPACE])?;
        ensure!(
            service["spec"]["ports"][0]["port"] == 4001,
            "{}",
            service["spec"]
        );
        Ok(())
    })?;
    server.run(&[
        "scale",
        "statefulset",
        NAME,
        "-n",
        NAMESPACE,
        "--replicas=2",
    ])?;
    let parts = [
        "spec.replicas of StatefulSet demo was changed to 2 by kubectl",
        "kubectl scale rqlitecluster demo -n fleet",
    ];
    set_back(fixture, &parts)?;
    until("three pods", LIMIT, || {
        let set = server.get(&["statefulset", NAME, "-n", NAMESPACE])?;
        ensure!(set["spec"]["replicas"] == 3, "{}", set["spec"]["replicas"]);
        Ok(())
    })?;
    ensure!(!simulated.is_finished(), "the machines stopped");
    simulated.abort();
    Ok(())
}

fn look(fixture: &OperatorFixture) -> Result<Value> {
    fixture
        .server
        .get(&["rqlitecluster", NAME, "-n", NAMESPACE])
}

/// Waits until the condition and an event report it.
fn set_back(fixture: &OperatorFixture, parts: &[&str]) -> Result<()> {
    until(
        &format!("the edit to be reported: {parts:?}"),
        LIMIT,
        || {
            let advisory = condition(&look(fixture)?, "Advisory");
            ensure!(advisory["reason"] == "EditedByOthers", "{advisory}");
            let message = advisory["message"].as_str().unwrap_or_default();
            let reported = events(&fixture.server, NAMESPACE, NAME)?;
            let edits = reported
                .iter()
                .filter(|(reason, _)| reason == "EditedByOthers");
            let all = |text: &str| parts.iter().all(|part| text.contains(part));
            ensure!(all(message), "{message}");
            let event = edits.map(|(_, note)| note).find(|note| all(note));
            event.with_context(|| format!("{reported:?}")).map(drop)
        },
    )
}

/// Waits until the operator applies nothing any more.
fn quiet(fixture: &OperatorFixture) -> Result<()> {
    let applied = || Ok::<_, anyhow::Error>(fixture.log()?.matches("applies ").count());
    let mut last = (applied()?, std::time::Instant::now());
    until("nothing to be applied any more", LIMIT, || {
        let now = applied()?;
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        ensure!(last.1.elapsed() > CALM, "{now} objects were applied");
        Ok(())
    })
}
