//! Long-running reads: they end when their clients disconnect, delay neither probes nor short reads nor the
//! node's stop, and are listed, logged, and ended by an administrator.
use std::{
    fs,
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::Client,
    cluster::{Cluster, check_no_panic},
    process::Node,
    wait,
};
use serde_json::Value;

const ENDLESS: &str =
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
/// Requirement: one second. Other tests share the machine.
const SOON: Duration = Duration::from_secs(5);
/// Maximum time of a probe, also allowing for other tests.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// Limit for stopping after SIGTERM, whatever is running.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Sends a statement without waiting for the reply. Dropping the stream disconnects the client.
fn begin(addr: &str, path: &str, sql: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    let body = serde_json::json!([sql]).to_string();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    Ok(stream)
}

fn running(client: &mut Client) -> Result<Vec<Value>, String> {
    let listed = client.get_json("/db/running").map_err(|e| e.to_string())?;
    Ok(listed["running"].as_array().cloned().unwrap_or_default())
}

fn await_running(client: &mut Client, count: usize, limit: Duration) -> Result<Vec<Value>> {
    wait::until(
        &format!("{count} running statements"),
        limit,
        || match running(client)? {
            listed if listed.len() == count => Ok(listed),
            listed => Err(format!("{} are running: {listed:?}", listed.len())),
        },
    )
}

/// Processor time of a process so far.
fn processor_time(node: &Node) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid().context("no process")?))?;
    let after_name = stat.rsplit_once(')').context("no name")?.1;
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // Linux reports processor time in hundredths of a second on all platforms.
    Ok(Duration::from_millis(ticks * 10))
}

fn is_idle(node: &Node) -> Result<()> {
    wait::until("an idle process", SOON, || {
        let look = || processor_time(node).map_err(|e| e.to_string());
        let before = look()?;
        wait::sleep(Duration::from_millis(300));
        let used = look()?.saturating_sub(before);
        if used < Duration::from_millis(100) {
            Ok(())
        } else {
            Err(format!("{used:?} of processor time in 300 ms"))
        }
    })
}

#[test]
fn statements_end_with_their_clients() -> Result<()> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = node.client();
    client.execute("CREATE TABLE t(x)", &[])?;
    for path in [
        "/db/query?level=none",
        "/db/query?level=linearizable",
        "/db/request",
    ] {
        let clients = (0..2)
            .map(|_| begin(&node.http, path, ENDLESS))
            .collect::<Result<Vec<_>>>()?;
        let listed = await_running(&mut client, 2, SOON)?;
        ensure!(
            listed.iter().all(|one| one["sql"] == ENDLESS
                && one["client"]
                    .as_str()
                    .is_some_and(|c| c.starts_with("127.0.0.1:"))),
            "{listed:?}"
        );
        let status = client.get_json("/status")?;
        let shown = status["store"]["running"].as_array().map_or(0, Vec::len);
        ensure!(shown == 2, "{}", status["store"]["running"]);
        drop(clients);
        await_running(&mut client, 0, SOON)?;
        is_idle(&node)?;
    }
    check_no_panic(&node)
}

#[test]
fn a_forwarded_statement_ends_with_the_followers_client() -> Result<()> {
    let mut cluster = Cluster::start(2)?;
    let leader = cluster.leader()?;
    let follower = cluster.follower()?;
    let mut at_leader = cluster.client(leader);
    let path = "/db/query?level=weak";
    let client = begin(&cluster[follower].http, path, ENDLESS)?;
    let listed = await_running(&mut at_leader, 1, SOON)?;
    let name = &cluster[follower].name;
    ensure!(listed[0]["via"] == name.as_str(), "{listed:?}");
    drop(client);
    await_running(&mut at_leader, 0, SOON)?;
    is_idle(&cluster[leader])?;
    cluster.check_no_panic()
}

