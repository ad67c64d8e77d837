//! A survivor that an administrator recovers manually with a `peers.json` under the operator: the operator
//! reports it, adopts it on the administrator's approval, and parks the other members' old data so that they
//! rejoin.
use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::json;

use crate::{
    cluster::{Cluster, LONG, NAME, QUIET, spec},
    fixture::{Fixture, condition, text},
    report::Measurements,
    scaling::keep_pending,
};

/// Writes a `peers.json` with this one member beside its log, from another pod with the volume: the nodes'
/// image has no shell.
fn write_peers(cluster: &Cluster<'_>, survivor: &str) -> Result<()> {
    let address = format!(
        "{survivor}.{NAME}-headless.{}.svc.cluster.local:4002",
        cluster.namespace.name
    );
    let peers = json!([{"id": survivor, "address": address, "non_voter": false}]);
    let script = format!("echo '{peers}' > /rqlite/data/raft/peers.json");
    let name = "by-hand";
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "shell", "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/busybox", "sh", "-c", script],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "data", "mountPath": "/rqlite"}],
            }],
            "volumes": [{
                "name": "data",
                "persistentVolumeClaim": {"claimName": format!("data-{survivor}")},
            }],
        },
    });
    cluster.namespace.apply(&pod.to_string())?;
    cluster.namespace.until_field(
        &format!("pod/{name}"),
        "{.status.phase}",
        "Succeeded",
        LIMIT,
    )?;
    let args = ["delete", "pod", name, "--grace-period=0", "--force"];
    cluster.namespace.run(&args).map(drop)
}

/// Checks for a while that the operator changes nothing and keeps the recorded lineage.
fn ensure_operator_waits(cluster: &Cluster<'_>) -> Result<()> {
    let pods = cluster.uids()?;
    let claims = |cluster: &Cluster<'_>| -> Result<Vec<String>> {
        let claims = cluster.claims()?;
        let uids = claims
            .iter()
            .map(|c| text(&c["metadata"]["uid"]).to_owned());
        Ok(uids.collect())
    };
    let before = claims(cluster)?;
    let start = Instant::now();
    while start.elapsed() < QUIET {
        let object = cluster.object()?;
        let lineage = &object["status"]["lineage"]["epoch"];
        ensure!(*lineage == 0, "epoch {lineage} without approval");
        ensure!(cluster.state()?["lineage"]["epoch"] == 0, "the state file");
        ensure!(cluster.uids()? == pods, "pods were touched");
        ensure!(claims(cluster)? == before, "claims were touched");
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

pub(crate) fn recovered(fixture: &Fixture) -> Result<Measurements> {
    let required = json!({"scheduling": {"antiAffinity": "Required"}});
    fixture.cluster("by-hand", spec(3, required), |cluster| {
        let pods = cluster.voters()?;
        let survivor = cluster.leader()?;
        let before = cluster.configuration()?;
        let home = pods.iter().find(|p| p.name == survivor);
        let writer = cluster.writer_on(&home.context("no leader")?.machine)?;
        // The leader has every acknowledged row. The two others are down with their data, and the
        // administrator stops waiting for them.
        let away = pods.iter().filter(|p| p.name != survivor);
        let away: Vec<&str> = away.map(|p| p.name.as_str()).collect();
        let cordons = [
            keep_pending(fixture, cluster, away[0])?,
            keep_pending(fixture, cluster, away[1])?,
        ];
        cluster.until_condition("Available", "False", Some("QuorumUnavailable"), LIMIT)?;
        let acknowledged = writer.report(None)?.acknowledged;
        write_peers(cluster, &survivor)?;
        cluster.delete_pods(&[&survivor])?;
        let said = cluster.until_condition("Degraded", "True", Some("RecoveredByHand"), LIMIT)?;
        // The message contains the command, which the test executes.
        let key = "rqlite.dev/accept-lineage=";
        let theirs = said.split(key).nth(1).context("no command")?;
        let theirs = theirs.split([' ', ',', '.', ':']).next().unwrap_or_default();
        ensure!(theirs.ends_with("/1"), "{said}");
        // One of the others returns early, with the lineage that is still recorded, and finds no peer.
        let [first, second] = cordons;
        drop(first);
        until(&format!("{} to run", away[0]), LIMIT, || {
            cluster.status_of(away[0])
        })?;
        ensure_operator_waits(cluster)?;
        let start = Instant::now();
        let annotation = format!("{key}{theirs}");
        let args = ["annotate", "rqlitecluster", NAME, "--overwrite", &annotation];
        cluster.namespace.run(&args)?;
        cluster.until_condition("Available", "True", None, LIMIT)?;
        let accepted = start.elapsed();
        writer.await_progress(LIMIT)?;
        let lineage = cluster.object()?["status"]["lineage"].clone();
        let now = format!("{}/{}", text(&lineage["id"]), lineage["epoch"]);
        ensure!(now == theirs, "on record is {now}, accepted was {theirs}");
        drop(second);
        let start = Instant::now();
        cluster.ready(LONG)?;
        let whole = start.elapsed();
        let outcome = cluster.verify_intact(writer)?;
        let after = cluster.configuration()?;
        for name in away {
            ensure!(
                after.get(name).map(|m| &m.0) != before.get(name).map(|m| &m.0),
                "the old data of {name} votes: {after:?}"
            );
            let log = cluster.namespace.run(&["logs", name, "-c", "prepare"])?;
            ensure!(log.contains("arked"), "not parked: {log}");
        }
        let object = cluster.object()?;
        let degraded = condition(&object, "Degraded");
        ensure!(degraded["status"] == "False", "{degraded}");
        let note = format!(
            "nothing touched for {} s; leader recorded {:.1} s after the annotation; healthy {:.0} s after the last of the others returned, their old data parked; {acknowledged} rows before it",
            QUIET.as_secs(),
            accepted.as_secs_f64(),
            whole.as_secs_f64()
        );
        Ok(outcome.with_note(note))
    })
}
