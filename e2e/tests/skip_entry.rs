//! The last resort: all nodes skip one log entry, offline; a node that has not skipped it is kept out.
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    binary,
    cluster::Cluster,
    membership::{await_log, await_rows, await_write},
};

const COUNT: &str = "SELECT count(*) FROM t";
const POISON: &str = "SELECT count(*) FROM t WHERE n = 666";
/// Upper bound for the index of entries that this short test writes.
const MAX_INDEX: u64 = 60;

fn tool(args: &[&str], data: &Path) -> Result<Output> {
    Command::new(binary::rqlited()?)
        .args(args)
        .arg(data)
        .output()
        .context("run rqlited")
}

/// Index of the entry with this SQL, and the output of `inspect` about it.
fn find(data: &Path, sql: &str) -> Result<(String, String)> {
    for index in 0..MAX_INDEX {
        let index = index.to_string();
        let output = tool(&["inspect", "--entry", &index], data)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() && text.contains(sql) {
            return Ok((index, text));
        }
    }
    anyhow::bail!("no entry says {sql}")
}

fn field<'a>(text: &'a str, name: &str) -> Result<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1))
        .with_context(|| format!("no {name} in {text}"))
}

/// Three nodes with rows 1, 2, 666 and 3, killed; and their directories.
fn killed_cluster() -> Result<(Cluster, Vec<PathBuf>)> {
    let mut cluster = Cluster::start(3)?;
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    await_write(&mut client, "CREATE TABLE t(n INTEGER)")?;
    for number in [1, 2, 666, 3] {
        await_write(&mut client, &format!("INSERT INTO t VALUES({number})"))?;
    }
    for node in cluster.iter() {
        await_rows(node, COUNT, 4)?;
    }
    let data: Vec<_> = cluster.iter().map(|node| node.data.clone()).collect();
    let in_use = skip(&data[0], "3", "1", "x")?;
    ensure!(in_use.status.code() == Some(1), "{in_use:?}");
    for node in cluster.iter_mut() {
        node.kill()?;
    }
    Ok((cluster, data))
}

fn skip(data: &Path, index: &str, term: &str, checksum: &str) -> Result<Output> {
    let args = ["skip-entry", "--index", index, "--term", term];
    tool(&[&args[..], &["--checksum", checksum]].concat(), data)
}

/// Once the database file contains an entry's effect, the entry cannot be skipped any more.
fn is_refused_after_a_checkpoint(cluster: &mut Cluster, data: &[PathBuf]) -> Result<()> {
    let leader = cluster.leader()?;
    let reply = cluster.client(leader).post("/snapshot", "")?;
    ensure!(reply.status == 200, "{reply:?}");
    for node in cluster.iter_mut() {
        node.kill()?;
    }
    let (index, text) = find(&data[leader], "VALUES(3)")?;
    let (term, checksum) = (field(&text, "term")?, field(&text, "checksum")?);
    let refused = skip(&data[leader], &index, term, checksum)?;
    ensure!(
        refused.status.code() == Some(1)
            && String::from_utf8_lossy(&refused.stderr).contains("has taken effect here"),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn an_entry_is_skipped_by_all_nodes_or_they_do_not_talk() -> Result<()> {
    let (mut cluster, data) = killed_cluster()?;
    let (index, text) = find(&data[0], "VALUES(666)")?;
    let (term, checksum) = (field(&text, "term")?, field(&text, "checksum")?);
    let command =
        format!("rqlited skip-entry --index {index} --term {term} --checksum {checksum} ");
    ensure!(text.contains(&command), "{text}");
    // All nodes show the same entry; a different checksum is refused.
    for data in &data[1..] {
        let (same_index, same) = find(data, "VALUES(666)")?;
        ensure!(
            same_index == index && field(&same, "checksum")? == checksum,
            "{same}"
        );
    }
    let refused = skip(&data[0], &index, term, "0123456789abcdef")?;
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    for data in &data[..2] {
        let done = skip(data, &index, term, checksum)?;
        ensure!(done.status.success(), "{done:?}");
    }
    for node in cluster.iter_mut() {
        node.start_and_answer()?;
    }
    for node in cluster.iter().take(2) {
        await_rows(node, COUNT, 3)?;
        await_rows(node, POISON, 0)?;
    }
    let mut client = cluster.client(0);
    await_write(&mut client, "INSERT INTO t VALUES(4)")?;
    // The third node has not skipped it: it is kept out, and its log names the command to run.
    let third = cluster.iter_mut().last().context("no third node")?;
    await_log(third, &format!("has skipped entry {index} of the log"))?;
    await_log(third, &command)?;
    third.kill()?;
    for text in ["is skipped", "had been skipped before"] {
        let done = skip(&data[2], &index, term, checksum)?;
        ensure!(
            done.status.success() && String::from_utf8_lossy(&done.stdout).contains(text),
            "{done:?}"
        );
    }
    third.start_and_ready()?;
    for node in cluster.iter() {
        await_rows(node, COUNT, 4)?;
        await_rows(node, POISON, 0)?;
    }
    is_refused_after_a_checkpoint(&mut cluster, &data)?;
    cluster.check_no_panic()
}
