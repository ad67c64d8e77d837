//! The end of the Raft log: a write that a crash interrupted is truncated; damage to acknowledged records is
//! refused, by every kind of start.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    binary,
    cluster::{Cluster, SETTLE_LIMIT, check_no_panic},
    membership::{await_log, await_rows, await_write},
    process::{Node, PROCESS_LIMIT},
    wait,
};
use serde_json::json;

const ROWS: i64 = 12;
const COUNT: &str = "SELECT count(*) FROM t";
const SECTOR: usize = 512;
/// Offsets of the fields of an entry's record: type, term, index, length, payload.
const TERM_AT: usize = 4;
const LENGTH_AT: usize = 20;
const BODY_AT: usize = 24;
const ENTRY: u32 = 1;

/// A single node with [`ROWS`] acknowledged rows, killed.
fn killed_node() -> Result<Node> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = node.client();
    client.execute("CREATE TABLE t(n INTEGER, v TEXT)", &[])?;
    for number in 0..ROWS {
        let text = "x".repeat(usize::try_from(number)? * 100);
        client.execute("INSERT INTO t VALUES(?, ?)", &[json!(number), json!(text)])?;
    }
    node.kill()?;
    Ok(node)
}

fn log_dir(node: &Node) -> PathBuf {
    node.data.join("raft/log")
}

fn newest_file(node: &Node) -> Result<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(log_dir(node))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "wal"));
    files.into_iter().max().context("no log file")
}

fn number_at(bytes: &[u8], at: usize) -> Result<u32> {
    let field = bytes.get(at..at + 4).context("the file is too short")?;
    Ok(u32::from_be_bytes(field.try_into()?))
}

/// Offsets of the entries' records. Records of other types are skipped.
fn entries(bytes: &[u8]) -> Result<Vec<usize>> {
    let mut at = 0;
    let mut entries = Vec::new();
    while at < bytes.len() {
        at += match number_at(bytes, at)? {
            0 => 16 + number_at(bytes, at + 4)? as usize,
            ENTRY => {
                entries.push(at);
                BODY_AT + number_at(bytes, at + LENGTH_AT)? as usize + 8
            }
            2 | 4 => 28,
            5 => {
                // The state record: an optional vote and up to three optional log ids.
                let mut end = at + 5;
                end += match bytes[end] {
                    0 => 1,
                    _ => 5 + number_at(bytes, end + 1)? as usize,
                };
                for _ in 0..3 {
                    end += if bytes[end] == 0 { 1 } else { 17 };
                }
                end + 1 + 8 - at
            }
            other => anyhow::bail!("a record of type {other} at {at}"),
        };
    }
    Ok(entries)
}

fn inspect(node: &Node) -> Result<Output> {
    let data = node.data.to_str().context("a path in UTF-8")?;
    Command::new(binary::rqlited()?)
        .args(["inspect", "--quick", data])
        .output()
        .context("run rqlited inspect")
}

/// `inspect` and two starts in a row refuse with a message and change nothing.
fn is_refused(node: &mut Node, file: &Path, offset: usize) -> Result<()> {
    let damaged = fs::read(file)?;
    let position = format!("{}, at offset {offset}: ", file.display());
    let output = inspect(node)?;
    let output_text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.code() == Some(1) && output_text.contains(&position),
        "inspect: {output:?}"
    );
    for start in 1..=2 {
        let before = node.log().len();
        node.start()?;
        let status = node.wait_exit(PROCESS_LIMIT)?;
        let log = node.log()[before..].to_owned();
        ensure!(!status.success(), "start {start} ended well: {log}");
        for words in [
            position.as_str(),
            "the Raft log is damaged",
            "nothing was changed",
            "empty data directory",
        ] {
            ensure!(log.contains(words), "start {start}: no {words:?} in {log}");
        }
        ensure!(fs::read(file)? == damaged, "start {start} changed the file");
    }
    check_no_panic(node)
}

#[test]
fn damage_to_an_acknowledged_record_is_refused() -> Result<()> {
    let mut node = killed_node()?;
    let file = newest_file(&node)?;
    let sound = fs::read(&file)?;
    let entries = entries(&sound)?;
    let (&first, &last) = entries.first().zip(entries.last()).context("no entries")?;
    ensure!(entries.len() as i64 > ROWS, "{entries:?}");
    // `inspect` decides like a start and is fast, so it is used here: for every entry, its length increased
    // and decreased, and one byte of its content changed.
    for &at in &entries {
        for (position, change) in [
            (LENGTH_AT, 0x80_u8),
            (LENGTH_AT + 2, 1),
            (LENGTH_AT + 3, 0x10),
            (BODY_AT, 1),
            (3, 1),
        ] {
            let mut bytes = sound.clone();
            bytes[at + position] ^= change;
            fs::write(&file, bytes)?;
            let output = inspect(&node)?;
            ensure!(
                output.status.code() == Some(1),
                "entry at {at}, byte {position}: {output:?}"
            );
        }
    }
    for (at, position, change) in [
        (last, LENGTH_AT + 1, 1_u8),
        (last, BODY_AT + 3, 0x20),
        (first, LENGTH_AT, 0xff),
    ] {
        let mut bytes = sound.clone();
        bytes[at + position] ^= change;
        fs::write(&file, bytes)?;
        is_refused(&mut node, &file, at)?;
    }
    // Synced data is also missed if it is removed or reads as zeros.
    fs::write(&file, &sound[..last])?;
    is_refused(&mut node, &file, last)?;
    let mut zeros = sound.clone();
    zeros[last..].fill(0);
    fs::write(&file, zeros)?;
    is_refused(&mut node, &file, last)?;
    fs::write(&file, &sound)?;
    node.start_and_ready()?;
    await_rows(&node, COUNT, ROWS)?;
    check_no_panic(&node)
}

