//! A large database: scaled, rolled, a member replaced, and recovered from two lost volumes, under a writer.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, spec},
    fixture::{Fixture, text},
    recovery::{await_phase, recover},
    report::Measurements,
};

/// Limit for whatever copies or checks the whole database.
const COPY_LIMIT: Duration = Duration::from_secs(1800);
/// Rows of one statement, 1 MiB each: well below what a statement may write.
const ROWS: u64 = 16;
/// Limit of one statement.
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// Size of the database in GiB: `BIG_GB`, or 10.
fn gibibytes() -> u64 {
    let given = std::env::var("BIG_GB").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// Executes one statement through the clients' Service.
fn execute(cluster: &Cluster<'_>, sql: &str) -> Result<Value> {
    let reply = cluster.login()?.server(&cluster.address()?)?.request(
        "/db/request?timeout=50s",
        Some(&json!([sql]).to_string()),
        STATEMENT_LIMIT,
    )?;
    let result: Value = serde_json::from_slice(&reply)?;
    let first = &result["results"][0];
    ensure!(
        first.is_object() && first["error"].is_null(),
        "{sql}: {result}"
    );
    Ok(first.clone())
}

fn fill(cluster: &Cluster<'_>) -> Result<()> {
    until("the table", LONG, || {
        execute(
            cluster,
            "CREATE TABLE IF NOT EXISTS big(id INTEGER PRIMARY KEY, bytes BLOB)",
        )
    })?;
    let wanted = gibibytes() * 1024;
    let mut rows = 0;
    while rows < wanted {
        // Ids make a repetition after a lost reply harmless.
        let sql = format!(
            "INSERT OR IGNORE INTO big WITH RECURSIVE n(i) AS (SELECT {rows} UNION ALL SELECT i+1 FROM n WHERE i+1<{}) \
             SELECT i, zeroblob(1048000) FROM n",
            rows + ROWS
        );
        until("a batch of rows", LONG, || execute(cluster, &sql))?;
        rows += ROWS;
    }
    until("all rows", LONG, || {
        let count = execute(cluster, "SELECT count(*) FROM big")?;
        ensure!(count["values"][0][0] == wanted, "{count}");
        Ok(())
    })
}

/// Largest peak of resident memory among the nodes' processes, in MiB. They are visible here only where the
/// cluster runs on this machine; otherwise 0.
fn peak_memory() -> u64 {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let peak = |path: std::path::PathBuf| {
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        (name.trim() == "rqlited").then_some(kibibytes >> 10)
    };
    processes
        .filter_map(|entry| peak(entry.path()))
        .max()
        .unwrap_or(0)
}

/// Runs every change that copies or checks the database.
#[expect(clippy::too_many_lines, reason = "one story, step by step")]
pub(crate) fn everything(fixture: &Fixture) -> Result<Measurements> {
    let size = format!("{}Gi", 4 * gibibytes() + 1);
    fixture.cluster(
        "large",
        spec(3, json!({"storage": {"size": size}})),
        |cluster| {
            let mut notes = Vec::new();
            let mut timed = |what: &str, work: &mut dyn FnMut() -> Result<()>| {
                let start = Instant::now();
                work().with_context(|| what.to_owned())?;
                let note = format!("{what} {:.0} s", start.elapsed().as_secs_f64());
                println!("{note}");
                notes.push(note);
                anyhow::Ok(())
            };
            timed("filled", &mut || fill(cluster))?;
            let writer = cluster.writer()?;
            timed("3→5", &mut || {
                cluster.scale(5)?;
                cluster.ready(COPY_LIMIT)
            })?;
            timed("5→3", &mut || {
                cluster.scale(3)?;
                cluster.ready(COPY_LIMIT)
            })?;
            timed("rolled", &mut || {
                cluster.edit(
                    &json!({"metadata": {"annotations": {"rqlite.dev/restarted-at": "1"}}}),
                )?;
                cluster.until_condition("Ready", "False", None, LIMIT)?;
                cluster.ready(COPY_LIMIT)
            })?;
            timed("a member replaced", &mut || {
                let lost = cluster.follower()?;
                cluster.lose_disks(&[&lost])?;
                cluster.until_condition("Ready", "False", None, LIMIT)?;
                cluster.ready(COPY_LIMIT)
            })?;
            // Nobody writes while the volumes are lost, so that the survivor has everything.
            let before = cluster.verify_rows(writer)?;
            let survivor = cluster.leader()?;
            let others: Vec<String> = cluster
                .voters()?
                .into_iter()
                .map(|pod| pod.name)
                .filter(|name| *name != survivor)
                .collect();
            let others: Vec<&str> = others.iter().map(String::as_str).collect();
            cluster.lose_disks(&others)?;
            cluster.until_condition("QuorumLost", "True", Some("VotersLost"), LONG)?;
            timed("recovered, service", &mut || {
                recover(cluster, "go", &json!({"acceptDataLoss": true}))?;
                until("the first write", COPY_LIMIT, || {
                    execute(cluster, "CREATE TABLE IF NOT EXISTS after(x)").map(drop)
                })
            })?;
            timed("recovered, Ready", &mut || {
                await_phase(cluster, "go", &["Succeeded"], COPY_LIMIT)?;
                cluster.ready(COPY_LIMIT)
            })?;
            let count = until("a count of the rows", LONG, || {
                execute(cluster, "SELECT count(*), sum(length(bytes)) FROM big")
            })?;
            ensure!(
                count["values"][0][0] == gibibytes() * 1024,
                "{count} in {NAME}"
            );
            let leader = text(&cluster.object()?["status"]["leader"]).to_owned();
            notes.push(format!(
                "{} GiB, leader {leader}, peak memory {} MiB",
                gibibytes(),
                peak_memory()
            ));
            Ok(before.with_note(notes.join(", ")))
        },
    )
}
