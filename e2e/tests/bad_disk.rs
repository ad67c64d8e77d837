//! Disks that are full, and files whose content was damaged.
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::{Client, WriteOutcome},
    cluster::{SETTLE_LIMIT, check_no_panic},
    process::{Node, PROCESS_LIMIT},
    seed::Seed,
    small_disk::SmallDisk,
    wait,
};
use serde_json::json;

/// Enough for a node with its reserve, small enough to fill quickly.
const DISK_MIB: u64 = 96;

fn small_disk() -> Option<SmallDisk> {
    SmallDisk::mount(DISK_MIB)
        .inspect_err(|error| println!("skipped: {error:#}"))
        .ok()
}

fn node_on(disk: &SmallDisk) -> Result<Node> {
    let mut node = Node::new("1")?;
    node.data = disk.path().join("data");
    Ok(node)
}

fn insert(client: &mut Client, number: i64) -> WriteOutcome {
    client.write(
        "INSERT INTO t VALUES(?, randomblob(65536))",
        &[json!(number)],
    )
}

#[test]
fn a_full_disk_at_the_start_is_named() -> Result<()> {
    let Some(disk) = small_disk() else {
        return Ok(());
    };
    disk.fill(0)?;
    let mut node = node_on(&disk)?;
    node.start()?;
    // The node may exit with a clear message, or stay up and reject writes with one.
    let reported = wait::until("a message about the full disk", PROCESS_LIMIT, || {
        let log = node.log();
        let mut client = node.client().timeout(Duration::from_secs(2));
        let refused = client.write("CREATE TABLE t(n INTEGER, v BLOB)", &[]);
        if let WriteOutcome::Acknowledged(_) = refused {
            return Ok("acknowledged".to_owned());
        }
        let text = format!("{log}{refused:?}");
        let messages = ["No space left", "disk full", "disk is full"];
        if messages.iter().any(|message| text.contains(message)) {
            Ok(text)
        } else {
            Err(text)
        }
    })?;
    ensure!(
        reported != "acknowledged",
        "a write on a full disk was acknowledged"
    );
    check_no_panic(&node)?;
    disk.make_room()?;
    if !node.is_running() {
        node.start()?;
    }
    node.wait_ready(PROCESS_LIMIT)?;
    let mut client = node.client();
    wait::until("writes after room was made", SETTLE_LIMIT, || {
        client
            .execute("CREATE TABLE IF NOT EXISTS t(n INTEGER, v BLOB)", &[])
            .map_err(|error| format!("{error:#}"))
    })?;
    check_no_panic(&node)
}

#[test]
fn a_disk_that_fills_up_loses_nothing() -> Result<()> {
    let Some(disk) = small_disk() else {
        return Ok(());
    };
    let mut node = node_on(&disk)?;
    node.start_and_ready()?;
    let mut client = node.client();
    client.execute("CREATE TABLE t(n INTEGER, v BLOB)", &[])?;
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        ensure!(
            matches!(insert(&mut client, number), WriteOutcome::Acknowledged(_)),
            "row {number} with room"
        );
        acknowledged.push(number);
    }
    // First leave space for some appends, then for none.
    disk.fill(16 << 20)?;
    let refusal = fill_by_writing(&mut client, &mut acknowledged)?;
    println!("{} rows acknowledged, then: {refusal}", acknowledged.len());
    ensure!(
        refusal.contains("disk full")
            || refusal.contains("disk is full")
            || node.log().contains("disk full"),
        "not named: {refusal}\n{}",
        node.log_tail()
    );
    // A snapshot without space must return a reply, not end the node.
    if node.is_running() {
        let reply = client.post("/snapshot", "").map(|reply| reply.status);
        println!("snapshot on the full disk: {reply:?}");
        ensure!(
            client.number("none", "SELECT count(*) FROM t").is_ok(),
            "reads must go on"
        );
    }
    check_no_panic(&node)?;
    disk.make_room()?;
    if !node.is_running() {
        node.start()?;
        node.wait_ready(PROCESS_LIMIT)?;
    }
    wait::until(
        "writes after room was made",
        SETTLE_LIMIT,
        || match insert(&mut client, 1_000_000) {
            WriteOutcome::Acknowledged(_) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )?;
    ensure_rows(&mut client, &acknowledged)?;
    let reply = client.post("/snapshot", "")?;
    ensure!(
        matches!(reply.status, 200 | 204),
        "snapshot with room: {reply:?}"
    );
    node.kill()?;
    node.start_and_ready()?;
    ensure_rows(&mut node.client(), &acknowledged)?;
    check_no_panic(&node)
}

/// Writes until three writes in a row are refused; returns the last error.
fn fill_by_writing(client: &mut Client, acknowledged: &mut Vec<i64>) -> Result<String> {
    let mut refused = 0;
    for number in 100..5_000 {
        match insert(client, number) {
            WriteOutcome::Acknowledged(_) => {
                acknowledged.push(number);
                refused = 0;
            }
            WriteOutcome::Refused(text) | WriteOutcome::Unknown(text) => {
                refused += 1;
                if refused == 3 {
                    return Ok(text);
                }
            }
        }
    }
    anyhow::bail!("the disk never filled up")
}

/// Every acknowledged row is present once. Rows whose write failed may be present, too.
fn ensure_rows(client: &mut Client, acknowledged: &[i64]) -> Result<()> {
    let rows = client.rows(
        "strong",
        "SELECT n, count(*), sum(length(v)) FROM t GROUP BY n",
        &[],
    )?;
    for number in acknowledged {
        let row = rows
            .iter()
            .find(|row| row[0] == *number)
            .with_context(|| format!("row {number} is lost"))?;
        ensure!(row[1] == 1 && row[2] == 65536, "{row:?}");
    }
    Ok(())
}

