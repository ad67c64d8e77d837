//! `spec.archive` in the pods: flags, files and variables from Secrets; added to a running cluster it rolls
//! once; what the leader says of it is in the condition `Archiving`.
use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    operator_fixture::condition,
    simulated::{Simulated, refused},
};
use serde_json::{Value, json};

use crate::{KEY, target};

/// A roll of three pods, each of which has to be ready for ten seconds.
const ROLL: Duration = Duration::from_secs(240);

fn archive() -> Value {
    json!({"target": target(), "every": "5s", "baseInterval": "1d", "retention": "2d", "logLimit": "64Mi",
        "encryption": {"keySecret": {"name": "crypt", "key": "keys"}}})
}

/// What one pod has for the archive.
fn in_pod(pod: &Value) -> Result<()> {
    let container = &pod["spec"]["containers"][0];
    let args = container["args"].to_string();
    for part in [
        "\"-archive=/etc/rqlite/archive-config/archive.json\"",
        "\"-archive-key-file=/etc/rqlite/archive-key/keys\"",
    ] {
        ensure!(args.contains(part), "{part} is not in {args}");
    }
    let text = pod["metadata"]["annotations"]["rqlite.dev/archive"]
        .as_str()
        .context("no configuration")?;
    let config: Value = serde_json::from_str(text)?;
    let expected = json!({"version": 1, "type": "s3", "every": "5s", "base_interval": "86400s",
        "retention": "172800s", "log_limit_bytes": 67_108_864, "sub": {"bucket": "shop-backups", "path": "eu",
        "endpoint": "http://store.example:9000", "region": "us-east-1", "force_path_style": true,
        "access_key_id": "${RQLITE_ARCHIVE_ACCESS_KEY_ID}",
        "secret_access_key": "${RQLITE_ARCHIVE_SECRET_ACCESS_KEY}"}});
    ensure!(config == expected, "{config}\nis not\n{expected}");
    let env = container["env"].as_array().into_iter().flatten();
    let from: BTreeMap<_, _> = env
        .filter_map(|one| Some((one["name"].as_str()?, &one["valueFrom"]["secretKeyRef"])))
        .collect();
    let key = from.get("RQLITE_ARCHIVE_SECRET_ACCESS_KEY");
    let of_secret = json!({"name": "store", "key": "secret-access-key"});
    ensure!(key == Some(&&of_secret), "{}", container["env"]);
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut keys = volumes.filter(|v| v["secret"]["secretName"] == "crypt");
    let items = keys.next().context("no volume of the key")?["secret"]["items"].clone();
    ensure!(items[0]["key"] == "keys", "{items}");
    Ok(())
}

fn in_a_new_cluster(place: &Simulated) -> Result<()> {
    place.cluster(
        "kept",
        &json!({"archive": archive(), "readReplicas": {"replicas": 1}}),
    )?;
    let pods = until("four pods", ROLL, || {
        let pods = place.pods("kept")?;
        ensure!(pods.len() == 4, "{:?}", pods.keys());
        Ok(pods)
    })?;
    for (name, pod) in &pods {
        in_pod(pod).with_context(|| name.clone())?;
    }
    for kind in ["pod", "statefulset", "configmap", "rqlitecluster"] {
        let all = place.run(&["get", kind, "-o", "yaml"])?;
        ensure!(!all.contains(KEY), "a key is in a {kind}");
    }
    Ok(())
}

/// Added to a running cluster: each pod is recreated once, one at a time, the leader's last.
fn added(place: &Simulated) -> Result<()> {
    place.cluster("grows", &json!({}))?;
    let before = place.uids("grows")?;
    place.patch(
        "rqlitecluster",
        "grows",
        &json!({"spec": {"archive": archive()}}),
    )?;
    let mut order = Vec::new();
    until("all pods to be recreated", ROLL, || {
        let now = place.uids("grows")?;
        for (name, uid) in &now {
            if before.get(name) != Some(uid) && !order.contains(name) {
                order.push(name.clone());
            }
        }
        ensure!(
            now.len() >= 2,
            "two pods are away at once: {:?}",
            now.keys()
        );
        ensure!(order.len() == before.len(), "recreated: {order:?}");
        Ok(())
    })?;
    ensure!(
        order.last().is_some_and(|name| name == "grows-0"),
        "the leader was not the last: {order:?}"
    );
    place.await_ready("grows")?;
    for (name, pod) in place.pods("grows")? {
        in_pod(&pod).with_context(|| name)?;
    }
    Ok(())
}

