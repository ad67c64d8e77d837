//! The archive as an origin: of a clone by the plugin at a time, and of the cluster itself after all its
//! volumes are lost.
use std::{process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::run, namespace::LIMIT};
use e2e_operator::product;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::{
    backups::{archived, await_archived, mark, rows_of, time_after},
    cluster::{Cluster, LONG, NAME},
    fixture::{Fixture, text},
    recovery::{await_phase, recover},
    report::Measurements,
};

/// Runs `kubectl rqlite` in the cluster's namespace.
fn plugin(cluster: &Cluster<'_>, args: &[&str]) -> Result<String> {
    let mut command = Command::new(product::built("kubectl-rqlite")?);
    command.env("KUBECONFIG", cluster.fixture.kubeconfig());
    command.args(args);
    run(command.args(["--namespace", &cluster.namespace.name]))
}

/// B4: `kubectl rqlite clone` at a time; the clone and its origin are two clusters.
pub(crate) fn by_the_plugin(fixture: &Fixture) -> Result<Measurements> {
    fixture.bare("cloned", |cluster| {
        archived(cluster)?;
        let writer = cluster.writer()?;
        writer.await_progress(LIMIT)?;
        let before = mark(cluster)?;
        let at = time_after(cluster)?;
        writer.await_progress(LIMIT)?;
        let after = mark(cluster)?;
        await_archived(cluster, after.index)?;
        let pods = cluster.uids()?;
        let began = Instant::now();
        let said = plugin(cluster, &["clone", NAME, "twin", "--to-time", &at])?;
        let twin = Cluster {
            name: "twin",
            ..*cluster
        };
        twin.ready(LONG)?;
        let took = began.elapsed();
        let rows = rows_of(&twin)?;
        let is_then = before.rows.is_subset(&rows) && rows.is_subset(&after.rows) && rows != after.rows;
        ensure!(is_then, "{} rows at {at}: {said}", rows.len());
        let ids = [cluster, &twin].map(|one| {
            let object = one.object()?;
            anyhow::Ok(text(&object["status"]["clusterId"]).to_owned())
        });
        let [own, of_twin] = ids;
        ensure!(own? != of_twin?, "the clone has the id of its origin");
        // It is a cluster of its own: what is written to it does not reach the origin.
        twin.execute(&twin.leader()?, "INSERT INTO numbered VALUES (1000000000)")?;
        ensure!(!rows_of(cluster)?.contains(&1_000_000_000), "the origin was written to");
        ensure!(cluster.uids()? == pods, "the origin's pods were replaced");
        let note = format!(
            "Ready {:.0} s after the command, with exactly the {} rows of {at}; the origin went on. Human steps: one",
            took.as_secs_f64(),
            rows.len()
        );
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}

/// The part of a text between two others.
fn between<'t>(said: &'t str, from: &str, to: &str) -> Result<&'t str> {
    let part = said
        .split_once(from)
        .and_then(|(_, rest)| rest.split_once(to));
    let (part, _) = part.with_context(|| format!("{from:?} … {to:?} is not in {said}"))?;
    Ok(part)
}

/// B6: all volumes are lost. What is lost is announced; one object brings the same cluster back.
pub(crate) fn after_all_volumes_are_lost(fixture: &Fixture) -> Result<Measurements> {
    fixture.bare("all-lost", |cluster| {
        archived(cluster)?;
        let writer = cluster.writer()?;
        let first = mark(cluster)?;
        await_archived(cluster, first.index)?;
        cluster.until_condition("Archiving", "True", Some("UpToDate"), LIMIT)?;
        writer.await_progress(LIMIT)?;
        let lost_at = Instant::now();
        cluster.lose_disks(&["demo-0", "demo-1", "demo-2"])?;
        let said = cluster.until_condition("QuorumLost", "True", Some("VotersLost"), LONG)?;
        for part in ["No survivor is left", "mode: FromArchive"] {
            ensure!(said.contains(part), "{part:?} is not in {said}");
        }
        let entries = between(&said, "at most ", " entries")?;
        let seconds = between(&said, " entries, the last ", " s ")?;
        let reached = between(&said, " reaches to index ", ")")?;
        let (_, reached) = reached.split_once(" (").context("no time")?;
        let reached: Timestamp = reached.parse().with_context(|| said.clone())?;
        // Nothing is acknowledged now: what was since the announced moment is the most that can be lost.
        let since = Timestamp::now().duration_since(reached).unsigned_abs();
        let bound = writer.report(Instant::now().checked_sub(since))?.acknowledged;
        let consent = Instant::now();
        let how = json!({"mode": "FromArchive", "acceptDataLoss": true});
        recover(cluster, "last-resort", &how)?;
        let ended = await_phase(cluster, "last-resort", &["Succeeded", "Failed", "Rejected"], LONG)?;
        ensure!(ended["status"]["phase"] == "Succeeded", "{}", ended["status"]);
        writer.await_progress(LONG)?;
        let back = consent.elapsed();
        let rows = rows_of(cluster)?;
        let missing: Vec<_> = first.rows.difference(&rows).collect();
        ensure!(missing.is_empty(), "archived rows are missing: {missing:?}");
        let note = format!(
            "announced: at most {entries} entries, the last {seconds} s, in which {bound} rows were acknowledged; service {:.0} s after the one object, {:.0} s after the loss. Human steps: one",
            back.as_secs_f64(),
            lost_at.elapsed().as_secs_f64()
        );
        let ended = cluster.verify_allowing_loss(writer)?;
        let lost = ended.check.lost;
        ensure!(lost <= bound, "{lost} rows are lost, at most {bound} were announced");
        Ok(Measurements::of(&ended).with_note(note))
    })
}
