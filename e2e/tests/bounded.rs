//! The WAL and the log stay within their bounds while reads, backups and joining nodes are active, and these
//! complete.
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    client::Client,
    cluster::{Cluster, check_no_panic},
    link::Link,
    process::Node,
    wait,
};

/// Generous, for a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);
/// Bytes that each write adds to the WAL.
const WRITE_BYTES: u64 = 1_000_000;
/// Largest WAL allowed. From 128 MiB on a node pauses reads for up to 1.5 s to checkpoint; the rest is room
/// for writes until then.
const WAL_LIMIT_BYTES: u64 = 200 << 20;
/// Creates the table whose rows are rewritten, so that the database keeps its size.
const FILL: [&str; 2] = [
    "CREATE TABLE w(id INTEGER PRIMARY KEY, x)",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<40) INSERT INTO w SELECT i, randomblob(1000000) FROM n",
];
/// A read that computes for some ten milliseconds.
const READ: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200000) SELECT count(*) FROM n, (SELECT id FROM w LIMIT 1)";

fn wal_bytes(data: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(data) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| {
        if entry.file_name() == "db.sqlite-wal" {
            entry.metadata().map_or(0, |meta| meta.len())
        } else {
            wal_bytes(&entry.path())
        }
    });
    sizes.sum()
}

/// Rewrites rows while `goes_on`; returns the bytes written and the largest WAL seen.
fn write(
    client: &mut Client,
    data: &Path,
    written: &AtomicU64,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<u64> {
    let mut largest = 0;
    let mut count = 0;
    while goes_on(count * WRITE_BYTES) {
        client.execute(
            "UPDATE w SET x=randomblob(1000000) WHERE id=?",
            &[(count % 40 + 1).into()],
        )?;
        count += 1;
        written.store(count * WRITE_BYTES, Ordering::Relaxed);
        largest = wal_bytes(data).max(largest);
    }
    Ok(largest)
}

fn filled(node: &Node) -> Result<Client> {
    let mut client = node.client().timeout(LIMIT);
    for sql in FILL {
        client.execute(sql, &[])?;
    }
    Ok(client)
}

#[test]
fn reads_without_a_gap_do_not_keep_checkpoints_away() -> Result<()> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = filled(&node)?;
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let largest = thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let mut reader = node.client().timeout(LIMIT);
                let (stop, reads) = (&stop, &reads);
                scope.spawn(move || -> Result<()> {
                    while !stop.load(Ordering::Relaxed) {
                        reader.rows("none", READ, &[])?;
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let largest = write(&mut client, &node.data, &AtomicU64::new(0), |written| {
            written < 250 << 20
        });
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader
                .join()
                .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        largest
    })?;
    println!(
        "largest WAL {} MiB, {} reads",
        largest >> 20,
        reads.load(Ordering::Relaxed)
    );
    ensure!(largest < WAL_LIMIT_BYTES, "the WAL grew to {largest} bytes");
    check_no_panic(&node)
}

#[test]
fn a_backup_is_complete_and_hinders_no_checkpoint() -> Result<()> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = filled(&node)?;
    client.execute("CREATE TABLE acknowledged(x)", &[])?;
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    let largest = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            write(&mut client, &node.data, &written, |_| {
                !stop.load(Ordering::Relaxed)
            })
        });
        let backups = || -> Result<()> {
            let mut other = node.client().timeout(LIMIT);
            for (at, path) in [
                "/db/backup",
                "/db/backup?vacuum",
                "/db/backup?fmt=delete",
                "/db/backup?fmt=sql",
            ]
            .iter()
            .enumerate()
            {
                other.execute("INSERT INTO acknowledged VALUES(?)", &[at.into()])?;
                let backup = other.get(path)?;
                ensure!(
                    backup.status == 200,
                    "{path}: {} {}",
                    backup.status,
                    backup.text()
                );
                let copy = node.scratch().join(format!("copy-{at}"));
                let conn = if path.ends_with("sql") {
                    let conn = rusqlite::Connection::open_in_memory()?;
                    conn.execute_batch(&backup.text())?;
                    conn
                } else {
                    fs::write(&copy, &backup.body)?;
                    rusqlite::Connection::open(&copy)?
                };
                let sound: String =
                    conn.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
                let rows: i64 =
                    conn.query_row("SELECT count(*) FROM acknowledged", [], |row| row.get(0))?;
                ensure!(
                    sound == "ok" && rows == i64::try_from(at)? + 1,
                    "{path}: {sound}, {rows} rows"
                );
            }
            // Long enough that a checkpoint would have been due in any case.
            wait::until("some writes", LIMIT, || {
                match written.load(Ordering::Relaxed) {
                    bytes if bytes > 100 << 20 => Ok(()),
                    bytes => Err(format!("{bytes} bytes")),
                }
            })
        };
        let made = backups();
        stop.store(true, Ordering::Relaxed);
        let largest = writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        made.and(largest)
    })?;
    println!("largest WAL {} MiB", largest >> 20);
    ensure!(largest < WAL_LIMIT_BYTES, "the WAL grew to {largest} bytes");
    check_no_panic(&node)
}

