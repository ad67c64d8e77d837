//! `-auto-backup` with real servers, and `rqlited backup` and `rqlited fetch`.
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    binary,
    cluster::Cluster,
    process::{Node, PROCESS_LIMIT},
    servers::{
        objects::{Kind, ObjectServer, SECRET_KEY},
        present,
    },
    small_disk::SmallDisk,
    wait,
};
use serde_json::{Value, json};

/// How long an upload may take on two busy cores, retries included.
const UPLOAD_LIMIT: Duration = Duration::from_secs(90);
const ROWS: &str = "SELECT count(*) FROM t";

/// Gives a node this configuration.
fn configure(node: &mut Node, mut config: Value, interval: &str) -> Result<PathBuf> {
    config["interval"] = interval.into();
    let path = node.scratch().join("auto-backup.json");
    fs::write(&path, config.to_string())?;
    node.args.push(format!("-auto-backup={}", path.display()));
    Ok(path)
}

fn uploader(node: &Node) -> Result<Value> {
    let vars = node.client().get_json("/debug/vars")?;
    Ok(vars["uploader"].clone())
}

fn count(node: &Node, key: &str) -> Result<u64> {
    uploader(node)?[key]
        .as_u64()
        .with_context(|| format!("no {key}"))
}

fn await_count(node: &Node, key: &str, at_least: u64) -> Result<()> {
    wait::until(
        &format!("{key} to be {at_least}"),
        UPLOAD_LIMIT,
        || match count(node, key) {
            Ok(seen) if seen >= at_least => Ok(()),
            seen => Err(format!("{seen:?}; {:?}", status(node))),
        },
    )
}

fn status(node: &Node) -> Result<Value> {
    let all = node.client().get_json("/status")?;
    Ok(all["auto_backups"].clone())
}

fn rqlited(words: &[&str]) -> Result<Output> {
    Command::new(binary::rqlited()?)
        .args(words)
        .output()
        .context("run rqlited")
}

/// Fetches what a configuration names and counts the rows of `t`.
fn fetched_rows(config: &Path, more: &[&str]) -> Result<i64> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("fetched.db");
    let (config, file) = (config.display().to_string(), out.display().to_string());
    let mut words = vec!["fetch", "-config", &config, "-output", &file];
    words.extend(more);
    let output = rqlited(&words)?;
    ensure!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        report["integrity"] == "ok" && report["sha256"].as_str().is_some_and(|s| s.len() == 64)
    );
    let again = rqlited(&words)?;
    ensure!(!again.status.success(), "it was overwritten");
    let db = rusqlite::Connection::open(&out)?;
    Ok(db.query_row(ROWS, [], |row| row.get(0))?)
}

/// Waits for a copy with so many rows: one may have been made between two of a test's writes.
fn await_rows(config: &Path, more: &[&str], rows: i64) -> Result<()> {
    wait::until(
        &format!("a copy with {rows} rows"),
        UPLOAD_LIMIT,
        || match fetched_rows(config, more) {
            Ok(found) if found == rows => Ok(()),
            Ok(found) => Err(format!("{found} rows")),
            Err(error) => Err(error.to_string()),
        },
    )
}

fn fill(node: &Node, rows: u32, bytes: u32) -> Result<()> {
    let mut client = node.client();
    client.execute(
        "CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b BLOB)",
        &[],
    )?;
    for _ in 0..rows {
        client.execute(
            &format!("INSERT INTO t (b) VALUES (randomblob({bytes}))"),
            &[],
        )?;
    }
    Ok(())
}

fn is_kept(kind: Kind) -> Result<()> {
    if !present(&[kind.tool()])? {
        return Ok(());
    }
    let server = ObjectServer::start(kind)?;
    let mut node = Node::new("1")?;
    let config = configure(&mut node, server.target("dir/db.gz"), "400ms")?;
    node.start_and_ready()?;
    ensure!(
        count(&node, "num_uploads_ok")? == 0,
        "nothing was written yet"
    );
    // More than one part.
    fill(&node, 3, 4 << 20)?;
    await_count(&node, "num_uploads_ok", 1)?;
    wait::until(
        "the last row to be kept",
        UPLOAD_LIMIT,
        || match fetched_rows(&config, &[]) {
            Ok(3) => Ok(()),
            seen => Err(format!("{seen:?}")),
        },
    )?;
    let shown = status(&node)?;
    ensure!(
        shown["upload_interval"] == "400ms" && shown["last_index"] != "0",
        "{shown}"
    );
    ensure!(!shown.to_string().contains("secret"), "{shown}");

    // Nothing new, nothing sent; nor after a restart.
    await_count(&node, "num_uploads_skipped", 2)?;
    let before = count(&node, "num_uploads_ok")?;
    await_count(&node, "num_uploads_skipped", 6)?;
    ensure!(count(&node, "num_uploads_ok")? == before);
    node.kill()?;
    node.start_and_ready()?;
    await_count(&node, "num_uploads_skipped_id", 2)?;
    ensure!(
        count(&node, "num_uploads_ok")? == 0,
        "uploaded again: {}",
        uploader(&node)?
    );
    fill(&node, 1, 100)?;
    await_count(&node, "num_uploads_ok", 1)?;
    await_rows(&config, &[], 4)?;
    Ok(())
}

