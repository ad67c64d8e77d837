//! Several installations of the operator on a real API server: each cluster is managed by one, and the others
//! leave it alone.
use std::{path::Path, thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    fleet::operator::{Audit, Operator},
    objects::Objects,
    operator_fixture::{ACCOUNT, OperatorFixture},
    product,
};
use serde_json::{Value, json};

const FIRST: &str = "rqlite-system/rqlite-operator";
/// Namespace and account of the second installation.
const NAMESPACE: &str = "second";
const SECOND_ACCOUNT: &str = "second-operator";
const SECOND: &str = "second/rqlite-operator";
/// A reconcile, and what an operator that is left out would need to interfere.
const LIMIT: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(10);
/// A Lease that is gone for a minute, noticed with the next look at the cluster.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(180);

fn make(server: &Objects, name: &str, class: Option<&str>) -> Result<()> {
    // Claims are deleted last, so a manager sets its finalizer.
    let mut spec = json!({ "storage": { "retention": { "whenDeleted": "Delete" } } });
    if let Some(class) = class {
        spec["operatorClass"] = class.into();
    }
    let cluster = json!({ "apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster",
        "metadata": { "name": name, "namespace": "default" }, "spec": spec });
    server.send(&["create"], &cluster).map(drop)
}

fn find(server: &Objects, name: &str) -> Result<Value> {
    server.get(&["rqlitecluster", name])
}

fn managed_by(server: &Objects, name: &str, installation: &str, limit: Duration) -> Result<()> {
    until(
        &format!("{name} to be managed by {installation}"),
        limit,
        || {
            let record = find(server, name)?["status"]["managedBy"].clone();
            ensure!(record["installation"] == installation, "{record}");
            ensure!(record["operatorClass"] == "default", "{record}");
            Ok(())
        },
    )
}

/// A second installation, with the same permissions in a namespace of its own.
fn second(fixture: &OperatorFixture, log: &Path) -> Result<Operator> {
    let server = &fixture.server;
    server.run(&["create", "namespace", NAMESPACE])?;
    server.run(&["create", "serviceaccount", SECOND_ACCOUNT, "-n", NAMESPACE])?;
    let account = format!("--serviceaccount={NAMESPACE}:{SECOND_ACCOUNT}");
    for role in ["rqlite-operator", "rqlite-operator-cluster-reads"] {
        let (name, role) = (format!("second-{role}"), format!("--clusterrole={role}"));
        server.run(&["create", "clusterrolebinding", &name, &role, &account])?;
    }
    let lease = [
        "create",
        "role",
        "lease",
        "-n",
        NAMESPACE,
        "--verb=get,create,update,delete,patch",
    ];
    server.run(&[&lease[..], &["--resource=leases.coordination.k8s.io"]].concat())?;
    server.run(&[
        "create",
        "rolebinding",
        "lease",
        "-n",
        NAMESPACE,
        "--role=lease",
        &account,
    ])?;
    let kubeconfig = fixture.api.account_kubeconfig(NAMESPACE, SECOND_ACCOUNT)?;
    let program = product::built("rqlite-operator")?;
    let operator = Operator::start(&program, &kubeconfig, NAMESPACE, log)?;
    until("the second operator to hold its Lease", LIMIT, || {
        let lease = server.get(&["lease", "rqlite-operator", "-n", NAMESPACE])?;
        ensure!(lease["spec"]["holderIdentity"].is_string(), "{lease}");
        Ok(())
    })?;
    Ok(operator)
}

/// What this account has written besides its Lease since the last call.
fn written(audit: &mut Audit) -> Result<Vec<String>> {
    let (requests, _) = audit.since()?;
    let reads = ["get", "list", "watch"];
    let changes = requests.into_keys().filter(|what| {
        let verb = what.split(' ').next().unwrap_or_default();
        !reads.contains(&verb) && !what.ends_with(" leases")
    });
    Ok(changes.collect())
}

