//! What users add to pods, on a real Kubernetes: ephemeral clusters, sidecars, users of the platform's.
use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    cluster::{LONG, spec},
    fixture::{Fixture, text},
    report::Measurements,
};

/// Without volumes: pods are lost one at a time, then all are replaced by an update, and no write is lost;
/// each new pod is a new member.
pub(crate) fn ephemeral(fixture: &Fixture) -> Result<Measurements> {
    let storage = json!({"storage": {"ephemeral": {"sizeLimit": "1Gi"}}});
    fixture.cluster("ephemeral", spec(3, storage), |cluster| {
        ensure!(cluster.claims()?.is_empty(), "there are claims");
        let writer = cluster.writer()?;
        for leads in [false, true] {
            let before = cluster.configuration()?;
            let uids = cluster.uids()?;
            let lost = if leads {
                cluster.leader()?
            } else {
                cluster.follower()?
            };
            cluster.delete_pods(&[&lost])?;
            let uid = uids.get(&lost).context("it has no pod")?;
            cluster.await_recreated(&lost, uid, LONG)?;
            cluster.ready(LONG)?;
            let (old, new) = (before.get(&lost), cluster.configuration()?);
            ensure!(
                old != new.get(&lost),
                "{lost} came back as the same member, without its data: {new:?}"
            );
        }
        let uids = cluster.uids()?;
        cluster.edit(&json!({"spec": {"terminationGracePeriodSeconds": 31}}))?;
        cluster.ready(LONG)?;
        let after = cluster.uids()?;
        let kept = uids
            .iter()
            .filter(|(name, uid)| after.get(*name) == Some(uid));
        ensure!(kept.count() == 0, "pods were not replaced: {after:?}");
        cluster.verify_intact(writer)
    })
}

/// An init container and a sidecar beside each node, a volume more, Services of other types.
pub(crate) fn additions(fixture: &Fixture) -> Result<Measurements> {
    let busybox = "localhost/busybox:1";
    let more = json!({
        "services": {
            "ipFamilyPolicy": "PreferDualStack",
            "client": {"type": "NodePort", "externalTrafficPolicy": "Local", "annotations": {"example.com/a": "b"}},
        },
        "pods": {
            "volumes": [{"name": "more", "emptyDir": {}}],
            "volumeMounts": [{"name": "more", "mountPath": "/more"}],
            "initContainers": [{"name": "first", "image": busybox, "imagePullPolicy": "IfNotPresent",
                "command": ["true"]}],
            "sidecars": [{"name": "side", "image": busybox, "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", "while ls /rqlite/data/raft > /dev/null || true; do sleep 5; done"],
                "volumeMounts": [{"name": "data", "mountPath": "/rqlite", "readOnly": true}]}],
        },
        "serviceMesh": "Linkerd",
    });
    fixture.cluster("additions", spec(3, more), |cluster| {
        let writer = cluster.writer()?;
        for name in cluster.uids()?.keys() {
            let pod = cluster.core("pods", name)?;
            let statuses = pod["status"]["containerStatuses"].as_array();
            let running = statuses
                .into_iter()
                .flatten()
                .filter(|c| c["ready"] == true);
            ensure!(running.count() == 2, "{}", pod["status"]);
        }
        let service = cluster.core("services", "demo-client")?;
        ensure!(text(&service["spec"]["type"]) == "NodePort", "{service}");
        cluster.edit(&json!({"spec": {"pods": {"sidecars": null}}}))?;
        cluster.ready(LONG)?;
        cluster.verify_intact(writer)
    })
}

/// Users and groups that the image does not know, as OpenShift assigns them.
pub(crate) fn foreign_users(fixture: &Fixture) -> Result<Measurements> {
    let user = 1_000_650_000;
    let more = json!({"podSecurity": {"runAsUser": user, "runAsGroup": 0, "fsGroup": user}});
    fixture.cluster("foreign-users", spec(3, more), |cluster| {
        let writer = cluster.writer()?;
        let leader = cluster.leader()?;
        cluster.delete_pods(&[&leader])?;
        cluster.ready(LONG)?;
        cluster.verify_intact(writer)
    })
}