#[test]
fn s3_holds_the_last_copy() -> Result<()> {
    is_kept(Kind::S3)
}

#[test]
fn google_holds_the_last_copy() -> Result<()> {
    is_kept(Kind::Gcs)
}

#[test]
fn azure_holds_the_last_copy() -> Result<()> {
    is_kept(Kind::Azure)
}

#[test]
fn a_folder_holds_copies_by_time() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("made/for/it");
    let mut node = Node::new("1")?;
    let target = json!({"version": 1, "type": "file", "timestamp": true, "no_compress": true, "vacuum": true,
        "sub": {"dir": folder, "name": "db.sqlite"}});
    let config = configure(&mut node, target, "1s")?;
    node.start_and_ready()?;
    fill(&node, 1, 10)?;
    await_count(&node, "num_uploads_ok", 1)?;
    fill(&node, 1, 10)?;
    await_count(&node, "num_uploads_ok", 2)?;
    let about: Value = serde_json::from_slice(&fs::read(folder.join("METADATA.json"))?)?;
    let name = about["name"].as_str().context("name")?;
    ensure!(
        name.ends_with("_db.sqlite") && Path::new(name).is_file(),
        "{about}"
    );
    ensure!(
        about["id"].is_string() && about["timestamp"].is_u64(),
        "{about}"
    );
    ensure!(
        fs::read(name)?.starts_with(b"SQLite format 3\0"),
        "it is packed"
    );
    await_rows(&config, &["-latest"], 2)?;
    // The file says what is there, so a restart uploads nothing.
    node.kill()?;
    node.start_and_ready()?;
    await_count(&node, "num_uploads_skipped_id", 1)?;
    Ok(())
}

#[test]
fn the_leader_uploads_and_the_next_leader_goes_on() -> Result<()> {
    if !present(&[Kind::S3.tool()])? {
        return Ok(());
    }
    let server = ObjectServer::start(Kind::S3)?;
    let mut config = PathBuf::new();
    let mut nodes = Vec::new();
    for name in ["1", "2", "3"] {
        let mut node = Node::new(name)?;
        config = configure(&mut node, server.target("db.gz"), "500ms")?;
        nodes.push(node);
    }
    let mut cluster = Cluster::of(nodes);
    cluster.form()?;
    let leader = cluster.leader()?;
    fill(&cluster[leader], 2, 1000)?;
    await_count(&cluster[leader], "num_uploads_ok", 1)?;
    await_count(&cluster[leader], "num_uploads_skipped", 3)?;
    for (at, node) in cluster.iter().enumerate() {
        ensure!(
            at == leader || count(node, "num_uploads_ok")? == 0,
            "a follower uploaded"
        );
    }
    cluster[leader].kill()?;
    let next = cluster.leader()?;
    await_count(&cluster[next], "num_uploads_skipped_id", 1)?;
    ensure!(
        count(&cluster[next], "num_uploads_ok")? == 0,
        "uploaded again"
    );
    fill(&cluster[next], 1, 1000)?;
    await_count(&cluster[next], "num_uploads_ok", 1)?;
    await_rows(&config, &[], 3)?;
    Ok(())
}

