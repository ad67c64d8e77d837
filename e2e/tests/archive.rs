//! The continuous archive under numbered writers: leaders are killed at random moments, the store goes away
//! and comes back, a node restarts. At the end the archive holds everything, without a gap and without a
//! fork.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    archive::await_archived,
    binary,
    cluster::Cluster,
    fault::{
        verify_writes,
        workload::{NUMBERED_TABLE, Shared, write_numbered},
    },
    history::{self, NumberedWrite},
    seed::Seed,
    wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Leaders killed in one run.
const KILLS: usize = 6;
/// How long the archive may take to hold everything, once its store works and nobody writes.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);

/// A folder as the store, and the configuration that names it.
struct Archive {
    root: TempDir,
}

impl Archive {
    /// `more` are keys of the configuration beside the target.
    fn new(more: &Value) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("rq-archive-").tempdir()?;
        let archive = Self { root };
        let mut config = json!({
            "version": 1,
            "type": "file",
            "sub": {"dir": archive.store(), "name": "a/b"},
            "every": "500ms",
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        fs::write(archive.config(), config.to_string())?;
        Ok(archive)
    }

    fn store(&self) -> PathBuf {
        self.root.path().join("store")
    }

    fn config(&self) -> PathBuf {
        self.root.path().join("archive.json")
    }

    fn flag(&self) -> String {
        format!("-archive={}", self.config().display())
    }

    /// From now on nothing can be read or written: a file is where the folder was. (Root may write in every
    /// folder, so permissions would not do.)
    fn take_away(&self) -> Result<()> {
        fs::rename(self.store(), self.root.path().join("aside"))?;
        Ok(fs::write(self.store(), "not a folder")?)
    }

    fn give_back(&self) -> Result<()> {
        fs::remove_file(self.store())?;
        Ok(fs::rename(self.root.path().join("aside"), self.store())?)
    }

    fn command(&self, words: &[&str]) -> Result<Output> {
        let output = Command::new(binary::rqlited()?)
            .arg("archive")
            .args(words)
            .arg("-config")
            .arg(self.config())
            .output()?;
        Ok(output)
    }

    /// Every object is sound, and nothing is missing between them.
    fn verify(&self) -> Result<()> {
        let output = self.command(&["verify", "-full"])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{text}{errors}");
        ensure!(output.status.success(), "verify: {text}{errors}");
        Ok(())
    }

    /// Restores the end, and returns the rows of the numbered table.
    fn restored_rows(&self) -> Result<Vec<(i64, i64)>> {
        let file = self.root.path().join("restored.sqlite");
        let path = file.to_string_lossy().into_owned();
        let output = self.command(&["restore", "-output", &path])?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "restore: {errors}");
        rows(&file)
    }
}

fn rows(file: &Path) -> Result<Vec<(i64, i64)>> {
    let connection = rusqlite::Connection::open(file)?;
    let mut statement = connection.prepare("SELECT writer, number FROM numbered ORDER BY 1, 2")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn status(cluster: &mut Cluster) -> Result<Value> {
    let leader = cluster.leader()?;
    cluster.client(leader).get_json("/archive")
}

/// Inserts a row, and waits until the leader has archived it and reports no error.
fn archive_row(cluster: &mut Cluster, number: usize) -> Result<Value> {
    let before = status(cluster)?["archived_index"].as_u64();
    let insert = format!("INSERT INTO numbered VALUES(7, {number}, 1)");
    cluster.client(0).execute(&insert, &[])?;
    await_after(cluster, before)
}

/// Waits until more than before is archived, and no error is reported.
fn await_after(cluster: &mut Cluster, before: Option<u64>) -> Result<Value> {
    wait::until("the archive to continue", CATCH_UP_LIMIT, || {
        let now = status(cluster).map_err(|e| e.to_string())?;
        let is_done = now["archived_index"].as_u64() > before && now["last_error"].is_null();
        if is_done {
            Ok(now)
        } else {
            Err(now.to_string())
        }
    })
}

/// Writes while `act` runs; returns what was written.
fn under_writers(
    cluster: &mut Cluster,
    act: impl FnOnce(&mut Cluster, &mut Seed) -> Result<()>,
) -> Result<Vec<NumberedWrite>> {
    let addrs = cluster.iter().map(|node| node.http.clone()).collect();
    let shared = &Shared::new(addrs);
    let mut seed = Seed::new(Seed::arbitrary());
    let (acted, writes) = thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| (writer, seed.fork()))
            .map(|(writer, seed)| scope.spawn(move || write_numbered(shared, writer, seed)))
            .collect();
        let acted = act(cluster, &mut seed);
        shared.stop();
        let writes: Vec<NumberedWrite> = writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap_or_default())
            .collect();
        (acted, writes)
    });
    println!("{:?}", history::tally(&writes));
    acted?;
    Ok(writes)
}

