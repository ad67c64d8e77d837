//! `rqlited inspect` and `rqlited prepare` on data directories of real nodes.
mod operator;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    binary,
    cluster::{Cluster, SETTLE_LIMIT},
    membership::{await_members, await_rows, await_write},
    process::{Node, PROCESS_LIMIT},
    seed::Seed,
    wait,
};
use node_contract::{Lineage, LogPosition, Others, Peer, PlanFile, SeedExpectation};
use operator::{Operator, lineage};
use serde_json::{Value, json};

const ROWS: i64 = 5;
const COUNT: &str = "SELECT count(*) FROM kept";

fn tool(args: &[&str]) -> Result<Output> {
    Command::new(binary::rqlited()?)
        .args(args)
        .output()
        .context("run rqlited")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// Exit code and JSON output of `inspect`.
fn inspect(data: &Path) -> Result<(i32, Value)> {
    let output = tool(&["inspect", "--json", text(data)])?;
    let facts =
        serde_json::from_slice(&output.stdout).with_context(|| format!("inspect: {output:?}"))?;
    Ok((output.status.code().context("killed")?, facts))
}

/// A cluster with [`ROWS`] rows, all nodes stopped.
fn stopped(count: usize) -> Result<Cluster> {
    let mut cluster = Cluster::start(count)?;
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    await_write(&mut client, "CREATE TABLE kept(number INTEGER PRIMARY KEY)")?;
    for number in 0..ROWS {
        await_write(
            &mut client,
            &format!("INSERT OR IGNORE INTO kept VALUES({number})"),
        )?;
    }
    for node in cluster.iter() {
        await_rows(node, COUNT, ROWS)?;
    }
    for node in cluster.iter_mut() {
        node.stop()?;
    }
    Ok(cluster)
}

/// All files below `dir` with their content.
fn content(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(content(&path)?);
        } else {
            found.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(found)
}

#[test]
fn inspect_tells_what_is_there_and_changes_nothing() -> Result<()> {
    let mut cluster = stopped(2)?;
    let data = cluster[0].data.clone();
    let before = content(&data)?;
    let (code, facts) = inspect(&data)?;
    ensure!(content(&data)? == before, "inspect changed files");
    ensure!(code == 0 && facts["state"] == "member", "{facts:#}");
    ensure!(
        facts["name"] == "1" && facts["damage"] == json!([]),
        "{facts:#}"
    );
    let raft_id = facts["raft_id"].as_str().context("no Raft id")?;
    ensure!(
        raft_id == format!("1#{}", facts["incarnation"].as_str().unwrap_or_default()),
        "{facts:#}"
    );
    ensure!(
        facts["lineage"]["epoch"] == 0 && facts["cluster_id"].is_string(),
        "{facts:#}"
    );
    let last = facts["last_log"]["index"].as_i64().unwrap_or_default();
    ensure!(
        last > ROWS && facts["vote"]["term"].as_i64() >= facts["last_log"]["term"].as_i64(),
        "{facts:#}"
    );
    let members = facts["membership"]["members"]
        .as_array()
        .context("no members")?;
    ensure!(
        members.len() == 2 && members.iter().all(|m| m["voter"] == true),
        "{facts:#}"
    );
    ensure!(
        members[0]["raft_id"] == raft_id && members[1]["address"] == cluster[1].raft.as_str(),
        "{facts:#}"
    );
    let (_, other) = inspect(&cluster[1].data)?;
    ensure!(
        other["cluster_id"] == facts["cluster_id"] && other["raft_id"] != facts["raft_id"],
        "{other:#}"
    );
    let table = String::from_utf8(tool(&["inspect", text(&data)])?.stdout)?;
    ensure!(
        table.contains("member")
            && table.contains(raft_id)
            && table.contains("quick_check") == table.contains("damage"),
        "{table}"
    );
    // `inspect` reports a pending recovery.
    fs::write(data.join("raft/peers.json"), "[]")?;
    let (code, facts) = inspect(&data)?;
    ensure!(
        code == 0 && facts["state"] == "recovering" && facts["pending_peers"] == true,
        "{facts:#}"
    );
    fs::remove_file(data.join("raft/peers.json"))?;
    let node = &mut cluster[0];
    node.start_and_answer()?;
    let output = tool(&["inspect", "--json", text(&data)])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(1) && said.contains("in use by a running rqlited"),
        "{output:?}"
    );
    node.stop()?;
    cluster.check_no_panic()
}

