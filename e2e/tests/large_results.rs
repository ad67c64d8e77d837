//! Results too large for memory: they are streamed through both nodes of a forwarded read at the client's
//! rate.
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::Client,
    cluster::{Cluster, check_no_panic},
    process::Node,
    wait,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
/// Generous, for a debug build on a busy machine.
const READ_LIMIT: Duration = Duration::from_secs(120);
/// Maximum memory of a node: 200 MiB, for a result that takes about 300 MiB as values.
const MEMORY_LIMIT_KIB: u64 = 200 * 1024;

/// `count` rows of about 100 bytes.
fn many(count: u64) -> String {
    format!(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {count}) SELECT x, printf('%090d', x) AS t FROM n"
    )
}

fn expected(count: u64) -> String {
    let mut text =
        String::from(r#"{"results":[{"columns":["x","t"],"types":["integer","text"],"values":["#);
    for x in 1..=count {
        if x > 1 {
            text.push(',');
        }
        text.push_str(&format!("[{x},\"{x:090}\"]"));
    }
    text.push_str("]}]}");
    text
}

/// Peak memory of a process.
fn peak_kib(node: &Node) -> Result<u64> {
    let status = fs::read_to_string(format!(
        "/proc/{}/status",
        node.pid().context("no process")?
    ))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.context("no VmHWM")?.parse()?)
}

fn running(client: &mut Client) -> Result<Vec<Value>, String> {
    let listed = client.get_json("/db/running").map_err(|e| e.to_string())?;
    Ok(listed["running"].as_array().cloned().unwrap_or_default())
}

fn await_running(
    client: &mut Client,
    what: &str,
    wanted: impl Fn(&[Value]) -> bool,
) -> Result<Vec<Value>> {
    wait::until(what, SOON, || match running(client)? {
        listed if wanted(&listed) => Ok(listed),
        listed => Err(format!("{listed:?}")),
    })
}

/// A client that has sent a statement and read the beginning of the reply.
fn begin(addr: &str, path: &str, sql: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    let body = serde_json::json!([sql]).to_string();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut start = [0; 4096];
    stream.read_exact(&mut start)?;
    let start = String::from_utf8_lossy(&start);
    ensure!(
        start.starts_with("HTTP/1.1 200") && start.contains("chunked"),
        "{start}"
    );
    Ok(stream)
}

/// Waits until the node knows that the leader can stream results.
fn await_version(node: &Node) -> Result<()> {
    wait::until("the format version of the new node", SOON, || {
        let shown = node.client().get_json("/status");
        let shown = shown.map_err(|e| e.to_string())?;
        match &shown["store"]["raft"]["format_version"] {
            version if version.as_u64() >= Some(2) => Ok(()),
            version => Err(version.to_string()),
        }
    })
}

#[test]
fn a_million_rows_through_two_nodes_in_little_memory() -> Result<()> {
    let mut cluster = Cluster::start(2)?;
    let leader = cluster.leader()?;
    let follower = cluster.follower()?;
    await_version(&cluster[follower])?;
    let count = 1_000_000;
    let body = serde_json::json!([many(count)]).to_string();
    let mut client = cluster.client(follower).timeout(READ_LIMIT);
    let reply = client.post("/db/query?level=weak", &body)?;
    ensure!(reply.status == 200);
    ensure!(
        reply.body == expected(count).as_bytes(),
        "{} bytes, beginning {:?}",
        reply.body.len(),
        String::from_utf8_lossy(&reply.body[..reply.body.len().min(300)])
    );
    ensure!(reply.header("x-rqlite-served-by") == Some(cluster[leader].raft.as_str()));
    for node in cluster.iter() {
        let peak = peak_kib(node)?;
        ensure!(peak < MEMORY_LIMIT_KIB, "node {}: {peak} KiB", node.name);
    }
    cluster.check_no_panic()
}

