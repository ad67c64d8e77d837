//! Everything large that nodes send each other, over TLS: uploads, results, backups, snapshots.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    authority::{Authority, Leaf},
    cluster::Cluster,
    membership::await_rows,
    mounted::Mounted,
    process::Node,
};

/// For a debug build on a busy machine.
const LARGE_LIMIT: Duration = Duration::from_secs(120);
const ROWS: i64 = 16_000;

/// A database of some 16 MiB.
fn database() -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("db");
    let connection = rusqlite::Connection::open(&path)?;
    connection.execute_batch(&format!(
        "CREATE TABLE big(id INTEGER PRIMARY KEY, x TEXT);
         INSERT INTO big(x) WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {ROWS}) SELECT hex(randomblob(500)) FROM n;"
    ))?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(std::fs::read(path)?)
}

#[test]
fn large_transfers_between_nodes() -> Result<()> {
    let authority = Authority::new("ours")?;
    let mut files = Vec::new();
    let mut secured = |name: &str| -> Result<Node> {
        let pair = authority.issue(&Leaf::for_loopback(name))?;
        let mounted = Mounted::new(&pair, &[authority.pem()])?;
        let mut node = Node::new(name)?.with(&["-node-verify-client"]);
        node.args.extend(mounted.flags("node"));
        files.push(mounted);
        Ok(node)
    };
    let mut cluster = Cluster::of(vec![secured("1")?, secured("2")?]);
    let third = secured("3")?;
    cluster.form()?;
    let follower = cluster.follower()?;
    let mut client = cluster.client(follower).timeout(LARGE_LIMIT);
    let sent = database()?;
    ensure!(sent.len() > 15 << 20, "{} bytes", sent.len());
    let reply = client.send("POST", "/db/load", &[], &sent)?;
    ensure!(
        reply.status == 200,
        "load: {} {}",
        reply.status,
        reply.text()
    );
    for node in cluster.iter() {
        await_rows(node, "SELECT count(*) FROM big", ROWS)?;
    }
    let rows = client.rows("strong", "SELECT id, x FROM big", &[])?;
    ensure!(rows.len() == usize::try_from(ROWS)?, "{} rows", rows.len());
    let backup = client.get("/db/backup")?;
    ensure!(
        backup.status == 200 && backup.body.len() > 15 << 20,
        "{} {}",
        backup.status,
        backup.body.len()
    );
    ensure!(backup.body.starts_with(b"SQLite format 3"), "no database");
    // Without the log of it, a new node needs the snapshot.
    for node in cluster.iter() {
        let reply = node.client().post("/snapshot?trailing_logs=1", "")?;
        ensure!(matches!(reply.status, 200 | 204), "{}", reply.text());
    }
    let joined = cluster.join(third, 0)?;
    await_rows(joined, "SELECT count(*) FROM big", ROWS)?;
    let counters = joined.client().get_json("/debug/vars")?;
    let restores = &counters["store"]["num_restores"];
    ensure!(restores == 1, "{restores} snapshots were received");
    let status = cluster.client(0).get_json("/status")?;
    let stage = &status["security"]["node_tls"]["stage"];
    ensure!(stage == "require", "{stage}");
    cluster.agreed_dump().context("equal")?;
    cluster.check_no_panic()
}