#[test]
fn a_store_that_is_down_or_silent_does_not_hold_up_the_database() -> Result<()> {
    if !present(&[Kind::S3.tool()])? {
        return Ok(());
    }
    let mut server = ObjectServer::start(Kind::S3)?;
    server.kill();
    let mut node = Node::new("1")?;
    let config = configure(&mut node, server.target("a/db.gz"), "500ms")?;
    node.start_and_ready()?;
    fill(&node, 1, 100)?;
    await_count(&node, "num_uploads_fail", 1)?;
    let error = status(&node)?["last_error"]
        .as_str()
        .context("no error")?
        .to_owned();
    ensure!(
        error.contains("a/db.gz") && error.contains(server.addr()),
        "{error}"
    );
    server.restart()?;
    await_count(&node, "num_uploads_ok", 1)?;
    ensure!(status(&node)?["last_error"].is_null());
    server.daemon().pause();
    let started = std::time::Instant::now();
    fill(&node, 5, 100)?;
    ensure!(started.elapsed() < PROCESS_LIMIT, "{:?}", started.elapsed());
    server.daemon().resume();
    wait::until("the rows to be kept", UPLOAD_LIMIT, || {
        match fetched_rows(&config, &[]) {
            Ok(6) => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
}

#[test]
fn wrong_credentials_are_told_without_showing_them() -> Result<()> {
    if !present(&[Kind::S3.tool()])? {
        return Ok(());
    }
    let server = ObjectServer::start(Kind::S3)?;
    let mut node = Node::new("1")?;
    let mut target = server.target("db.gz");
    target["sub"]["secret_access_key"] = "another-secret-text".into();
    configure(&mut node, target, "500ms")?;
    node.start_and_ready()?;
    fill(&node, 1, 100)?;
    await_count(&node, "num_uploads_fail", 1)?;
    let shown = status(&node)?.to_string();
    ensure!(shown.contains("check the credentials"), "{shown}");
    for text in [shown, node.log()] {
        ensure!(
            !text.contains("another-secret-text") && !text.contains(SECRET_KEY),
            "{text}"
        );
    }
    Ok(())
}

#[test]
fn a_full_disk_is_told_and_the_last_copy_stays() -> Result<()> {
    let disk = match SmallDisk::mount(8) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("SKIPPED, NOT TESTED: {why:#}");
            return Ok(());
        }
    };
    let mut node = Node::new("1")?;
    let target =
        json!({"type": "file", "no_compress": true, "sub": {"dir": disk.path(), "name": "db"}});
    let config = configure(&mut node, target, "500ms")?;
    node.start_and_ready()?;
    fill(&node, 1, 100)?;
    await_count(&node, "num_uploads_ok", 1)?;
    wait::until("the first row to be kept", UPLOAD_LIMIT, || {
        fetched_rows(&config, &[])
            .map(drop)
            .map_err(|e| format!("{e:#}"))
    })?;
    disk.fill(64 << 10)?;
    fill(&node, 1, 4 << 20)?;
    await_count(&node, "num_uploads_fail", 1)?;
    let shown = status(&node)?.to_string();
    ensure!(shown.contains("free space"), "{shown}");
    ensure!(fetched_rows(&config, &[])? == 1, "the last copy is gone");
    disk.make_room()?;
    wait::until(
        "both rows to be kept",
        UPLOAD_LIMIT,
        || match fetched_rows(&config, &[]) {
            Ok(2) => Ok(()),
            seen => Err(format!("{seen:?}")),
        },
    )
}

#[test]
fn a_bad_configuration_is_no_start() -> Result<()> {
    for (text, says) in [
        ("{", "the JSON ends early"),
        (
            r#"{"type":"file","sub":{"dir":"/tmp/x","name":"n"}}"#,
            "invalid interval",
        ),
        (
            r#"{"type":"ftp","interval":"1s","sub":{}}"#,
            "unsupported storage type 'ftp'",
        ),
        (
            r#"{"version":2,"type":"s3","interval":"1s","sub":{}}"#,
            "invalid version",
        ),
        (
            r#"{"type":"s3","interval":"1s","sub":{"path":"p"}}"#,
            "sub.bucket is missing",
        ),
        (
            r#"{"type":"s3","interval":"1s","sub":{"bucket":"$E2E_NOT_SET","path":"p"}}"#,
            "$E2E_NOT_SET is not set",
        ),
    ] {
        let mut node = Node::new("1")?;
        let path = node.scratch().join("auto-backup.json");
        fs::write(&path, text)?;
        node.args.push(format!("-auto-backup={}", path.display()));
        node.start()?;
        let status = node.wait_exit(PROCESS_LIMIT)?;
        let log = node.log();
        ensure!(status.code() == Some(1), "{text}: {status}");
        ensure!(
            log.contains("failed to start auto-backups") && log.contains(says),
            "{text}: {log}"
        );
    }
    Ok(())
}

fn applied(node: &Node) -> Result<u64> {
    let all = node.client().get_json("/status")?;
    all["store"]["fsm_index"].as_u64().context("fsm_index")
}

/// `-delete` deletes the object of the configuration, no other, and succeeds when it is gone already.
fn deleted_once_and_again(path: &str, config: &Path) -> Result<()> {
    let outside = rqlited(&["backup", "-delete", "-object", "two/db.gz", "-config", path])?;
    let text = String::from_utf8_lossy(&outside.stderr).into_owned();
    ensure!(
        outside.status.code() == Some(1) && text.contains("-object 'two/db.gz'"),
        "{text}"
    );
    ensure!(
        fetched_rows(config, &[])? == 2,
        "a refused deletion deleted"
    );
    for existed in [true, false] {
        let output = rqlited(&["backup", "-delete", "-config", path])?;
        ensure!(output.status.success(), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(
            report["object"] == "one/db.gz"
                && report["deleted"] == true
                && report["existed"] == existed,
            "{report}"
        );
    }
    ensure!(
        fetched_rows(config, &[]).is_err(),
        "it can still be fetched"
    );
    Ok(())
}

#[test]
fn one_backup_of_a_running_cluster() -> Result<()> {
    if !present(&[Kind::S3.tool()])? {
        return Ok(());
    }
    let server = ObjectServer::start(Kind::S3)?;
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    fill(&node, 2, 3 << 20)?;
    let (config, result) = (
        node.scratch().join("t.json"),
        node.scratch().join("result.json"),
    );
    fs::write(&config, server.target("one/db.gz").to_string())?;
    let (path, result_path) = (config.display().to_string(), result.display().to_string());
    let url = format!("http://{}", node.http);
    let dead = "http://127.0.0.1:1";
    let words = [
        "backup",
        "-config",
        &path,
        "-url",
        dead,
        "-url",
        &url,
        "-result-file",
        &result_path,
    ];
    let output = rqlited(&words)?;
    ensure!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&fs::read(&result)?)?;
    ensure!(
        report["object"] == "one/db.gz" && report["source"] == url,
        "{report}"
    );
    ensure!(fetched_rows(&config, &[])? == 2);
    let sum = report["sha256"].as_str().context("sha256")?;
    ensure!(fetched_rows(&config, &["-sha256", sum])? == 2);
    ensure!(fetched_rows(&config, &["-sha256", &"0".repeat(64)]).is_err());
    // The index is that of an entry which the copy holds: those of the writes, and nothing that came later.
    let index = report["index"].as_u64().context("index")?;
    ensure!(
        index >= 2 && index <= applied(&node)?,
        "{report}, applied {}",
        applied(&node)?
    );
    let stored = report["stored_sha256"].as_str().context("stored_sha256")?;
    ensure!(stored.len() == 64 && stored != sum, "{report}");
    deleted_once_and_again(&path, &config)?;

    node.kill()?;
    let output = rqlited(&words)?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&fs::read(&result)?)?;
    ensure!(
        report["error"].as_str().is_some_and(|e| e.contains(&url)),
        "{report}"
    );
    Ok(())
}

