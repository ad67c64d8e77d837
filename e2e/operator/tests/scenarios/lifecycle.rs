//! A cluster is created, hibernates, is deleted and is created again.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, spec},
    fixture::{Fixture, condition, text},
    protection,
    report::Measurements,
    within,
};

/// Limit for a new cluster to become Ready although names did not resolve at first.
const FORMING_GOAL: Duration = Duration::from_secs(60);
/// Limit for a deleted cluster to disappear.
const DELETION_GOAL: Duration = Duration::from_secs(60);

/// Checks that there is one cluster that can no longer form.
fn has_formed_once(cluster: &Cluster<'_>) -> Result<()> {
    let object = cluster.object()?;
    let id = &object["status"]["clusterId"];
    for pod in cluster.voters()? {
        let identity = &cluster.status_of(&pod.name)?["store"]["identity"];
        ensure!(
            identity["cluster_id"] == *id,
            "{} is of {identity}, not of {id}",
            pod.name
        );
    }
    let state = cluster.state()?;
    ensure!(state["phase"] == "Formed", "{state}");
    Ok(())
}

pub(crate) fn forms_without_names(fixture: &Fixture) -> Result<Measurements> {
    let provider = fixture.provider()?;
    fixture.bare("forms", |cluster| {
        let start = Instant::now();
        cluster.create(spec(3, json!({})))?;
        provider.restart_dns()?;
        // The first pod to start is restarted, which makes an unusual start order.
        let first = until("a pod", LIMIT, || {
            let mut pods = cluster.voters()?;
            ensure!(!pods.is_empty(), "none");
            Ok(pods.remove(0))
        })?;
        cluster.delete_pods(&[&first.name])?;
        cluster.ready(LIMIT)?;
        let took = start.elapsed();
        within("forming", took, FORMING_GOAL)?;
        has_formed_once(cluster)?;
        let writer = cluster.writer()?;
        let note = format!("Ready after {:.1} s", took.as_secs_f64());
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}

pub(crate) fn forms_in_all_sizes(fixture: &Fixture) -> Result<Measurements> {
    let mut times = Vec::new();
    for size in [1, 2, 5] {
        fixture.bare("sizes", |cluster| {
            let start = Instant::now();
            cluster.create(spec(size, json!({})))?;
            cluster.ready(LIMIT)?;
            times.push(format!("{size}: {:.0} s", start.elapsed().as_secs_f64()));
            has_formed_once(cluster)?;
            Ok(Measurements::default())
        })?;
    }
    fixture.bare("edited", |cluster| {
        cluster.create(spec(3, json!({})))?;
        cluster.scale(5)?;
        cluster.until("the cluster to have formed", LIMIT, |object| {
            let status = &object["status"];
            ensure!(
                !status["bootstrappedAt"].is_null(),
                "{}",
                status["conditions"]
            );
            let with = &status["target"]["bootstrapReplicas"];
            ensure!([json!(3), json!(5)].contains(with), "it formed with {with}");
            Ok(())
        })?;
        let writer = cluster.writer()?;
        cluster.ready(LONG)?;
        cluster.scale(3)?;
        has_formed_once(cluster)?;
        Ok(cluster
            .verify_intact(writer)?
            .with_note(format!("Ready with {}", times.join(", "))))
    })
}

/// Creates five voters that may not share a machine, of which at least one finds none, corrects the spec, and
/// waits until they have formed.
fn corrected(fixture: &Fixture, correction: &Value) -> Result<Measurements> {
    fixture.bare("corrected", |cluster| {
        let apart = json!({"scheduling": {"antiAffinity": "Required"}});
        cluster.create(spec(5, apart))?;
        until("a pod to find no machine", LIMIT, || {
            let blocked = cluster.object()?;
            let available = condition(&blocked, "Available");
            ensure!(text(&available["reason"]) == "Unschedulable", "{available}");
            Ok(())
        })?;
        let start = Instant::now();
        cluster.edit(correction)?;
        cluster.ready(LONG)?;
        let took = start.elapsed();
        has_formed_once(cluster)?;
        let writer = cluster.writer()?;
        let note = format!("Ready {:.0} s after the correction", took.as_secs_f64());
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}

pub(crate) fn forms_with_fewer(fixture: &Fixture) -> Result<Measurements> {
    corrected(fixture, &json!({"spec": {"replicas": 3}}))
}

pub(crate) fn forms_when_relaxed(fixture: &Fixture) -> Result<Measurements> {
    let relaxed = json!({"spec": {"scheduling": {"antiAffinity": "Preferred"}}});
    corrected(fixture, &relaxed)
}

pub(crate) fn hibernates(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster(
        "sleeps",
        spec(3, json!({"readReplicas": {"replicas": 1}})),
        |cluster| {
            let writer = cluster.writer()?;
            let start = Instant::now();
            cluster.edit(&json!({"spec": {"hibernated": true}}))?;
            cluster.until_condition("Hibernated", "True", None, LONG)?;
            let stopped = start.elapsed();
            until("no pod", LIMIT, || {
                let uids = cluster.uids()?;
                ensure!(uids.is_empty(), "{uids:?}");
                Ok(())
            })?;
            ensure!(
                cluster.claims()?.len() == 4,
                "claims are missing: {:?}",
                cluster.claims()?
            );
            let start = Instant::now();
            cluster.edit(&json!({"spec": {"hibernated": false}}))?;
            writer.await_progress(LIMIT)?;
            let woken = start.elapsed();
            let note = format!(
                "stopped after {:.1} s, writes {:.1} s after the wake-up",
                stopped.as_secs_f64(),
                woken.as_secs_f64()
            );
            Ok(cluster.verify_intact(writer)?.with_note(note))
        },
    )
}

/// Deletes the object; returns the time until pods, StatefulSet and object are gone.
pub(crate) fn delete(cluster: &Cluster<'_>) -> Result<Duration> {
    let start = Instant::now();
    let args = ["delete", "rqlitecluster", NAME, "--wait=false"];
    cluster.namespace.run(&args)?;
    until("the cluster to be gone", 2 * DELETION_GOAL, || {
        let args = [
            "get",
            "rqliteclusters,statefulsets,pods,services,configmaps",
            "-o",
            "name",
        ];
        let left = cluster.namespace.run(&args)?;
        let own = left
            .lines()
            .filter(|l| l.contains(NAME))
            .collect::<Vec<_>>();
        ensure!(own.is_empty(), "{own:?}");
        Ok(())
    })?;
    let took = start.elapsed();
    within("deletion", took, DELETION_GOAL)?;
    Ok(took)
}

fn claims_go(cluster: &Cluster<'_>) -> Result<()> {
    until("the claims to go", LIMIT, || {
        let claims = cluster.claims()?;
        ensure!(claims.is_empty(), "{} claims", claims.len());
        Ok(())
    })
}

pub(crate) fn is_deleted(fixture: &Fixture) -> Result<Measurements> {
    let retention = json!({"storage": {"size": "1Gi", "retention": {"whenDeleted": "Delete"}}});
    fixture.bare("goes", |cluster| {
        let mut times = Vec::new();
        for case in ["Delete", "leaderless", "protected", "paused, Retain"] {
            let more = if case.ends_with("Retain") {
                json!({})
            } else {
                retention.clone()
            };
            cluster.create(spec(3, more))?;
            cluster.ready(LIMIT)?;
            match case {
                "leaderless" => {
                    cluster.lose_disks(&["demo-1", "demo-2"])?;
                    cluster.until_condition("QuorumLost", "True", None, LIMIT)?;
                }
                "protected" => protected(cluster)?,
                "paused, Retain" => {
                    cluster.edit(&json!({"spec": {"paused": true}}))?;
                    cluster.until_condition("Paused", "True", None, LIMIT)?;
                }
                _ => {}
            }
            let took = delete(cluster).with_context(|| case.to_owned())?;
            times.push(format!("{case}: {:.0} s", took.as_secs_f64()));
            if case.ends_with("Retain") {
                ensure!(
                    cluster.claims()?.len() == 3,
                    "claims of a retained cluster are gone"
                );
            } else {
                claims_go(cluster)?;
            }
        }
        Ok(Measurements::default().with_note(times.join(", ")))
    })
}

/// The deletion of a protected cluster is refused until the protection is removed.
fn protected(cluster: &Cluster<'_>) -> Result<()> {
    cluster.edit(&json!({"spec": {"deletionProtection": true}}))?;
    cluster.ready(LIMIT)?;
    let pods = cluster.uids()?;
    let delete = ["delete", "rqlitecluster", NAME, "--wait=false"];
    protection::refused(cluster, &delete)?;
    ensure!(
        cluster.uids()? == pods,
        "pods of a protected cluster were touched"
    );
    cluster.edit(&json!({"spec": {"deletionProtection": false}}))
}

/// Number of rows in the writer's table.
fn rows(cluster: &Cluster<'_>) -> Result<u64> {
    let leader = cluster.leader()?;
    let path = "/db/query?level=linearizable&q=SELECT%20COUNT(*)%20FROM%20numbered";
    let answer: Value = serde_json::from_str(&cluster.ask(&leader, path, None)?)?;
    let count = answer["results"][0]["values"][0][0].as_u64();
    count.with_context(|| format!("no count: {answer}"))
}

pub(crate) fn is_recreated(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("again", spec(3, json!({})), |cluster| {
        let outcome = cluster.verify_intact(cluster.writer()?)?;
        let before = rows(cluster)?;
        let claims = cluster.claims()?;
        delete(cluster)?;
        cluster.create(spec(3, json!({})))?;
        let said = cluster.until("the foreign data to be reported", LIMIT, |object| {
            let degraded = condition(object, "Degraded");
            ensure!(degraded["reason"] == "ForeignData", "{degraded}");
            Ok(text(&degraded["message"]).to_owned())
        })?;
        // The message contains the value to write: (<cluster id>/<lineage id>/<epoch>).
        let theirs = said
            .split(['(', ')'])
            .nth(1)
            .context("no identity")?
            .to_owned();
        delete(cluster)?;
        let uids = |claims: Vec<Value>| -> Vec<String> {
            claims
                .iter()
                .map(|c| text(&c["metadata"]["uid"]).to_owned())
                .collect()
        };
        ensure!(
            uids(cluster.claims()?) == uids(claims),
            "claims were touched"
        );
        cluster.create_with(json!({"rqlite.dev/adopt": theirs}), spec(3, json!({})))?;
        cluster.ready(LIMIT)?;
        let after = rows(cluster)?;
        ensure!(before == after, "{before} rows before, {after} after");
        Ok(outcome.with_note(format!("{after} rows are back after adoption")))
    })
}
