//! `deletionPolicy: Delete` where the store does not answer: by a changed policy, by an annotation, with the
//! namespace.
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::operator_fixture::condition;
use serde_json::{Value, json};

use crate::{NAMESPACE, Place, jobs};

const LIMIT: Duration = Duration::from_secs(90);
const FINALIZER: &str = "rqlite.dev/backup";

/// A backup that is over, as if it had been made.
fn over(place: &Place<'_>, namespace: &str, name: &str) -> Result<()> {
    let target = json!({"s3": {"bucket": "gone"}});
    let backup = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteBackup", "metadata": {"name": name},
        "spec": {"clusterRef": {"name": "demo"}, "target": target, "deletionPolicy": "Delete"}});
    place.0.send(&["create", "-n", namespace], &backup)?;
    let status = json!({"status": {"phase": "Succeeded", "target": target, "object": "backups/demo/x", "uri": "s3://gone/x"}});
    until("the status of the backup", LIMIT, || {
        let patch = status.to_string();
        let args = [
            "patch",
            "rqbk",
            name,
            "-n",
            namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
        ];
        place.0.run(&[&args[..], &[&patch]].concat())?;
        let backup = place.0.get(&["rqbk", name, "-n", namespace])?;
        ensure!(backup["status"]["phase"] == "Succeeded", "{backup}");
        ensure!(
            backup["metadata"]["finalizers"] == json!([FINALIZER]),
            "{backup}"
        );
        Ok(())
    })
}

fn gone(place: &Place<'_>, namespace: &str, name: &str) -> Result<()> {
    until(&format!("{name} to be gone"), LIMIT, || {
        let left = place.0.run(&[
            "get",
            "rqbk",
            name,
            "-n",
            namespace,
            "--ignore-not-found",
            "-o",
            "json",
        ])?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}

/// Deletes it, and lets the Job that deletes its file fail.
fn stuck(place: &Place<'_>, name: &str) -> Result<Value> {
    place.run(&["delete", "rqbk", name, "--wait=false"])?;
    let job = format!("{name}-delete");
    let job = until("the Job that deletes the file", LIMIT, || {
        place.0.get(&["job", &job, "-n", NAMESPACE])
    })?;
    let args = job["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    ensure!(args.contains("\"backup\",\"-delete\""), "{args}");
    jobs::end(
        place,
        &job,
        "backup",
        false,
        r#"{"error":"no route to the store"}"#,
    )?;
    until("its condition", LIMIT, || {
        let backup = place.0.get(&["rqbk", name, "-n", NAMESPACE])?;
        let reported = condition(&backup, "ObjectDeleted");
        let text = reported["message"].as_str().unwrap_or_default();
        for words in [
            "no route to the store",
            "deletionPolicy: Retain",
            "rqlite.dev/abandon-object",
        ] {
            ensure!(
                reported["status"] == "False" && text.contains(words),
                "{words}: {backup}"
            );
        }
        Ok(backup)
    })
}

pub(crate) fn all(place: &Place<'_>) -> Result<()> {
    over(place, NAMESPACE, "one")?;
    stuck(place, "one")?;
    let retain = r#"{"spec":{"deletionPolicy":"Retain"}}"#;
    let other = r#"{"spec":{"vacuum":true}}"#;
    let patch = |spec| place.run(&["patch", "rqbk", "one", "--type=merge", "-p", spec]);
    let refused = patch(other).err().map(|error| format!("{error:#}"));
    let refused = refused.unwrap_or_default();
    ensure!(
        refused.contains("except for deletionPolicy to Retain"),
        "{refused}"
    );
    patch(retain)?;
    gone(place, NAMESPACE, "one")?;
    over(place, NAMESPACE, "two")?;
    stuck(place, "two")?;
    place.run(&["annotate", "rqbk", "two", "rqlite.dev/abandon-object=true"])?;
    gone(place, NAMESPACE, "two")?;
    // A namespace does not wait for a store.
    place.0.run(&["create", "namespace", "short"])?;
    over(place, "short", "three")?;
    place
        .0
        .run(&["delete", "namespace", "short", "--wait=false"])?;
    gone(place, "short", "three")?;
    until("the namespace to be gone", LIMIT, || {
        let left = place
            .0
            .run(&["get", "namespace", "short", "--ignore-not-found"])?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}
