//! RqliteScheduledBackup: when, in which zone, which are kept, what is refused.
use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    operator_fixture::condition,
    simulated::{LIMIT, Simulated, refused},
};
use serde_json::{Value, json};

use crate::{CONTAINER, good, job, spec};

const KIND: &str = "rqlitescheduledbackup";

fn schedule(when: &str, more: &Value) -> Value {
    let mut spec = spec(more);
    spec["schedule"] = when.into();
    spec
}

fn make(place: &Simulated, name: &str, when: &str, more: &Value) -> Result<Value> {
    place.make("RqliteScheduledBackup", name, &schedule(when, more))
}

/// Names of the backups of a schedule.
fn backups(place: &Simulated, schedule: &str) -> Result<Vec<String>> {
    let all = place.list("rqlitebackups", &format!("rqlite.dev/schedule={schedule}"))?;
    let name = |backup: &Value| backup["metadata"]["name"].as_str().map(str::to_owned);
    Ok(all.iter().filter_map(name).collect())
}

/// Waits until a schedule has this many backups.
fn await_backups(place: &Simulated, schedule: &str, count: usize) -> Result<Vec<String>> {
    until(&format!("{count} backups of {schedule}"), LIMIT, || {
        let made = backups(place, schedule)?;
        let status = place.get(KIND, schedule)?["status"].clone();
        ensure!(made.len() == count, "{made:?} {status}");
        Ok(made)
    })
}

/// Begins one that is due each minute; it is looked at in [`run`].
pub(crate) fn begin(place: &Simulated) -> Result<String> {
    make(place, "minutely", "* * * * *", &json!({}))?;
    Ok("minutely".to_owned())
}

/// What the API server refuses, and what only the operator can know.
fn mistakes(place: &Simulated) -> Result<()> {
    for when in ["every day", "* * * *", "* * * * * *", "@often", ""] {
        let made = make(place, "wrong", when, &json!({}));
        refused(made, &["spec.schedule"]).context(when)?;
    }
    let long = "a-name-that-is-too-long-for-the-jobs-of-it";
    let made = make(place, long, "@daily", &json!({}));
    refused(made, &["at most 37 characters"])?;
    let none = json!({"retention": {}});
    refused(make(place, "wrong", "@daily", &none), &["give count, age"])?;
    let cases = [
        ("hour", "0 25 * * *", json!({}), "25"),
        ("never", "0 0 31 2 *", json!({}), "31"),
        (
            "zone",
            "@daily",
            json!({"timeZone": "Mars/Phobos"}),
            "Mars/Phobos",
        ),
    ];
    for (name, when, more, _) in &cases {
        make(place, name, when, more)?;
    }
    for (name, _, _, part) in &cases {
        let said = place.until(KIND, name, |object| {
            let ready = condition(object, "Ready");
            let is = ready["status"] == "False" && ready["reason"] == "InvalidSchedule";
            ensure!(is, "{ready}");
            Ok(ready["message"].as_str().unwrap_or_default().to_owned())
        })?;
        ensure!(said.contains(part), "{name}: {said}");
        place.await_event(name, "InvalidSchedule", part)?;
    }
    // Corrected, it is carried out.
    place.patch(
        KIND,
        "zone",
        &json!({"spec": {"timeZone": "Asia/Kathmandu", "schedule": "30 12 * * *"}}),
    )?;
    place.until(KIND, "zone", |object| {
        // 5 hours and 45 minutes before UTC.
        let next = object["status"]["nextScheduleTime"].as_str();
        ensure!(
            next.is_some_and(|at| at.ends_with("T06:45:00Z")),
            "{}",
            object["status"]
        );
        let ready = condition(object, "Ready");
        ensure!(ready["reason"] == "NoBackupYet", "{ready}");
        Ok(())
    })?;
    let other = json!({"spec": {"clusterRef": {"name": "other"}}});
    refused(
        place.patch(KIND, "zone", &other),
        &["clusterRef cannot be changed"],
    )
    .map(drop)
}

/// A cluster that does not exist: no backup will ever be made.
fn without_a_cluster(place: &Simulated) -> Result<()> {
    let nowhere = json!({"clusterRef": {"name": "nowhere"}});
    make(place, "lost", "@daily", &nowhere)?;
    place.until(KIND, "lost", |object| {
        let ready = condition(object, "Ready");
        let is = ready["status"] == "False" && ready["reason"] == "ClusterMissing";
        ensure!(is, "{ready}");
        Ok(())
    })?;
    place.await_event("lost", "ClusterMissing", "no RqliteCluster nowhere")
}

