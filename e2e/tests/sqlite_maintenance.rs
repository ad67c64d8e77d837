//! Automatic VACUUM and PRAGMA optimize: initiated by the leader, equal on every node, and not repeated
//! because of a restart.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    client::Client,
    cluster::{Cluster, SETTLE_LIMIT},
    process::Node,
    small_disk::SmallDisk,
    wait,
};
use serde_json::{Value, json};

const OFTEN: [&str; 2] = ["-auto-vacuum-int=1s", "-auto-optimize-int=1s"];
const SELDOM: [&str; 2] = ["-auto-vacuum-int=1h", "-auto-optimize-int=1h"];
/// Long enough for several checks of what is due.
const WATCHED: Duration = Duration::from_secs(3);

/// Rows in a table without a primary key, so that VACUUM may renumber them; most rows are deleted again.
const HOLES: [&str; 4] = [
    "CREATE TABLE t(x TEXT, y)",
    "CREATE TABLE keyed(x TEXT); CREATE INDEX keyed_x ON keyed(x)",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000) INSERT INTO t SELECT printf('%0200d', i), i%7 FROM n",
    "INSERT INTO keyed SELECT x FROM t",
];

fn store_status(client: &mut Client) -> Result<Value, String> {
    let status = client.get_json("/status");
    let mut status = status.map_err(|error| format!("{error:#}"))?;
    Ok(status["store"].take())
}

fn counter(client: &mut Client, key: &str) -> Result<u64> {
    let vars = client.get_json("/debug/vars?key=store")?;
    vars["store"][key].as_u64().context(key.to_owned())
}

/// Waits until the node's own database has no unused page and has table statistics.
fn await_maintenance(client: &mut Client) -> Result<()> {
    wait::until("a vacuumed, analyzed database", SETTLE_LIMIT, || {
        let mut number = |sql: &str| client.number("none", sql).map_err(|e| format!("{e:#}"));
        let unused = number("PRAGMA freelist_count")?;
        let known = number("SELECT count(*) FROM sqlite_schema WHERE name='sqlite_stat1'")?;
        if (unused, known) == (0, 1) {
            Ok(())
        } else {
            Err(format!(
                "{unused} unused pages, {known} tables of statistics"
            ))
        }
    })
}

fn set_intervals(node: &mut Node, intervals: &[&str]) {
    node.args.retain(|arg| !arg.starts_with("-auto-"));
    node.args
        .extend(intervals.iter().map(|&arg| arg.to_owned()));
}

#[test]
fn the_leader_keeps_the_database_up_on_all_nodes() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    for sql in HOLES {
        client.execute(sql, &[])?;
    }
    for table in ["t", "keyed"] {
        client.execute(&format!("DELETE FROM {table} WHERE x NOT LIKE '%3'"), &[])?;
    }
    let before = cluster.agreed_rows("SELECT count(*), max(rowid) FROM t")?;
    ensure!(client.number("none", "PRAGMA freelist_count")? > 0);
    for node in cluster.iter_mut() {
        node.stop()?;
        set_intervals(node, &OFTEN);
    }
    cluster.iter_mut().try_for_each(Node::start)?;
    for index in 0..3 {
        await_maintenance(&mut cluster.client(index))?;
    }
    let after = cluster.agreed_rows("SELECT count(*), max(rowid) FROM t")?;
    ensure!(before != after, "rows were not renumbered: {after}");
    cluster.agreed_rows("SELECT sum(rowid), count(*) FROM keyed")?;
    cluster.agreed_rows("SELECT group_concat(tbl || idx || stat) FROM sqlite_stat1")?;
    cluster.agreed_dump()?;
    cluster.check_integrity()?;
    let done = (0..3).map(|index| counter(&mut cluster.client(index), "num_auto_vacuums"));
    let done = done.collect::<Result<Vec<_>>>()?;
    ensure!(
        done.iter().sum::<u64>() > 0,
        "nothing was counted: {done:?}"
    );
    cluster.check_no_panic()
}

