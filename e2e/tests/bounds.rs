//! Writes that do not end and writes that do not fit the disk: they fail equally on all nodes, and the nodes
//! keep working.
use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::{Client, WriteOutcome},
    cluster::{Cluster, SETTLE_LIMIT},
    process::Node,
    small_disk::SmallDisk,
    wait,
};

const ENDLESS: &str = r#"["INSERT INTO t(x) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c) SELECT i FROM c"]"#;
const MIB: u64 = 1 << 20;
/// The documented limit, doubled for a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// On a busy machine the result takes longer than the default timeout.
const PATIENT: &str = "-raft-apply-timeout=300s";

fn table(client: &mut Client) -> Result<()> {
    client.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)", &[])?;
    Ok(())
}

fn patient(cluster: &Cluster, index: usize) -> Client {
    cluster.client(index).timeout(Duration::from_secs(400))
}

/// Waits for a write to be acknowledged; returns how long it took.
fn await_write(client: &mut Client, limit: Duration) -> Result<Duration> {
    let started = Instant::now();
    wait::until("a write", limit, || {
        match client.write("INSERT INTO t(x) VALUES('after')", &[]) {
            WriteOutcome::Acknowledged(_) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    Ok(started.elapsed())
}

#[test]
fn an_endless_write_with_a_timeout_fails_in_words_on_any_node() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &[PATIENT])?;
    let leader = cluster.leader()?;
    table(&mut cluster.client(leader))?;
    for index in [leader, (leader + 1) % 3] {
        let mut client = patient(&cluster, index);
        for path in ["/db/execute", "/db/request"] {
            let started = Instant::now();
            let reply = client.post(&format!("{path}?db_timeout=1s"), ENDLESS)?;
            let text = reply.text();
            ensure!(
                text.contains("takes more than 10000000 steps"),
                "{path} at {index}: {text}"
            );
            println!("{path} at {index}: error after {:.1?}", started.elapsed());
            let took = await_write(&mut client, Duration::from_secs(30))?;
            println!("the next write took {took:.1?}");
        }
    }
    let rows = cluster.agreed_rows("SELECT count(*), max(id) FROM t")?;
    ensure!(rows.contains('4'), "{rows}");
    // In a transaction, all statements are rolled back.
    let text = r#"["INSERT INTO t(x) VALUES('undone')", "INSERT INTO t(x) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c) SELECT i FROM c"]"#;
    let reply = patient(&cluster, leader).post("/db/execute?transaction&db_timeout=100ms", text)?;
    ensure!(reply.text().contains("1000000 steps"), "{}", reply.text());
    ensure!(
        cluster
            .client(leader)
            .number("strong", "SELECT count(*) FROM t WHERE x = 'undone'")?
            == 0
    );
    cluster.agreed_dump()?;
    cluster.check_no_panic()
}

#[test]
fn an_endless_write_without_a_timeout_ends_too() -> Result<()> {
    let mut node = Node::new("1")?.with(&[PATIENT]);
    node.start_and_ready()?;
    let mut client = node.client().timeout(Duration::from_secs(400));
    table(&mut client)?;
    let started = Instant::now();
    let reply = client.post("/db/execute", ENDLESS)?;
    // Takes less than a minute on an idle machine.
    println!("error after {:.1?}", started.elapsed());
    let text = reply.text();
    ensure!(text.contains("takes more than 300000000 steps"), "{text}");
    await_write(&mut client, SETTLE_LIMIT)?;
    ensure!(client.number("strong", "SELECT count(*) FROM t")? == 1);
    Ok(())
}

#[test]
fn an_endless_write_does_not_come_back_with_a_restart() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &[PATIENT])?;
    let leader = cluster.leader()?;
    table(&mut cluster.client(leader))?;
    let mut client = cluster.client(leader).timeout(Duration::from_millis(300));
    let _ = client.post("/db/execute?db_timeout=5s", ENDLESS);
    for node in cluster.iter_mut() {
        node.kill()?;
    }
    cluster.iter_mut().try_for_each(Node::start)?;
    let leader = cluster.leader()?;
    await_write(&mut patient(&cluster, leader), Duration::from_secs(240))?;
    cluster.agreed_rows("SELECT count(*), max(id) FROM t")?;
    cluster.check_no_panic()
}