/// What is no matter of the pods restarts none: another drill, another operator process.
fn nothing_else_restarts(place: &mut Simulated) -> Result<()> {
    let before = [place.uids("grows")?, place.uids("kept")?];
    let drill = json!({"spec": {"archive": {"drill": {"schedule": "0 3 29 2 *", "timeZone": "Europe/Zurich"}}}});
    place.patch("rqlitecluster", "grows", &drill)?;
    place.await_ready("grows")?;
    place.fixture.operator.terminate()?;
    place.fixture.restart_operator()?;
    // The new process has looked at both clusters once it has carried out an edit of each.
    for (name, size) in [("grows", "12Gi"), ("kept", "12Gi")] {
        let edit = json!({"spec": {"podDisruptionBudget": {"enabled": true}, "deletionProtection": true}, "metadata": {"annotations": {"size": size}}});
        place.patch("rqlitecluster", name, &edit)?;
        place.await_ready(name)?;
    }
    let after = [place.uids("grows")?, place.uids("kept")?];
    ensure!(
        before == after,
        "pods were recreated: {before:?}\n{after:?}"
    );
    Ok(())
}

/// Waits for a state of the condition `Archiving`.
fn archiving(place: &Simulated, is: &str, reason: &str, parts: &[&str]) -> Result<Value> {
    place.until("rqlitecluster", "grows", |object| {
        let found = condition(object, "Archiving");
        ensure!(
            found["status"] == is && found["reason"] == reason,
            "{found}"
        );
        let said = found["message"].as_str().unwrap_or_default();
        for part in parts {
            ensure!(said.contains(part), "{part:?} is not in {said:?}");
        }
        Ok(object.clone())
    })
}

fn reported(place: &Simulated) -> Result<()> {
    archiving(place, "False", "ArchiveNotStarted", &["grows-0"])?;
    let mut said = json!({"enabled": true, "target": "s3://shop-backups/eu", "lineage": "l-0", "archived_index": 90,
        "archived_time": "2026-11-29T08:00:00Z", "behind_seconds": 3, "last_base": {"index": 10, "time": "2026-11-29T07:00:00Z", "bytes": 5}});
    place.nodes.archives("grows", Some(said.clone()));
    let uri = "s3://shop-backups/eu";
    let object = archiving(place, "True", "UpToDate", &[uri, "within 5 s"])?;
    let status = &object["status"]["archive"];
    ensure!(
        status["uri"] == uri && status["archivedIndex"] == 90,
        "{status}"
    );
    said["behind_seconds"] = 130.into();
    said["last_error"] = "AccessDenied: no bucket".into();
    place.nodes.archives("grows", Some(said.clone()));
    archiving(
        place,
        "False",
        "ArchiveFailing",
        &["2 min behind", "AccessDenied: no bucket"],
    )?;
    place.await_event("grows", "ArchiveFailing", "AccessDenied")?;
    said["last_error"] = Value::Null;
    said["behind_seconds"] = 0.into();
    place.nodes.archives("grows", Some(said));
    archiving(place, "True", "UpToDate", &[uri]).map(drop)
}

fn mistakes(place: &Simulated) -> Result<()> {
    let create = |archive: Value| {
        let mut spec = e2e_operator::fleet::plain();
        spec["archive"] = archive;
        place.make("RqliteCluster", "wrong", &spec)
    };
    let cases = [
        (json!({}), "target"),
        (
            json!({"target": {}}),
            "give exactly one of s3, gcs, azure and volume",
        ),
        (
            json!({"target": target(), "every": "100ms"}),
            "set it to 1s or more",
        ),
        (
            json!({"target": target(), "drill": {"schedule": "daily"}}),
            "schedule",
        ),
        (
            json!({"target": {"volume": {"claimName": "c", "path": "../x"}}}),
            "without '..'",
        ),
    ];
    for (archive, part) in cases {
        refused(create(archive), &[part])?;
    }
    // The spec's own flags stay the operator's.
    let mut spec = e2e_operator::fleet::plain();
    spec["config"] = json!({"extraArgs": ["-archive=/f"]});
    refused(place.make("RqliteCluster", "wrong", &spec), &["archive"]).map(drop)
}

pub(crate) fn run(place: &mut Simulated) -> Result<()> {
    for (name, key, value) in [
        ("store", "secret-access-key", KEY),
        ("crypt", "keys", "k1 AAAA"),
    ] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"access-key-id": "AKIA", key: value}});
        place.send("create", &secret)?;
    }
    mistakes(place).context("mistakes")?;
    in_a_new_cluster(place).context("a new cluster")?;
    added(place).context("added to a running cluster")?;
    reported(place).context("the condition")?;
    nothing_else_restarts(place).context("restarts")
}
