//! Failure counters of `/debug/vars`: they change when something fails, and only then.
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::Client,
    cluster::{Cluster, SETTLE_LIMIT},
    link::{Link, Mode},
    membership::await_write,
    process::Node,
    wait,
};
use serde_json::json;

fn counter(client: &mut Client, map: &str, key: &str) -> Result<u64> {
    let vars = client.get_json(&format!("/debug/vars?key={map}"))?;
    vars[map][key]
        .as_u64()
        .with_context(|| format!("{map} {key}"))
}

fn counters<const N: usize>(
    client: &mut Client,
    map: &str,
    keys: [&str; N],
) -> Result<Vec<(String, u64)>> {
    let counted = keys.map(|key| Ok((key.to_owned(), counter(client, map, key)?)));
    counted.into_iter().collect()
}

#[test]
fn failed_statements_connections_and_heartbeats_are_counted() -> Result<()> {
    let mut cluster = Cluster::start(2)?;
    let (leader, follower) = (cluster.leader()?, cluster.follower()?);
    let mut client = cluster.client(leader);
    client.execute("CREATE TABLE t(x UNIQUE)", &[])?;
    let wrong = client.post(
        "/db/execute",
        r#"["INSERT INTO t VALUES(1)","INSERT INTO t VALUES(1)","nonsense"]"#,
    )?;
    ensure!(wrong.status == 200, "{wrong:?}");
    client.get("/db/query?level=none&q=SELECT%20y%20FROM%20t")?;
    cluster.agreed_dump()?;
    for index in [leader, follower] {
        let errors = counter(&mut cluster.client(index), "db", "execution_errors")?;
        ensure!(errors == 2, "{errors} at {index}");
    }
    ensure!(counter(&mut client, "db", "query_errors")? == 1);
    let encoded = counter(&mut client, "proto", "num_requests_encoded")?;
    let decoded = counter(
        &mut cluster.client(follower),
        "proto",
        "num_requests_decoded",
    )?;
    // The format version's increase, the table and the rows.
    ensure!(encoded == 3 && decoded == 3, "{encoded} and {decoded}");
    client.post("/snapshot", "")?;
    ensure!(counter(&mut client, "db.wal", "frames_written")? > 0);

    // A joining node has checked whether its join address serves HTTP.
    let before = counter(&mut client, "mux", "num_unregistered_handlers")?;
    let mut foreign = TcpStream::connect(&cluster[leader].raft)?;
    foreign.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    // The node closes the connection first, and counts it afterwards.
    let _ = foreign.read_to_end(&mut Vec::new());
    wait::until("one more unknown protocol", SETTLE_LIMIT, || {
        let seen = counter(&mut client, "mux", "num_unregistered_handlers");
        match seen {
            Ok(after) if after == before + 1 => Ok(()),
            _ => Err(format!("{before}, then {seen:?}")),
        }
    })?;

    cluster[follower].kill()?;
    wait::until("failed heartbeats", SETTLE_LIMIT, || {
        match counter(&mut client, "store", "failed_heartbeat_observed") {
            Ok(0) => Err("none".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
}

const RETRIES: [&str; 4] = [
    "num_client_retries",
    "num_client_execute_retries",
    "num_client_request_retries",
    "num_client_query_retries",
];

#[test]
fn repeated_and_slow_calls_are_counted() -> Result<()> {
    let mut first = Node::new("1")?;
    let link = Link::to(&first.raft)?;
    first.raft_adv = Some(link.addr.clone());
    let mut cluster = Cluster::of(vec![first, Node::new("2")?]);
    cluster.form()?;
    let mut client = cluster.client(1);
    await_write(&mut client, "CREATE TABLE t(x)")?;
    let before = counters(&mut client, "cluster", RETRIES)?;
    ensure!(before.iter().all(|(_, count)| *count == 0), "{before:?}");
    // The leader's heartbeats take another path.
    link.set(Mode::Cut);
    for (path, body) in [
        ("/db/execute?retries=2", r#"["INSERT INTO t VALUES(1)"]"#),
        ("/db/request?retries=3", r#"["INSERT INTO t VALUES(1)"]"#),
        ("/db/query?retries=1&level=weak", r#"["SELECT 1"]"#),
    ] {
        let reply = client.post(path, body)?;
        ensure!(reply.text().contains("dial tcp"), "{path}: {reply:?}");
    }
    let after = counters(&mut client, "cluster", RETRIES)?;
    let expected = RETRIES.into_iter().map(str::to_owned).zip([6, 2, 3, 1]);
    ensure!(after == expected.collect::<Vec<_>>(), "{after:?}");
    ensure!(counter(&mut client, "cluster", "num_client_force_new_conn")? > 0);
    link.set(Mode::Open);
    await_write(&mut client, "INSERT INTO t VALUES(2)")?;
    let timeouts = |client: &mut Client| counter(client, "cluster", "num_client_read_timeouts");
    let before = timeouts(&mut client)?;
    link.set(Mode::HoldResponses);
    let mut patient = cluster.client(1).timeout(Duration::from_secs(10));
    let slow = patient.post(
        "/db/execute?timeout=1s",
        &json!(["INSERT INTO t VALUES(3)"]).to_string(),
    )?;
    ensure!(slow.text().contains("timeout"), "{slow:?}");
    ensure!(timeouts(&mut client)? > before, "not counted");
    link.set(Mode::Open);
    await_write(&mut client, "INSERT INTO t VALUES(4)")?;
    cluster.agreed_dump().map(drop)
}