#[test]
fn killed_leaders_leave_neither_gap_nor_fork() -> Result<()> {
    let archive = Archive::new(&json!({"segment_bytes": 4096, "base_interval": "5s"}))?;
    let mut cluster = Cluster::start_with(3, &[&archive.flag(), "-raft-snap=200"])?;
    cluster.client(0).execute(NUMBERED_TABLE, &[])?;
    let writes = under_writers(&mut cluster, |cluster, seed| {
        for _ in 0..KILLS {
            wait::sleep(Duration::from_millis(seed.below(2500)));
            let leader = cluster.leader()?;
            cluster[leader].kill()?;
            wait::sleep(Duration::from_millis(seed.below(800)));
            cluster[leader].start_and_ready()?;
        }
        Ok(())
    })?;
    let last = await_archived(&mut cluster)?;
    println!("{last:#}");
    ensure!(last["gap"].is_null(), "a gap: {last}");
    ensure!(last["last_error"].is_null(), "an error: {last}");
    archive.verify()?;
    verify_writes(&mut cluster, &writes)?;
    let leader = cluster.leader()?;
    let live = cluster
        .client(leader)
        .number("strong", "SELECT count(*) FROM numbered")?;
    let restored = archive.restored_rows()?;
    ensure!(
        i64::try_from(restored.len())? == live,
        "{} rows restored, {live} in the cluster",
        restored.len()
    );
    Ok(())
}

#[test]
fn a_store_that_goes_away_stops_nothing() -> Result<()> {
    let archive = Archive::new(&json!({}))?;
    let mut cluster = Cluster::start_with(3, &[&archive.flag(), "-raft-snap=100"])?;
    cluster.client(0).execute(NUMBERED_TABLE, &[])?;
    await_archived(&mut cluster)?;
    let writes = under_writers(&mut cluster, |cluster, _| {
        wait::sleep(Duration::from_secs(2));
        archive.take_away()?;
        let error = wait::until("an error to be reported", CATCH_UP_LIMIT, || {
            let now = status(cluster).map_err(|e| e.to_string())?;
            let reported =
                now["last_error"].is_string() && now["behind_seconds"].as_u64() > Some(1);
            if reported {
                Ok(now)
            } else {
                Err(now.to_string())
            }
        })?;
        println!("{error:#}");
        let leader = cluster.leader()?;
        let reply = cluster.client(leader).get("/readyz")?;
        ensure!(reply.status == 200, "readyz: {}", reply.status);
        let begun = Instant::now();
        cluster
            .client(leader)
            .execute("INSERT INTO numbered VALUES(99, 1, 1)", &[])?;
        ensure!(begun.elapsed() < Duration::from_secs(5), "a write waited");
        // Another leader finds the store away, too.
        cluster[leader].kill()?;
        wait::sleep(Duration::from_secs(2));
        archive.give_back()?;
        cluster[leader].start_and_ready()
    })?;
    let last = await_archived(&mut cluster)?;
    ensure!(last["gap"].is_null(), "a gap: {last}");
    ensure!(last["last_error"].is_null(), "an error: {last}");
    archive.verify()?;
    ensure!(
        history::tally(&writes).acknowledged > 50,
        "hardly any writes"
    );
    Ok(())
}

#[test]
fn everybody_restarts_and_goes_on_with_the_same_chain() -> Result<()> {
    let archive = Archive::new(&json!({}))?;
    let mut cluster = Cluster::start_with(1, &[&archive.flag()])?;
    cluster.client(0).execute(NUMBERED_TABLE, &[])?;
    for round in 0..3 {
        let insert = format!("INSERT INTO numbered VALUES(7, {round}, 1)");
        cluster.client(0).execute(&insert, &[])?;
        await_archived(&mut cluster)?;
        cluster[0].kill()?;
        cluster[0].start_and_ready()?;
    }
    await_archived(&mut cluster)?;
    archive.verify()?;
    ensure!(archive.restored_rows()? == [(7, 0), (7, 1), (7, 2)]);
    Ok(())
}

