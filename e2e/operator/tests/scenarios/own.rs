//! Pods and claims that only carry a cluster's labels; a cluster that is deleted while nothing owns its pods.
use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, spec},
    fixture::{Fixture, condition, text},
    lifecycle,
    report::Measurements,
};

/// Longer than the operator waits before it reports a pod of unknown origin, and than three calm reconciles.
const WATCHED: Duration = Duration::from_secs(60);

/// A pod with the labels of the leader's pod, except the cluster's uid, that serves rubbish.
const STRAY: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: debug
  labels:
    app.kubernetes.io/name: rqlite
    rqlite.dev/cluster: demo
    rqlite.dev/pool: voter
    rqlite.dev/role: leader
    rqlite.dev/raft: member
    rqlite.dev/serving: "true"
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: rqlited
    image: localhost/busybox:1
    imagePullPolicy: IfNotPresent
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    command: [sh, -c, "cd /tmp && echo rubbish > status && echo rubbish > readyz && httpd -f -p 4001"]
    ports: [{name: http, containerPort: 4001}]
    readinessProbe: {tcpSocket: {port: 4001}, periodSeconds: 1}
    volumeMounts: [{name: tmp, mountPath: /tmp}]
  volumes: [{name: tmp, emptyDir: {}}]
"#;

/// Addresses that the client's Service sends requests to.
fn served(cluster: &Cluster<'_>) -> Result<BTreeSet<String>> {
    let labels = format!("kubernetes.io/service-name={NAME}-client");
    let said = cluster
        .namespace
        .run(&["get", "endpointslices", "-l", &labels, "-o", "json"])?;
    let list: Value = serde_json::from_str(&said)?;
    let slices = list["items"].as_array().cloned().unwrap_or_default();
    let endpoints = slices
        .iter()
        .flat_map(|s| s["endpoints"].as_array().into_iter().flatten());
    let addresses = endpoints.flat_map(|e| e["addresses"].as_array().into_iter().flatten());
    Ok(addresses.map(|address| text(address).to_owned()).collect())
}

pub(crate) fn stray_pod(fixture: &Fixture) -> Result<Measurements> {
    fixture.bare("stray", |cluster| {
        cluster.create(spec(3, json!({})))?;
        cluster.ready(LIMIT)?;
        let writer = cluster.writer()?;
        let pods: Vec<String> = cluster.uids()?.into_keys().collect();
        cluster.namespace.apply(STRAY)?;
        let stray = until("the stray pod to be ready", LIMIT, || {
            let pod = cluster.core("pods", "debug")?;
            ensure!(
                condition(&pod, "Ready")["status"] == "True",
                "{}",
                pod["status"]
            );
            Ok(pod)
        })?;
        cluster.until("the stray pod to be reported", LIMIT, |object| {
            let advisory = condition(object, "Advisory");
            ensure!(advisory["reason"] == "StrayPods", "{advisory}");
            Ok(())
        })?;
        let mut waited = Duration::ZERO;
        while waited < WATCHED {
            let object = cluster.object()?;
            let ready = condition(&object, "Ready");
            ensure!(ready["status"] == "True", "{ready}");
            let members = object["status"]["members"].as_array().map(Vec::len);
            ensure!(members == Some(3), "{}", object["status"]["members"]);
            let leader = text(&object["status"]["leader"]).to_owned();
            ensure!(pods.contains(&leader), "{leader:?} leads");
            let address = text(&stray["status"]["podIP"]).to_owned();
            let served = served(cluster)?;
            ensure!(
                served.len() == 3 && !served.contains(&address),
                "{served:?}"
            );
            thread::sleep(Duration::from_secs(2));
            waited += Duration::from_secs(2);
        }
        let outcome = cluster.verify_intact(writer)?;
        lifecycle::delete(cluster)?;
        let left = cluster.core("pods", "debug").context("it was deleted")?;
        ensure!(
            left["metadata"]["uid"] == stray["metadata"]["uid"],
            "it was replaced"
        );
        ensure!(
            left["metadata"]["labels"] == stray["metadata"]["labels"],
            "it was labelled"
        );
        Ok(outcome)
    })
}

pub(crate) fn clones_remain(fixture: &Fixture) -> Result<Measurements> {
    let retention = json!({"storage": {"size": "1Gi", "retention": {"whenDeleted": "Delete"}}});
    fixture.bare("clones", |cluster| {
        cluster.create(spec(3, retention))?;
        cluster.ready(LIMIT)?;
        let original = cluster.core("persistentvolumeclaims", &format!("data-{NAME}-0"))?;
        let wanted = &original["spec"];
        let clone = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "restored", "labels": original["metadata"]["labels"]},
            "spec": {"accessModes": wanted["accessModes"], "resources": wanted["resources"],
                "storageClassName": wanted["storageClassName"]},
        });
        cluster.namespace.apply(&clone.to_string())?;
        let took = lifecycle::delete(cluster)?;
        until(
            "the cluster's claims to go, and the clone to stay",
            LIMIT,
            || {
                let claims = cluster.claims()?;
                let names: Vec<_> = claims
                    .iter()
                    .map(|c| text(&c["metadata"]["name"]))
                    .collect();
                ensure!(names == ["restored"], "{names:?}");
                let deleted = &claims.first().context("no claim")?["metadata"]["deletionTimestamp"];
                ensure!(deleted.is_null(), "the clone is deleted");
                Ok(())
            },
        )?;
        Ok(Measurements::default().with_note(format!("{:.0} s", took.as_secs_f64())))
    })
}

/// In the gap between two StatefulSets nothing but the operator would ever stop the pods.
pub(crate) fn deleted_amid_growth(fixture: &Fixture) -> Result<Measurements> {
    let started = fixture.provider()?.start_growing_volumes()?;
    ensure!(started, "this provider has no volumes that grow");
    let storage = |size: &str| json!({"storage": {"size": size, "storageClassName": "growing"}});
    fixture.bare("gap", |cluster| {
        cluster.create(spec(3, storage("1Gi")))?;
        cluster.ready(LIMIT)?;
        cluster.edit(&json!({"spec": storage("2Gi")}))?;
        until("the recreation of the StatefulSet to begin", LONG, || {
            let object = cluster.object()?;
            let operation = &object["status"]["operation"];
            ensure!(operation["type"] == "Resize", "{operation}");
            Ok(())
        })?;
        let took = lifecycle::delete(cluster)?;
        ensure!(
            cluster.claims()?.len() == 3,
            "claims of a retained cluster are gone"
        );
        Ok(Measurements::default().with_note(format!("{:.0} s", took.as_secs_f64())))
    })
}
