//! RqliteBackup, RqliteScheduledBackup and `spec.archive` on a real API server with the real Job controller:
//! what the Jobs are, what is said of each end, what is left alone, what goes with what is deleted.
//!
//! What kubelets and nodes would say is simulated; pods are admitted by the restricted Pod Security standard.
#[path = "backups/archives.rs"]
mod archives;
#[path = "backups/deletions.rs"]
mod deletions;
#[path = "backups/schedules.rs"]
mod schedules;

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    operator_fixture::condition,
    simulated::{LIMIT, Simulated, refused},
};
use serde_json::{Value, json};

const KIND: &str = "rqlitebackup";
/// The container of a backup's Job.
const CONTAINER: &str = "backup";
/// What must be in no object but its Secret.
const KEY: &str = "zzTheSecretKeyzz";

/// A store that nobody runs, with credentials.
fn target() -> Value {
    json!({"s3": {"bucket": "shop-backups", "prefix": "/eu/", "endpoint": "http://store.example:9000",
        "credentialsSecret": {"name": "store"}}})
}

/// A backup of the cluster `shop`, with these further fields.
fn spec(more: &Value) -> Value {
    let mut spec = json!({"clusterRef": {"name": "shop"}, "target": target()});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

/// What the pod of a good backup writes.
fn good() -> String {
    json!({"object": "eu/backups/x", "target": "s3://shop-backups", "source": "http://shop-0:4001", "bytes": 8192,
        "stored_bytes": 1234, "compressed": true, "sha256": "ab".repeat(32), "integrity": "ok",
        "started": "2026-11-29T08:00:00Z", "seconds": 1.5, "program": "0.1.0"})
    .to_string()
}

fn job(backup: &str) -> String {
    format!("{backup}-backup")
}

/// The Job, its pod, and what is in neither.
#[expect(clippy::too_many_lines, reason = "a list of properties of one pod")]
fn is_as_it_should_be(place: &Simulated, backup: &Value) -> Result<()> {
    let made = place.get("job", "one-backup")?;
    let owner = &made["metadata"]["ownerReferences"][0];
    let is_owner = owner["kind"] == "RqliteBackup"
        && owner["uid"] == backup["metadata"]["uid"]
        && owner["controller"] == true;
    ensure!(is_owner, "{owner}");
    let spec = &made["spec"];
    let limits = spec["backoffLimit"] == 3
        && spec["activeDeadlineSeconds"] == 21600
        && spec["ttlSecondsAfterFinished"] == 86400;
    ensure!(limits, "{spec}");
    let pod = place.job_pod("one-backup")?;
    for (label, value) in [
        ("rqlite.dev/backup", "one"),
        ("app.kubernetes.io/managed-by", "rqlite-operator"),
    ] {
        for object in [&made["spec"]["template"], &pod] {
            let labels = &object["metadata"]["labels"];
            ensure!(labels[label] == value, "{label}: {labels}");
        }
    }
    // No Service of the cluster may select it, nor is it counted as a node's.
    let labels = &pod["metadata"]["labels"];
    for label in [
        "team",
        "rqlite.dev/cluster",
        "rqlite.dev/pool",
        "rqlite.dev/owner",
    ] {
        ensure!(labels[label].is_null(), "{label}: {labels}");
    }
    let nodes = place.pods("shop")?;
    let node = nodes.get("shop-0").context("no shop-0")?;
    let (container, spec) = (&pod["spec"]["containers"][0], &pod["spec"]);
    ensure!(
        container["image"] == node["spec"]["containers"][0]["image"],
        "{} is not the nodes' image",
        container["image"]
    );
    ensure!(
        spec["serviceAccountName"] == node["spec"]["serviceAccountName"],
        "{}",
        spec["serviceAccountName"]
    );
    ensure!(spec["automountServiceAccountToken"] == false, "{spec}");
    let has_token = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|volume| !volume["projected"].is_null());
    ensure!(!has_token, "a token: {}", spec["volumes"]);
    let safe = &container["securityContext"];
    let is_safe = safe["readOnlyRootFilesystem"] == true
        && safe["allowPrivilegeEscalation"] == false
        && safe["capabilities"]["drop"] == json!(["ALL"])
        && spec["securityContext"]["runAsNonRoot"] == true
        && spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault";
    ensure!(is_safe, "{safe} {}", spec["securityContext"]);
    let args = container["args"].to_string();
    for part in [
        "\"backup\"",
        "-url=http://shop-client.fleet.svc.cluster.local:4001",
        "-result-file=/dev/termination-log",
        "-config=",
    ] {
        ensure!(args.contains(part), "{part} is not in {args}");
    }
    let from = |name: &str| {
        let env = container["env"].as_array().into_iter().flatten();
        let mut found = env.filter(|one| one["name"] == name);
        found
            .next()
            .map(|one| one["valueFrom"]["secretKeyRef"].clone())
    };
    ensure!(
        from("RQLITE_BACKUP_SECRET_ACCESS_KEY")
            == Some(json!({"name": "store", "key": "secret-access-key"})),
        "{}",
        container["env"]
    );
    let config = pod["metadata"]["annotations"]["rqlite.dev/config"]
        .as_str()
        .context("no configuration")?;
    let config: Value = serde_json::from_str(config)?;
    let uid = backup["metadata"]["uid"].as_str().unwrap_or_default();
    let file = format!("backups/shop/one-{}.sqlite.gz", &uid[..8]);
    ensure!(
        config["sub"]["path"] == format!("eu/{file}"),
        "{config} has not {file}"
    );
    ensure!(config["sub"]["bucket"] == "shop-backups", "{config}");
    let status = place.get(KIND, "one")?["status"].clone();
    ensure!(
        status["object"] == file && status["uri"] == format!("s3://shop-backups/eu/{file}"),
        "{status}"
    );
    for kind in ["job", "pod", "rqlitebackup", "events.events.k8s.io"] {
        let all = place.run(&["get", kind, "-o", "yaml"])?;
        ensure!(!all.contains(KEY), "a key is in a {kind}");
    }
    ensure!(!place.fixture.log()?.contains(KEY), "a key is in the log");
    Ok(())
}

