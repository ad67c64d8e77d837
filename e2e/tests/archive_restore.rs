//! A running cluster is taken back to a point of its past by one request, while clients write: announced
//! first, never without the cluster's name, the same on every node, and undone in the same way.
use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    archive::{self, Archive, content, ensure_equal, strong_index},
    client::Client,
    cluster::{Cluster, SETTLE_LIMIT},
    membership::cluster_id,
    seed::Seed,
    servers::{Tool, present},
    wait,
};
use rusqlite::Connection;
use serde_json::{Value, json};

// Only a part of it is used here.
#[allow(dead_code)]
#[path = "point_in_time/notes.rs"]
mod notes;

use notes::{Note, Outcome, TABLES, note_writes};

/// How long a restore of a small database may take.
const RESTORE_LIMIT: Duration = Duration::from_secs(60);

struct Trial {
    archive: Archive,
    cluster: Cluster,
    id: String,
    /// The point to which the cluster is taken back, and its content.
    point: u64,
    at_point: String,
}

impl Trial {
    fn begin() -> Result<Self> {
        let config = json!({"every": "300ms", "base_interval": "4s"});
        let archive = Archive::in_s3(&config)?;
        let flags = archive.flags();
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        flags.push("-raft-snap=200");
        let mut cluster = Cluster::start_with(3, &flags)?;
        let leader = cluster.leader()?;
        let mut client = cluster.client(leader);
        for sql in TABLES {
            client.execute(sql, &[])?;
        }
        // The first base comes when it comes; nothing before it can be restored.
        archive::await_archived(&mut cluster)?;
        let at_point = live(&archive, &cluster, leader)?;
        Ok(Self {
            point: strong_index(&mut client)?,
            id: cluster_id(&cluster[leader])?,
            at_point,
            archive,
            cluster,
        })
    }

    fn leader(&mut self) -> Result<Client> {
        let leader = self.cluster.leader()?;
        Ok(self.cluster.client(leader))
    }

    /// Status and body of a request for a restore.
    fn ask(&mut self, body: &Value) -> Result<(u16, Value)> {
        let reply = self.leader()?.post("/archive/restore", &body.to_string())?;
        Ok((reply.status, reply.json()))
    }

    /// A restore from its beginning to its end; returns the last state, and what was seen on the way.
    fn restore(&mut self, index: u64) -> Result<(Value, BTreeSet<String>)> {
        let body = json!({"to_index": index, "confirm": self.id, "id": format!("to-{index}")});
        let (status, state) = self.ask(&body)?;
        ensure!(status == 200, "{status} {state}");
        // The same request again is the same restore.
        let (status, again) = self.ask(&body)?;
        ensure!(
            status == 200 && again["started"] == state["started"],
            "{again}"
        );
        let mut client = self.leader()?;
        let mut seen = BTreeSet::new();
        let last = wait::until("the end of the restore", RESTORE_LIMIT, || {
            let state = client
                .get_json("/archive/restore")
                .map_err(|e| e.to_string())?;
            seen.insert(format!("{}: {}", state["state"], state["message"]));
            if state["state"] == "running" {
                return Err(state.to_string());
            }
            Ok(state)
        })?;
        println!("{seen:#?}\n{last:#}");
        ensure!(last["state"] == "done" && last["percent"] == 100, "{last}");
        ensure!(seen.len() > 1, "no progress was seen: {seen:?}");
        Ok((last, seen))
    }

    /// What is refused, and looking without touching.
    fn refusals(&mut self) -> Result<()> {
        let point = self.point;
        for (body, want) in [
            (json!({"to_index": point}), self.id.clone()),
            (
                json!({"to_index": point, "confirm": "another"}),
                "nothing was changed".to_owned(),
            ),
            (json!({"confirm": self.id}), "is missing".to_owned()),
            (
                json!({"to_index": point, "to_time": "2026-01-01T00:00:00Z", "dry_run": true}),
                "not both".to_owned(),
            ),
            (
                json!({"to_time": "yesterday", "dry_run": true}),
                "to_time".to_owned(),
            ),
            (
                json!({"to_indx": 4, "confirm": self.id}),
                "to_indx".to_owned(),
            ),
        ] {
            let (status, state) = self.ask(&body)?;
            ensure!(
                status == 400 && state["message"].to_string().contains(&want),
                "{body}: {status} {state}"
            );
        }
        for body in [
            json!({"to_index": 1_000_000_000, "dry_run": true}),
            json!({"to_time": "2001-01-01T00:00:00Z", "dry_run": true}),
            json!({"to_index": point, "dry_run": true, "lineage": "unknown"}),
        ] {
            let (status, state) = self.ask(&body)?;
            ensure!(
                status == 200 && state["state"] == "failed" && state["message"] != "",
                "{body}: {status} {state}"
            );
            println!("{body}: {}", state["message"]);
        }
        let (status, state) = self.ask(&json!({"to_index": point, "dry_run": true}))?;
        ensure!(
            status == 200 && state["state"] == "done" && state["index"] == point,
            "{status} {state}"
        );
        ensure!(state["undone_entries"].as_u64() > Some(10), "{state}");
        println!("dry run: {state}");
        let follower = self.cluster.follower()?;
        let reply = self
            .cluster
            .client(follower)
            .post("/archive/restore", "{}")?;
        ensure!(
            reply.status == 307,
            "a follower: {} {}",
            reply.status,
            reply.text()
        );
        Ok(())
    }
}