#[test]
fn probes_and_short_reads_are_served_beside_many_long_ones() -> Result<()> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = node.client();
    client.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)", &[])?;
    let fill = "INSERT INTO t WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 20000) SELECT x, x FROM n";
    client.execute(fill, &[])?;
    let clients = (0..50)
        .map(|_| begin(&node.http, "/db/query?level=none", ENDLESS))
        .collect::<Result<Vec<_>>>()?;
    await_running(&mut client, 50, SOON)?;
    let scan = "/db/query?level=none&q=SELECT%20sum(x)%20FROM%20t";
    for path in ["/readyz", "/status", "/nodes", "/metrics", scan] {
        for _ in 0..5 {
            let begun = Instant::now();
            let reply = client.get(path)?;
            ensure!(reply.status == 200, "{path}: {reply:?}");
            let took = begun.elapsed();
            ensure!(took < PROBE_LIMIT, "{path} took {took:?}");
        }
    }
    let begun = Instant::now();
    client.execute("INSERT INTO t(x) VALUES(0)", &[])?;
    ensure!(begun.elapsed() < PROBE_LIMIT, "{:?}", begun.elapsed());

    // The clients are still connected.
    let begun = Instant::now();
    node.send_sigterm()?;
    node.wait_exit(STOP_LIMIT)?;
    ensure!(begun.elapsed() < STOP_LIMIT);
    drop(clients);
    check_no_panic(&node)
}

#[test]
fn an_administrator_ends_a_statement() -> Result<()> {
    let mut node = Node::new("1")?.with(&["-db-slow-statement", "50ms"]);
    node.start_and_ready()?;
    let mut client = node.client();
    let addr = node.http.clone();
    let doomed = std::thread::spawn(move || {
        let body = serde_json::json!(["SELECT 1", ENDLESS, "SELECT 2"]).to_string();
        Client::new(&addr).post("/db/query?level=none", &body)
    });
    let listed = await_running(&mut client, 1, SOON)?;
    wait::sleep(Duration::from_millis(100));
    let id = &listed[0]["id"];
    let end = |client: &mut Client, id: &str| {
        client.send("DELETE", &format!("/db/running/{id}"), &[], b"")
    };
    ensure!(end(&mut client, "x")?.status == 400);
    ensure!(end(&mut client, "999999")?.status == 404);
    ensure!(end(&mut client, &id.to_string())?.status == 200);
    let reply = doomed.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    let text = reply.text();
    ensure!(
        text.matches("query ended by an administrator").count() == 2
            && text.contains("\"values\":[[1]]"),
        "{text}"
    );
    await_running(&mut client, 0, SOON)?;
    wait::until("the line of a slow statement", SOON, || {
        let log = node.log();
        let line = log
            .lines()
            .find(|line| line.contains("WITH RECURSIVE n(x)"));
        match line {
            Some(line) if line.contains("read of ") && line.contains("127.0.0.1:") => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })?;
    client.execute("CREATE TABLE t(x)", &[])?;
    let some = format!("INSERT INTO t {ENDLESS}");
    client.post(
        "/db/execute?db_timeout=1s",
        &serde_json::json!([some]).to_string(),
    )?;
    wait::until("the line of a slow write", SOON, || {
        let log = node.log();
        let line = log.lines().find(|line| line.contains("write of "));
        match line {
            Some(line) if line.contains("INSERT INTO t") => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })?;
    check_no_panic(&node)
}

#[test]
fn a_write_that_takes_long_is_listed_and_cannot_be_ended() -> Result<()> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = node.client();
    client.execute("CREATE TABLE t(x)", &[])?;
    let endless = ENDLESS.replace("count(*)", "x");
    let sql = format!("INSERT INTO t {endless}");
    let writer = begin(&node.http, "/db/execute?db_timeout=5s", &sql)?;
    let listed = await_running(&mut client, 1, SOON)?;
    ensure!(listed[0]["state"] == "writing", "{listed:?}");
    ensure!(
        listed[0]["sql"]
            .as_str()
            .is_some_and(|text| text.starts_with("INSERT INTO t WITH")),
        "{listed:?}"
    );
    ensure!(client.send("DELETE", "/db/running/0", &[], b"")?.status == 404);
    // Every node applies a committed entry: it ends by its bound, not with its client.
    drop(writer);
    await_running(&mut client, 0, Duration::from_secs(60))?;
    check_no_panic(&node)
}

#[test]
fn only_administrators_may_end_statements() -> Result<()> {
    let mut node = Node::new("1")?;
    let auth = node.scratch().join("auth.json");
    fs::write(
        &auth,
        r#"[{"username":"ops","password":"o","perms":["leader-ops","status"]},
            {"username":"*","perms":["query","status","ready"]}]"#,
    )?;
    node = node.with(&["-auth", auth.to_str().context("path")?]);
    node.start_and_ready()?;
    let mut client = node.client();
    let path = "/db/running/1";
    ensure!(client.send("DELETE", path, &[], b"")?.status == 401);
    let ops = ("Authorization", "Basic b3BzOm8=");
    ensure!(client.send("DELETE", path, &[ops], b"")?.status == 404);
    Ok(())
}
