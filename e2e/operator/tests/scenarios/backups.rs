//! Backups by a schedule, and new clusters that begin with one or with an archive at a time.
use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, open, spec},
    fixture::{Fixture, condition, text},
    report::Measurements,
    store::Store,
};

/// Four minutes of a schedule, and room.
const MINUTES: Duration = Duration::from_secs(420);
/// How many backups are kept.
const KEPT: usize = 2;

/// Creates an object of the project's API in the cluster's namespace.
pub(crate) fn create(cluster: &Cluster<'_>, kind: &str, name: &str, spec: &Value) -> Result<()> {
    let object = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    cluster.namespace.apply(&object.to_string())
}

/// One object of the project's API in the cluster's namespace.
pub(crate) fn object(cluster: &Cluster<'_>, plural: &str, name: &str) -> Result<Value> {
    let namespace = &cluster.namespace.name;
    let path = format!("/apis/rqlite.dev/v1alpha1/namespaces/{namespace}/{plural}");
    cluster.fixture.api.get(&path, name)
}

/// Waits until an object has one of these phases, and ends the wait if it has another final one.
pub(crate) fn await_phase(
    cluster: &Cluster<'_>,
    plural: &str,
    name: &str,
    phase: &str,
    limit: Duration,
) -> Result<Value> {
    let ended = until(&format!("{plural} {name} to be {phase}"), limit, || {
        let found = object(cluster, plural, name)?;
        let now = text(&found["status"]["phase"]);
        let is_final = ["Succeeded", "Failed", "Rejected"].contains(&now);
        ensure!(now == phase || is_final, "{}", found["status"]);
        Ok(found)
    })?;
    let status = &ended["status"];
    ensure!(status["phase"] == phase, "{name}: {status}");
    Ok(ended)
}

/// All backups of a schedule.
fn of_schedule(cluster: &Cluster<'_>, schedule: &str) -> Result<Vec<Value>> {
    let namespace = &cluster.namespace.name;
    let path = format!("/apis/rqlite.dev/v1alpha1/namespaces/{namespace}/rqlitebackups");
    let labels = format!("rqlite.dev/schedule={schedule}");
    cluster.fixture.api.list(&path, &labels)
}

/// Fetches every object of the bucket and compares it with the backup's record; returns rows of each.
fn check_all(store: &Store<'_, '_>, backups: &[Value]) -> Result<Vec<usize>> {
    let mut named = BTreeSet::new();
    let mut rows = Vec::new();
    for backup in backups {
        let status = &backup["status"];
        let name = format!("kept/{}", text(&status["object"]));
        let held = store.backup(&name).with_context(|| name.clone())?;
        ensure!(status["sha256"] == held.sha256.as_str(), "{name}: {status}");
        ensure!(status["integrity"] == "ok", "{name}: {status}");
        rows.push(held.rows.len());
        named.insert(name);
    }
    let there = store.names("kept/")?;
    ensure!(
        there == named,
        "in the bucket are {there:?}, on record {named:?}"
    );
    Ok(rows)
}