#[test]
fn wrong_configurations_are_refused_at_the_start() -> Result<()> {
    for (config, want) in [
        (json!({"type": "file"}), "\"sub\" is missing"),
        (
            json!({"type": "ftp", "sub": {}}),
            "unsupported storage type 'ftp'",
        ),
        (
            json!({"type": "file", "sub": {"dir": "/tmp/x"}, "every": "never"}),
            "every: \"never\" is no duration",
        ),
        (
            json!({"type": "file", "sub": {"dir": "/tmp/x"}, "evry": "1s"}),
            "unknown field `evry`",
        ),
    ] {
        let root = tempfile::tempdir()?;
        let path = root.path().join("archive.json");
        fs::write(&path, config.to_string())?;
        let output = Command::new(binary::rqlited()?)
            .args(["-http-addr=127.0.0.1:64001", "-raft-addr=127.0.0.1:64002"])
            .arg(format!("-archive={}", path.display()))
            .arg(root.path().join("data"))
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        ensure!(!output.status.success(), "{config} was accepted");
        ensure!(
            text.contains(want) && text.contains("archive.json"),
            "{config}: {text}"
        );
    }
    Ok(())
}

/// Nothing but the archive is left of a node that was stopped: what it had applied must be there.
#[test]
fn a_stop_archives_the_last_entries() -> Result<()> {
    let archive = Archive::new(&json!({"every": "10m"}))?;
    let mut cluster = Cluster::start_with(1, &[&archive.flag()])?;
    cluster.client(0).execute(NUMBERED_TABLE, &[])?;
    wait::until("the first base", CATCH_UP_LIMIT, || {
        let now = status(&mut cluster).map_err(|e| e.to_string())?;
        match now["last_base"].is_object() {
            true => Ok(()),
            false => Err(now.to_string()),
        }
    })?;
    for number in 0..5 {
        let insert = format!("INSERT INTO numbered VALUES(7, {number}, 1)");
        cluster.client(0).execute(&insert, &[])?;
    }
    cluster[0].stop()?;
    archive.verify()?;
    ensure!(archive.restored_rows()? == [(7, 0), (7, 1), (7, 2), (7, 3), (7, 4)]);
    Ok(())
}

/// A folder that cannot be made is reported, and used as soon as it can.
#[test]
fn a_store_that_is_wrong_at_the_start_keeps_nobody_from_serving() -> Result<()> {
    let archive = Archive::new(&json!({}))?;
    fs::write(archive.store(), "not a folder")?;
    let mut cluster = Cluster::start_with(1, &[&archive.flag()])?;
    cluster.client(0).execute(NUMBERED_TABLE, &[])?;
    let now = wait::until("an error to be reported", CATCH_UP_LIMIT, || {
        let now = status(&mut cluster).map_err(|e| e.to_string())?;
        match now["last_error"].is_string() {
            true => Ok(now),
            false => Err(now.to_string()),
        }
    })?;
    ensure!(now["last_error"].to_string().contains("store"), "{now}");
    cluster[0].kill()?;
    cluster[0].start_and_ready()?;
    cluster
        .client(0)
        .execute("INSERT INTO numbered VALUES(7, 1, 1)", &[])?;
    fs::remove_file(archive.store())?;
    await_archived(&mut cluster)?;
    archive.verify()?;
    ensure!(archive.restored_rows()? == [(7, 1)]);
    Ok(())
}

