//! Loads that fail, are large, or restore one of rqlited's own dumps.
use std::{
    fs,
    io::{Read, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::{Client, Reply},
    cluster::{Cluster, SETTLE_LIMIT},
    process::Node,
    wait,
};

/// Generous, for a debug build that executes a large script on a busy machine.
const LARGE_LIMIT: Duration = Duration::from_secs(300);
/// Maximum peak memory of a node, whatever the size of the dump that it loads.
const MEMORY_LIMIT_KIB: u64 = 120 << 10;

/// A script of about this many MiB in one transaction.
fn script(table: &str, mebibytes: usize) -> String {
    let row = format!(
        "INSERT INTO {table} VALUES('{}');\n",
        "some text; ".repeat(95)
    );
    let mut text = format!("BEGIN TRANSACTION;\nCREATE TABLE {table}(x TEXT);\n");
    for _ in 0..(mebibytes << 20) / row.len() {
        text.push_str(&row);
    }
    text.push_str("COMMIT;\n");
    text
}

fn load(client: &mut Client, body: &[u8]) -> Result<Reply> {
    let reply = client.send("POST", "/db/load", &[], body)?;
    ensure!(
        reply.status == 200 && !reply.text().contains("error"),
        "load: {} {}",
        reply.status,
        reply.text()
    );
    Ok(reply)
}

/// Sends a whole load without waiting for the reply.
fn send_load(node: &Node, body: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(&node.http)?;
    stream.set_read_timeout(Some(LARGE_LIMIT))?;
    write!(
        stream,
        "POST /db/load HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)?;
    Ok(stream)
}

fn has_staged_load(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            entry.file_name() == "incoming-load.part" || has_staged_load(&entry.path())
        })
    })
}

/// Waits until every running node makes checkpoints again and keeps no part of a load.
fn all_checkpoint(cluster: &mut Cluster) -> Result<()> {
    for index in 0..cluster.len() {
        if !cluster[index].is_running() {
            continue;
        }
        let mut client = cluster.client(index);
        let data = cluster[index].data.clone();
        wait::until("a checkpoint after an abandoned load", SETTLE_LIMIT, || {
            let reply = client
                .post("/snapshot", "")
                .map_err(|error| error.to_string())?;
            match reply.status {
                200 | 204 if !has_staged_load(&data) => Ok(()),
                status => Err(format!("node {index}: {status} {}", reply.text())),
            }
        })?;
    }
    Ok(())
}

fn await_staged(node: &Node) -> Result<()> {
    wait::until("a load under way", SETTLE_LIMIT, || {
        if has_staged_load(&node.data) {
            Ok(())
        } else {
            Err("none".to_owned())
        }
    })
}

#[test]
fn an_abandoned_load_is_undone_everywhere() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let leader = cluster.leader()?;
    cluster
        .client(leader)
        .execute("CREATE TABLE kept(x)", &[])?;
    let body = script("t", 60);
    let mut undone = 0;
    for round in 0..5 {
        let stream = send_load(&cluster[leader], body.as_bytes())?;
        await_staged(&cluster[leader])?;
        drop(stream);
        all_checkpoint(&mut cluster)?;
        cluster
            .client(leader)
            .execute("INSERT INTO kept VALUES(?)", &[round.into()])?;
        undone = cluster[leader]
            .log()
            .matches("an unfinished load was undone")
            .count();
        if undone > 0 {
            break;
        }
        // Its last piece arrived before the disconnect, and it has taken effect. That is correct, too.
        cluster.client(leader).execute("DROP TABLE t", &[])?;
    }
    ensure!(
        undone > 0,
        "five loads in a row ended before their clients left"
    );
    cluster.agreed_rows("SELECT count(*) FROM kept")?;
    let tables = cluster.agreed_rows("SELECT count(*) FROM sqlite_schema WHERE name='t'")?;
    ensure!(
        tables.contains('0'),
        "half a load has taken effect: {tables}"
    );
    load(&mut cluster.client(leader), script("t", 1).as_bytes())?;
    cluster.agreed_dump()?;
    cluster.check_no_panic()
}