/// Requests that may run when the node is asked to stop.
const RUNNING: [(&str, &str); 5] = [
    ("/db/execute?db_timeout=8s", ENDLESS),
    ("/db/execute?transaction&db_timeout=8s", ENDLESS),
    (
        "/db/query",
        r#"["WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c) SELECT count(*) FROM c"]"#,
    ),
    (
        "/db/query?level=strong",
        r#"["WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c) SELECT count(*) FROM c"]"#,
    ),
    ("/db/execute", r#"["VACUUM"]"#),
];

#[test]
fn a_node_stops_whatever_runs() -> Result<()> {
    let mut node = Node::new("1")?.with(&[PATIENT]);
    node.start_and_ready()?;
    table(&mut node.client())?;
    let fill = r#"["INSERT INTO t(x) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c LIMIT 1500) SELECT randomblob(100000) FROM c"]"#;
    let reply = node
        .client()
        .timeout(Duration::from_secs(60))
        .post("/db/execute", fill)?;
    ensure!(reply.text().contains("rows_affected"), "{}", reply.text());
    for (path, body) in RUNNING {
        let mut client = node.client().timeout(Duration::from_secs(60));
        let asking = thread::spawn(move || client.post(path, body).map(|reply| reply.text()));
        wait::sleep(Duration::from_millis(500));
        let started = Instant::now();
        node.send_sigterm()?;
        let status = node.wait_exit(STOP_LIMIT)?;
        println!("{path} {body:.30}: stopped after {:.1?}", started.elapsed());
        ensure!(status.success(), "{path}: {status:?}\n{}", node.log_tail());
        let _ = asking.join();
        // The next start is not blocked by the interrupted request.
        node.start()?;
        node.wait_ready(Duration::from_secs(120))?;
    }
    let script = "INSERT INTO t(x) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c) SELECT i FROM c;";
    let mut client = node.client().timeout(Duration::from_secs(60));
    let asking = thread::spawn(move || client.post("/db/load", script).map(|reply| reply.text()));
    wait::sleep(Duration::from_millis(500));
    node.send_sigterm()?;
    let status = node.wait_exit(STOP_LIMIT)?;
    ensure!(status.success(), "{status:?}\n{}", node.log_tail());
    let _ = asking.join();
    Ok(())
}

/// Three nodes on disks of these sizes.
fn on_disks(mebibytes: [u64; 3]) -> Option<(Cluster, Vec<SmallDisk>)> {
    let mut nodes = Vec::new();
    let mut disks = Vec::new();
    for (name, size) in ["1", "2", "3"].into_iter().zip(mebibytes) {
        let disk = SmallDisk::mount(size)
            .inspect_err(|error| println!("skipped: {error:#}"))
            .ok()?;
        let mut node = Node::new(name).ok()?.with(&[PATIENT]);
        node.data = disk.path().join("data");
        nodes.push(node);
        disks.push(disk);
    }
    Some((Cluster::of(nodes), disks))
}

fn blobs(mebibytes: u64) -> String {
    format!(
        r#"["INSERT INTO t(x) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c LIMIT {mebibytes}) SELECT zeroblob(1048576) FROM c"]"#
    )
}

fn say(client: &mut Client, body: &str) -> Result<String> {
    let reply = client.post("/db/execute?timeout=300s", body)?;
    Ok(reply.text())
}

#[test]
fn what_does_not_fit_the_smallest_disk_fails_on_all() -> Result<()> {
    let Some((mut cluster, _disks)) = on_disks([700, 700, 320]) else {
        return Ok(());
    };
    cluster.form()?;
    let leader = cluster.leader()?;
    let mut client = patient(&cluster, leader);
    table(&mut client)?;
    // The leader asks its members for their free space once a second.
    wait::sleep(Duration::from_millis(2500));
    let text = say(&mut client, &blobs(400))?;
    ensure!(text.contains("database or disk is full"), "{text}");
    await_write(&mut client, SETTLE_LIMIT)?;
    // Writes that fit are accepted until a VACUUM does not fit any more.
    let mut filled = 0;
    for _ in 0..6 {
        let text = say(&mut client, &blobs(30))?;
        if !text.contains("rows_affected") {
            ensure!(text.contains("database or disk is full"), "{text}");
            break;
        }
        filled += 30;
        for index in 0..3 {
            let reply = patient(&cluster, index).post("/snapshot", "")?;
            ensure!(matches!(reply.status, 200 | 204), "{reply:?}");
        }
        wait::sleep(Duration::from_millis(1500));
    }
    println!("{filled} MiB fit");
    ensure!(filled >= 30);
    let text = say(&mut client, r#"["VACUUM"]"#)?;
    if filled >= 120 {
        ensure!(text.contains("database or disk is full"), "{text}");
    }
    await_write(&mut client, SETTLE_LIMIT)?;
    for index in 0..3 {
        ensure!(cluster[index].is_running(), "{}", cluster[index].log_tail());
        let waiting = patient(&cluster, index).get_json("/status?key=store")?;
        ensure!(waiting["apply_waiting"].is_null(), "{index}: {waiting}");
    }
    cluster.agreed_rows("SELECT count(*), max(id), sum(length(x)) FROM t")?;
    cluster.check_no_panic()
}

#[test]
fn a_member_without_room_waits_and_says_so() -> Result<()> {
    let Some((mut cluster, disks)) = on_disks([500, 500, 300]) else {
        return Ok(());
    };
    cluster.form()?;
    let leader = cluster.leader()?;
    if leader == 2 {
        // The node with the small disk must not lead. Nothing has moved leadership to it, so this is rare.
        println!("skipped: the small one leads");
        return Ok(());
    }
    let mut client = patient(&cluster, leader);
    table(&mut client)?;
    let reply = cluster.client(2).post("/snapshot", "")?;
    ensure!(matches!(reply.status, 200 | 204), "{reply:?}");
    // More than its reserve, so that it accepts the log entry.
    disks[2].fill(44 * MIB)?;
    // A member with an almost full disk is not counted in the members' minimum.
    wait::sleep(Duration::from_millis(2500));
    let text = say(&mut client, &blobs(60))?;
    ensure!(text.contains("rows_affected"), "{text}");
    let reported = wait::until("a message about the disk", SETTLE_LIMIT, || {
        let status = cluster.client(2).get_json("/status?key=store");
        let status = status.map_err(|error| format!("{error:#}"))?;
        match status["apply_waiting"].as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(status["raft"].to_string()),
        }
    })?;
    println!("{reported}");
    let ready = cluster.client(2).get("/readyz")?;
    ensure!(
        ready.status == 503 && ready.text().contains("full"),
        "{ready:?}"
    );
    let metrics = cluster.client(2).get("/metrics")?.text();
    ensure!(metrics.contains("rqlite_db_apply_waiting 1"), "no metric");
    ensure!(cluster[2].log().contains("waiting for space"));
    ensure!(cluster.client(2).number("none", "SELECT count(*) FROM t")? == 0);
    for _ in 0..3 {
        await_write(&mut client, SETTLE_LIMIT)?;
    }
    // It waits after a restart, too.
    cluster[2].stop()?;
    cluster[2].start_and_answer()?;
    wait::sleep(Duration::from_secs(2));
    ensure!(cluster[2].is_running(), "{}", cluster[2].log_tail());
    disks[2].make_room()?;
    cluster[2].wait_ready(Duration::from_secs(60))?;
    wait::until("the rows", Duration::from_secs(90), || {
        match cluster.client(2).number("none", "SELECT count(*) FROM t") {
            Ok(63) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    cluster.agreed_rows("SELECT count(*), max(id), sum(length(x)) FROM t")?;
    cluster.check_no_panic()
}

#[test]
fn a_file_with_a_stale_index_is_refused() -> Result<()> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = node.client();
    table(&mut client)?;
    let path = node.scratch().join("stale.sqlite");
    let script = "CREATE TABLE s(id INTEGER PRIMARY KEY, y); INSERT INTO s VALUES(1, 'a'), (2, 'b'); CREATE INDEX i ON s(y);
        CREATE TABLE saved AS SELECT * FROM sqlite_schema WHERE name = 'i';
        PRAGMA writable_schema=ON; DELETE FROM sqlite_schema WHERE name = 'i';";
    let again = "INSERT INTO s VALUES(3, 'c'); PRAGMA writable_schema=ON;
        INSERT INTO sqlite_schema SELECT * FROM saved; DROP TABLE saved;";
    for part in [script, again] {
        let done = Command::new("python3")
            .args(["-c", "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.executescript(sys.argv[2])"])
            .arg(&path)
            .arg(part)
            .status();
        match done {
            Ok(status) if status.success() => {}
            other => {
                println!("skipped: no python3 with sqlite3: {other:?}");
                return Ok(());
            }
        }
    }
    let bytes = fs::read(&path).context("the file")?;
    let reply = client.send(
        "POST",
        "/db/load",
        &[("Content-Type", "application/octet-stream")],
        &bytes,
    )?;
    ensure!(
        reply.text().contains("index i"),
        "{reply:?} {}",
        reply.text()
    );
    ensure!(client.number("strong", "SELECT count(*) FROM t")? == 0);
    Ok(())
}