/// Without `-archive` for a while, and with a log that was purged: a known gap, with points on both sides.
#[test]
fn a_pause_of_the_archive_is_a_gap_and_no_damage() -> Result<()> {
    let archive = Archive::new(&json!({}))?;
    let mut cluster = Cluster::start_with(1, &[&archive.flag()])?;
    cluster.client(0).execute(NUMBERED_TABLE, &[])?;
    cluster
        .client(0)
        .execute("INSERT INTO numbered VALUES(7, 1, 1)", &[])?;
    let before = await_archived(&mut cluster)?["archived_index"].to_string();
    cluster[0].stop()?;
    let args = cluster[0].args.clone();
    cluster[0].args.retain(|arg| !arg.starts_with("-archive"));
    cluster[0].start_and_ready()?;
    // The log is purged by whole files of 4 MiB.
    let padding = "x".repeat(1 << 20);
    for number in 2..30 {
        let insert = format!("INSERT INTO numbered VALUES(7, {number}, 1) /* {padding} */");
        cluster.client(0).execute(&insert, &[])?;
    }
    // A snapshot right after an automatic one does nothing, so one more follows a small write.
    for _ in 0..2 {
        let snapshot = cluster.client(0).post("/snapshot?trailing_logs=1", "")?;
        ensure!(snapshot.status == 200, "{}", snapshot.text());
        let nothing = "DELETE FROM numbered WHERE writer = -1";
        cluster.client(0).execute(nothing, &[])?;
    }
    cluster[0].stop()?;
    cluster[0].args = args;
    cluster[0].start_and_ready()?;
    cluster
        .client(0)
        .execute("INSERT INTO numbered VALUES(7, 30, 1)", &[])?;
    let after = await_archived(&mut cluster)?;
    ensure!(after["gap"]["first"].is_u64(), "no gap: {after}");
    archive.verify()?;
    let listed = archive.command(&["list", "-json"])?;
    let listed: Value = serde_json::from_slice(&listed.stdout)?;
    ensure!(
        listed["timelines"][0]["gaps"][0]["first"] == after["gap"]["first"],
        "{listed}"
    );
    ensure!(archive.restored_rows()?.len() == 30);
    let file = archive.root.path().join("before.sqlite");
    let path = file.to_string_lossy().into_owned();
    let output = archive.command(&["restore", "-to-index", &before, "-output", &path])?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(rows(&file)? == [(7, 1)]);
    let first = after["gap"]["first"].to_string();
    let file = archive.root.path().join("within.sqlite");
    let path = file.to_string_lossy().into_owned();
    let output = archive.command(&["restore", "-to-index", &first, "-output", &path])?;
    ensure!(!output.status.success() && !file.exists(), "{output:?}");
    Ok(())
}

fn restore_in_place(cluster: &mut Cluster, body: &Value) -> Result<Value> {
    let reply = cluster
        .client(0)
        .post("/archive/restore", &body.to_string())?;
    ensure!(reply.status == 200, "{}", reply.text());
    wait::until("the restore to end", CATCH_UP_LIMIT, || {
        let now = cluster.client(0).get_json("/archive/restore");
        let now = now.map_err(|e| e.to_string())?;
        match now["state"] == "running" {
            true => Err(now.to_string()),
            false => Ok(now),
        }
    })
}

/// In place, although the next segment would be minutes away: what is undone is what was announced, nothing
/// that nobody has seen, and a base follows the load.
#[test]
fn a_restore_in_place_says_what_it_undoes_and_undoes_nothing_unexpected() -> Result<()> {
    let archive = Archive::new(&json!({"every": "10m"}))?;
    let mut cluster = Cluster::start_with(1, &[&archive.flag()])?;
    wait::until("the first base", CATCH_UP_LIMIT, || {
        let now = cluster.client(0).get_json("/archive");
        let now = now.map_err(|e| e.to_string())?;
        match now["last_base"]["index"].is_u64() {
            true => Ok(()),
            false => Err(now.to_string()),
        }
    })?;
    cluster.client(0).execute(NUMBERED_TABLE, &[])?;
    let insert = |cluster: &mut Cluster, number: i64| {
        let insert = format!("INSERT INTO numbered VALUES(7, {number}, 1)");
        cluster.client(0).execute(&insert, &[])
    };
    let first = cluster.client(0).post(
        "/db/execute?raft_index",
        r#"["INSERT INTO numbered VALUES(7, 1, 1)"]"#,
    )?;
    let first: Value = serde_json::from_str(&first.text())?;
    let point = first["raft_index"].as_u64().context("raft_index")?;
    insert(&mut cluster, 2)?;
    let dry = restore_in_place(&mut cluster, &json!({"to_index": point, "dry_run": true}))?;
    ensure!(
        dry["state"] == "done" && dry["undone_from"] == point + 1 && dry["undone_to"].is_u64(),
        "{dry}"
    );
    insert(&mut cluster, 3)?;
    let later = restore_in_place(&mut cluster, &json!({"to_index": point, "dry_run": true}))?;
    ensure!(
        later["undone_to"].as_u64() > dry["undone_to"].as_u64(),
        "{later}"
    );
    let cluster_id = archive.command(&["list", "-json"])?;
    let cluster_id: Value = serde_json::from_slice(&cluster_id.stdout)?;
    let confirm = cluster_id["timelines"][0]["cluster_id"].clone();
    let mut body = json!({"to_index": point, "confirm": confirm, "expect_index": dry["undone_to"]});
    let unexpected = restore_in_place(&mut cluster, &body)?;
    ensure!(
        unexpected["state"] == "failed"
            && unexpected["message"].to_string().contains("expect_index"),
        "{unexpected}"
    );
    body["expect_index"] = later["undone_to"].clone();
    let done = restore_in_place(&mut cluster, &body)?;
    ensure!(
        done["state"] == "done"
            && done["undone_from"] == point + 1
            && done["undone_to"].as_u64() >= later["undone_to"].as_u64(),
        "{done}"
    );
    let rows = cluster
        .client(0)
        .number("strong", "SELECT count(*) FROM numbered")?;
    ensure!(rows == 1, "{rows} rows");
    insert(&mut cluster, 4)?;
    wait::until("a base after the load", CATCH_UP_LIMIT, || {
        let listed = archive
            .command(&["list", "-json"])
            .map_err(|e| e.to_string())?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        match listed.contains(r#""reason": "load""#) {
            true => Ok(()),
            false => Err(listed),
        }
    })?;
    cluster[0].stop()?;
    archive.verify()?;
    ensure!(archive.restored_rows()? == [(7, 1), (7, 4)]);
    Ok(())
}