/// The first backup at once, with its fields.
fn at_once(place: &Simulated) -> Result<()> {
    make(
        place,
        "first",
        "@yearly",
        &json!({"immediate": true, "vacuum": true, "retries": 1}),
    )?;
    let made = await_backups(place, "first", 1)?;
    let backup = place.get("rqlitebackup", &made[0])?;
    let asked = &backup["spec"];
    let is = asked["vacuum"] == true
        && asked["retries"] == 1
        && asked["deletionPolicy"] == "Delete"
        && asked["clusterRef"]["name"] == "shop"
        && asked["target"] == crate::target();
    ensure!(is, "{asked}");
    place.end_job_pod(&job(&made[0]), CONTAINER, &good(), true)?;
    place.until(KIND, "first", |object| {
        let status = &object["status"];
        let is = status["lastBackup"] == made[0].as_str()
            && status["kept"] == 1
            && status["lastSuccessfulTime"].is_string()
            && status["active"].is_null();
        ensure!(is, "{status}");
        let ready = condition(object, "Ready");
        ensure!(ready["status"] == "True", "{ready}");
        Ok(())
    })?;
    // The schedule goes, what it has made stays.
    place.run(&["delete", KIND, "first"])?;
    place.await_gone(KIND, "first")?;
    place
        .await_phase("rqlitebackup", &made[0], "Succeeded", &[])
        .map(drop)
}

/// Suspended: nothing is made, and nothing is announced.
fn suspended(place: &Simulated) -> Result<()> {
    make(
        place,
        "paused",
        "* * * * *",
        &json!({"immediate": true, "suspend": true}),
    )?;
    place.until(KIND, "paused", |object| {
        let status = &object["status"];
        ensure!(status["observedGeneration"] == 1, "{status}");
        ensure!(status["nextScheduleTime"].is_null(), "{status}");
        Ok(())
    })?;
    ensure!(backups(place, "paused")?.is_empty(), "a backup was made");
    Ok(())
}

/// A successful backup of a schedule as it would be after some days.
fn older(place: &Simulated, schedule: &Value, name: &str, completed: &str) -> Result<()> {
    let owner = &schedule["metadata"];
    let object = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteBackup", "metadata": {"name": name, "labels":
        {"rqlite.dev/schedule": owner["name"], "rqlite.dev/schedule-uid": owner["uid"]}}, "spec": spec(&json!({}))});
    place.send("create", &object)?;
    let status = json!({"phase": "Succeeded", "completedAt": completed});
    until("the status to be written", LIMIT, || {
        place.patch_status("rqlitebackup", name, &status)
    })?;
    Ok(())
}

/// Two are kept, the newest ones; what is not the schedule's is never deleted.
fn retention(place: &Simulated) -> Result<()> {
    let keep = json!({"retention": {"count": 2}, "suspend": true});
    let made = make(place, "rule", "@daily", &keep)?;
    for day in 1..=4 {
        let name = format!("rule-2026010{day}000000");
        older(place, &made, &name, &format!("2026-01-0{day}T00:00:00Z"))?;
    }
    // Its labels, but a name that no schedule gives; its name, but not its labels; another schedule's uid.
    older(place, &made, "rule-precious", "2025-01-01T00:00:00Z")?;
    let mut another = made.clone();
    another["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    older(
        place,
        &another,
        "rule-20250101000000",
        "2025-01-01T00:00:00Z",
    )?;
    place.await_gone("rqlitebackup", "rule-20260101000000")?;
    place.await_gone("rqlitebackup", "rule-20260102000000")?;
    let mut left = backups(place, "rule")?;
    left.sort();
    let expected = [
        "rule-20250101000000",
        "rule-20260103000000",
        "rule-20260104000000",
        "rule-precious",
    ];
    ensure!(left == expected, "{left:?}");
    place.until(KIND, "rule", |object| {
        ensure!(object["status"]["kept"] == 2, "{}", object["status"]);
        Ok(())
    })
}

/// One that is due each minute: its backup is made, and a second one is left out while the first runs.
fn minutely(place: &Simulated, name: &str) -> Result<()> {
    until("two minutes to be dealt with", LIMIT * 2, || {
        let object = place.get(KIND, name)?;
        let message = object["status"]["message"].as_str().unwrap_or_default();
        let is = message.contains("was left out") && message.contains("concurrencyPolicy Forbid");
        ensure!(is, "{}", object["status"]);
        Ok(())
    })?;
    let made = backups(place, name)?;
    ensure!(made.len() == 1 && made[0].ends_with("00"), "{made:?}");
    place.await_event(name, "BackupCreated", &made[0])?;
    let active = place.get(KIND, name)?["status"]["active"].clone();
    ensure!(active == json!(made), "{active}");
    // It ends: the next minute's is made.
    place.end_job_pod(&job(&made[0]), CONTAINER, &good(), true)?;
    await_backups(place, name, 2)?;
    place.run(&["delete", KIND, name]).map(drop)
}

pub(crate) fn run(place: &Simulated, begun: String) -> Result<()> {
    mistakes(place).context("mistakes")?;
    without_a_cluster(place).context("without a cluster")?;
    at_once(place).context("immediate")?;
    suspended(place).context("suspend")?;
    retention(place).context("retention")?;
    minutely(place, &begun).context("each minute")
}
