//! Leadership, quorum and forwarding: which nodes answer, and how long none does.
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::{Client, WriteOutcome},
    cluster::{Cluster, SETTLE_LIMIT},
    link::Mode,
    membership::await_write,
    process::Node,
    wait,
};
use serde_json::{Value, json};

#[test]
fn the_whole_cluster_restarts_without_join_flags() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    cluster.client(1).execute("CREATE TABLE t(x)", &[])?;
    for number in 0..10 {
        cluster
            .client(number % 3)
            .execute("INSERT INTO t VALUES(?)", &[json!(number)])?;
    }
    for node in cluster.iter_mut() {
        node.stop()?;
    }
    cluster.iter_mut().try_for_each(Node::start)?;
    cluster
        .iter_mut()
        .try_for_each(|node| node.wait_ready(SETTLE_LIMIT))?;
    let rows = cluster.agreed_rows("SELECT count(*), sum(x) FROM t")?;
    ensure!(rows == format!("{:?}", [[json!(10), json!(45)]]), "{rows}");
    cluster.crash_all()?;
    ensure!(
        cluster.agreed_rows("SELECT count(*), sum(x) FROM t")? == rows,
        "changed by a crash of all"
    );
    cluster.check_no_panic()
}

#[test]
fn a_stopping_leader_hands_over() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let leader = cluster.leader()?;
    let mut client = cluster
        .client((leader + 1) % 3)
        .timeout(Duration::from_secs(3));
    cluster[leader].send_sigterm()?;
    let gap = longest_gap(&mut client, Duration::from_secs(4))?;
    ensure!(gap < Duration::from_secs(3), "no write for {gap:?}");
    let status = cluster[leader].wait_exit(SETTLE_LIMIT)?;
    ensure!(status.success(), "exit {status}");
    cluster.check_no_panic()
}

#[test]
fn a_killed_leader_is_replaced_and_its_disk_still_fits() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let leader = cluster.leader()?;
    cluster[leader].kill()?;
    let mut client = cluster
        .client((leader + 1) % 3)
        .timeout(Duration::from_secs(3));
    let gap = longest_gap(&mut client, Duration::from_secs(3))?;
    println!("gap after kill -9: {gap:?}");
    let next = cluster.leader()?;
    ensure!(next != leader, "the dead node is still the leader");
    cluster[leader].start_and_ready()?;
    cluster.agreed_dump()?;
    cluster.check_no_panic()
}

