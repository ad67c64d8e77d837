//! The archive restored in a pod again and again, and what is said once it cannot be.
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::namespace::LIMIT;
use serde_json::json;

use crate::{
    backups::{archive, await_archived, mark},
    cluster::{LONG, spec},
    fixture::{Fixture, condition, text},
    report::Measurements,
    store::Store,
};

/// Two times of a schedule of minutes, and room.
const DRILLS: Duration = Duration::from_secs(300);

/// B5: a drill proves the archive; then an object of it is damaged, and the next one says so.
pub(crate) fn proven_then_damaged(fixture: &Fixture) -> Result<Measurements> {
    fixture.bare("drilled", |cluster| {
        let store = Store::start(cluster)?;
        let mut of = archive(&store, "log");
        of["drill"] = json!({"schedule": "* * * * *"});
        cluster.create(spec(3, json!({"archive": of})))?;
        cluster.ready(LONG)?;
        let writer = cluster.writer()?;
        let first = mark(cluster)?;
        await_archived(cluster, first.index)?;
        let pods = cluster.uids()?;
        let began = Instant::now();
        let proven = cluster.until_condition("BackupsProven", "True", None, DRILLS)?;
        let proven_after = began.elapsed();
        let drill = cluster.object()?["status"]["archive"]["drill"].clone();
        let index = drill["provenIndex"].as_u64();
        let index = index.with_context(|| format!("no index: {drill}"))?;
        ensure!(drill["provenAt"].is_string(), "{drill}");
        // The oldest segment: every restore of what came after the first base needs it.
        let names = store.names("log/")?;
        let segments: BTreeSet<_> = names.iter().filter(|name| name.contains("/segments/")).collect();
        let damaged = segments.first().with_context(|| format!("no segment: {names:?}"))?;
        store.damage(damaged)?;
        let harmed = Instant::now();
        let said = cluster.until_condition("BackupsProven", "False", None, DRILLS)?;
        let file = damaged.rsplit('/').next().unwrap_or_default();
        ensure!(said.contains(file), "{file} is not named: {said}");
        let reported_after = harmed.elapsed();
        ensure!(cluster.uids()? == pods, "pods were replaced");
        let object = cluster.object()?;
        let archiving = condition(&object, "Archiving");
        ensure!(archiving["status"] == "True", "{archiving}");
        writer.await_progress(LIMIT)?;
        let note = format!(
            "index {index} proven {:.0} s after the first write ({}); {:.0} s after an object was damaged: \"{}\"",
            proven_after.as_secs_f64(),
            proven.chars().take(80).collect::<String>(),
            reported_after.as_secs_f64(),
            text(&said.as_str().into()).chars().take(160).collect::<String>()
        );
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}