fn one_class_two_installations(fixture: &OperatorFixture, log: &Path) -> Result<()> {
    let server = &fixture.server;
    make(server, "demo", None)?;
    managed_by(server, "demo", FIRST, LIMIT)?;
    let account = (ACCOUNT, "rqlite-system");
    let mut second_audit = Audit::of(&fixture.api.audit_log(), NAMESPACE, SECOND_ACCOUNT)?;
    let operator = second(fixture, log)?;
    until("the second operator to say whose it is", LIMIT, || {
        let text = std::fs::read_to_string(log)?;
        let parts = [
            "default/demo is left alone",
            FIRST,
            "rqlite.dev/manager=second/rqlite-operator",
        ];
        ensure!(parts.iter().all(|part| text.contains(part)), "{text}");
        Ok(())
    })?;
    sleep(QUIET);
    let changes = written(&mut second_audit)?;
    ensure!(
        changes.is_empty(),
        "the second operator changed {changes:?}"
    );
    managed_by(server, "demo", FIRST, LIMIT)?;
    // A new cluster, for which both compete.
    let mut first_audit = Audit::of(&fixture.api.audit_log(), account.1, account.0)?;
    make(server, "both", None)?;
    until("one of them to manage it", LIMIT, || {
        server.get(&["statefulset", "both"])
    })?;
    sleep(QUIET);
    let made = |audit: &mut Audit| -> Result<usize> {
        let (requests, _) = audit.since()?;
        Ok(requests.get("patch statefulsets").copied().unwrap_or(0))
    };
    let counts = (made(&mut first_audit)?, made(&mut second_audit)?);
    ensure!(
        (counts.0 == 0) != (counts.1 == 0),
        "both applied the StatefulSet: {counts:?}"
    );
    // A person moves one.
    let mark = format!("rqlite.dev/manager={SECOND}");
    server.run(&["annotate", "rqlitecluster", "demo", &mark])?;
    managed_by(server, "demo", SECOND, LIMIT)?;
    server.run(&["annotate", "rqlitecluster", "demo", "rqlite.dev/manager-"])?;
    sleep(QUIET);
    managed_by(server, "demo", SECOND, LIMIT).context("without the annotation the record holds")?;
    // Uninstalled: the other one takes over.
    drop(operator);
    server.run(&["delete", "lease", "rqlite-operator", "-n", NAMESPACE])?;
    managed_by(server, "demo", FIRST, TAKEOVER_LIMIT)?;
    managed_by(server, "both", FIRST, TAKEOVER_LIMIT)
}

/// A cluster of another class is not touched, until its class is changed.
fn another_class(fixture: &OperatorFixture) -> Result<()> {
    let server = &fixture.server;
    make(server, "blue", Some("blue"))?;
    sleep(QUIET);
    let blue = find(server, "blue")?;
    ensure!(blue["status"].is_null(), "{}", blue["status"]);
    ensure!(blue["metadata"]["finalizers"].is_null(), "{blue}");
    let field = "--field-selector=regarding.name=blue";
    let reported = server.get(&["events.events.k8s.io", field])?;
    ensure!(reported["items"] == json!([]), "{reported}");
    ensure!(server.get(&["statefulset", "blue"]).is_err(), "it has pods");
    let class = |value: &Value| json!({ "spec": { "operatorClass": value } }).to_string();
    let patch = |value: Value| {
        let change = class(&value);
        server.run(&[
            "patch",
            "rqlitecluster",
            "blue",
            "--type=merge",
            "-p",
            &change,
        ])
    };
    patch(Value::Null)?;
    managed_by(server, "blue", FIRST, LIMIT)?;
    // Moved: what was recorded stays until the new class's operator comes.
    patch(json!("green"))?;
    sleep(Duration::from_secs(3));
    let moved = find(server, "blue")?["metadata"]["resourceVersion"].clone();
    sleep(QUIET);
    let later = find(server, "blue")?["metadata"]["resourceVersion"].clone();
    ensure!(moved == later, "it is still written to");
    let refused = server.run(&[
        "patch",
        "rqlitecluster",
        "blue",
        "--type=merge",
        "-p",
        &class(&json!("Bad_Class")),
    ]);
    ensure!(refused.is_err(), "a class that no operator can have");
    Ok(())
}

#[test]
fn each_cluster_is_managed_by_one_installation() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("second.log");
    another_class(&fixture)
        .context("another class")
        .and_then(|()| one_class_two_installations(&fixture, &log))
        .with_context(|| {
            let second = std::fs::read_to_string(&log).unwrap_or_default();
            format!("{}\nsecond:\n{second}", fixture.tail())
        })
}
