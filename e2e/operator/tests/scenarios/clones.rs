//! New clusters from the archive of another one: by the plugin at a time, and after all volumes are lost.
use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{
    command::{run, until},
    namespace::LIMIT,
};
use e2e_operator::product;
use serde_json::json;

use crate::{
    backups::{archive, await_archived, mark, rows_of, time_after},
    cluster::{Cluster, LONG, NAME, spec},
    fixture::{Fixture, text},
    report::Measurements,
    store::Store,
};

/// Threads of the numbered writer.
const LANES: u64 = 4;

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
        let store = Store::start(cluster)?;
        cluster.create(spec(3, json!({"archive": archive(&store, "log")})))?;
        cluster.ready(LONG)?;
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

/// The number before a word in a text: `at most 7 entries`.
fn before(said: &str, word: &str) -> Result<u64> {
    let (head, _) = said
        .split_once(word)
        .with_context(|| format!("{word:?} is not in {said}"))?;
    let last = head.split_whitespace().next_back().unwrap_or_default();
    last.parse()
        .with_context(|| format!("no number before {word:?} in {said}"))
}

/// B6: all volumes are lost. What is lost is announced; one object brings service back.
pub(crate) fn after_all_volumes_are_lost(fixture: &Fixture) -> Result<Measurements> {
    fixture.bare("all-lost", |cluster| {
        let store = Store::start(cluster)?;
        cluster.create(spec(3, json!({"archive": archive(&store, "log")})))?;
        cluster.ready(LONG)?;
        let writer = cluster.writer()?;
        let first = mark(cluster)?;
        await_archived(cluster, first.index)?;
        cluster.until_condition("Archiving", "True", Some("UpToDate"), LIMIT)?;
        writer.await_progress(LIMIT)?;
        let lost_at = Instant::now();
        cluster.lose_disks(&["demo-0", "demo-1", "demo-2"])?;
        let said = cluster.until_condition("QuorumLost", "True", Some("VotersLost"), LONG)?;
        for part in ["No survivor is left", "entries", "kubectl rqlite clone demo demo-2"] {
            ensure!(said.contains(part), "{part:?} is not in {said}");
        }
        let (entries, seconds) = (before(&said, " entries")?, before(&said, " s (last seen").or_else(|_| before(&said, " s are lost"))?);
        let consent = Instant::now();
        plugin(cluster, &["clone", NAME, "demo-2"])?;
        let new = Cluster {
            name: "demo-2",
            ..*cluster
        };
        new.ready(LONG)?;
        let leader = new.leader()?;
        until("a write", LIMIT, || new.execute(&leader, "CREATE TABLE IF NOT EXISTS back(x)"))?;
        let back = consent.elapsed();
        let rows = rows_of(&new)?;
        let missing: Vec<_> = first.rows.difference(&rows).collect();
        ensure!(missing.is_empty(), "archived rows are missing: {missing:?}");
        let report = writer.report(None)?;
        let acknowledged = report.acknowledged;
        // Rows are numbered without holes but for those under way: what is there beyond the acknowledged ones
        // was never acknowledged.
        let lost = acknowledged.saturating_sub(rows.len() as u64);
        // What was acknowledged within the announced seconds before the loss, and a moment around it.
        let span = Duration::from_secs(seconds + 2) + lost_at.elapsed();
        let since = Instant::now().checked_sub(span);
        let recent = writer.report(since)?.acknowledged;
        ensure!(lost <= recent, "{lost} rows are lost, {recent} were written in the announced {seconds} s");
        let note = format!(
            "announced: at most {entries} entries, the last {seconds} s; lost {lost} acknowledged rows of {acknowledged} (bound {}); service {:.0} s after the one object, {:.0} s after the loss. Human steps: one",
            recent.max(entries * LANES),
            back.as_secs_f64(),
            lost_at.elapsed().as_secs_f64()
        );
        Ok(Measurements {
            acknowledged: Some(acknowledged),
            lost: Some(lost),
            ..Measurements::default()
        }
        .with_note(note))
    })
}
