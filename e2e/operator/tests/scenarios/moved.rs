//! A cluster that moves to another namespace: its volumes are bound to claims there, and every node's address
//! changes.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, spec},
    fixture::{Fixture, text},
    lifecycle::delete,
    recovery::{await_phase, recover},
    report::Measurements,
};

/// Minimum number of rows to move.
const ROWS: u64 = 2000;

/// A claim and its volume.
struct Volume {
    claim: String,
    volume: String,
}

/// Sets the volumes' reclaim policy, which decides whether they survive the deletion of their claims.
fn reclaim(fixture: &Fixture, volumes: &[Volume], policy: &str) -> Result<()> {
    let patch = json!({"spec": {"persistentVolumeReclaimPolicy": policy}}).to_string();
    for one in volumes {
        let args = ["patch", "pv", &one.volume, "--type=merge", "-p", &patch];
        fixture.kubectl.run(&args)?;
    }
    Ok(())
}

/// Deletes the claims and reserves their volumes for claims of the same names in the other namespace; the
/// data stays. An unreserved volume could be bound to any pending claim.
fn reserve(
    fixture: &Fixture,
    from: &Cluster<'_>,
    to: &Cluster<'_>,
    volumes: &[Volume],
) -> Result<()> {
    reclaim(fixture, volumes, "Retain")?;
    let claims: Vec<&str> = volumes.iter().map(|v| v.claim.as_str()).collect();
    let args = [&["delete", "pvc", "--timeout=60s"], &claims[..]].concat();
    from.namespace.run(&args)?;
    for one in volumes {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": to.namespace.name, "name": one.claim,
            "uid": null, "resourceVersion": null,
        });
        let patch = json!({"spec": {"claimRef": claim}}).to_string();
        let patch = patch.as_str();
        let args = ["patch", "pv", &one.volume, "--type=merge", "-p", patch];
        fixture.kubectl.run(&args)?;
    }
    Ok(())
}

/// Creates claims of the same names for these volumes.
fn claim(to: &Cluster<'_>, volumes: &[Volume]) -> Result<()> {
    for one in volumes {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": one.claim},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "volumeName": one.volume,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        });
        to.namespace.apply(&claim.to_string())?;
    }
    for one in volumes {
        let claim = format!("pvc/{}", one.claim);
        to.namespace
            .until_field(&claim, "{.status.phase}", "Bound", LIMIT)?;
    }
    Ok(())
}

fn volumes(cluster: &Cluster<'_>) -> Result<Vec<Volume>> {
    let claims = cluster.claims()?;
    let volume = |claim: &Value| Volume {
        claim: text(&claim["metadata"]["name"]).to_owned(),
        volume: text(&claim["spec"]["volumeName"]).to_owned(),
    };
    Ok(claims.iter().map(volume).collect())
}

/// `<cluster id>/<lineage id>/<epoch>` of a cluster.
fn identity(cluster: &Cluster<'_>) -> Result<String> {
    let status = cluster.object()?["status"].clone();
    let lineage = &status["lineage"];
    let (id, lineage_id) = (text(&status["clusterId"]), text(&lineage["id"]));
    let epoch = lineage["epoch"].as_u64().context("no epoch")?;
    Ok(format!("{id}/{lineage_id}/{epoch}"))
}