/// One backup from its creation to its end, and the attempts to change it.
fn succeeds(place: &Simulated) -> Result<()> {
    let made = place.make("RqliteBackup", "one", &spec(&json!({})))?;
    ensure!(
        made["spec"]["compress"] == true && made["spec"]["vacuum"] == false,
        "{}",
        made["spec"]
    );
    place.await_phase(KIND, "one", "Running", &["a pod makes the backup"])?;
    is_as_it_should_be(place, &made)?;
    for change in [
        json!({"spec": {"vacuum": true}}),
        json!({"spec": {"clusterRef": {"name": "other"}}}),
        json!({"spec": {"target": {"s3": {"prefix": "us"}}}}),
        json!({"spec": {"deletionPolicy": "Delete"}}),
    ] {
        let edit = place.patch(KIND, "one", &change);
        refused(edit, &["create another RqliteBackup"]).with_context(|| change.to_string())?;
    }
    place.end_job_pod(&job("one"), CONTAINER, &good(), true)?;
    let ended = place.await_phase(KIND, "one", "Succeeded", &[])?;
    let status = &ended["status"];
    let is = status["bytes"] == 1234
        && status["databaseBytes"] == 8192
        && status["sha256"] == "ab".repeat(32)
        && status["integrity"] == "ok"
        && status["clusterId"].is_string()
        && status["startedAt"].is_string()
        && status["completedAt"].is_string();
    ensure!(is, "{status}");
    let complete = condition(&ended, "Complete");
    ensure!(complete["status"] == "True", "{complete}");
    place.await_event("one", "BackupSucceeded", "s3://shop-backups/eu/")?;
    let table = place.run(&["get", "rqbk", "one"])?;
    for part in ["shop", "Succeeded", "1234", "ok"] {
        ensure!(table.contains(part), "{part} is not in {table}");
    }
    // An ended backup is not made again when its Job goes.
    place.run(&["delete", "job", "one-backup"])?;
    place.run(&["annotate", KIND, "one", "a=b"])?;
    place.make(
        "RqliteBackup",
        "after",
        &spec(&json!({"target": null, "clusterRef": {"name": "shop"}})),
    )?;
    // The next one was dealt with, so that the first would have been, too.
    let words = ["no target", "spec.archive", "spec.target"];
    place.await_phase(KIND, "after", "Failed", &words)?;
    ensure!(
        place.get("job", "one-backup").is_err(),
        "the Job was made again"
    );
    Ok(())
}