/// Writes for `span`, and then until one more write is acknowledged. Returns the longest time between two
/// acknowledged writes.
fn longest_gap(client: &mut Client, span: Duration) -> Result<Duration> {
    let start = Instant::now();
    let (mut last, mut longest) = (start, Duration::ZERO);
    wait::until("writes to go on", span + SETTLE_LIMIT, || {
        let outcome = client.write("INSERT INTO t VALUES(1)", &[]);
        if let WriteOutcome::Acknowledged(_) = outcome {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        if start.elapsed() > span && last >= start + span {
            Ok(())
        } else {
            Err(format!("{outcome:?}"))
        }
    })?;
    Ok(longest)
}

#[test]
fn leadership_moves_on_request() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let leader = cluster.leader()?;
    let (target, asked) = ((leader + 1) % 3, (leader + 2) % 3);
    let body = json!({"id": cluster[target].name}).to_string();
    let reply = cluster.client(asked).post("/leader?wait", &body)?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    let name = cluster[target].name.clone();
    let mut client = cluster.client(asked);
    wait::until("the chosen leader", SETTLE_LIMIT, || {
        match client.leader() {
            Some(seen) if seen == name => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    ensure!(client.get_json("/leader")?["id"] == name, "GET /leader");
    // Once the transfer is reported, the new leader knows that it leads, and so does the node that was asked.
    for round in 0..6 {
        let (target, asked) = ((leader + round) % 3, (leader + round + 1) % 3);
        let name = cluster[target].name.clone();
        let body = json!({"id": name}).to_string();
        let reply = cluster.client(asked).post("/leader?wait", &body)?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        for at in [target, asked] {
            let seen = cluster.client(at).get("/leader")?;
            ensure!(
                seen.status == 200 && seen.json()["id"] == name,
                "round {round}, node {at}: {} {}",
                seen.status,
                seen.text()
            );
        }
    }
    let reply = client.post("/leader?wait", r#"{"id":"nobody"}"#)?;
    ensure!(
        reply.status == 500 && reply.text().contains("stepdown: node not found in cluster"),
        "{}",
        reply.text()
    );
    Ok(())
}

#[test]
fn followers_forward_or_redirect() -> Result<()> {
    let mut cluster = Cluster::start(2)?;
    let (leader, follower) = (cluster.leader()?, cluster.follower()?);
    let mut client = cluster.client(follower);
    let served_by =
        |reply: &e2e::client::Reply| reply.header("X-RQLITE-SERVED-BY").map(str::to_owned);
    let written = client.post("/db/execute", r#"["CREATE TABLE t(x)"]"#)?;
    ensure!(
        written.text() == r#"{"results":[{}]}"#,
        "{}",
        written.text()
    );
    ensure!(
        served_by(&written).as_ref() == Some(&cluster[leader].raft),
        "forwarded: {:?}",
        written.headers
    );
    let read = client.get("/db/query?level=none&q=SELECT%201")?;
    ensure!(
        served_by(&read).as_ref() == Some(&cluster[follower].http),
        "local: {:?}",
        read.headers
    );
    for level in ["weak", "linearizable", "strong"] {
        let read = client.get(&format!("/db/query?level={level}&q=SELECT%201"))?;
        ensure!(
            served_by(&read).as_ref() == Some(&cluster[leader].raft),
            "{level}: {:?}",
            read.headers
        );
        ensure!(
            read.json()["results"][0]["values"] == json!([[1]]),
            "{level}: {}",
            read.text()
        );
    }
    let moved = client.post(
        "/db/execute?redirect&timings",
        r#"["INSERT INTO t VALUES(1)"]"#,
    )?;
    let target = format!(
        "http://{}/db/execute?redirect&timings",
        cluster[leader].http
    );
    ensure!(
        moved.status == 301 && moved.header("Location") == Some(&target),
        "{} {:?}",
        moved.status,
        moved.headers
    );
    ensure!(moved.body.is_empty(), "{}", moved.text());
    ensure!(
        client.number("weak", "SELECT count(*) FROM t")? == 0,
        "a redirected write was done"
    );
    let both = client.post(
        "/db/request",
        r#"["INSERT INTO t VALUES(7)","SELECT x FROM t"]"#,
    )?;
    ensure!(
        both.json()["results"][1]["values"] == json!([[7]]),
        "{}",
        both.text()
    );
    Ok(())
}

#[test]
fn queued_writes_through_a_follower_arrive() -> Result<()> {
    let mut cluster = Cluster::start(2)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let follower = cluster.follower()?;
    let mut client = cluster.client(follower);
    let mut last = 0;
    for number in 0..10 {
        let reply = client.post(
            "/db/execute?queue",
            &json!([["INSERT INTO t VALUES(?)", number]]).to_string(),
        )?;
        let sequence = reply.json()["sequence_number"]
            .as_i64()
            .context(reply.text())?;
        ensure!(
            sequence > last,
            "sequence numbers must rise: {sequence} after {last}"
        );
        last = sequence;
    }
    let flushed = client.post("/db/execute?queue&wait", "[]")?;
    ensure!(
        flushed.status == 200,
        "{} {}",
        flushed.status,
        flushed.text()
    );
    ensure!(
        client.number("weak", "SELECT count(*) FROM t")? == 10,
        "queued writes are missing"
    );
    Ok(())
}

#[test]
fn without_a_quorum_only_local_reads_work() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    cluster.agreed_dump()?;
    let leader = cluster.leader()?;
    cluster[(leader + 1) % 3].kill()?;
    cluster[(leader + 2) % 3].kill()?;
    let mut client = cluster.client(leader);
    wait::until("the leader to step down", SETTLE_LIMIT, || {
        match client.get("/readyz") {
            Ok(reply) if reply.status == 503 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    let refused = client.post("/db/execute", r#"["INSERT INTO t VALUES(1)"]"#)?;
    ensure!(
        (refused.status, refused.text().as_str()) == (503, "leader not found\n"),
        "{} {}",
        refused.status,
        refused.text()
    );
    for level in ["weak", "linearizable", "strong"] {
        let reply = client.get(&format!("/db/query?level={level}&q=SELECT%201"))?;
        ensure!(
            reply.status == 503,
            "{level}: {} {}",
            reply.status,
            reply.text()
        );
    }
    ensure!(
        client.number("none", "SELECT count(*) FROM t")? == 0,
        "level none"
    );
    let nodes = client.get_json("/nodes?timeout=1s")?;
    let unreachable = nodes
        .as_object()
        .context("no nodes")?
        .values()
        .filter(|node| node["reachable"] == false)
        .count();
    ensure!(unreachable == 2, "{nodes}");
    // It names itself the leader nowhere.
    let leads = |node: &Value| node["leader"] == true;
    let named = nodes.as_object().context("no nodes")?.values().any(leads);
    let status = client.get_json("/status")?;
    let (state, seen) = (
        &status["store"]["raft"]["state"],
        &status["store"]["leader"]["node_id"],
    );
    ensure!(
        !named && state != "Leader" && seen == "",
        "{nodes} {state} {seen}"
    );
    Ok(())
}

/// Whether the node knows a leader: it is ready and names one (true), or neither (false).
fn sees_a_leader(cluster: &Cluster, at: usize) -> Result<bool, String> {
    let mut client = cluster.client(at);
    let ready = client.get("/readyz").map_err(|e| format!("{e:#}"))?;
    let named = client.leader().filter(|name| !name.is_empty());
    match (ready.status, &named) {
        (200, Some(_)) => Ok(true),
        (503, None) => Ok(false),
        _ => Err(format!(
            "{} {}, leader {named:?}",
            ready.status,
            ready.text()
        )),
    }
}

fn term(cluster: &Cluster, at: usize) -> Result<u64> {
    let status = cluster.client(at).get_json("/status")?;
    status["store"]["raft"]["term"].as_u64().context("no term")
}

#[test]
fn followers_of_a_leader_without_a_quorum_see_no_leader() -> Result<()> {
    let mut cluster = Cluster::start(5)?;
    await_write(&mut cluster.client(0), "CREATE TABLE t(x)")?;
    let leader = cluster.leader()?;
    let [follower, gone @ ..] = [1, 2, 3, 4].map(|step| (leader + step) % 5);
    let before = term(&cluster, leader)?;
    let start = Instant::now();
    for index in gone {
        cluster[index].kill()?;
    }
    let all = |cluster: &Cluster, wanted: bool| {
        wait::until(
            &format!("a leader seen by those left: {wanted}"),
            SETTLE_LIMIT,
            || {
                let seen = [leader, follower].map(|at| sees_a_leader(cluster, at));
                if seen == [Ok(wanted), Ok(wanted)] {
                    Ok(())
                } else {
                    Err(format!("{seen:?}"))
                }
            },
        )
    };
    all(&cluster, false)?;
    println!("not ready {:?} after the loss", start.elapsed());
    ensure!(start.elapsed() < NOTICE_LIMIT, "{:?}", start.elapsed());
    let mut client = cluster.client(follower);
    let refused = client.write("INSERT INTO t VALUES(1)", &[]);
    ensure!(
        matches!(&refused, WriteOutcome::Refused(text) if text.contains("leader not found")),
        "{refused:?}"
    );
    cluster[gone[0]].start()?;
    all(&cluster, true)?;
    ensure!(
        (cluster.leader()?, term(&cluster, follower)?) == (leader, before),
        "an unnecessary election"
    );
    await_write(&mut cluster.client(follower), "INSERT INTO t VALUES(1)")?;
    cluster.check_no_panic()
}

/// Limit for noticing a lost quorum. The leader notices after one election timeout (0.5 s here), its
/// followers with the next heartbeat.
const NOTICE_LIMIT: Duration = Duration::from_secs(4);

#[test]
fn an_isolated_leader_does_not_answer_and_steps_down() -> Result<()> {
    let (mut cluster, links) = Cluster::linked(&[])?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let leader = cluster.leader()?;
    // No traffic reaches the followers, so the leader receives no responses and the followers are cut off
    // from each other.
    for (index, link) in links.iter().enumerate() {
        if index != leader {
            link.set(Mode::Blackhole);
        }
    }
    let mut client = cluster.client(leader).timeout(Duration::from_secs(20));
    let written = client.write("INSERT INTO t VALUES(1)", &[]);
    ensure!(
        !matches!(written, WriteOutcome::Acknowledged(_)),
        "a write without a quorum: {written:?}"
    );
    let read = client.rows("linearizable", "SELECT count(*) FROM t", &[]);
    ensure!(
        read.is_err(),
        "a linearizable read without a quorum: {read:?}"
    );
    for link in &links {
        link.set(Mode::Open);
    }
    cluster
        .iter_mut()
        .try_for_each(|node| node.wait_ready(SETTLE_LIMIT))?;
    await_write(&mut cluster.client(leader), "INSERT INTO t VALUES(2)")?;
    let dump = cluster.agreed_dump()?;
    ensure!(
        dump.matches("VALUES(1)").count() <= 1 && dump.contains("VALUES(2)"),
        "{dump}"
    );
    Ok(())
}

#[test]
fn status_names_the_leader_on_every_node() -> Result<()> {
    let mut cluster = Cluster::start(2)?;
    let leader = cluster.leader()?;
    for index in 0..2 {
        let status = cluster.client(index).get_json("/status")?;
        let store = &status["store"];
        ensure!(
            store["leader"]["node_id"] == cluster[leader].name,
            "{}",
            store["leader"]
        );
        ensure!(
            store["leader"]["addr"] == cluster[leader].raft,
            "{}",
            store["leader"]
        );
        ensure!(
            store["node_id"] == cluster[index].name && store["ready"] == Value::Bool(true),
            "{store}"
        );
        let state = if index == leader {
            "Leader"
        } else {
            "Follower"
        };
        ensure!(store["raft"]["state"] == state, "{}", store["raft"]);
        ensure!(
            status["http"]["bind_addr"] == cluster[index].http,
            "{}",
            status["http"]
        );
    }
    Ok(())
}

const COUNT: &str = "SELECT count(*) FROM t";

/// Only as many followers are contacted as a quorum needs. If one of them hangs, the other is contacted.
#[test]
fn linearizable_reads_go_on_beside_a_hanging_follower() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    for hanging in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster[hanging].pause()?;
        for _ in 0..20 {
            ensure!(client.number("linearizable", COUNT)? == 0, "rows");
        }
        cluster[hanging].resume()?;
    }
    cluster.check_no_panic()
}

/// Timeout of one attempt. A write forwarded to a paused leader is abandoned only some time after its
/// successor is known; another attempt finds the new leader sooner.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(1);

/// A resumed leader still believes that it leads, and no message tells it otherwise. It must confirm its
/// leadership itself before it answers.
#[test]
fn a_leader_that_slept_does_not_answer_with_old_data() -> Result<()> {
    let (mut cluster, links) = Cluster::linked(&[])?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    for round in 1..=3 {
        let leader = cluster.leader()?;
        cluster.client(leader).number("linearizable", COUNT)?;
        cluster[leader].pause()?;
        links[leader].set(Mode::Blackhole);
        await_write(
            &mut cluster.client((leader + 1) % 3).timeout(ATTEMPT_LIMIT),
            &format!(
                "INSERT INTO t SELECT {round} WHERE NOT EXISTS (SELECT 1 FROM t WHERE x = {round})"
            ),
        )?;
        // The request is sent after the write, and read by the old leader when it resumes.
        let mut asked = TcpStream::connect(&cluster[leader].http)?;
        asked.set_read_timeout(Some(SETTLE_LIMIT))?;
        asked.write_all(
            b"GET /db/query?level=linearizable&q=SELECT%20count(*)%20FROM%20t HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )?;
        cluster[leader].resume()?;
        let mut answer = String::new();
        asked.read_to_string(&mut answer)?;
        // An error is allowed; a result must include the write.
        ensure!(
            !answer.contains("values") || answer.contains(&format!("[[{round}]]")),
            "round {round}: {answer}"
        );
        links[leader].set(Mode::Open);
        cluster[leader].wait_ready(SETTLE_LIMIT)?;
    }
    cluster.check_no_panic()
}

/// A third of the default request timeout: a request answered within it has not waited for the frozen node.
const NOT_HELD_UP: Duration = Duration::from_secs(10);

/// Connections to the frozen leader stay open and accept data. A write sent there has an unknown outcome. A
/// read has no effect, so it is sent again to the next leader, and so is a write that found no open
/// connection, since it was not sent.
#[test]
fn a_frozen_leader_holds_up_nobody_once_another_leads() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let leader = cluster.leader()?;
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    for follower in followers {
        cluster
            .client(follower)
            .execute("INSERT INTO t VALUES(0)", &[])?;
    }
    cluster[leader].pause()?;
    let ask = |mut client: Client, call: &str| match call {
        "write" => client.post("/db/execute", r#"["INSERT INTO t VALUES(1)"]"#),
        level => client.get(&format!(
            "/db/query?level={level}&q=SELECT%20count(*)%20FROM%20t"
        )),
    };
    std::thread::scope(|scope| {
        let calls = followers.iter().flat_map(|follower| {
            ["write", "linearizable", "weak", "strong"].map(|call| (*follower, call))
        });
        let asked: Vec<_> = calls
            .map(|(follower, call)| {
                let client = cluster.client(follower).timeout(NOT_HELD_UP);
                (follower, call, scope.spawn(move || ask(client, call)))
            })
            .collect();
        for (follower, call, answer) in asked {
            let answer = answer.join().expect("the call panicked");
            let text = answer
                .with_context(|| format!("{call} at {follower}"))?
                .text();
            let is_unknown = call == "write" && text.contains("does not lead any more");
            ensure!(
                is_unknown || !text.contains("error"),
                "{call} at {follower}: {text}"
            );
        }
        anyhow::Ok(())
    })?;
    for follower in followers {
        let mut client = cluster.client(follower).timeout(NOT_HELD_UP);
        client.execute("INSERT INTO t VALUES(2)", &[])?;
    }
    cluster[leader].resume()?;
    cluster.agreed_dump()?;
    cluster.check_no_panic()
}
