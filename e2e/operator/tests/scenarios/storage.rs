//! Growing volumes. The machine's provisioner cannot resize volumes, so the storage driver is simulated;
//! everything else is real.
use anyhow::{Result, bail, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, spec},
    fixture::{Fixture, text},
    report::Measurements,
};

/// A StorageClass that allows expansion; the same provisioner as the default one.
const CLASS: &str = "e2e-growing";

fn class(fixture: &Fixture) -> Result<()> {
    let all = fixture
        .api
        .list("/apis/storage.k8s.io/v1/storageclasses", "")?;
    let default = "storageclass.kubernetes.io/is-default-class";
    let default = all
        .iter()
        .find(|c| c["metadata"]["annotations"][default] == "true");
    let Some(default) = default else {
        bail!("no default StorageClass");
    };
    let growing = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": CLASS},
        "provisioner": default["provisioner"],
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    });
    let path = std::env::temp_dir().join("e2e-growing.json");
    std::fs::write(&path, growing.to_string())?;
    fixture
        .kubectl
        .run(&["apply", "-f", &path.display().to_string()])?;
    std::fs::remove_file(path)?;
    Ok(())
}

/// Writes the status that a driver would report for a claim.
fn report(cluster: &Cluster<'_>, claim: &str, status: &Value) -> Result<()> {
    let patch = json!({ "status": status }).to_string();
    let args = [
        "patch",
        "pvc",
        claim,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    cluster.namespace.run(&args).map(drop)
}

pub(crate) fn volumes_grow(fixture: &Fixture) -> Result<Measurements> {
    class(fixture)?;
    let storage = |size: &str| json!({"storage": {"size": size, "storageClassName": CLASS}});
    fixture.cluster("grows", spec(3, storage("1Gi")), |cluster| {
        let writer = cluster.writer()?;
        let before = cluster.uids()?;
        let set = text(&cluster.set(NAME)?["metadata"]["uid"]).to_owned();
        cluster.edit(&json!({ "spec": storage("2Gi") }))?;
        let claims = until("all claims to ask for more", LIMIT, || {
            let claims = cluster.claims()?;
            let asked = |c: &Value| c["spec"]["resources"]["requests"]["storage"] == "2Gi";
            ensure!(claims.iter().all(asked), "not all of {}", claims.len());
            Ok(claims)
        })?;
        for claim in &claims {
            let pending = json!({"type": "FileSystemResizePending", "status": "True"});
            report(
                cluster,
                text(&claim["metadata"]["name"]),
                &json!({"conditions": [pending]}),
            )?;
        }
        // Each restarted pod finds its file system grown.
        until("all pods to have been restarted", LONG, || {
            let now = cluster.uids()?;
            for (name, uid) in &now {
                if before.get(name) != Some(uid) {
                    let grown = json!({"conditions": null, "capacity": {"storage": "2Gi"}});
                    report(cluster, &format!("data-{name}"), &grown)?;
                }
            }
            let old: Vec<_> = before
                .iter()
                .filter(|(n, uid)| now.get(*n) == Some(*uid))
                .collect();
            ensure!(old.is_empty(), "{old:?}");
            Ok(())
        })?;
        cluster.until_condition("StorageReady", "True", None, LONG)?;
        until("a StatefulSet for larger volumes", LONG, || {
            let now = cluster.set(NAME)?;
            let template = &now["spec"]["volumeClaimTemplates"][0];
            let size = &template["spec"]["resources"]["requests"]["storage"];
            ensure!(
                text(&now["metadata"]["uid"]) != set && *size == "2Gi",
                "{size}"
            );
            Ok(())
        })?;
        let pods = cluster.uids()?;
        let outcome = cluster.verify_intact(writer)?;
        ensure!(
            cluster.uids()? == pods,
            "the new StatefulSet has replaced pods"
        );
        Ok(outcome.with_note("the test simulates the storage driver"))
    })
}
