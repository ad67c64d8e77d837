//! Deletion protection without the admission policies, against the real garbage collector and the real
//! namespace controller: what the operator keeps, and what it reports. With the policies: `admission`.
use std::{collections::BTreeSet, thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    fleet::operator::Audit,
    generated,
    objects::Objects,
    operator_fixture::{ACCOUNT, OperatorFixture, condition, events},
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// The garbage collector and the operator fought once a second.
const QUIET: Duration = Duration::from_secs(15);
const OFF: &str = r#"{"spec":{"deletionProtection":false}}"#;

fn protected(server: &Objects, namespace: &str) -> Result<()> {
    server.run(&["create", "namespace", namespace])?;
    let cluster = json!({ "apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster",
        "metadata": { "name": "safe", "namespace": namespace }, "spec": { "deletionProtection": true } });
    server.send(&["create"], &cluster)?;
    until("its finalizer and its pods", LIMIT, || {
        let safe = find(server, namespace)?;
        ensure!(
            safe["metadata"]["finalizers"] == json!(["rqlite.dev/cluster"]),
            "{}",
            safe["metadata"]
        );
        server.get(&["pod", "safe-2", "-n", namespace])
    })
    .map(drop)
}

fn find(server: &Objects, namespace: &str) -> Result<Value> {
    server.get(&["rqlitecluster", "safe", "-n", namespace])
}

/// Uids of everything that the cluster owns.
fn owned(server: &Objects, namespace: &str) -> Result<BTreeSet<String>> {
    let kinds = "statefulset,service,configmap,networkpolicy,serviceaccount,pod";
    let all = server.get(&[kinds, "-n", namespace, "-l", "rqlite.dev/cluster=safe"])?;
    let items = all["items"].as_array().cloned().unwrap_or_default();
    let uids = items.iter().map(|one| one["metadata"]["uid"].to_string());
    Ok(uids.collect())
}

fn await_blocked(server: &Objects, namespace: &str, reason: &str) -> Result<()> {
    until(&format!("DeletionBlocked to say {reason}"), LIMIT, || {
        let blocked = condition(&find(server, namespace)?, "DeletionBlocked");
        ensure!(
            blocked["status"] == "True" && blocked["reason"] == reason,
            "{blocked}"
        );
        let text = blocked["message"].as_str().unwrap_or_default();
        ensure!(text.contains("kubectl patch rqlitecluster safe"), "{text}");
        ensure!(text.contains("Runbook: deletion-blocked"), "{text}");
        Ok(())
    })
}

/// The garbage collector is stopped, what it has deleted comes back once, and stays.
fn foreground(server: &Objects) -> Result<()> {
    protected(server, "front")?;
    let made = owned(server, "front")?;
    let delete = [
        "delete",
        "rqlitecluster",
        "safe",
        "-n",
        "front",
        "--cascade=foreground",
        "--wait=false",
    ];
    server.run(&delete)?;
    await_blocked(server, "front", "DeletionProtected")?;
    until("only the operator's finalizer", LIMIT, || {
        let left = find(server, "front")?["metadata"]["finalizers"].clone();
        ensure!(left == json!(["rqlite.dev/cluster"]), "{left}");
        Ok(())
    })?;
    until("everything to be there again", LIMIT, || {
        server.get(&["statefulset", "safe", "-n", "front"])?;
        server.get(&["pod", "safe-2", "-n", "front"])?;
        let there = owned(server, "front")?;
        ensure!(
            there.len() >= made.len(),
            "{} of {}",
            there.len(),
            made.len()
        );
        Ok(())
    })?;
    sleep(Duration::from_secs(3));
    let before = owned(server, "front")?;
    sleep(QUIET);
    let after = owned(server, "front")?;
    ensure!(
        before == after,
        "objects are still replaced: {before:?}, then {after:?}"
    );
    let reported = events(server, "front", "safe")?;
    ensure!(
        reported
            .iter()
            .any(|(reason, _)| reason == "DeletionBlocked"),
        "{reported:?}"
    );
    // The command of the message finishes the deletion.
    server.run(&[
        "patch",
        "rqlitecluster",
        "safe",
        "-n",
        "front",
        "--type=merge",
        "-p",
        OFF,
    ])?;
    until("the end of the cluster", LIMIT, || {
        ensure!(find(server, "front").is_err(), "it is still there");
        Ok(())
    })
}

/// In a namespace that is being deleted the operator creates nothing, and does not keep trying.
fn namespace(fixture: &OperatorFixture) -> Result<()> {
    let server = &fixture.server;
    protected(server, "ending")?;
    server.run(&["delete", "namespace", "ending", "--wait=false"])?;
    await_blocked(server, "ending", "NamespaceTerminating")?;
    let degraded = condition(&find(server, "ending")?, "Degraded");
    ensure!(degraded["reason"] == "NamespaceTerminating", "{degraded}");
    let mut audit = Audit::of(&fixture.api.audit_log(), generated::NAMESPACE, ACCOUNT)?;
    sleep(QUIET);
    let (_, forbidden) = audit.since()?;
    ensure!(forbidden.is_empty(), "it still tries: {forbidden:?}");
    server.run(&[
        "patch",
        "rqlitecluster",
        "safe",
        "-n",
        "ending",
        "--type=merge",
        "-p",
        OFF,
    ])?;
    until("the end of the cluster", LIMIT, || {
        ensure!(find(server, "ending").is_err(), "it is still there");
        Ok(())
    })
}

#[test]
fn without_policies_the_operator_keeps_what_can_be_kept() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    let policies = "validatingadmissionpolicybinding,validatingadmissionpolicy";
    let run = || -> Result<()> {
        fixture.server.run(&[
            "delete",
            policies,
            "-l",
            "app.kubernetes.io/name=rqlite-operator",
        ])?;
        foreground(&fixture.server).context("foreground deletion")?;
        namespace(&fixture).context("deletion of the namespace")
    };
    run().with_context(|| fixture.tail())
}
