//! rqlite's HTTP contract other than SQL: load, backup, boot, health, members, status, snapshots, console.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    client::{Client, Reply},
    cluster::SETTLE_LIMIT,
    exchange::{self, get, post, with_status},
    process::Node,
    wait,
};
use serde_json::Value;

fn node() -> Result<(Node, Client)> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let client = node.client();
    Ok((node, client))
}

/// A SQLite file with one table of one row.
fn sqlite_file(value: &str) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("made.sqlite");
    let database = rusqlite::Connection::open(&path)?;
    database.execute_batch(&format!(
        "CREATE TABLE made(x); INSERT INTO made VALUES('{value}')"
    ))?;
    drop(database);
    Ok(std::fs::read(path)?)
}

/// Opens a downloaded database.
fn opened(bytes: &[u8]) -> Result<(tempfile::TempDir, rusqlite::Connection)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("downloaded.sqlite");
    std::fs::write(&path, bytes)?;
    Ok((dir, rusqlite::Connection::open(path)?))
}

fn send(client: &mut Client, path: &str, body: &[u8]) -> Result<Reply> {
    Ok(client.send(
        "POST",
        path,
        &[("Content-Type", "application/octet-stream")],
        body,
    )?)
}

#[test]
fn load_takes_text() -> Result<()> {
    let (node, mut client) = node()?;
    let dump = b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE foo(id INTEGER PRIMARY KEY, name TEXT);\nINSERT INTO foo VALUES(1,'fiona');\nCOMMIT;\n";
    let loaded = send(&mut client, "/db/load", dump)?;
    ensure!(
        loaded.text() == r#"{"results":[{"last_insert_id":1,"rows_affected":1}]}"#,
        "{} {}",
        loaded.status,
        loaded.text()
    );
    ensure!(
        client.number("weak", "SELECT count(*) FROM foo")? == 1,
        "rows of the dump"
    );
    let empty = send(&mut client, "/db/load", b"")?;
    ensure!(
        (empty.status, empty.text().as_str()) == (200, r#"{"results":[]}"#),
        "{} {}",
        empty.status,
        empty.text()
    );
    let wrong = send(
        &mut client,
        "/db/load",
        b"INSERT INTO foo VALUES(2,'kept'); INSERT INTO nope VALUES(1);",
    )?;
    ensure!(
        wrong.text() == r#"{"results":[{"error":"no such table: nope"}]}"#,
        "{}",
        wrong.text()
    );
    ensure!(
        client.number("weak", "SELECT count(*) FROM foo")? == 2,
        "what came before the failing statement stays"
    );
    let unfinished = send(
        &mut client,
        "/db/load",
        b"BEGIN; INSERT INTO foo VALUES(3,'lost'); INSERT INTO nope VALUES(1);",
    )?;
    ensure!(
        unfinished.text().contains("no such table: nope"),
        "{}",
        unfinished.text()
    );
    ensure!(
        client.number("weak", "SELECT count(*) FROM foo")? == 2,
        "an open transaction is rolled back"
    );
    e2e::cluster::check_no_panic(&node)
}

#[test]
fn load_takes_files_and_refuses_broken_ones() -> Result<()> {
    let (node, mut client) = node()?;
    client.execute("CREATE TABLE foo(x)", &[])?;
    let file = send(&mut client, "/db/load", &sqlite_file("whole")?)?;
    ensure!(
        (file.status, file.text().as_str()) == (200, r#"{"results":[]}"#),
        "{} {}",
        file.status,
        file.text()
    );
    ensure!(
        client.rows("weak", "SELECT x FROM made", &[])? == [["whole"]],
        "the file's rows"
    );
    ensure!(
        client.rows("weak", "SELECT * FROM foo", &[]).is_err(),
        "the file replaces everything"
    );
    let mut broken = sqlite_file("broken")?;
    broken.truncate(3000);
    broken[100..].fill(0xee);
    let refused = send(&mut client, "/db/load", &broken)?;
    ensure!(
        refused.status != 200 || refused.text().contains("error"),
        "{} {}",
        refused.status,
        refused.text()
    );
    ensure!(
        client.rows("weak", "SELECT x FROM made", &[])? == [["whole"]],
        "a broken file must change nothing"
    );
    e2e::cluster::check_no_panic(&node)
}

#[test]
fn backups_in_every_format() -> Result<()> {
    let (_node, mut client) = node()?;
    for sql in [
        "CREATE TABLE \"quo\"\"ted\"(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT, c BLOB, d REAL)",
        "INSERT INTO \"quo\"\"ted\" VALUES(7,'it''s',x'00ff',1.5)",
        "CREATE TABLE alpha(x)",
        "CREATE INDEX ix ON alpha(x)",
        "CREATE VIEW vw AS SELECT 1",
        "CREATE TRIGGER tr AFTER INSERT ON alpha BEGIN SELECT 1; END",
    ] {
        client.execute(sql, &[])?;
    }
    let sql = client.get("/db/backup?fmt=sql")?;
    ensure!(
        sql.header("Content-Type") == Some("application/sql"),
        "{:?}",
        sql.headers
    );
    let expected = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE alpha(x);\nCREATE TABLE \"quo\"\"ted\"(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT, c BLOB, d REAL);\nINSERT INTO \"quo\"\"ted\" VALUES(7,'it''s',X'00FF',1.5);\nDELETE FROM \"sqlite_sequence\";\nINSERT INTO \"sqlite_sequence\" VALUES('quo\"ted',7);\nCREATE INDEX ix ON alpha(x);\nCREATE TRIGGER tr AFTER INSERT ON alpha BEGIN SELECT 1; END;\nCREATE VIEW vw AS SELECT 1;\nCOMMIT;\n";
    ensure!(
        sql.text() == expected,
        "seen:\n{}\nwanted:\n{expected}",
        sql.text()
    );
    let partial = client.get("/db/backup?fmt=sql&tables=alpha")?.text();
    ensure!(
        partial.contains("CREATE TABLE alpha") && !partial.contains("CREATE TABLE \"quo"),
        "{partial}"
    );
    for (path, version) in [
        ("/db/backup", [2, 2]),
        ("/db/backup?fmt=nonsense", [2, 2]),
        ("/db/backup?vacuum", [1, 1]),
        ("/db/backup?fmt=delete", [1, 1]),
    ] {
        let reply = client.get(path)?;
        ensure!(
            reply.header("Content-Type") == Some("application/octet-stream"),
            "{path}: {:?}",
            reply.headers
        );
        ensure!(
            reply.body.starts_with(b"SQLite format 3\0") && reply.body[18..20] == version,
            "{path}: {:?}",
            &reply.body[..20]
        );
        let (_dir, database) = opened(&reply.body)?;
        let value: String =
            database.query_row("SELECT b FROM \"quo\"\"ted\"", [], |row| row.get(0))?;
        ensure!(value == "it's", "{path}: {value}");
    }
    let packed = client.get("/db/backup?compress")?;
    ensure!(
        packed.body.starts_with(&[0x1f, 0x8b]),
        "not gzip: {:?}",
        &packed.body[..4]
    );
    for path in ["/db/backup?vacuum&fmt=sql", "/db/backup?vacuum&fmt=delete"] {
        let refused = client.get(path)?;
        ensure!(
            (refused.status, refused.text().as_str()) == (500, "invalid backup format\n"),
            "{path}: {} {}",
            refused.status,
            refused.text()
        );
    }
    Ok(())
}

#[test]
fn a_backup_can_be_loaded_again() -> Result<()> {
    let (_node, mut client) = node()?;
    client.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)", &[])?;
    client.execute("INSERT INTO t(v) VALUES('one'),('two')", &[])?;
    for path in [
        "/db/backup",
        "/db/backup?vacuum",
        "/db/backup?fmt=delete",
        "/db/backup?fmt=sql",
    ] {
        let backup = client.get(path)?.body;
        client.execute("DROP TABLE t", &[])?;
        let loaded = send(&mut client, "/db/load", &backup)?;
        ensure!(
            loaded.status == 200 && !loaded.text().contains("error"),
            "{path}: {} {}",
            loaded.status,
            loaded.text()
        );
        ensure!(
            client.number("strong", "SELECT count(*) FROM t")? == 2,
            "{path}: rows"
        );
    }
    Ok(())
}

#[test]
fn boot_replaces_a_single_nodes_database() -> Result<()> {
    let (mut node, mut client) = node()?;
    client.execute("CREATE TABLE before(x)", &[])?;
    let short = send(&mut client, "/boot", b"short")?;
    ensure!(
        short.status == 503 && short.text().contains("EOF"),
        "{} {}",
        short.status,
        short.text()
    );
    let junk = send(&mut client, "/boot", &[b'x'; 4096])?;
    ensure!(
        (junk.status, junk.text().as_str()) == (400, "invalid SQLite data\n"),
        "{} {}",
        junk.status,
        junk.text()
    );
    let booted = send(&mut client, "/boot", &sqlite_file("booted")?)?;
    ensure!(
        (booted.status, booted.text().as_str()) == (200, ""),
        "{} {}",
        booted.status,
        booted.text()
    );
    ensure!(
        client.rows("strong", "SELECT x FROM made", &[])? == [["booted"]],
        "the file's rows"
    );
    client.execute("INSERT INTO made VALUES('later')", &[])?;
    node.kill()?;
    node.start_and_ready()?;
    ensure!(
        node.client()
            .number("strong", "SELECT count(*) FROM made")?
            == 2,
        "rows after a crash"
    );
    Ok(())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn health_members_and_orders() -> Result<()> {
    let (node, mut client) = node()?;
    let (http, raft) = (node.http.clone(), node.raft.clone());
    let entry = format!(
        r#"{{"id":"1","api_addr":"http://{http}","addr":"{raft}","version":"%*","voter":true,"reachable":true,"leader":true%*}}"#
    );
    let (legacy, listed) = (
        format!(r#"{{"1":{entry}}}"#),
        format!(r#"{{"nodes":[{entry}]}}"#),
    );
    exchange::run(
        &mut client,
        &[
            get("/readyz", "[+]node ok\n[+]leader ok\n[+]store ok\n[+]db ok"),
            get("/readyz?noleader", "[+]node ok"),
            get(
                "/readyz?sync&timeout=5s",
                "[+]node ok\n[+]leader ok\n[+]store ok\n[+]sync ok\n[+]db ok",
            ),
            get("/nodes", &legacy),
            get("/nodes?nonvoters&ver=2", &listed),
            get("/leader", &entry),
            get("/statusfoo", "%*"),
            get("/status?key=store.leader.node_id", "\"1\""),
            get("/status?key=nope.nope", "{}"),
            with_status("POST", "/leader", "", 200, ""),
            with_status(
                "POST",
                "/leader?wait",
                "",
                500,
                "stepdown: cannot find peer\n",
            ),
            with_status("POST", "/leader?wait", "{", 400, "invalid JSON: %*"),
            with_status("DELETE", "/remove", "{}", 400, ""),
            with_status("DELETE", "/remove", "nonsense", 400, ""),
            with_status("DELETE", "/remove", r#"{"id":"a","more":"b"}"#, 400, ""),
            with_status("DELETE", "/remove", r#"{"id":"nobody"}"#, 200, ""),
            with_status(
                "DELETE",
                "/remove",
                r#"{"id":"1"}"#,
                500,
                "need at least one voter in configuration: %*",
            ),
            post(
                "/db/execute",
                r#"["CREATE TABLE t(x)"]"#,
                r#"{"results":[{}]}"#,
            ),
            with_status("POST", "/snapshot", "", 200, ""),
            with_status("POST", "/snapshot", "", 204, ""),
            post(
                "/reap",
                "",
                "{\"snapshots_reaped\":0,\"wals_checkpointed\":0}\n",
            ),
            with_status("GET", "/", "", 302, "%*"),
            with_status("GET", "/console", "", 301, "%*"),
            get("/console/", "%*<html%*"),
            get("/licenses", "%*"),
            get("/metrics", "%*# TYPE %*"),
            post(
                "/db/sql",
                r#"["SELECT 1"]"#,
                r#"{"results":[{"original":"SELECT 1","rewritten":"SELECT 1"}]}"#,
            ),
            with_status("GET", "/db/sql", "", 400, "query not specified\n"),
        ],
    )?;
    let root = client.get("/")?;
    ensure!(
        root.header("Location") == Some("/console/"),
        "{:?}",
        root.headers
    );
    e2e::cluster::check_no_panic(&node)
}

/// Keys that `/status` of an open node must contain.
const STATUS_KEYS: &[&str] = &[
    "build.version",
    "build.commit",
    "cluster.addr",
    "cluster.api_addr",
    "cluster.https",
    "http.auth",
    "http.bind_addr",
    "http.cluster",
    "http.queue._default.max_size",
    "http.queue._default.batch_size",
    "http.queue._default.timeout",
    "http.queue._default.sequence_number",
    "http.tls",
    "mux.addr",
    "network.interfaces",
    "node.start_time",
    "node.current_time",
    "node.uptime",
    "os.pid",
    "os.hostname",
    "os.executable",
    "runtime.GOARCH",
    "runtime.GOOS",
    "runtime.num_cpu",
    "store.open",
    "store.node_id",
    "store.addr",
    "store.leader.node_id",
    "store.leader.addr",
    "store.ready",
    "store.nodes",
    "store.raft.applied_index",
    "store.raft.commit_index",
    "store.raft.last_contact",
    "store.raft.last_log_index",
    "store.raft.last_snapshot_index",
    "store.raft.num_peers",
    "store.raft.state",
    "store.raft.term",
    "store.raft.voter",
    "store.raft.log_size",
    "store.fsm_index",
    "store.db_applied_index",
    "store.apply_timeout",
    "store.heartbeat_timeout",
    "store.election_timeout",
    "store.snapshot_threshold",
    "store.dir",
    "store.dir_size",
    "store.db_conf.fk_constraints",
    "store.sqlite3.version",
    "store.sqlite3.path",
    "store.sqlite3.db_size",
    "store.sqlite3.pragmas",
    "store.snapshot_store",
];

/// Keys that `/debug/vars` must contain.
const COUNTER_KEYS: &[&str] = &[
    "cmdline",
    "memstats",
    "http.executions",
    "http.queries",
    "http.loads",
    "http.backups",
    "http.num_readyz",
    "http.queued_executions",
    "store.num_snapshots",
    "store.num_joins",
    "store.num_backups",
    "store.num_loads",
    "store.num_restores",
    "store.leader_changes_observed",
    "cluster.num_join_req",
    "cluster.num_execute_req",
    "proxy.remote_executions",
    "db",
    "queue",
];

/// Checks that every name in the paths exists below `value`.
fn ensure_keys(value: &Value, paths: &[&str]) -> Result<()> {
    let missing: Vec<&str> = paths
        .iter()
        .filter(|path| {
            path.split('.')
                .try_fold(value, |value, key| value.get(key))
                .is_none()
        })
        .copied()
        .collect();
    ensure!(missing.is_empty(), "missing: {missing:?}");
    Ok(())
}

#[test]
fn status_and_counters_have_their_names() -> Result<()> {
    let (node, mut client) = node()?;
    let status = client.get_json("/status")?;
    ensure_keys(&status, STATUS_KEYS)?;
    ensure!(
        status["store"]["leader"]["node_id"] == "1" && status["store"]["raft"]["state"] == "Leader",
        "{}",
        status["store"]
    );
    ensure!(
        status["store"]["open"] == serde_json::json!({}),
        "store.open: {}",
        status["store"]["open"]
    );
    ensure!(
        status["http"]["bind_addr"] == node.http && status["http"]["auth"] == "disabled",
        "{}",
        status["http"]
    );
    let vars = client.get_json("/debug/vars")?;
    ensure_keys(&vars, COUNTER_KEYS)?;
    ensure!(vars["cmdline"].is_array(), "cmdline: {}", vars["cmdline"]);
    let before = vars["http"]["executions"].as_u64().context("no counter")?;
    client.execute("CREATE TABLE t(x)", &[])?;
    let after = client.get_json("/debug/vars?key=http")?;
    ensure!(
        after["http"]["executions"].as_u64() == Some(before + 1),
        "{after}"
    );
    Ok(())
}

/// A write that was acknowledged is in the next snapshot and in `/status`.
#[test]
fn a_snapshot_covers_what_was_acknowledged() -> Result<()> {
    let (_node, mut client) = node()?;
    client.execute("CREATE TABLE t(x)", &[])?;
    for round in 0..50 {
        let written = client.post("/db/execute?raft_index", r#"["INSERT INTO t VALUES(1)"]"#)?;
        let index = written.json()["raft_index"].as_u64();
        let made = client.post("/snapshot", "")?;
        ensure!(made.status == 200, "round {round}: {}", made.status);
        let written_again =
            client.post("/db/execute?raft_index", r#"["INSERT INTO t VALUES(1)"]"#)?;
        let latest = written_again.json()["raft_index"].as_u64();
        let status = client.get_json("/status?key=store.raft.applied_index")?;
        ensure!(
            index < latest && status.as_u64() >= latest,
            "round {round}: {index:?}, {latest:?}, applied {status}"
        );
    }
    Ok(())
}

#[test]
fn not_ready_is_said_in_the_contracts_words() -> Result<()> {
    // A member of a cluster whose other member is down.
    let mut cluster = e2e::cluster::Cluster::start(2)?;
    cluster[0].kill()?;
    let mut client = cluster.client(1).timeout(Duration::from_secs(10));
    wait::until("the loss of the leader", SETTLE_LIMIT, || {
        match client.get("/readyz") {
            Ok(reply)
                if reply.status == 503
                    && reply.text() == "[+]node ok\n[+]leader does not exist" =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })?;
    exchange::run(
        &mut client,
        &[
            get("/readyz?noleader", "[+]node ok"),
            with_status("GET", "/leader", "", 503, "leader not found\n"),
            with_status("GET", "/db/backup", "", 503, "leader not found\n"),
            with_status("POST", "/db/load", "SELECT 1", 503, "leader not found\n"),
            with_status(
                "DELETE",
                "/remove",
                r#"{"id":"1"}"#,
                503,
                "leader not found\n",
            ),
            with_status(
                "POST",
                "/db/execute?queue",
                r#"["SELECT 1"]"#,
                503,
                "leader not found\n",
            ),
            get(
                "/db/query?level=none&q=SELECT%201%20AS%20a",
                r#"{"results":[{"columns":["a"],"types":["integer"],"values":[[1]]}]}"#,
            ),
            get(
                "/db/query?level=none&freshness=1ms&q=SELECT%201",
                r#"{"results":[],"error":"stale read"}"#,
            ),
            get("/status?key=store.leader.node_id", "\"\""),
        ],
    )
}
