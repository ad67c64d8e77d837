//! `spec.bootstrap.restore` on a real API server, with the operator's own permissions: sources that are
//! missing, incomplete and there; what the first node's pod is made of; a restore that fails in the node's
//! words; a clone by the plugin; no secret anywhere.
use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    objects::Objects,
    operator_fixture::{OperatorFixture, condition, events},
    product,
};
use serde_json::{Value, json};

/// The operator looks at a source that is missing about every 15 s.
const LIMIT: Duration = Duration::from_secs(90);
const NAMESPACE: &str = "default";
/// A value that must be nowhere but in its Secret.
const SECRET: &str = "hunter2-of-the-store";

struct Place<'a>(&'a Objects);

impl Place<'_> {
    fn run(&self, args: &[&str]) -> Result<String> {
        self.0.run(&[&["-n", NAMESPACE], args].concat())
    }

    fn create(&self, kind: &str, name: &str, spec: &Value) -> Result<Value> {
        let object = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
        self.0.send(&["create"], &object)
    }

    fn create_restoring(&self, name: &str, restore: &Value) -> Result<Value> {
        let spec =
            json!({"replicas": 3, "storage": {"size": "1Gi"}, "bootstrap": {"restore": restore}});
        self.create("RqliteCluster", name, &spec)
    }

    fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.0.get(&[kind, name, "-n", NAMESPACE])
    }

    fn patch(&self, kind: &str, name: &str, patch: &Value) -> Result<String> {
        let patch = patch.to_string();
        self.run(&["patch", kind, name, "--type=merge", "-p", &patch])
    }

    fn patch_status(&self, kind: &str, name: &str, status: &Value) -> Result<String> {
        let patch = json!({ "status": status }).to_string();
        let args = ["--subresource=status", "--type=merge", "-p", &patch];
        self.run(&[&["patch", kind, name], &args[..]].concat())
    }

    /// Waits until the condition Restoring has this reason and names this.
    fn restoring(&self, name: &str, reason: &str, part: &str) -> Result<()> {
        until(&format!("{name}: {reason}"), LIMIT, || {
            let one = condition(&self.get("rqlitecluster", name)?, "Restoring");
            ensure!(one["reason"] == reason, "{one}");
            let text = one["message"].as_str().unwrap_or_default();
            ensure!(text.contains(part), "{part:?} is not in {text}");
            Ok(())
        })
    }

    /// The StatefulSet of a cluster, once it has this in its template.
    fn set(&self, name: &str, part: &str) -> Result<Value> {
        until(
            &format!("the StatefulSet {name} with {part}"),
            LIMIT,
            || {
                let set = self.get("statefulset", name)?;
                let template = set["spec"]["template"].to_string();
                ensure!(template.contains(part), "{template}");
                Ok(set)
            },
        )
    }
}

fn config(set: &Value) -> Result<Value> {
    let text = set["spec"]["template"]["metadata"]["annotations"]["rqlite.dev/restore"].as_str();
    Ok(serde_json::from_str(text.context("no configuration")?)?)
}

fn s3(prefix: &str) -> Value {
    json!({"s3": {"bucket": "bkt", "prefix": prefix, "endpoint": "http://127.0.0.1:1",
        "credentialsSecret": {"name": "store"}}})
}