/// As the first process of a container they would ignore it, and go on to write to the store. The exit code
/// shows that the program itself has ended.
#[test]
fn subcommands_end_on_sigterm() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("t.json");
    // Both the node and the store accept, and never answer.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", silent.local_addr()?);
    let sub = json!({"bucket": "bkt", "path": "one/db.gz", "region": "us-east-1", "force_path_style": true,
        "access_key_id": "a", "secret_access_key": "b", "endpoint": url});
    let target = json!({"version": 1, "type": "s3", "sub": sub});
    fs::write(&config, target.to_string())?;
    let path = config.display().to_string();
    let output = dir.path().join("out.db").display().to_string();
    let cases: [&[&str]; 3] = [
        &["backup", "-config", &path, "-url", &url],
        &["fetch", "-config", &path, "-output", &output],
        &["archive", "drill", "-config", &path],
    ];
    silent.set_nonblocking(true)?;
    for words in cases {
        let mut child = Command::new(binary::rqlited()?)
            .args(words)
            .stderr(Stdio::piped())
            .spawn()?;
        // It is at work once it connects.
        let connected = wait::until("a connection", PROCESS_LIMIT, || {
            silent.accept().map_err(|e| e.to_string())
        });
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = child.wait()?;
        connected?;
        ensure!(status.code() == Some(128 + 15), "{words:?}: {status:?}");
    }
    Ok(())
}