fn live(archive: &Archive, cluster: &Cluster, node: usize) -> Result<String> {
    content(&archive::live(
        cluster,
        node,
        &archive.scratch().join("live.sqlite"),
    )?)
}

/// Rows of the numbered writers.
fn rows(database: &Connection) -> Result<BTreeSet<(u64, u64)>> {
    let mut statement = database.prepare("SELECT writer, number FROM numbered")?;
    let rows = statement.query_map([], |row| {
        Ok((
            u64::from(row.get::<_, u32>(0)?),
            u64::from(row.get::<_, u32>(1)?),
        ))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Exactly these of the acknowledged writes are there.
fn ensure_rows(
    what: &str,
    notes: &[Note],
    database: &Connection,
    expected: impl Fn(u64) -> bool,
) -> Result<usize> {
    let found = rows(database)?;
    let mut count = 0;
    for note in notes {
        let Outcome::At(index) = note.outcome else {
            continue;
        };
        let is_there = found.contains(&(note.writer, note.number));
        count += usize::from(is_there);
        ensure!(
            is_there == expected(index),
            "{what}: {is_there}, but {note:?}"
        );
    }
    println!("{what}: {count} of {} writes", notes.len());
    Ok(count)
}

/// Restores while others write; returns their notes and the last state.
fn under_writers(trial: &mut Trial) -> Result<(Vec<Note>, Value)> {
    let addrs: Vec<String> = trial.cluster.iter().map(|node| node.http.clone()).collect();
    let stop = AtomicBool::new(false);
    let mut seed = Seed::new(Seed::arbitrary());
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| (writer, seed.fork()))
            .map(|(writer, seed)| {
                let (addrs, stop) = (&addrs, &stop);
                scope.spawn(move || note_writes(addrs, writer, 0, seed, stop))
            })
            .collect();
        let acted = (|| {
            let mut client = trial.leader()?;
            let first = trial.point + 60;
            wait::until("writes", SETTLE_LIMIT, || match strong_index(&mut client) {
                Ok(index) if index > first => Ok(()),
                other => Err(format!("{other:?}")),
            })?;
            trial.refusals()?;
            let (last, _) = trial.restore(trial.point)?;
            let after = last["restored_at_index"].as_u64().context("no index")? + 40;
            wait::until("writes after it", SETTLE_LIMIT, || {
                match strong_index(&mut client) {
                    Ok(index) if index > after => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })?;
            Ok(last)
        })();
        stop.store(true, Ordering::Release);
        let notes = writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap_or_default());
        let notes: Vec<Note> = notes.collect();
        acted.map(|last| (notes, last))
    })
}