#[test]
fn a_slow_join_comes_to_its_end_and_hinders_no_checkpoint() -> Result<()> {
    let mut cluster = Cluster::start(1)?;
    let mut client = filled(&cluster[0])?;
    // A snapshot, so that a joining node receives it instead of the log.
    let made = client.post("/snapshot?trailing_logs=1", "")?;
    ensure!(
        matches!(made.status, 200 | 204),
        "{} {}",
        made.status,
        made.text()
    );
    let mut node = Node::new("2")?;
    let link = Link::to(&node.raft)?;
    // 40 MB in pieces of 64 KiB would take half a minute at a constant rate. With a longer delay the
    // handshake between the nodes would time out.
    link.slow(Duration::from_millis(50));
    node.raft_adv = Some(link.addr.clone());
    node.args.push(format!("-join={}", cluster[0].advertised()));
    let stop = AtomicBool::new(false);
    let data = cluster[0].data.clone();
    let written = AtomicU64::new(0);
    let (largest, took) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            write(&mut client, &data, &written, |_| {
                !stop.load(Ordering::Relaxed)
            })
        });
        let started = Instant::now();
        let joined = node
            .start()
            .and_then(|()| wait_moved(&cluster[0], &written))
            .and_then(|()| {
                link.slow(Duration::ZERO);
                node.wait_ready(LIMIT)
            });
        stop.store(true, Ordering::Relaxed);
        let largest = writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        joined
            .and(largest)
            .map(|largest| (largest, started.elapsed()))
    })?;
    println!("largest WAL {} MiB, joined after {took:?}", largest >> 20);
    ensure!(largest < WAL_LIMIT_BYTES, "the WAL grew to {largest} bytes");
    cluster.push(node);
    cluster.agreed_rows("SELECT count(*), sum(length(x)) FROM w")?;
    let transfers = cluster[1].log().matches("receiving a snapshot of").count();
    ensure!(
        transfers == 1,
        "{transfers} transfers:\n{}",
        cluster[1].log_tail()
    );
    cluster.agreed_dump()?;
    cluster.check_no_panic()
}

/// Waits until the snapshot being sent has been moved to a copy and enough was written after that.
fn wait_moved(leader: &Node, written: &AtomicU64) -> Result<()> {
    wait::until("the snapshot to be moved to a copy", LIMIT, || {
        if leader.log().contains("was moved to a copy") {
            Ok(())
        } else {
            Err("none".to_owned())
        }
    })
    .with_context(|| leader.log_tail())?;
    let from = written.load(Ordering::Relaxed);
    wait::until("writes after it", LIMIT, || {
        match written.load(Ordering::Relaxed) - from {
            bytes if bytes > 60 << 20 => Ok(()),
            bytes => Err(format!("{bytes} bytes")),
        }
    })
}
