//! What the status says, and when: it is never ahead of the facts, not far behind them, and silent when
//! nothing happens.
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    ROOM,
    cluster::{Cluster, LONG, NAME, QUIET, spec},
    fixture::{Fixture, condition, text},
    report::Measurements,
    within,
};

/// Limit from a leadership transfer until the leader's Service points at the new leader.
const FOLLOW_GOAL: Duration = Duration::from_secs(2);
const TRANSFERS: usize = 5;
/// How long a calm cluster is watched.
const CALM: Duration = Duration::from_secs(180);
/// How long the cluster is written to.
const LOAD: Duration = Duration::from_secs(90);
/// Clients that write at the same time, each as fast as it gets responses.
const CLIENTS: usize = 32;

/// `kubectl wait` right after an edit returns only once every pod is replaced.
pub(crate) fn wait_after_edit(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("wait", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        for tag in ["next", "dev"] {
            let before = cluster.uids()?;
            cluster.edit(&json!({"spec": {"image": {"tag": tag}}}))?;
            let object = format!("rqlitecluster/{NAME}");
            let ready = ["wait", "--for=condition=Ready", &object, "--timeout=300s"];
            cluster.namespace.run(&ready)?;
            let pods = cluster.voters()?;
            let new = pods.iter().filter(|pod| {
                pod.ready
                    && pod.image.ends_with(&format!(":{tag}"))
                    && before.get(&pod.name) != Some(&pod.uid)
            });
            let new = new.count();
            ensure!(new == 3, "kubectl wait returned with {new} of 3 new pods");
        }
        cluster.verify_intact(writer)
    })
}

/// The pods that the leader's Service selects.
fn leaders_by_label(cluster: &Cluster<'_>) -> Result<Vec<String>> {
    let labels = format!("rqlite.dev/cluster={NAME},rqlite.dev/role=leader");
    let names = ["get", "pods", "-l", &labels, "-o", "name"];
    let names = cluster.namespace.run(&names)?;
    let names = names.lines().filter_map(|line| line.strip_prefix("pod/"));
    Ok(names.map(str::to_owned).collect())
}

/// After a transfer, status, label and Service follow the leader, and the cluster is never reported as
/// unavailable.
pub(crate) fn follows_the_leader(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("promote", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let mut slowest = Duration::ZERO;
        for _ in 0..TRANSFERS {
            let target = cluster.follower()?;
            let since = condition(&cluster.object()?, "Available")["lastTransitionTime"].clone();
            cluster.transfer_leadership(&target)?;
            let start = Instant::now();
            until("the label to follow", LIMIT, || {
                let leaders = leaders_by_label(cluster)?;
                ensure!(leaders == [target.clone()], "{leaders:?}");
                Ok(())
            })?;
            slowest = slowest.max(start.elapsed());
            let object = cluster.object()?;
            ensure!(object["status"]["leader"] == target, "{}", object["status"]);
            let available = condition(&object, "Available");
            ensure!(available["lastTransitionTime"] == since, "{available}");
        }
        within("the leader's label", slowest, FOLLOW_GOAL)?;
        let outcome = cluster.verify_intact(writer)?;
        let note = format!("label follows within {:.1} s", slowest.as_secs_f64());
        Ok(outcome.with_note(note))
    })
}

/// Nothing is written to the object of a calm cluster.
pub(crate) fn calm(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("calm", spec(3, json!({})), |cluster| {
        cluster.ready(LONG)?;
        let version =
            || -> Result<Value> { Ok(cluster.object()?["metadata"]["resourceVersion"].clone()) };
        // What follows from its becoming Ready is written first.
        let before = until("nothing more to be written", LONG, || {
            let before = version()?;
            thread::sleep(QUIET);
            let after = version()?;
            ensure!(before == after, "its version was {before} and is {after}");
            Ok(after)
        })?;
        thread::sleep(CALM);
        let after = version()?;
        ensure!(before == after, "its version was {before} and is {after}");
        Ok(Measurements::default().with_note(format!("no write in {} s", CALM.as_secs())))
    })
}

/// Writes one row at a time over one connection until `stop`; returns how many were acknowledged.
fn write_rows(address: &str, login: &str, stop: &AtomicBool) -> Result<u64> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    let body = json!(["INSERT INTO load(x) VALUES(1)"]).to_string();
    let request = format!(
        "POST /db/execute HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {login}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut buffer = [0; 4096];
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(request.as_bytes())?;
        let length = stream.read(&mut buffer)?;
        let reply = String::from_utf8_lossy(&buffer[..length]);
        ensure!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        count += 1;
    }
    Ok(count)
}

/// Under as many writes as the nodes take, Ready stays true.
pub(crate) fn under_load(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("load", spec(3, json!({})), |cluster| {
        cluster.ready(LONG)?;
        let leader = cluster.leader()?;
        let sql = "CREATE TABLE load(id INTEGER PRIMARY KEY, x)";
        cluster.execute(&leader, sql)?;
        let address = cluster.address()?;
        let (user, password) = cluster.login()?.user.unwrap_or_default();
        let login = STANDARD.encode(format!("{user}:{password}"));
        let since = condition(&cluster.object()?, "Ready")["lastTransitionTime"].clone();
        let stop = AtomicBool::new(false);
        let (rows, seen) = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| scope.spawn(|| write_rows(&address, &login, &stop)))
                .collect();
            let seen = watch_ready(cluster, &since);
            stop.store(true, Ordering::Relaxed);
            let rows = clients.into_iter().map(|client| match client.join() {
                Ok(rows) => rows,
                Err(_) => Err(anyhow::anyhow!("a client has panicked")),
            });
            (rows.sum::<Result<u64>>(), seen)
        });
        seen?;
        let rate = rows? / LOAD.as_secs();
        Ok(Measurements::default().with_note(format!("{rate} writes/s, Ready all the time")))
    })
}

fn watch_ready(cluster: &Cluster<'_>, since: &Value) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < LOAD {
        let object = cluster.object()?;
        let ready = condition(&object, "Ready");
        let same = ready["status"] == "True" && ready["lastTransitionTime"] == *since;
        let members = text(&object["status"]["phase"]);
        ensure!(same, "{members}: {ready}");
        thread::sleep(Duration::from_millis(500));
    }
    // Within the room that all limits have here, the operator has looked at it many times.
    ensure!(LOAD > Duration::from_secs(60) / ROOM, "too short");
    Ok(())
}