#[test]
fn inspect_of_nothing_and_of_a_checkpoint() -> Result<()> {
    let mut node = Node::new("1")?;
    let (code, facts) = inspect(&node.data)?;
    ensure!(
        code == 0 && facts["state"] == "empty" && !node.data.exists(),
        "{facts:#}"
    );
    node.start_and_ready()?;
    let mut client = node.client();
    await_write(&mut client, "CREATE TABLE kept(number INTEGER PRIMARY KEY)")?;
    let reply = client.post("/snapshot", "")?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    wait::until("a checkpoint", SETTLE_LIMIT, || {
        let size = fs::metadata(node.data.join("db.sqlite")).map_or(0, |meta| meta.len());
        if size > 0 {
            Ok(())
        } else {
            Err(format!("{size} bytes"))
        }
    })?;
    node.stop()?;
    let (code, facts) = inspect(&node.data)?;
    ensure!(
        code == 0 && facts["integrity"] == json!({"checked": true, "result": "ok"}),
        "{facts:#}"
    );
    ensure!(facts["database"]["index"].is_number(), "{facts:#}");
    let main = node.data.join("db.sqlite");
    let mut pages = fs::read(&main)?;
    let end = pages.len();
    pages[end - 4096..].fill(0x5A);
    fs::write(&main, pages)?;
    let (code, facts) = inspect(&node.data)?;
    ensure!(
        code == 1 && facts["state"] == "damaged" && facts["last_log"]["index"].is_number(),
        "{facts:#}"
    );
    Ok(())
}

#[test]
fn inspect_reports_damage_as_facts() -> Result<()> {
    let cluster = stopped(1)?;
    let data = &cluster[0].data;
    let log = fs::read_dir(data.join("raft/log"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| {
            path.extension().is_some_and(|e| e == "wal")
                && fs::metadata(path).is_ok_and(|m| m.len() > 400)
        })
        .context("no chunk")?;
    for path in [log, data.join("state"), data.join("raft/identity.json")] {
        let whole = fs::read(&path)?;
        let mut rotten = whole.clone();
        rotten[whole.len() / 3] ^= 0x40;
        fs::write(&path, rotten)?;
        let (code, facts) = inspect(data)?;
        let damage = facts["damage"].to_string();
        ensure!(
            code == 1 && facts["state"] == "damaged",
            "{}: {facts:#}",
            path.display()
        );
        ensure!(
            damage.contains(text(path.parent().context("no parent")?)),
            "{}: {damage}",
            path.display()
        );
        let table = tool(&["inspect", text(data)])?;
        ensure!(
            table.status.code() == Some(1)
                && String::from_utf8_lossy(&table.stdout).contains("damage: "),
            "{table:?}"
        );
        fs::write(&path, whole)?;
    }
    let (code, facts) = inspect(data)?;
    ensure!(code == 0, "{facts:#}");
    Ok(())
}

#[test]
fn prepare_makes_an_identity_and_keeps_foreign_data() -> Result<()> {
    let fresh = Node::new("a")?;
    let operator = Operator::new(&fresh, "cluster-x");
    operator.state("Forming", &lineage("l", 0), &["a", "b"])?;
    let first = operator.expect(&fresh, 0, "Ready", "created")?;
    ensure!(
        first["cluster_id"] == "cluster-x" && first["lineage"] == lineage("l", 0),
        "{first:#}"
    );
    let identity = || -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(
            fresh.data.join("raft/identity.json"),
        )?)?)
    };
    ensure!(
        identity()?["birth"]["may_form"] == true,
        "{:#}",
        identity()?
    );
    // A node that has not taken part yet may no longer form a cluster; it keeps its identity.
    operator.state("Formed", &lineage("l", 0), &["a", "b"])?;
    let second = operator.expect(&fresh, 0, "Ready", "created")?;
    ensure!(second["raft_id"] == first["raft_id"], "{second:#}");
    ensure!(
        identity()?["birth"]["may_form"] == false,
        "{:#}",
        identity()?
    );
    let (code, facts) = inspect(&fresh.data)?;
    ensure!(code == 0 && facts["state"] == "joining", "{facts:#}");
    let mut other = stopped(1)?;
    let before = content(&other[0].data)?;
    for phase in ["Forming", "Formed", "Recovering"] {
        operator.state(phase, &lineage("l", 0), &["a", "1"])?;
        let report = operator.expect(&other[0], 1, "Foreign", "none")?;
        ensure!(
            report["reason"]
                .as_str()
                .is_some_and(|r| r.contains("cluster-x")),
            "{report:#}"
        );
    }
    ensure!(
        content(&other[0].data)? == before,
        "foreign data was touched"
    );
    let running = &mut other[0];
    running.start_and_answer()?;
    let report = operator.expect(running, 1, "Refused", "none")?;
    ensure!(
        report["reason"]
            .as_str()
            .is_some_and(|r| r.contains("in use by another rqlited")),
        "{report:#}"
    );
    running.stop()?;
    Ok(())
}