/// B1: one each minute, two are kept; what is not kept is gone from the bucket, too.
pub(crate) fn scheduled(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("scheduled", spec(3, json!({})), |cluster| {
        let store = Store::start(cluster)?;
        let writer = cluster.writer()?;
        let how = json!({"clusterRef": {"name": NAME}, "schedule": "* * * * *", "immediate": true,
            "retention": {"count": KEPT}, "target": store.target("kept")});
        create(cluster, "RqliteScheduledBackup", "often", &how)?;
        let mut made = BTreeSet::new();
        until("four backups by the schedule", MINUTES, || {
            for backup in of_schedule(cluster, "often")? {
                let status = &backup["status"];
                ensure!(status["phase"] != "Failed", "{status}");
                if status["phase"] == "Succeeded" {
                    made.insert(text(&backup["metadata"]["name"]).to_owned());
                }
            }
            ensure!(made.len() >= 4, "{made:?}");
            Ok(())
        })?;
        let off = json!({"spec": {"suspend": true}}).to_string();
        let args = ["patch", "rqlitescheduledbackup", "often", "--type=merge", "-p", &off];
        cluster.namespace.run(&args)?;
        let left = until("the newest two to be left", LONG, || {
            let left = of_schedule(cluster, "often")?;
            let are_done = left.iter().all(|one| one["status"]["phase"] == "Succeeded");
            ensure!(are_done && left.len() == KEPT, "{left:?}");
            Ok(left)
        })?;
        let rows = check_all(&store, &left)?;
        ensure!(rows.iter().all(|count| *count > 0), "{rows:?}");
        let schedule = object(cluster, "rqlitescheduledbackups", "often")?;
        let ready = condition(&schedule, "Ready");
        ensure!(ready["status"] == "True", "{ready}");
        // With the last backups their files go, too.
        cluster.namespace.run(&["delete", "rqlitebackups", "--all", "--timeout=120s"])?;
        let there = store.names("kept/")?;
        ensure!(there.is_empty(), "left in the bucket: {there:?}");
        let note = format!(
            "{} backups made, {KEPT} kept, with {rows:?} rows: each whole, with the recorded SHA-256; the others' files are gone from the bucket",
            made.len()
        );
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}

/// Rows of the numbered writer that an open cluster's node reads, and how many there are.
pub(crate) fn rows_of(cluster: &Cluster<'_>) -> Result<BTreeSet<u64>> {
    let body = json!(["SELECT n FROM numbered"]).to_string();
    let pod = cluster.leader()?;
    let said = cluster.ask(&pod, "/db/query?level=linearizable", Some(&body))?;
    let said: Value = serde_json::from_str(&said)?;
    let values = said["results"][0]["values"].as_array();
    let values = values.with_context(|| format!("no rows: {said}"))?;
    let number = |row: &Value| row[0].as_u64().context("no number");
    values.iter().map(number).collect()
}

/// A moment of the database: notes it in a table of its own, in one entry with a look at the rows.
pub(crate) struct Mark {
    /// The entry's index.
    pub(crate) index: u64,
    /// The numbered rows at that index.
    pub(crate) rows: BTreeSet<u64>,
}

/// Takes a mark.
pub(crate) fn mark(cluster: &Cluster<'_>) -> Result<Mark> {
    let pod = cluster.leader()?;
    cluster.execute(&pod, "CREATE TABLE IF NOT EXISTS marks(at TEXT)")?;
    let body = json!([
        "INSERT INTO marks VALUES (datetime('now'))",
        "SELECT n FROM numbered"
    ]);
    let said = cluster.ask(
        &pod,
        "/db/request?raft_index&transaction",
        Some(&body.to_string()),
    )?;
    let said: Value = serde_json::from_str(&said)?;
    let index = said["raft_index"].as_u64();
    let index = index.with_context(|| format!("no index: {said}"))?;
    let values = said["results"][1]["values"].as_array();
    let values = values.with_context(|| format!("no rows: {said}"))?;
    let rows = values.iter().filter_map(|row| row[0].as_u64()).collect();
    Ok(Mark { index, rows })
}

/// A cluster of three with an archive, Ready; and the archive's store.
pub(crate) fn archived<'c, 'n>(cluster: &'c Cluster<'n>) -> Result<Store<'c, 'n>> {
    let store = Store::start(cluster)?;
    cluster.create(spec(3, json!({"archive": archive(&store, "log")})))?;
    cluster.ready(LONG)?;
    Ok(store)
}

/// An archive in this store.
pub(crate) fn archive(store: &Store<'_, '_>, prefix: &str) -> Value {
    json!({"target": store.target(prefix), "every": "2s"})
}

/// Waits until the archive has this index.
pub(crate) fn await_archived(cluster: &Cluster<'_>, index: u64) -> Result<()> {
    until(&format!("index {index} to be archived"), LIMIT, || {
        let status = cluster.status_of(&cluster.leader()?)?;
        let archived = status["archive"]["archived_index"].as_u64();
        ensure!(archived >= Some(index), "{}", status["archive"]);
        Ok(())
    })
}

/// The time of the leader's database, as RFC 3339, to the second after now.
pub(crate) fn time_after(cluster: &Cluster<'_>) -> Result<String> {
    let sql = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
    let body = json!([sql]).to_string();
    let pod = cluster.leader()?;
    let said: Value = serde_json::from_str(&cluster.ask(&pod, "/db/request", Some(&body))?)?;
    let at = text(&said["results"][0]["values"][0][0]);
    ensure!(!at.is_empty(), "no time: {said}");
    Ok(at.to_owned())
}

/// A new cluster that begins with this; returns it once it is Ready, and how long that took in seconds.
pub(crate) fn begun<T>(
    cluster: &Cluster<'_>,
    name: &str,
    restore: &Value,
    look: impl FnOnce(&Cluster<'_>) -> Result<T>,
) -> Result<(T, f64)> {
    let start = std::time::Instant::now();
    let new = Cluster { name, ..*cluster };
    let mut of = spec(3, open());
    of["bootstrap"] = json!({"restore": restore});
    new.create(of)?;
    new.ready(LONG)?;
    let took = start.elapsed().as_secs_f64();
    Ok((look(&new)?, took))
}

/// B2: a new cluster from a backup, and others from the archive at a time and at an index.
pub(crate) fn bootstrapped(fixture: &Fixture) -> Result<Measurements> {
    fixture.bare("bootstrapped", |cluster| {
        let store = archived(cluster)?;
        let writer = cluster.writer()?;
        writer.await_progress(LIMIT)?;
        let before = mark(cluster)?;
        let at = time_after(cluster)?;
        let how = json!({"clusterRef": {"name": NAME}, "target": store.target("kept")});
        create(cluster, "RqliteBackup", "one", &how)?;
        let backup = await_phase(cluster, "rqlitebackups", "one", "Succeeded", LONG)?;
        let file = format!("kept/{}", text(&backup["status"]["object"]));
        let held = store.backup(&file)?.rows;
        ensure!(before.rows.is_subset(&held), "the backup lacks rows");
        writer.await_progress(LIMIT)?;
        let last = mark(cluster)?;
        await_archived(cluster, last.index)?;
        let from_backup = json!({"backup": {"name": "one"}});
        let (rows, by_backup) = begun(cluster, "first", &from_backup, rows_of)?;
        ensure!(rows == held, "{} rows, the backup has {}", rows.len(), held.len());
        // The last state at that time: the mark, and what was written until then.
        let to_time = json!({"archive": {"cluster": NAME, "toTime": at}});
        let (rows, by_time) = begun(cluster, "second", &to_time, rows_of)?;
        let is_then = before.rows.is_subset(&rows) && rows.is_subset(&last.rows) && rows != last.rows;
        ensure!(is_then, "{} rows at {at}", rows.len());
        let to_index = json!({"archive": {"cluster": NAME, "toIndex": last.index}});
        let (rows, by_index) = begun(cluster, "third", &to_index, rows_of)?;
        ensure!(rows == last.rows, "{} rows, {} at that index", rows.len(), last.rows.len());
        let note = format!(
            "three new clusters Ready with exactly the rows of the backup after {by_backup:.0} s, of a time after {by_time:.0} s, of an index after {by_index:.0} s"
        );
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}