/// Nothing is created before the backup is there; then one voter that restores.
fn from_a_backup(place: &Place<'_>) -> Result<()> {
    place.create_restoring("copy", &json!({"backup": {"name": "nightly"}}))?;
    place.restoring("copy", "RestoreSourceMissing", "no RqliteBackup nightly")?;
    ensure!(
        place.get("statefulset", "copy").is_err(),
        "it was created without data"
    );
    let cluster = place.get("rqlitecluster", "copy")?;
    ensure!(
        condition(&cluster, "Ready")["status"] == "False",
        "{cluster}"
    );
    // Its cluster does not exist, so that nobody makes it.
    place.create(
        "RqliteBackup",
        "nightly",
        &json!({"clusterRef": {"name": "prod"}, "target": s3("b")}),
    )?;
    place.restoring("copy", "RestoreSourcePending", "nightly")?;
    ensure!(
        place.get("statefulset", "copy").is_err(),
        "it was created without data"
    );
    let done = json!({"phase": "Succeeded", "target": s3("b"), "object": "nightly.sqlite.gz"});
    place.patch_status("rqlitebackup", "nightly", &done)?;
    let set = place.set("copy", "-auto-restore=")?;
    ensure!(set["spec"]["replicas"] == 1, "{}", set["spec"]["replicas"]);
    let config = config(&set)?;
    ensure!(config["sub"]["path"] == "b/nightly.sqlite.gz", "{config}");
    let node = &set["spec"]["template"]["spec"]["containers"][0];
    let env = node["env"].to_string();
    ensure!(
        env.contains(r#""key":"secret-access-key","name":"store""#),
        "{env}"
    );
    ensure!(
        node["args"].to_string().contains("-bootstrap-expect=1"),
        "{node}"
    );
    place.restoring("copy", "Restoring", "s3://bkt/b/nightly.sqlite.gz")?;
    // Once it is resolved, nobody needs the object.
    place.run(&["delete", "rqlitebackup", "nightly", "--wait=false"])?;
    Ok(())
}

/// What the kubelet would say of a node that cannot restore.
fn fails(place: &Place<'_>, pod: &str, words: &str) -> Result<()> {
    until("the first pod", LIMIT, || place.get("pod", pod).map(drop))?;
    let log =
        format!("a line of its log\n2026/11/29 [rqlited] fatal: auto-restore failed: {words}\n");
    let status = json!({"phase": "Running", "containerStatuses": [{
        "name": "rqlited", "image": "x", "imageID": "x", "ready": false, "restartCount": 3, "started": false,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": log}}}]});
    place.patch_status("pod", pod, &status).map(drop)
}

fn a_failure_is_reported_and_corrected(place: &Place<'_>) -> Result<()> {
    fails(
        place,
        "copy-0",
        "s3://bkt/b/nightly.sqlite.gz: AccessDenied",
    )?;
    place.restoring(
        "copy",
        "RestoreFailed",
        "copy-0: auto-restore failed: s3://bkt/b/nightly.sqlite.gz: AccessDenied",
    )?;
    let cluster = place.get("rqlitecluster", "copy")?;
    for kind in ["Ready", "Available"] {
        let one = condition(&cluster, kind);
        ensure!(one["status"] == "False", "{one}");
    }
    ensure!(
        cluster["status"]["bootstrapRestore"]["state"] == "Failed",
        "{}",
        cluster["status"]
    );
    let failed = place.get("pod", "copy-0")?;
    let other = json!({"backup": null, "target": s3("b"), "object": "other.sqlite"});
    place.patch(
        "rqlitecluster",
        "copy",
        &json!({"spec": {"bootstrap": {"restore": other}}}),
    )?;
    let set = place.set("copy", "b/other.sqlite")?;
    ensure!(set["spec"]["replicas"] == 1, "{}", set["spec"]["replicas"]);
    until("the failed pod to be recreated", LIMIT, || {
        let pod = place.get("pod", "copy-0")?;
        ensure!(
            pod["metadata"]["uid"] != failed["metadata"]["uid"],
            "it is still there"
        );
        Ok(())
    })
}

/// The plugin makes one object; the operator reads the archive from the source's spec.
fn a_clone(fixture: &OperatorFixture, place: &Place<'_>) -> Result<()> {
    let spec = json!({"replicas": 3, "storage": {"size": "3Gi"}, "hibernated": false,
        "users": [{"name": "shop", "permissions": ["query"], "passwordSecret": {"name": "own", "key": "k"}}],
        "archive": {"target": s3("prod"), "encryption": {"keySecret": {"name": "crypt", "key": "k"}}}});
    place.create("RqliteCluster", "source", &spec)?;
    let before = place.set("source", "-archive=")?;
    let output = Command::new(product::built("kubectl-rqlite")?)
        .env("KUBECONFIG", fixture.api.kubeconfig("admin"))
        .args([
            "clone",
            "source",
            "look",
            "--to-time",
            "2026-11-29T08:00:00Z",
        ])
        .args(["--replicas", "1", "--namespace", NAMESPACE])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let set = place.set("look", "-auto-restore=")?;
    let config = config(&set)?;
    ensure!(config["type"] == "archive", "{config}");
    let sub = &config["sub"];
    ensure!(sub["to_time"] == "2026-11-29T08:00:00Z", "{config}");
    ensure!(sub["archive"]["sub"]["path"] == "prod", "{config}");
    ensure!(
        sub["key_file"] == "/etc/rqlite/restore-key/keys",
        "{config}"
    );
    let template = set["spec"]["template"].to_string();
    ensure!(
        !template.contains("-archive="),
        "it writes into the source's archive"
    );
    ensure!(template.contains(r#""secretName":"crypt""#), "{template}");
    let clone = place.get("rqlitecluster", "look")?;
    let spec = &clone["spec"];
    ensure!(spec["users"][0]["name"] == "shop", "{spec}");
    ensure!(spec["users"][0].get("passwordSecret").is_none(), "{spec}");
    ensure!(
        spec["storage"]["size"] == "3Gi" && spec["replicas"] == 1,
        "{spec}"
    );
    let after = place.get("statefulset", "source")?;
    ensure!(
        after["metadata"]["generation"] == before["metadata"]["generation"],
        "the source was touched"
    );
    // By name alone there is nothing to clone.
    place.create_restoring("orphan", &json!({"archive": {"cluster": "nobody"}}))?;
    place.restoring("orphan", "RestoreSourceMissing", "no RqliteCluster nobody")
}

/// The value of the Secret is in no object, event or log.
fn no_secret(fixture: &OperatorFixture, place: &Place<'_>) -> Result<()> {
    let kinds = "rqliteclusters,rqlitebackups,statefulsets,pods,configmaps,events";
    let all = place.0.get(&[kinds, "-n", NAMESPACE])?.to_string();
    ensure!(!all.contains(SECRET), "the store's secret is in an object");
    ensure!(
        !fixture.log()?.contains(SECRET),
        "the store's secret is in the log"
    );
    let events = events(&fixture.server, NAMESPACE, "copy")?;
    let reported = events.iter().any(|(reason, _)| reason == "RestoreFailed");
    ensure!(reported, "no event RestoreFailed: {events:?}");
    Ok(())
}

fn check(fixture: &OperatorFixture) -> Result<()> {
    let place = Place(&fixture.server);
    let secret = format!("--from-literal=secret-access-key={SECRET}");
    let id = "--from-literal=access-key-id=me";
    place.run(&["create", "secret", "generic", "store", id, &secret])?;
    from_a_backup(&place)?;
    a_failure_is_reported_and_corrected(&place)?;
    a_clone(fixture, &place)?;
    no_secret(fixture, &place)
}

#[test]
fn a_new_cluster_begins_with_data() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    check(&fixture).with_context(|| format!("the operator's log ends:\n{}", fixture.tail()))
}
