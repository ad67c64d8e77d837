//! Growing volumes, with a real storage driver and resizer: in use, and only while stopped.
use anyhow::{Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, spec},
    fixture::{Fixture, text},
    report::Measurements,
};

fn storage(class: &str, size: &str) -> Value {
    json!({"storage": {"size": size, "storageClassName": class}})
}

fn start_driver(fixture: &Fixture) -> Result<()> {
    let started = fixture.provider()?.start_growing_volumes()?;
    ensure!(started, "this provider has no volumes that grow");
    Ok(())
}

/// Waits until all claims ask for 2Gi, and all file systems have that size.
fn await_growth(cluster: &Cluster<'_>) -> Result<()> {
    let size = |claim: &Value, path: &str| claim.pointer(path).map(text) == Some("2Gi");
    until("all claims to ask for more", LIMIT, || {
        let claims = cluster.claims()?;
        let asked = |c: &&Value| size(c, "/spec/resources/requests/storage");
        let asking = claims.iter().filter(asked).count();
        ensure!(asking == claims.len(), "{asking} of {}", claims.len());
        Ok(())
    })?;
    // The kubelet looks at volumes that it has mounted every minute or two.
    until("all file systems to have grown", 2 * LONG, || {
        let claims = cluster.claims()?;
        let small: Vec<_> = claims
            .iter()
            .filter(|claim| !size(claim, "/status/capacity/storage"))
            .map(|claim| claim["status"].to_string())
            .collect();
        ensure!(small.is_empty(), "{small:?}");
        Ok(())
    })?;
    cluster.until_condition("StorageReady", "True", None, LONG)?;
    Ok(())
}

fn await_new_set(cluster: &Cluster<'_>, old: &str) -> Result<()> {
    until("a StatefulSet for larger volumes", LONG, || {
        let now = cluster.set(NAME)?;
        let template = &now["spec"]["volumeClaimTemplates"][0];
        let size = &template["spec"]["resources"]["requests"]["storage"];
        ensure!(
            text(&now["metadata"]["uid"]) != old && *size == "2Gi",
            "{size}"
        );
        Ok(())
    })
}

/// File systems grow in use: no pod is restarted.
pub(crate) fn volumes_grow_in_use(fixture: &Fixture) -> Result<Measurements> {
    start_driver(fixture)?;
    fixture.cluster("grows", spec(3, storage("growing", "1Gi")), |cluster| {
        let writer = cluster.writer()?;
        let before = cluster.uids()?;
        let set = text(&cluster.set(NAME)?["metadata"]["uid"]).to_owned();
        cluster.edit(&json!({"spec": storage("growing", "2Gi")}))?;
        await_growth(cluster)?;
        await_new_set(cluster, &set)?;
        let outcome = cluster.verify_intact(writer)?;
        let after = cluster.uids()?;
        ensure!(after == before, "pods were replaced: {before:?}, {after:?}");
        Ok(outcome.with_note("external-resizer and a driver of ours; no pod restarted"))
    })
}

/// File systems grow only while no pod uses them: pods are restarted one after another.
pub(crate) fn volumes_grow_when_stopped(fixture: &Fixture) -> Result<Measurements> {
    start_driver(fixture)?;
    let class = "growing-when-stopped";
    fixture.cluster("grows-stopped", spec(3, storage(class, "1Gi")), |cluster| {
        let writer = cluster.writer()?;
        let before = cluster.uids()?;
        let set = text(&cluster.set(NAME)?["metadata"]["uid"]).to_owned();
        cluster.edit(&json!({"spec": storage(class, "2Gi")}))?;
        await_growth(cluster)?;
        await_new_set(cluster, &set)?;
        let pods = cluster.uids()?;
        let kept: Vec<_> = before
            .iter()
            .filter(|(name, uid)| pods.get(*name) == Some(*uid))
            .collect();
        ensure!(kept.is_empty(), "grew without a restart: {kept:?}");
        let outcome = cluster.verify_intact(writer)?;
        ensure!(
            cluster.uids()? == pods,
            "the new StatefulSet has replaced pods"
        );
        Ok(outcome.with_note("external-resizer and a driver of ours"))
    })
}