#[test]
fn a_large_reply_has_the_same_form_as_a_small_one() -> Result<()> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = node.client().timeout(READ_LIMIT);
    let ask = |client: &mut Client, query: &str, count: u64| {
        let body = serde_json::json!(["SELECT 1", many(count), "SELECT nonsense"]).to_string();
        client.post(&format!("/db/query?level=none{query}"), &body)
    };
    for query in [
        "",
        "&associative",
        "&pretty",
        "&transaction",
        "&pretty&associative",
    ] {
        let small = ask(&mut client, query, 10)?;
        ensure!(small.header("content-length").is_some(), "{query}");
        let large = ask(&mut client, query, 30_000)?;
        ensure!(large.header("transfer-encoding").is_some(), "{query}");
        let (small, large) = (small.json(), large.json());
        let (rows, cells) = match large["results"][1]["values"].as_array() {
            Some(values) => ("values", values),
            None => (
                "rows",
                large["results"][1]["rows"].as_array().context("rows")?,
            ),
        };
        ensure!(cells.len() == 30_000, "{query}: {} rows", cells.len());
        ensure!(cells[..10] == small["results"][1][rows].as_array().context("rows")?[..]);
        for other in [0, 2] {
            ensure!(
                small["results"][other] == large["results"][other],
                "{query}"
            );
        }
        ensure!(small["results"][1]["types"] == large["results"][1]["types"]);
    }
    let timed = ask(&mut client, "&timings", 30_000)?.json();
    ensure!(timed["time"].is_number() && timed["results"][1]["time"].is_number());
    check_no_panic(&node)
}

#[test]
fn a_client_that_takes_nothing_holds_up_nobody() -> Result<()> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = node.client();
    client.execute("CREATE TABLE t(x)", &[])?;
    let slow = begin(&node.http, "/db/query?level=none", &many(u64::MAX >> 1))?;
    await_running(&mut client, "a read that waits for its client", |listed| {
        listed.len() == 1 && listed[0]["state"] == "waiting"
    })?;
    client.execute("INSERT INTO t VALUES(1)", &[])?;
    ensure!(client.get("/readyz")?.status == 200);
    ensure!(peak_kib(&node)? < MEMORY_LIMIT_KIB);
    drop(slow);
    await_running(&mut client, "the end of that read", <[Value]>::is_empty)?;
    check_no_panic(&node)
}

#[test]
fn a_reply_that_breaks_off_says_so_at_its_end() -> Result<()> {
    let mut cluster = Cluster::start(2)?;
    let leader = cluster.leader()?;
    let follower = cluster.follower()?;
    await_version(&cluster[follower])?;
    let rest = |mut stream: TcpStream| -> Result<String> {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        let end = String::from_utf8_lossy(&rest[rest.len().saturating_sub(400)..]).into_owned();
        // The last chunk is present: the reply is complete.
        ensure!(end.ends_with("\r\n0\r\n\r\n"), "{end}");
        Ok(end)
    };
    let path = "/db/query?level=weak";
    // Ended by an administrator at the leader, requested through the follower.
    let stream = begin(&cluster[follower].http, path, &many(u64::MAX >> 1))?;
    let mut at_leader = cluster.client(leader);
    let listed = await_running(&mut at_leader, "a read at the leader", |l| l.len() == 1)?;
    let ended = at_leader.send(
        "DELETE",
        &format!("/db/running/{}", listed[0]["id"]),
        &[],
        b"",
    )?;
    ensure!(ended.status == 200);
    let end = rest(stream)?;
    ensure!(
        end.contains(r#"],"error":"query ended by an administrator"}"#),
        "{end}"
    );
    // The leader dies.
    let stream = begin(&cluster[follower].http, path, &many(u64::MAX >> 1))?;
    cluster[leader].kill()?;
    let end = rest(stream)?;
    ensure!(
        end.contains(r#"],"error":"the result broke off: "#) && end.contains(r#"}],"error":""#),
        "{end}"
    );
    check_no_panic(&cluster[follower])
}
