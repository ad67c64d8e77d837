//! Deletion protection: what the API server refuses, and what the operator keeps without the policies.
use anyhow::{Context, Result, bail, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::json;

use crate::{
    cluster::{Cluster, LONG, NAME, QUIET, spec},
    fixture::{Fixture, condition},
    report::Measurements,
};

/// Rounds of protection that is set right before the deletion.
const ROUNDS: u8 = 10;

/// A deletion has to be refused, with the command that would allow it.
pub(crate) fn refused(cluster: &Cluster<'_>, args: &[&str]) -> Result<()> {
    let said = match cluster.namespace.run(args) {
        Ok(said) => bail!("{args:?} was accepted: {said}"),
        Err(error) => format!("{error:#}"),
    };
    for part in [
        "spec.deletionProtection: true",
        "kubectl patch rqlitecluster",
    ] {
        ensure!(said.contains(part), "{part:?} is not in {said}");
    }
    Ok(())
}

fn protect(cluster: &Cluster<'_>, on: bool) -> Result<()> {
    cluster.edit(&json!({"spec": {"deletionProtection": on}}))
}

/// With any cascade, with its namespace, and ten times at the last moment: nothing happens.
pub(crate) fn is_refused(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("protected", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let pods = cluster.uids()?;
        let delete = ["delete", "rqlitecluster", NAME, "--wait=false"];
        for _ in 0..ROUNDS {
            protect(cluster, true)?;
            refused(cluster, &delete)?;
            protect(cluster, false)?;
        }
        protect(cluster, true)?;
        for cascade in ["foreground", "background", "orphan"] {
            let cascade = format!("--cascade={cascade}");
            refused(cluster, &[&delete[..], &[&cascade]].concat())?;
        }
        let name = cluster.namespace.name.clone();
        refused(cluster, &["delete", "namespace", &name, "--wait=false"])?;
        let object = cluster.object()?;
        let deleted = &object["metadata"]["deletionTimestamp"];
        ensure!(deleted.is_null(), "it is deleted at {deleted}");
        ensure!(cluster.uids()? == pods, "pods were replaced");
        let outcome = cluster.verify_intact(writer)?;
        protect(cluster, false)?;
        Ok(outcome)
    })
}

/// Without the policies a foreground deletion is accepted: the garbage collector is stopped, what it deleted
/// comes back once over the same claims, and nothing is lost.
pub(crate) fn without_policies(fixture: &Fixture) -> Result<Measurements> {
    fixture.upgrade(&["admissionPolicies.deletionProtection=false"])?;
    let done = fixture.cluster(
        "front",
        spec(3, json!({"deletionProtection": true})),
        |cluster| {
            until("its finalizer", LIMIT, || {
                let object = cluster.object()?;
                let finalizers = &object["metadata"]["finalizers"];
                ensure!(*finalizers == json!(["rqlite.dev/cluster"]), "{finalizers}");
                Ok(())
            })?;
            let delete = ["delete", "rqlitecluster", NAME, "--wait=false"];
            cluster
                .namespace
                .run(&[&delete[..], &["--cascade=foreground"]].concat())?;
            cluster.until_condition("DeletionBlocked", "True", None, LIMIT)?;
            // What the collector has begun to delete may still be there, and ready.
            until("pods that are not replaced any more", LONG, || {
                let pods = cluster.uids()?;
                cluster.pods_stay(QUIET, &pods)
            })?;
            cluster.ready(LONG)?;
            // The Services were recreated as well, with other addresses.
            let writer = cluster.writer()?;
            let object = cluster.object()?;
            let ready = condition(&object, "Ready");
            ensure!(
                ready["message"].to_string().contains("DeletionBlocked"),
                "{ready}"
            );
            let outcome = cluster.verify_intact(writer)?;
            protect(cluster, false)?;
            until("the end of the cluster", LIMIT, || {
                ensure!(cluster.object().is_err(), "it is still there");
                Ok(())
            })?;
            Ok(outcome)
        },
    );
    fixture
        .upgrade(&["admissionPolicies.deletionProtection=true"])
        .context("the policies installed again")?;
    fixture.await_operator()?;
    done
}