#[test]
fn a_running_cluster_goes_back_and_forth_under_writers() -> Result<()> {
    if !present(&[Tool::VersityGw])? {
        return Ok(());
    }
    let mut trial = Trial::begin()?;
    let (notes, last) = under_writers(&mut trial)?;
    let at = last["restored_at_index"].as_u64().context("no index")?;
    let safety = last["safety_index"].as_u64().context("no safety index")?;
    ensure!(safety + 1 == at, "{last}");
    // What clients wrote until the end counts, too.
    ensure!(last["undone_entries"] == safety - trial.point, "{last}");

    // All nodes have the same: the old point, and what was written after the restore.
    trial.cluster.agreed_dump()?;
    let file = trial.archive.scratch().join("after.sqlite");
    let leader = trial.cluster.leader()?;
    let database = archive::live(&trial.cluster, leader, &file)?;
    let after = ensure_rows("in the cluster", &notes, &database, |index| index > at)?;
    ensure!(after > 5, "hardly any writes after it");

    // What was replaced is safe, and the archive has gone on.
    let status = archive::await_archived(&mut trial.cluster)?;
    ensure!(status["gap"].is_null(), "a gap: {status}");
    let text = safety.to_string();
    let replaced = trial.archive.restore(&["-to-index", &text])?;
    let before = ensure_rows("before it", &notes, &replaced.open()?, |index| {
        index <= safety
    })?;
    ensure!(before > 20, "hardly any writes before it");
    for (words, expected) in [
        (
            vec!["-to-index".to_owned(), trial.point.to_string()],
            &trial.at_point,
        ),
        (
            vec!["-to-index".to_owned(), at.to_string()],
            &trial.at_point,
        ),
        (vec![], &content(&database)?),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let restored = trial.archive.restore(&words)?;
        let found = content(&restored.open()?)?;
        ensure_equal(&format!("{words:?}"), expected, &found)?;
    }

    // A snapshot and a restart of all change nothing.
    for node in trial.cluster.iter() {
        let reply = node.client().post("/snapshot", "")?;
        ensure!(matches!(reply.status, 200 | 204), "{}", reply.text());
    }
    trial.cluster.crash_all()?;
    trial.cluster.agreed_dump()?;
    let leader = trial.cluster.leader()?;
    let restarted = live(&trial.archive, &trial.cluster, leader)?;
    ensure_equal("after a restart", &content(&database)?, &restarted)?;

    // And back again: what the restore undid is here, without what came after it.
    archive::await_archived(&mut trial.cluster)?;
    trial.restore(safety)?;
    trial.cluster.agreed_dump()?;
    let leader = trial.cluster.leader()?;
    let back = live(&trial.archive, &trial.cluster, leader)?;
    ensure_equal("back again", &content(&replaced.open()?)?, &back)?;
    archive::await_archived(&mut trial.cluster)?;
    trial.archive.verify(true)?;
    left_nothing(&trial.cluster)?;
    trial.cluster.check_no_panic()
}

/// No scratch file of a restore is left in a data directory.
fn left_nothing(cluster: &Cluster) -> Result<()> {
    for node in cluster.iter() {
        let mut names = Vec::new();
        for dir in [
            node.data.clone(),
            node.data.join("raft"),
            node.data.join("state"),
        ] {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        let left: Vec<_> = names
            .iter()
            .filter(|name| name.contains("restore"))
            .collect();
        ensure!(
            left.is_empty(),
            "left at node {}: {left:?} of {names:?}",
            node.name
        );
    }
    Ok(())
}

/// A client cancels while the restored file is loaded: what the state says then is what the database holds.
#[test]
fn a_cancelled_restore_says_what_is_true() -> Result<()> {
    let archive = Archive::in_folder(&json!({"every": "200ms"}))?;
    let flags = archive.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut cluster = Cluster::start_with(1, &flags)?;
    let id = cluster_id(&cluster[0])?;
    let mut client = cluster.client(0);
    client.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, filler BLOB)", &[])?;
    archive::await_archived(&mut cluster)?;
    let point = strong_index(&mut client)?;
    let mut ends = BTreeSet::new();
    for round in 0..12 {
        client.execute("INSERT INTO t (filler) VALUES (randomblob(100000))", &[])?;
        let before = live(&archive, &cluster, 0)?;
        let body = json!({"to_index": point, "confirm": id, "id": format!("round-{round}")});
        let reply = client.post("/archive/restore", &body.to_string())?;
        ensure!(reply.status == 200, "{}", reply.text());
        let state = || -> Result<Value> { cluster.client(0).get_json("/archive/restore") };
        let is_over = |state: &Value| state["state"] != "running";
        wait::until("the load", RESTORE_LIMIT, || {
            let state = state().map_err(|e| e.to_string())?;
            let loads = state["message"].to_string().contains("loading");
            if loads || is_over(&state) {
                Ok(())
            } else {
                Err(state.to_string())
            }
        })?;
        client.send("DELETE", "/archive/restore", &[], b"")?;
        let last = wait::until("the end", RESTORE_LIMIT, || {
            let state = state().map_err(|e| e.to_string())?;
            if is_over(&state) {
                Ok(state)
            } else {
                Err(state.to_string())
            }
        })?;
        let now = live(&archive, &cluster, 0)?;
        let is_replaced = now != before;
        let expected = match last["state"].as_str() {
            Some("done") => true,
            Some("failed") => false,
            _ => is_replaced,
        };
        ensure!(
            is_replaced == expected,
            "round {round}: replaced: {is_replaced}, but {last}"
        );
        ends.insert(last["state"].to_string());
    }
    println!("{ends:?}");
    archive::await_archived(&mut cluster)?;
    archive.verify(true)?;
    left_nothing(&cluster)?;
    cluster.check_no_panic()
}