/// Moves a cluster while a writer runs. `arrive` creates it over its moved volumes and waits until it is
/// healthy.
fn moves(
    fixture: &Fixture,
    readers: u8,
    arrive: impl FnOnce(&Cluster<'_>, Value) -> Result<String>,
) -> Result<Measurements> {
    let more = json!({"readReplicas": {"replicas": readers}});
    fixture.cluster("moves-from", spec(3, more), |old| {
        let writer = old.writer()?;
        let (theirs, volumes) = (identity(old)?, volumes(old)?);
        ensure!(volumes.len() == 3 + usize::from(readers), "not all claims");
        until("rows to move", LIMIT, || {
            let rows = writer.report(None)?.acknowledged;
            ensure!(rows >= ROWS, "{rows}");
            Ok(())
        })?;
        // The writer continues until the old cluster is gone.
        delete(old)?;
        let outcome = fixture.bare("moves-to", |new| {
            reserve(fixture, old, new, &volumes)?;
            claim(new, &volumes)?;
            let adopt = json!({"rqlite.dev/adopt": theirs});
            let note = arrive(new, adopt)?;
            let writer = writer.at(&new.login()?.url(&new.address()?));
            let mut outcome = new.verify_intact(writer)?.with_note(note);
            // The writer stays in the old namespace, so its failures since the move are not an outage of the
            // cluster.
            outcome.gap_ms = None;
            Ok(outcome)
        });
        reclaim(fixture, &volumes, "Delete")?;
        outcome
    })
}

/// Checks that every member's address, according to the leader, is in this cluster's namespace.
fn is_at_home(cluster: &Cluster<'_>) -> Result<()> {
    let status = cluster.status_of(&cluster.leader()?)?;
    let members = &status["store"]["raft"]["committed_configuration"]["members"];
    let home = format!(".{}.svc.", cluster.namespace.name);
    let all = members.as_array().context("no members")?;
    let strays = all.iter().filter(|m| !text(&m["addr"]).contains(&home));
    ensure!(all.len() >= 3 && strays.count() == 0, "{members}");
    Ok(())
}

pub(crate) fn adopted(fixture: &Fixture) -> Result<Measurements> {
    moves(fixture, 0, |new, adopt| {
        let start = Instant::now();
        new.create_with(adopt, spec(3, json!({})))?;
        new.ready(LIMIT)?;
        let took = start.elapsed();
        until("all to be known under their new addresses", LIMIT, || {
            is_at_home(new)
        })?;
        recover(new, "needless", &json!({"mode": "RewriteAddresses"}))?;
        let refused = await_phase(new, "needless", &["Rejected"], LIMIT)?;
        let why = text(&refused["status"]["message"]);
        ensure!(why.contains("leads"), "{why}");
        ensure!(new.object()?["status"]["lineage"]["epoch"] == 0, "{why}");
        Ok(format!(
            "Ready {:.0} s after it was created over the moved volumes: the nodes tell each other where they are; nothing is left to rewrite, and a RewriteAddresses is refused",
            took.as_secs_f64()
        ))
    })
}

pub(crate) fn rewritten(fixture: &Fixture) -> Result<Measurements> {
    moves(fixture, 1, |new, adopt| {
        // A misconfiguration made with the move: no node starts an election within an hour.
        let slow = json!({
            "readReplicas": {"replicas": 1},
            "config": {"raft": {"heartbeatTimeout": "1h", "electionTimeout": "1h"}},
        });
        new.create_with(adopt, spec(3, slow))?;
        until("all nodes to run", LIMIT, || {
            for pod in new.voters()? {
                new.status_of(&pod.name)?;
            }
            ensure!(new.voters()?.len() == 3, "not all pods");
            Ok(())
        })?;
        new.until_condition("Available", "False", Some("QuorumUnavailable"), LIMIT)?;
        // The spec is corrected, but without a leader no running pod is replaced.
        new.edit(&json!({"spec": {"config": null}}))?;
        let set = new.set(NAME)?["metadata"]["generation"].clone();
        until("the StatefulSet to be corrected", LIMIT, || {
            let now = new.set(NAME)?;
            let args = now["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
            ensure!(!args.contains("election-timeout"), "generation {set}");
            Ok(())
        })?;
        let start = Instant::now();
        recover(new, "rewrite", &json!({"mode": "RewriteAddresses"}))?;
        let done = await_phase(new, "rewrite", &["Succeeded"], LONG)?;
        let took = start.elapsed();
        let loss = &done["status"]["possiblyLostEntries"];
        ensure!(*loss == 0, "{}", done["status"]);
        new.ready(Duration::from_secs(60))?;
        is_at_home(new)?;
        ensure!(
            new.object()?["status"]["lineage"]["epoch"] == 1,
            "the epoch"
        );
        for pod in new.voters()? {
            let log = new.namespace.run(&["logs", &pod.name, "-c", "prepare"])?;
            ensure!(
                log.contains("ecovered"),
                "{} was not rewritten: {log}",
                pod.name
            );
        }
        Ok(format!(
            "no leader, as an election timeout of an hour was set with the move; RewriteAddresses succeeded after {:.0} s, every voter kept its data",
            took.as_secs_f64()
        ))
    })
}