#[test]
fn a_load_ends_with_its_leader_and_survives_a_followers_restart() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let leader = cluster.leader()?;
    let follower = cluster.follower()?;
    let body = script("t", 40);
    // A follower killed in the middle collects the pieces again from its log.
    let mut stream = send_load(&cluster[leader], body.as_bytes())?;
    await_staged(&cluster[follower])?;
    cluster[follower].kill()?;
    cluster[follower].start()?;
    let mut answer = [0; 15];
    stream.read_exact(&mut answer)?;
    ensure!(
        &answer == b"HTTP/1.1 200 OK",
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    cluster[follower].wait_ready(LARGE_LIMIT)?;
    cluster.agreed_rows("SELECT count(*) FROM t")?;
    all_checkpoint(&mut cluster)?;
    cluster.client(leader).execute("DROP TABLE t", &[])?;
    // A leader killed in the middle ends its load.
    let stream = send_load(&cluster[leader], body.as_bytes())?;
    await_staged(&cluster[follower])?;
    cluster[leader].kill()?;
    drop(stream);
    let next = cluster.leader()?;
    all_checkpoint(&mut cluster)?;
    cluster[leader].start()?;
    cluster[leader].wait_ready(LARGE_LIMIT)?;
    cluster.client(next).execute("CREATE TABLE after(x)", &[])?;
    cluster.agreed_rows("SELECT count(*) FROM after")?;
    all_checkpoint(&mut cluster)?;
    cluster.agreed_dump()?;
    cluster.check_no_panic()
}

/// Peak resident memory of a process, in KiB.
fn peak_memory_kib(node: &Node) -> Result<u64> {
    let pid = node.pid().context("it does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmHWM")?.parse()?)
}

#[test]
fn a_large_script_takes_little_memory() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let follower = cluster.follower()?;
    let body = script("t", 100);
    let mut client = cluster.client(follower).timeout(LARGE_LIMIT);
    load(&mut client, body.as_bytes())?;
    cluster.agreed_rows("SELECT count(*) FROM t")?;
    for node in cluster.iter() {
        let peak = peak_memory_kib(node)?;
        println!("node {}: {} MiB at most", node.name, peak >> 10);
        ensure!(
            peak < MEMORY_LIMIT_KIB,
            "node {} had {peak} KiB for a script of {} MiB",
            node.name,
            body.len() >> 20
        );
    }
    cluster.check_no_panic()
}

#[test]
fn a_dump_of_ours_can_be_loaded() -> Result<()> {
    let mut from = Node::new("1")?;
    from.start_and_ready()?;
    let mut client = from.client();
    for sql in [
        "CREATE TABLE zebra(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        "INSERT INTO zebra(id, v) VALUES(41, 'it''s')",
        "DELETE FROM zebra",
        "CREATE VIEW v1 AS SELECT id, v FROM zebra",
        "CREATE TRIGGER g INSTEAD OF INSERT ON v1 BEGIN INSERT INTO zebra(v) VALUES(new.v); SELECT 1; END",
        "CREATE TABLE doc(body)",
        "INSERT INTO doc(rowid, body) VALUES(7, 'hello world'), (-3, 'good bye'), (100, char(97, 0, 98))",
        "CREATE VIRTUAL TABLE found USING fts5(body, content='doc', content_rowid='rowid')",
        "INSERT INTO found(found) VALUES('rebuild')",
        "CREATE VIRTUAL TABLE bare USING fts5(body, content='')",
        "INSERT INTO bare(rowid, body) VALUES(12, 'nothing to read')",
        "CREATE VIRTUAL TABLE area USING rtree(id, x0, x1)",
        "INSERT INTO area VALUES(5, 0.1, 0.2)",
        "PRAGMA user_version=7",
    ] {
        client.execute(sql, &[])?;
    }
    let dump = client.get("/db/backup?fmt=sql")?;
    let mut to = Node::new("2")?;
    to.start_and_ready()?;
    let mut copy = to.client();
    load(&mut copy, &dump.body)?;
    copy.execute("INSERT INTO v1(v) VALUES('after')", &[])?;
    for (sql, expected) in [
        ("SELECT max(id) FROM zebra", 42),
        ("SELECT rowid FROM found WHERE found MATCH 'hello'", 7),
        ("SELECT rowid FROM bare WHERE bare MATCH 'read'", 12),
        ("SELECT id FROM area WHERE x0 < 0.15", 5),
        (
            "SELECT length(CAST(body AS BLOB)) FROM doc WHERE rowid=100",
            3,
        ),
        ("PRAGMA user_version", 7),
    ] {
        let found = copy.number("strong", sql)?;
        ensure!(found == expected, "{sql}: {found}");
    }
    copy.execute("DELETE FROM zebra", &[])?;
    copy.execute("UPDATE sqlite_sequence SET seq=41", &[])?;
    let again = copy.get("/db/backup?fmt=sql")?;
    ensure!(
        again.body == dump.body,
        "seen:\n{}\nwanted:\n{}",
        again.text(),
        dump.text()
    );
    Ok(())
}