/// A stopped cluster of three whose first node is to be the seed of plan `plan-1`.
struct Loss {
    cluster: Cluster,
    operator: Operator,
    /// The report of `inspect` about the seed.
    facts: Value,
    to: Value,
}

impl Loss {
    fn new() -> Result<Self> {
        let cluster = stopped(3)?;
        let (_, facts) = inspect(&cluster[0].data)?;
        let operator = Operator::new(
            &cluster[0],
            facts["cluster_id"].as_str().context("no cluster")?,
        );
        operator.state("Recovering", &facts["lineage"], &[])?;
        let to = lineage("after-the-loss", 1);
        Ok(Self {
            cluster,
            operator,
            facts,
            to,
        })
    }

    fn plan(&self, least_index: u64) -> Result<()> {
        let facts = &self.facts;
        let lineage =
            |value: &Value| -> Result<Lineage> { Ok(serde_json::from_value(value.clone())?) };
        let fact = |name: &str| {
            facts[name]
                .as_str()
                .map(str::to_owned)
                .context("no such fact")
        };
        let term = facts["last_log"]["term"].as_u64().context("no term")?;
        self.operator.plan(&PlanFile {
            plan_id: "plan-1".into(),
            cluster_id: fact("cluster_id")?,
            from_lineage: lineage(&facts["lineage"])?,
            to_lineage: lineage(&self.to)?,
            seed: "1".into(),
            expect: SeedExpectation {
                incarnation: fact("incarnation")?,
                min_last_log: LogPosition {
                    term,
                    index: least_index,
                },
            },
            peers: vec![Peer {
                id: "1".into(),
                address: self.cluster[0].raft.clone(),
                non_voter: false,
            }],
            others: Others::Park,
        })
    }

    fn last_index(&self) -> Result<u64> {
        self.facts["last_log"]["index"]
            .as_u64()
            .context("no last entry")
    }
}

#[test]
fn a_plan_recovers_one_and_the_others_come_back_anew() -> Result<()> {
    let loss = Loss::new()?;
    loss.operator.expect(&loss.cluster[0], 3, "Held", "none")?;
    loss.plan(loss.last_index()? + 1)?;
    let report = loss
        .operator
        .expect(&loss.cluster[0], 1, "Refused", "none")?;
    ensure!(
        report["reason"]
            .as_str()
            .is_some_and(|r| r.contains("the log ends at")),
        "{report:#}"
    );
    loss.plan(loss.last_index()?)?;
    let Loss {
        mut cluster,
        operator,
        facts,
        to,
    } = loss;
    let done = operator.expect(&cluster[0], 0, "Ready", "recovered")?;
    ensure!(
        done["lineage"] == to && done["raft_id"] != facts["raft_id"],
        "{done:#}"
    );
    ensure!(done["last_log"] == facts["last_log"], "{done:#}");
    let again = operator.expect(&cluster[0], 0, "Ready", "none")?;
    ensure!(again["raft_id"] == done["raft_id"], "{again:#}");
    operator.expect(&cluster[1], 3, "Held", "none")?;
    let seed = &mut cluster[0];
    seed.start_and_ready()?;
    await_rows(seed, COUNT, ROWS)?;
    await_members(&mut seed.client(), &[("1", true)])?;
    // The new lineage is in effect now.
    let mut waiting = hold_then_release(&operator, &cluster[1], &to)?;
    let status = wait::until("the held node to be released", PROCESS_LIMIT, || {
        waiting
            .try_wait()
            .ok()
            .flatten()
            .ok_or_else(|| "still waiting".to_owned())
    })?;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(
        cluster[1]
            .data
            .join("parked/plan-1/raft/identity.json")
            .exists(),
        "nothing was parked"
    );
    operator.expect(&cluster[2], 0, "Ready", "parked")?;
    come_back(&mut cluster, &operator, &to)
}