/// Ways to fail, each with its words.
fn fails(place: &Simulated) -> Result<()> {
    let denied =
        json!({"error": "s3://shop-backups/eu/x: AccessDenied: the key store may not write"})
            .to_string();
    let damaged = good().replace("\"ok\"", "\"row 7 missing from index i\"");
    let cases: [(&str, &str, bool, &[&str]); 4] = [
        ("denied", &denied, false, &["AccessDenied: the key store"]),
        (
            "mute",
            "",
            true,
            &["no readable result", "cannot be trusted"],
        ),
        ("damaged", &damaged, true, &["damaged", "row 7 missing"]),
        ("killed", "fatal: out of memory", false, &["out of memory"]),
    ];
    for (name, ..) in cases {
        place.make("RqliteBackup", name, &spec(&json!({"retries": 0})))?;
    }
    for (name, message, well, _) in cases {
        place.end_job_pod(&job(name), CONTAINER, message, well)?;
    }
    for (name, _, _, words) in cases {
        let ended = place.await_phase(KIND, name, "Failed", words)?;
        let complete = condition(&ended, "Complete");
        ensure!(complete["status"] == "False", "{complete}");
        ensure!(ended["status"]["sha256"].is_null(), "{}", ended["status"]);
        place.await_event(name, "BackupFailed", words[0])?;
    }
    // A failed attempt is reported while the next one is awaited.
    place.make("RqliteBackup", "again", &spec(&json!({"retries": 1})))?;
    place.end_job_pod(&job("again"), CONTAINER, &denied, false)?;
    let words = ["attempt 2"];
    let seen = place.await_phase(KIND, "again", "Running", &words)?;
    ensure!(seen["status"]["failedAttempts"] == 1, "{}", seen["status"]);
    let error = seen["status"]["error"].as_str().unwrap_or_default();
    ensure!(error.contains("AccessDenied"), "{}", seen["status"]);
    place.end_job_pod(&job("again"), CONTAINER, &good(), true)?;
    let ended = place.await_phase(KIND, "again", "Succeeded", &[])?;
    ensure!(ended["status"]["error"].is_null(), "{}", ended["status"]);
    // Its Job is deleted by somebody.
    place.make("RqliteBackup", "cut", &spec(&json!({})))?;
    place.await_phase(KIND, "cut", "Running", &[])?;
    place.until(KIND, "cut", |cut| {
        let begun = &cut["status"]["startedAt"];
        ensure!(begun.is_string(), "{}", cut["status"]);
        Ok(())
    })?;
    place.run(&["delete", "job", "cut-backup"])?;
    place
        .await_phase(KIND, "cut", "Failed", &["Job was deleted"])
        .map(drop)
}