/// A kind of damage to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// One flipped bit, at a position chosen by the number.
    Flip(u64),
    /// Truncated to this percentage of its length.
    Truncate(u64),
    /// The last three bytes are missing.
    Torn,
}

const DAMAGES: [Damage; 6] = [
    Damage::Flip(1),
    Damage::Flip(2),
    Damage::Flip(3),
    Damage::Truncate(0),
    Damage::Truncate(50),
    Damage::Torn,
];

/// Numbers of rows acknowledged before and after the checkpoint of the damaged directory.
const ROWS: (i64, i64) = (30, 20);

/// A data directory after a crash, with rows in the checkpointed file and further rows only in the log.
fn crashed_directory() -> Result<Node> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = node.client();
    client.execute("CREATE TABLE t(n INTEGER)", &[])?;
    for number in 0..ROWS.0 {
        client.execute("INSERT INTO t VALUES(?)", &[json!(number)])?;
    }
    let reply = client.post("/snapshot?trailing_logs=1", "")?;
    ensure!(reply.status == 200, "{reply:?}");
    for number in 0..ROWS.1 {
        client.execute("INSERT INTO t VALUES(?)", &[json!(ROWS.0 + number)])?;
    }
    // The mark of a sync is written after its acknowledgement, and before the next sync: the kill may come
    // between. So the last row is there twice.
    client.execute("INSERT INTO t VALUES(?)", &[json!(ROWS.0 + ROWS.1 - 1)])?;
    node.kill()?;
    Ok(node)
}

#[test]
fn damaged_files_are_noticed() -> Result<()> {
    let original = crashed_directory()?;
    let mut cases = Vec::new();
    for file in files_below(&original.data)? {
        let length = fs::metadata(&file)?.len();
        let name = file
            .file_name()
            .context("no name")?
            .to_string_lossy()
            .into_owned();
        // Skips empty lock files, and what SQLite rebuilds at each start.
        if length > 0 && !name.ends_with("-shm") {
            let relative = file.strip_prefix(&original.data)?.to_owned();
            cases.extend(DAMAGES.iter().map(|&damage| (relative.clone(), damage)));
        }
    }
    ensure!(cases.len() >= 4 * DAMAGES.len(), "too few files: {cases:?}");
    let (wrong, seen) = run_cases(&original.data, &cases)?;
    println!("{}", seen.join("\n"));
    ensure!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    Ok(())
}

/// Runs two cases at a time; returns the failures and the results of all cases.
fn run_cases(original: &Path, cases: &[(PathBuf, Damage)]) -> Result<(Vec<String>, Vec<String>)> {
    let (mut wrong, mut seen) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let halves: Vec<_> = cases
            .chunks(cases.len().div_ceil(2))
            .map(|half| {
                scope.spawn(move || {
                    half.iter()
                        .map(|case| (case, run_case(original, case)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for half in halves {
            for (case, result) in half.join().map_err(|_| anyhow::anyhow!("panicked"))? {
                match result {
                    Ok(text) => seen.push(format!("{case:?}: {text}")),
                    Err(error) => wrong.push(format!("{case:?}: {error:#}")),
                }
            }
        }
        Ok((wrong, seen))
    })
}

/// Starts a copy with one damaged file: it must refuse with a message, or have every acknowledged row.
fn run_case(original: &Path, (file, damage): &(PathBuf, Damage)) -> Result<String> {
    let mut node = Node::new("1")?;
    copy_directory(original, &node.data)?;
    apply(&node.data.join(file), *damage)?;
    node.start()?;
    let mut client = node.client().timeout(Duration::from_secs(3));
    let count = wait::until("the node's end or its rows", PROCESS_LIMIT, || {
        if !node.is_running() {
            return Ok(None);
        }
        client
            .number("linearizable", "SELECT count(DISTINCT n) FROM t")
            .map(Some)
            .map_err(|error| format!("{error:#}"))
    });
    check_no_panic(&node)?;
    let log = node.log();
    let last = log.lines().last().unwrap_or_default().to_owned();
    match count {
        Ok(None) => {
            ensure!(
                log.contains("fatal") || log.contains("ERROR"),
                "exited without a message: {log}"
            );
            Ok(format!("refused: {last}"))
        }
        Ok(Some(rows)) => {
            // This is not an interrupted write: everything was synced, as the log's mark records.
            ensure!(rows == ROWS.0 + ROWS.1, "only {rows} rows are left; {last}");
            Ok(format!("{rows} rows"))
        }
        // A database that reports the damage when it is read is acceptable, too.
        Err(error) if format!("{error:#}").contains("malformed") => {
            Ok(format!("reported: {error:#}"))
        }
        Err(error) => Err(error.context(log)),
    }
}

fn apply(path: &Path, damage: Damage) -> Result<()> {
    let mut bytes = fs::read(path)?;
    match damage {
        Damage::Flip(seed) => {
            let mut seed = Seed::new(seed);
            let at = seed.index(bytes.len());
            bytes[at] ^= 1 << seed.below(8);
        }
        Damage::Truncate(percent) => bytes.truncate(bytes.len() * usize::try_from(percent)? / 100),
        Damage::Torn => bytes.truncate(bytes.len().saturating_sub(3)),
    }
    fs::write(path, bytes).context("damage the file")
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    for file in files_below(from)? {
        let target = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(target.parent().context("no parent")?)?;
        fs::copy(&file, &target)?;
    }
    Ok(())
}
