//! What is left of an installation: the clusters' statuses say that no operator runs, the Lease goes, and the
//! next operator takes over. A real API server; the program that the chart's Job runs.
use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use e2e_kubernetes::command::{run, until};
use e2e_operator::{
    api_server::ApiServer,
    generated,
    operator_fixture::{OperatorFixture, condition},
    product,
};
use serde_json::{Value, json};

/// Limit for a reconcile, and for the next operator to take over.
const LIMIT: Duration = Duration::from_secs(60);
/// The Lease's name in the fixture.
const LEASE: &str = "rqlite-operator";

/// An ended backup of the cluster, whose file is deleted with it.
fn backup(fixture: &OperatorFixture) -> Result<()> {
    let backup = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteBackup",
        "metadata": {"name": "old", "finalizers": ["rqlite.dev/backup"]},
        "spec": {"clusterRef": {"name": "demo"}, "deletionPolicy": "Delete"}});
    fixture.server.send(&["create", "-n", "default"], &backup)?;
    let target = json!({"s3": {"bucket": "shop-backups"}});
    let status =
        json!({"status": {"phase": "Succeeded", "target": target, "object": "backups/old"}});
    let status = status.to_string();
    let patch = ["patch", "rqlitebackup", "old", "-n", "default"];
    let how = ["--subresource=status", "--type=merge", "-p", &status];
    fixture.server.run(&[&patch[..], &how].concat()).map(drop)
}

#[expect(clippy::too_many_lines, reason = "one story from beginning to end")]
fn leaves_word(fixture: &mut OperatorFixture) -> Result<()> {
    let look = |fixture: &OperatorFixture| {
        fixture
            .server
            .get(&["rqlitecluster", "demo", "-n", "default"])
    };
    let cluster = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "metadata": {"name": "demo"}, "spec": {}});
    fixture
        .server
        .send(&["create", "-n", "default"], &cluster)?;
    until("the cluster to be managed", LIMIT, || {
        let found = look(fixture)?;
        ensure!(found["status"]["phase"] == "Forming", "{}", found["status"]);
        ensure!(
            condition(&found, "Managed").is_null(),
            "{}",
            found["status"]
        );
        Ok(())
    })?;
    backup(fixture)?;
    fixture.operator.terminate()?;
    let mut farewell = Command::new(product::built("rqlite-operator")?);
    farewell.env("KUBECONFIG", fixture.api.kubeconfig("admin"));
    farewell.args([
        "farewell",
        "--namespace",
        generated::NAMESPACE,
        "--lease",
        LEASE,
    ]);
    let said = run(&mut farewell)?;
    ensure!(
        said.contains("default/demo: its status says that no operator runs"),
        "{said}"
    );
    ensure!(said.contains("1 RqliteBackups can be deleted"), "{said}");
    let backup = ["rqlitebackup", "old", "-n", "default"];
    let left = fixture.server.get(&backup)?;
    ensure!(left["metadata"]["finalizers"].is_null(), "{left}");
    let found = look(fixture)?;
    ensure!(
        found["status"]["phase"] == "Unmanaged",
        "{}",
        found["status"]
    );
    for (kind, status) in [
        ("Managed", "False"),
        ("Ready", "Unknown"),
        ("Available", "Unknown"),
    ] {
        let one = condition(&found, kind);
        ensure!(
            one["status"] == status && one["reason"] == "OperatorUninstalled",
            "{kind}: {one}"
        );
    }
    let lease = ["lease", LEASE, "-n", generated::NAMESPACE];
    ensure!(fixture.server.get(&lease).is_err(), "the Lease is left");
    // Twice does no harm.
    run(&mut farewell)?;
    fixture.restart_operator()?;
    until("the next operator to say so", LIMIT, || {
        let found: Value = look(fixture)?;
        ensure!(found["status"]["phase"] == "Forming", "{}", found["status"]);
        let managed = condition(&found, "Managed");
        ensure!(managed["status"] == "True", "{managed}");
        let ready = condition(&found, "Ready");
        ensure!(ready["status"] == "False", "{ready}");
        let again = fixture.server.get(&backup)?;
        let finalizers = &again["metadata"]["finalizers"];
        ensure!(*finalizers == json!(["rqlite.dev/backup"]), "{again}");
        Ok(())
    })
}

#[test]
fn an_uninstalled_operator_leaves_word() -> Result<()> {
    let Some(mut fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    leaves_word(&mut fixture)
}