/// What a backup waits for is reported, and it begins once it can.
fn waits(place: &Simulated) -> Result<()> {
    let late = spec(&json!({"clusterRef": {"name": "late"}}));
    place.make("RqliteBackup", "early", &late)?;
    let words = ["there is no RqliteCluster late"];
    place.await_phase(KIND, "early", "Pending", &words)?;
    // Two voters are wanted, and their pods cannot be: the cluster never forms.
    let mut never = e2e_operator::fleet::plain();
    never["scheduling"] = json!({"antiAffinity": "Required"});
    never["serviceAccountName"] = "nobody".into();
    place.make("RqliteCluster", "never", &never)?;
    let unformed = spec(&json!({"clusterRef": {"name": "never"}}));
    place.make("RqliteBackup", "unformed", &unformed)?;
    place.await_phase(KIND, "unformed", "Pending", &["the cluster never"])?;
    ensure!(place.get("job", "unformed-backup").is_err(), "a Job");
    place.cluster("late", &json!({"replicas": 1}))?;
    place.await_phase(KIND, "early", "Running", &[])?;
    // The credentials are not there, or lack a key: the pod does not start, and the status has kubelet's
    // words.
    for (name, why) in [
        ("nosecret", "secret \"store\" not found"),
        (
            "nokey",
            "couldn't find key secret-access-key in Secret fleet/store",
        ),
    ] {
        place.make("RqliteBackup", name, &spec(&json!({})))?;
        place.job_pod_waits(&job(name), CONTAINER, "CreateContainerConfigError", why)?;
        place.await_phase(KIND, name, "Running", &["does not start", why])?;
    }
    // A pod that is refused is in no status but an event of the Job.
    let account = json!({"serviceAccountName": "nobody"});
    place.make("RqliteBackup", "noaccount", &spec(&account))?;
    let words = ["does not start", "serviceaccount", "nobody"];
    place.await_phase(KIND, "noaccount", "Running", &words)?;
    // Once it is there, the backup is made.
    place.end_job_pod(&job("nokey"), CONTAINER, &good(), true)?;
    place.await_phase(KIND, "nokey", "Succeeded", &[]).map(drop)
}

/// A Job of somebody else is neither used nor changed.
fn foreign(place: &Simulated) -> Result<()> {
    let theirs = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "mine-backup", "labels": {"rqlite.dev/backup": "mine"}},
        "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "securityContext":
            {"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": CONTAINER, "image": "theirs",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}}}});
    place.send("create", &theirs)?;
    let settled = until("their Job to be settled", LIMIT, || {
        let job = place.get("job", "mine-backup")?;
        ensure!(!job["status"]["conditions"].is_null(), "{}", job["status"]);
        Ok(job)
    })?;
    place.make(
        "RqliteBackup",
        "mine",
        &spec(&json!({"deletionPolicy": "Delete"})),
    )?;
    let words = ["another Job is called mine-backup", "delete it"];
    place.await_phase(KIND, "mine", "Pending", &words)?;
    let now = place.get("job", "mine-backup")?;
    ensure!(now == settled, "it was changed: {settled}\n{now}");
    // Nor is it deleted with the backup.
    place.run(&["delete", KIND, "mine", "--timeout=60s"])?;
    let now = place.get("job", "mine-backup")?;
    ensure!(now == settled, "it was changed: {settled}\n{now}");
    place.make("RqliteBackup", "mine", &spec(&json!({})))?;
    place.await_phase(KIND, "mine", "Pending", &words)?;
    place.run(&["delete", "job", "mine-backup"])?;
    place.await_phase(KIND, "mine", "Running", &[])?;
    let ours = place.get("job", "mine-backup")?;
    ensure!(
        ours["metadata"]["ownerReferences"][0]["kind"] == "RqliteBackup",
        "{ours}"
    );
    Ok(())
}

fn all(place: &Simulated) -> Result<()> {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store"},
        "stringData": {"access-key-id": "AKIA", "secret-access-key": KEY}});
    place.send("create", &secret)?;
    // Told before the cluster is there, seen at the end: the schedule's minutes pass meanwhile.
    let pods = json!({"podMetadata": {"labels": {"team": "shop"}}});
    place.cluster("shop", &pods)?;
    let minutely = schedules::begin(place).context("schedules")?;
    succeeds(place).context("a backup that succeeds")?;
    fails(place).context("backups that fail")?;
    waits(place).context("backups that wait")?;
    foreign(place).context("somebody else's Job")?;
    deletions::run(place).context("deletions")?;
    schedules::run(place, minutely).context("schedules")
}

#[test]
fn backups_are_made_told_kept_and_deleted() -> Result<()> {
    let Some(place) = Simulated::start()? else {
        return ApiServer::skip();
    };
    let result = all(&place);
    place.end(result)
}

#[test]
fn an_archive_is_in_the_pods_and_nothing_else_restarts() -> Result<()> {
    let Some(mut place) = Simulated::start()? else {
        return ApiServer::skip();
    };
    let result = archives::run(&mut place);
    place.end(result)
}