/// The nodes whose data was parked join. Then all stop and are prepared once more, which changes nothing.
fn come_back(cluster: &mut Cluster, operator: &Operator, to: &Value) -> Result<()> {
    let target = format!("-join={}", cluster[0].raft);
    for node in cluster.iter_mut().skip(1) {
        node.args.push(target.clone());
        node.start_and_ready()?;
    }
    await_members(
        &mut cluster.client(0),
        &[("1", true), ("2", true), ("3", true)],
    )?;
    await_write(&mut cluster.client(0), "INSERT INTO kept VALUES(100)")?;
    for node in cluster.iter() {
        await_rows(node, COUNT, ROWS + 1)?;
    }
    for node in cluster.iter_mut() {
        node.stop()?;
        let report = operator.expect(node, 0, "Ready", "none")?;
        ensure!(report["lineage"] == *to, "{report:#}");
    }
    cluster.check_no_panic()
}

/// An init container may be killed at any time and is then run again.
#[test]
fn prepare_is_killed_and_repeated() -> Result<()> {
    let loss = Loss::new()?;
    loss.plan(loss.last_index()?)?;
    let Loss {
        mut cluster,
        operator,
        to,
        ..
    } = loss;
    let mut random = Seed::new(Seed::arbitrary());
    for action in ["recovered", "parked"] {
        let node = &cluster[usize::from(action == "parked")];
        for _ in 0..8 {
            let mut child = operator
                .command(node)?
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            wait::sleep(Duration::from_millis(random.below(60)));
            child.kill()?;
            child.wait()?;
        }
        let (code, report) = operator.prepare(node)?;
        ensure!(
            code == 0 && report["state"] == "Ready" && report["lineage"] == to,
            "{action}: {report:#}"
        );
        operator.state("Formed", &to, &[])?;
    }
    ensure!(
        cluster[1].data.join("parked/plan-1/db.sqlite").exists(),
        "nothing was parked"
    );
    operator.expect(&cluster[2], 0, "Ready", "parked")?;
    cluster[0].start_and_ready()?;
    await_rows(&cluster[0], COUNT, ROWS)?;
    come_back(&mut cluster, &operator, &to)
}

/// Starts `prepare --wait` while the node is held, checks that it reports that, and releases it.
fn hold_then_release(operator: &Operator, node: &Node, to: &Value) -> Result<Child> {
    fs::write(operator.dir.join("report.json"), "")?;
    let mut waiting = operator
        .command(node)?
        .arg("--wait")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    wait::until("the report of a held node", PROCESS_LIMIT, || {
        let report = fs::read_to_string(operator.dir.join("report.json")).unwrap_or_default();
        let ended = waiting.try_wait().ok().flatten();
        if report.contains("Held") && ended.is_none() {
            Ok(())
        } else {
            Err(format!("{ended:?} {report}"))
        }
    })?;
    operator.state("Formed", to, &[])?;
    Ok(waiting)
}

#[test]
fn old_data_without_a_plan_is_left_alone() -> Result<()> {
    let cluster = stopped(1)?;
    let (_, facts) = inspect(&cluster[0].data)?;
    let cluster_id = facts["cluster_id"].as_str().context("no cluster")?;
    let operator = Operator::new(&cluster[0], cluster_id);
    operator.state("Formed", &facts["lineage"], &[])?;
    operator.expect(&cluster[0], 0, "Ready", "none")?;
    let before = content(&cluster[0].data)?;
    operator.state("Formed", &lineage("later", 4), &[])?;
    operator.expect(&cluster[0], 1, "StaleLineage", "none")?;
    operator.state("Formed", &lineage("unheard-of", 0), &[])?;
    operator.expect(&cluster[0], 1, "UnknownLineage", "none")?;
    ensure!(content(&cluster[0].data)? == before, "data was touched");
    Ok(())
}

#[test]
fn words_and_help() -> Result<()> {
    for args in [&["inspect", "-h"][..], &["prepare", "--help"]] {
        let output = tool(args)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success() && said.contains("Usage: rqlited "),
            "{args:?}: {output:?}"
        );
    }
    let output = tool(&["inspect"])?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    // Only the first argument selects a subcommand: these are node flags with a data directory.
    let output = tool(&["-version", "inspect"])?;
    ensure!(
        String::from_utf8_lossy(&output.stderr).starts_with("rqlited v"),
        "{output:?}"
    );
    Ok(())
}