/// A log of the previous version has no mark of what was synced.
#[test]
fn a_damaged_length_is_refused_without_a_mark() -> Result<()> {
    let mut node = killed_node()?;
    fs::remove_file(log_dir(&node).join("synced"))?;
    let file = newest_file(&node)?;
    let sound = fs::read(&file)?;
    let last = *entries(&sound)?.last().context("no entries")?;
    let mut bytes = sound.clone();
    bytes[last + LENGTH_AT] = 0x7f;
    fs::write(&file, bytes)?;
    is_refused(&mut node, &file, last)?;
    fs::write(&file, &sound)?;
    node.start_and_ready()?;
    await_rows(&node, COUNT, ROWS)?;
    check_no_panic(&node)
}

/// Appends the next entry as an interrupted write may leave it; `manner` selects what is missing.
fn tear(node: &Node, manner: usize) -> Result<()> {
    let file = newest_file(node)?;
    let mut bytes = fs::read(&file)?;
    let last = *entries(&bytes)?.last().context("no entries")?;
    let begin = bytes.len();
    let mut record = ENTRY.to_be_bytes().to_vec();
    record.extend(&bytes[last + TERM_AT..last + TERM_AT + 8]);
    let index = u64::from_be_bytes(bytes[last + 12..last + 20].try_into()?);
    record.extend((index + 1).to_be_bytes());
    record.extend(5000_u32.to_be_bytes());
    record.extend(vec![0x5a; 5008]);
    bytes.extend(record);
    let sector = |number: usize| (begin / SECTOR + number) * SECTOR;
    match manner {
        // 0: the first sectors are missing; 1: one in the middle; 2: the last ones; otherwise the file is
        // short.
        0 => bytes[begin..sector(2)].fill(0),
        1 => bytes[sector(3)..sector(4)].fill(0),
        2 => bytes[sector(5)..].fill(0),
        3 => bytes.truncate(begin + 700),
        _ => bytes.truncate(begin + 10),
    }
    fs::write(&file, bytes).context("tear the log")
}

#[test]
fn a_torn_last_record_is_cut() -> Result<()> {
    let mut node = killed_node()?;
    let mut rows = ROWS;
    for manner in 0..5 {
        let sound = fs::read(newest_file(&node)?)?;
        tear(&node, manner)?;
        let output = inspect(&node)?;
        let output_text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success() && output_text.contains("the next start drops"),
            "manner {manner}: {output:?}"
        );
        let before = node.log().len();
        node.start_and_ready()?;
        let log = node.log()[before..].to_owned();
        ensure!(
            log.contains(&format!(
                "at offset {}: a write that a crash cut short",
                sound.len()
            )),
            "manner {manner}: {log}"
        );
        await_rows(&node, COUNT, rows)?;
        await_write(&mut node.client(), "INSERT INTO t VALUES(-1, 'more')")?;
        rows += 1;
        node.kill()?;
    }
    let before = node.log().len();
    node.start_and_ready()?;
    await_rows(&node, COUNT, rows)?;
    ensure!(
        !node.log()[before..].contains("torn"),
        "{}",
        node.log_tail()
    );
    check_no_panic(&node)
}

#[test]
fn a_cluster_heals_a_refused_node_and_opens_torn_logs() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    await_write(&mut client, "CREATE TABLE t(n INTEGER)")?;
    for number in 0..ROWS {
        await_write(&mut client, &format!("INSERT INTO t VALUES({number})"))?;
    }
    for node in cluster.iter() {
        await_rows(node, COUNT, ROWS)?;
    }
    for node in cluster.iter_mut() {
        node.kill()?;
    }
    // All three nodes lost power in the middle of a write.
    for (manner, node) in cluster.iter().enumerate() {
        tear(node, manner)?;
    }
    for node in cluster.iter_mut() {
        node.start_and_answer()?;
    }
    for node in cluster.iter() {
        await_log(node, "a write that a crash cut short")?;
        await_rows(node, COUNT, ROWS)?;
    }
    // A follower's log is damaged: it refuses to start, and returns with an empty directory, as its message
    // advises.
    let follower = cluster.follower()?;
    let leader = cluster.leader()?;
    let target = cluster
        .get(leader)
        .context("no leader")?
        .advertised()
        .to_owned();
    let node = cluster.get_mut(follower).context("no follower")?;
    node.kill()?;
    let file = newest_file(node)?;
    let sound = fs::read(&file)?;
    let last = *entries(&sound)?.last().context("no entries")?;
    let mut bytes = sound;
    bytes[last + LENGTH_AT + 2] ^= 0x40;
    fs::write(&file, bytes)?;
    is_refused(node, &file, last)?;
    node.wipe()?;
    node.args.push(format!("-join={target}"));
    node.start_and_answer()?;
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    wait::until("a write", SETTLE_LIMIT, || {
        client
            .execute("INSERT INTO t VALUES(-1)", &[])
            .map_err(|e| format!("{e:#}"))
    })?;
    for node in cluster.iter() {
        await_rows(node, COUNT, ROWS + 1)?;
    }
    cluster.check_no_panic()
}