/// A folder that is not mounted for a while: nothing is written into what is there instead, the error is
/// shown, and the archive continues without a gap when it is back.
#[test]
fn a_folder_that_vanishes_is_not_made_again() -> Result<()> {
    let archive = Archive::new(&json!({}))?;
    let mut cluster = Cluster::start_with(1, &[&archive.flag()])?;
    cluster.client(0).execute(NUMBERED_TABLE, &[])?;
    await_archived(&mut cluster)?;
    let unmounted = archive.root.path().join("unmounted");
    for (round, mount_point) in [(0, false), (1, true)] {
        let before = status(&mut cluster)?["archived_index"].as_u64();
        fs::rename(archive.store(), &unmounted)?;
        if mount_point {
            fs::create_dir(archive.store())?;
        }
        let insert = format!("INSERT INTO numbered VALUES(7, {round}, 1)");
        cluster.client(0).execute(&insert, &[])?;
        wait::until("the loss to be reported", CATCH_UP_LIMIT, || {
            let now = status(&mut cluster).map_err(|e| e.to_string())?;
            let error = now["last_error"].as_str().unwrap_or_default();
            match error.contains("the archive was there and is gone") {
                true => Ok(()),
                false => Err(now.to_string()),
            }
        })?;
        if mount_point {
            let written = fs::read_dir(archive.store())?.count();
            ensure!(written == 0, "{written} objects in the empty folder");
            fs::remove_dir(archive.store())?;
        }
        ensure!(!archive.store().exists(), "the folder was made again");
        fs::rename(&unmounted, archive.store())?;
        let now = await_after(&mut cluster, before)?;
        ensure!(now["gap"].is_null(), "a gap: {now}");
    }
    archive.verify()?;
    ensure!(archive.restored_rows()? == [(7, 0), (7, 1)]);
    Ok(())
}

/// A segment that somebody deleted is found when the next leadership begins: a gap is shown, and a base is
/// made, so that the newest state can be restored again.
#[test]
fn a_deleted_segment_is_followed_by_a_base() -> Result<()> {
    let archive = Archive::new(&json!({}))?;
    let mut cluster = Cluster::start_with(1, &[&archive.flag()])?;
    cluster.client(0).execute(NUMBERED_TABLE, &[])?;
    let mut base = await_archived(&mut cluster)?["last_base"]["index"].as_u64();
    for number in 0..4 {
        base = archive_row(&mut cluster, number)?["last_base"]["index"].as_u64();
    }
    let timeline = fs::read_dir(archive.store().join("a/b"))?.next();
    let segments = timeline.context("no timeline")??.path().join("segments");
    let names = fs::read_dir(&segments)?.map(|entry| Ok(entry?.path()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    let middle = names.len().checked_sub(2).and_then(|at| names.get(at));
    let middle = middle.with_context(|| format!("only {names:?}"))?;
    cluster[0].kill()?;
    fs::remove_file(middle)?;
    cluster[0].start_and_ready()?;
    let now = wait::until("a gap and a base", CATCH_UP_LIMIT, || {
        let now = status(&mut cluster).map_err(|e| e.to_string())?;
        let is_healed = now["gap"].is_object() && now["last_base"]["index"].as_u64() > base;
        if is_healed {
            Ok(now)
        } else {
            Err(now.to_string())
        }
    })?;
    println!("{now:#}");
    ensure!(archive.restored_rows()? == [(7, 0), (7, 1), (7, 2), (7, 3)]);
    Ok(())
}
