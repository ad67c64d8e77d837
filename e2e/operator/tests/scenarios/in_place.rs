//! A running cluster goes back to a point of its own past; and the archive while its store is away.
use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::namespace::LIMIT;
use serde_json::{Value, json};

use crate::{
    backups::{archived, await_archived, await_phase, create, mark, object, rows_of},
    cluster::{Cluster, LONG, NAME, QUIET},
    fixture::{Fixture, text},
    report::Measurements,
};

/// How long the store is away.
const AWAY: Duration = Duration::from_secs(120);
/// Threads of the numbered writer: so many writes may be under way at any moment.
const LANES: u64 = 4;

fn restore(cluster: &Cluster<'_>, name: &str, to: u64, dry_run: bool) -> Result<Value> {
    let mut how = json!({"clusterRef": {"name": NAME}, "toIndex": to, "dryRun": dry_run});
    if !dry_run {
        how["confirm"] = NAME.into();
    }
    create(cluster, "RqliteRestore", name, &how)?;
    await_phase(cluster, "rqliterestores", name, "Succeeded", LONG)
}

fn number(value: &Value, what: &str) -> Result<u64> {
    value.as_u64().with_context(|| format!("{what}: {value}"))
}

/// B3: announced, carried out under a writer, undone exactly what was announced, and taken back.
pub(crate) fn restored(fixture: &Fixture) -> Result<Measurements> {
    fixture.bare("in-place", |cluster| {
        archived(cluster)?;
        let writer = cluster.writer()?;
        writer.await_progress(LIMIT)?;
        let point = mark(cluster)?;
        await_archived(cluster, point.index)?;
        let pods = cluster.uids()?;
        let look = restore(cluster, "look", point.index, true)?["status"].clone();
        ensure!(look["index"] == point.index, "{look}");
        let announced = number(&look["undoneEntries"], "announced")?;
        ensure!(announced > 0 && look["safetyIndex"].is_null(), "{look}");
        let began = Instant::now();
        let done = restore(cluster, "back", point.index, false)?["status"].clone();
        let took = began.elapsed();
        writer.await_progress(LIMIT)?;
        let seen = writer.report(Some(began))?;
        let safety = number(&done["safetyIndex"], "safety")?;
        let undone = number(&done["undoneEntries"], "undone")?;
        ensure!(undone == safety - point.index && undone >= announced, "{done}, announced {announced}");
        let now = rows_of(cluster)?;
        let missing: Vec<_> = point.rows.difference(&now).collect();
        ensure!(missing.is_empty(), "rows of the point are missing: {missing:?}");
        ensure!(cluster.uids()? == pods, "pods were replaced");
        let ended = cluster.verify_allowing_loss(writer)?;
        let lost = ended.check.lost;
        // Taken back: the state just before. What it has beyond the point is what was undone.
        restore(cluster, "undo", safety, false)?;
        let before = rows_of(cluster)?;
        let between = before.difference(&point.rows).count() as u64;
        ensure!(point.rows.is_subset(&before), "the state before lacks rows");
        ensure!(
            lost <= between && between <= lost + LANES && between <= undone * LANES,
            "{lost} acknowledged rows are gone, {between} lay between, in {undone} entries"
        );
        cluster.ready(LONG)?;
        let note = format!(
            "announced {announced} entries, {} s; undone {undone} entries with {between} rows, {lost} of them acknowledged, exactly those after the point; done in {:.1} s, {} ms without writes; no pod restarted; taken back to the state before. Human steps: one",
            look["undoneSeconds"],
            took.as_secs_f64(),
            seen.longest_gap_ms
        );
        Ok(Measurements::of(&ended).with_note(note))
    })
}

/// B7: nobody reaches the store for two minutes. The database goes on, the archive catches up without a gap.
pub(crate) fn store_away(fixture: &Fixture) -> Result<Measurements> {
    fixture.bare("store-away", |cluster| {
        let store = archived(cluster)?;
        let writer = cluster.writer()?;
        let first = mark(cluster)?;
        await_archived(cluster, first.index)?;
        cluster.until_condition("Archiving", "True", Some("UpToDate"), LIMIT)?;
        let pods = cluster.uids()?;
        let gone = Instant::now();
        store.stop()?;
        thread::sleep(QUIET);
        let during = mark(cluster)?;
        let said = cluster.until_condition("Archiving", "False", Some("ArchiveFailing"), AWAY)?;
        ensure!(said.contains("objects"), "no word of the store: {said}");
        let behind = cluster.status_of(&cluster.leader()?)?["archive"].clone();
        ensure!(number(&behind["behind_entries"], "behind")? > 0, "{behind}");
        ensure!(behind["gap"].is_null(), "{behind}");
        thread::sleep(AWAY.saturating_sub(gone.elapsed()));
        let seen = writer.report(Some(gone))?;
        let away = gone.elapsed();
        store.resume()?;
        let back = Instant::now();
        let last = mark(cluster)?;
        await_archived(cluster, last.index)?;
        let caught_up = back.elapsed();
        cluster.until_condition("Archiving", "True", Some("UpToDate"), LIMIT)?;
        let status = cluster.status_of(&cluster.leader()?)?["archive"].clone();
        ensure!(status["gap"].is_null(), "{status}");
        ensure!(cluster.uids()? == pods, "pods were replaced");
        // A moment of the outage can be restored, and every object is whole.
        let look = restore(cluster, "look", during.index, true)?;
        ensure!(look["status"]["index"] == during.index, "{}", look["status"]);
        let args = ["archive", "verify", "-config", "/config/config.json", "--full"];
        store.command("verify", "log", &args)?;
        drop(object(cluster, "rqliterestores", "look")?);
        let note = format!(
            "away for {:.0} s: {} ms without writes meanwhile, \"{}\"; caught up {:.1} s after it was back, no gap, a moment of the outage can be restored",
            away.as_secs_f64(),
            seen.longest_gap_ms,
            text(&said.as_str().into()).chars().take(120).collect::<String>(),
            caught_up.as_secs_f64()
        );
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}