/// The last maintenance runs as shown by `/status`.
fn last(client: &mut Client) -> Result<[String; 2], String> {
    let store = store_status(client)?;
    let times = [
        &store["auto_vacuum"]["last_vacuum"],
        &store["auto_optimize"]["last_optimize"],
    ];
    match times.map(Value::as_str) {
        [Some(vacuum), Some(optimize)] => Ok([vacuum.to_owned(), optimize.to_owned()]),
        _ => Err(store["auto_vacuum"].to_string()),
    }
}

#[test]
fn a_restart_or_another_leader_does_not_make_it_due() -> Result<()> {
    let mut cluster = Cluster::start_with(3, &OFTEN)?;
    for index in 0..3 {
        let mut client = cluster.client(index);
        wait::until("the first time", SETTLE_LIMIT, || {
            last(&mut client).map(drop)
        })?;
    }
    for node in cluster.iter_mut() {
        node.kill()?;
        set_intervals(node, &SELDOM);
    }
    cluster.iter_mut().try_for_each(Node::start)?;
    cluster
        .iter_mut()
        .try_for_each(|node| node.wait_ready(SETTLE_LIMIT))?;
    let leader = cluster.leader()?;
    let mut known = Vec::new();
    for index in 0..3 {
        let mut client = cluster.client(index);
        known.push(wait::until("what was done before", SETTLE_LIMIT, || {
            last(&mut client)
        })?);
    }
    let unchanged = |cluster: &Cluster| {
        wait::throughout("nothing is due", WATCHED, || {
            for (index, known) in known.iter().enumerate() {
                let seen = last(&mut cluster.client(index))?;
                if seen != *known {
                    return Err(format!("{seen:?} after {known:?} at {index}"));
                }
            }
            Ok(())
        })
    };
    unchanged(&cluster)?;
    let next = (leader + 1) % 3;
    let body = json!({ "id": cluster[next].name }).to_string();
    let reply = cluster.client(leader).post("/leader?wait", &body)?;
    ensure!(reply.status == 200, "{reply:?}");
    unchanged(&cluster)?;
    for index in 0..3 {
        let vacuums = counter(&mut cluster.client(index), "num_auto_vacuums")?;
        ensure!(vacuums == 0, "{vacuums} at {index}");
    }
    Ok(())
}

#[test]
fn switched_off_it_is_not_shown() -> Result<()> {
    let mut node = Node::new("1")?.with(&["-auto-optimize-int=0"]);
    node.start_and_ready()?;
    let store = store_status(&mut node.client()).map_err(anyhow::Error::msg)?;
    ensure!(
        store.get("auto_vacuum").is_none() && store.get("auto_optimize").is_none(),
        "{store}"
    );
    ensure!(!node.data.join("upkeep.json").exists(), "an unneeded file");
    Ok(())
}

#[test]
fn without_room_on_the_disk_it_is_put_off() -> Result<()> {
    let disk = match SmallDisk::mount(256) {
        Ok(disk) => disk,
        Err(error) => {
            println!("skipped: {error:#}");
            return Ok(());
        }
    };
    let mut node = Node::new("1")?.with(&SELDOM);
    node.data = disk.path().join("data");
    node.start_and_ready()?;
    let mut client = node.client();
    client.execute("CREATE TABLE t(x)", &[])?;
    client.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<40) INSERT INTO t SELECT zeroblob(1000000) FROM n",
        &[],
    )?;
    // The snapshot empties the WAL, so that the free space does not change later.
    let snapshot = client.post("/snapshot", "")?;
    ensure!(snapshot.status == 200, "{snapshot:?}");
    node.stop()?;
    disk.fill(64 << 20)?;
    set_intervals(&mut node, &OFTEN);
    node.start_and_ready()?;
    wait::until("a refusal", SETTLE_LIMIT, || {
        match counter(&mut client, "num_auto_vacuums_failed") {
            Ok(0) => Err("none".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        }
    })?;
    ensure!(node.log().contains("a VACUUM needs"), "{}", node.log_tail());
    ensure!(counter(&mut client, "num_auto_vacuums")? == 0);
    client.execute("INSERT INTO t VALUES(1)", &[])?;
    disk.make_room()?;
    wait::until("room", SETTLE_LIMIT, || {
        match counter(&mut client, "num_auto_vacuums") {
            Ok(0) => Err("none".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
}
