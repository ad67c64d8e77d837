//! The archive's price, of a 1 GB database under 64 writers: memory and writers' latency during a base and a
//! backup, throughput with and without it, bytes stored, and the time of a restore beside the disk's own.
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    archive::Archive,
    bench::{
        faults, litestream,
        load::{self, Load, Target},
        memory, node,
        options::Options,
        report::{Cell, Report},
        requests,
    },
    process::Node,
    wait,
};

/// With `s3` in this variable, the archive is in a real S3 server on this machine, otherwise in a folder.
const STORE: &str = "ARCHIVE_STORE";
/// Writers.
const CONNECTIONS: usize = 64;
/// Entries that are replayed by the measured restore.
const ENTRIES: u64 = 100_000;
/// Writers while these are made: fewer writers make more entries of their writes.
const FEW: usize = 4;
/// Rounds with the archive on and off, in turn.
const ROUNDS: usize = 4;
/// How long a base of 1 GB, or catching up, may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Measures all of it; needs 8 GB of disk and some minutes.
///
/// # Errors
/// If a node or a restore fails.
pub fn measure(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    let config = json!({"every": "2s"});
    let archive = match std::env::var(STORE) {
        Ok(store) if store == "s3" => Archive::in_s3_below(work, &config)?,
        _ => Archive::in_folder_below(work, &config)?,
    };
    let mut on = filled("on", work)?;
    without(options, &on, report)?;
    on.stop()?;
    on.args.extend(archive.flags());
    during_base(options, &mut on, report)?;
    during_backup(options, &on, report)?;
    let off = filled("off", work)?;
    in_turn(options, &on, &off, report)?;
    drop(off);
    stored(options, &archive, &on, report)?;
    restored(&archive, &mut on, report)?;
    litestream::measure(options, work, report)
}

/// A node with 1 GB.
fn filled(name: &str, work: &Path) -> Result<Node> {
    let mut node = node::bench_node(name, work)?;
    node.start_and_ready()?;
    for sql in requests::SETUP {
        node.client().execute(sql, &[])?;
    }
    faults::fill(&node)?;
    Ok(node)
}

fn pid(node: &Node) -> Result<u32> {
    node.pid().context("the node does not run")
}

fn write(node: &Node, connections: usize, span: Duration) -> Result<Load> {
    let set = requests::inserts();
    load::run(&Target::plain(&node.http), connections, span, &set)
}

fn without(options: &Options, node: &Node, report: &mut Report) -> Result<()> {
    memory::forget_peak(pid(node)?)?;
    let load = write(node, CONNECTIONS, options.cell * 3)?;
    report.add(Cell::load("archive/without/insert/64", &load));
    let peak = memory::of(pid(node)?)?.peak;
    report.add(Cell::rate("archive/without/memory-peak", "MiB", peak));
    Ok(())
}

fn status(node: &Node) -> Result<Value> {
    node.client().get_json("/archive")
}

/// Writes until `is_done`; the writers' latencies over all of it.
fn write_until(node: &Node, options: &Options, mut is_done: impl FnMut() -> bool) -> Result<Load> {
    let begun = Instant::now();
    let mut all = Load::default();
    while !is_done() {
        all.add(write(node, CONNECTIONS, options.cell)?);
        ensure!(begun.elapsed() < LIMIT, "not done after {LIMIT:?}");
    }
    Ok(all)
}

/// The first base begins with the node.
fn during_base(options: &Options, node: &mut Node, report: &mut Report) -> Result<()> {
    node.start_and_ready()?;
    memory::forget_peak(pid(node)?)?;
    let begun = Instant::now();
    let mut took = 0.0;
    let load = thread::scope(|scope| {
        let watched = scope.spawn(|| {
            wait::until("the first base", LIMIT, || match status(node) {
                Ok(now) if !now["last_base"].is_null() => Ok(begun.elapsed().as_secs_f64()),
                other => Err(format!("{other:?}")),
            })
        });
        let load = write_until(node, options, || watched.is_finished())?;
        let waited = watched.join().map_err(|_| anyhow::anyhow!("a panic"))?;
        took = waited?;
        Ok::<_, anyhow::Error>(load)
    })?;
    report.add(Cell::load("archive/base/insert/64", &load));
    report.add(Cell::rate("archive/base/seconds", "s", took).note("1 GB, incompressible"));
    let peak = memory::of(pid(node)?)?.peak;
    report.add(Cell::rate("archive/base/memory-peak", "MiB", peak));
    Ok(())
}

fn during_backup(options: &Options, node: &Node, report: &mut Report) -> Result<()> {
    memory::forget_peak(pid(node)?)?;
    let begun = Instant::now();
    let mut took = 0.0;
    let load = thread::scope(|scope| {
        let fetched = scope.spawn(|| fetch_backup(node).map(|bytes| (bytes, begun.elapsed())));
        let load = write_until(node, options, || fetched.is_finished())?;
        let fetched = fetched.join().map_err(|_| anyhow::anyhow!("a panic"))?;
        let (bytes, span) = fetched?;
        ensure!(bytes > 1 << 30, "a backup of {bytes} bytes");
        took = span.as_secs_f64();
        Ok::<_, anyhow::Error>(load)
    })?;
    report.add(Cell::load("archive/backup/insert/64", &load));
    report.add(Cell::rate("archive/backup/seconds", "s", took).note("GET /db/backup"));
    let peak = memory::of(pid(node)?)?.peak;
    report.add(Cell::rate("archive/backup/memory-peak", "MiB", peak));
    Ok(())
}

/// Bytes of `/db/backup`, which are thrown away.
fn fetch_backup(node: &Node) -> Result<u64> {
    let mut stream = TcpStream::connect(&node.http)?;
    stream.write_all(b"GET /db/backup HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(bytes),
            got => bytes += u64::try_from(got)?,
        }
    }
}

fn in_turn(options: &Options, on: &Node, off: &Node, report: &mut Report) -> Result<()> {
    let (mut with, mut without) = (Load::default(), Load::default());
    memory::forget_peak(pid(on)?)?;
    for round in 0..ROUNDS * 2 {
        // on off off on …: what changes slowly hits both.
        if matches!(round % 4, 0 | 3) {
            with.add(write(on, CONNECTIONS, options.cell * 3)?);
        } else {
            without.add(write(off, CONNECTIONS, options.cell * 3)?);
        }
    }
    report.add(Cell::load("archive/off/insert/64", &without));
    report.add(Cell::load("archive/on/insert/64", &with));
    let peak = memory::of(pid(on)?)?.peak;
    report.add(Cell::rate("archive/on/memory-peak", "MiB", peak));
    Ok(())
}

fn await_archived(node: &Node) -> Result<u64> {
    wait::until("the archive to hold everything", LIMIT, || {
        match status(node) {
            Ok(now) if now["behind_entries"] == 0 => now["archived_index"]
                .as_u64()
                .ok_or_else(|| now.to_string()),
            other => Err(format!("{other:?}")),
        }
    })
}

fn segment_bytes(archive: &Archive) -> Result<u64> {
    let files = archive.objects("segments/")?;
    Ok(files
        .iter()
        .filter_map(|file| fs::metadata(file).ok())
        .map(|meta| meta.len())
        .sum())
}

/// Bytes of segments for the bytes of rows, of a load whose values hardly compress.
#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn stored(options: &Options, archive: &Archive, node: &Node, report: &mut Report) -> Result<()> {
    await_archived(node)?;
    let before = segment_bytes(archive)?;
    let rows = "SELECT count(*) FROM t";
    let count = node.client().number("none", rows)?;
    let set = requests::noisy_inserts();
    load::run(&Target::plain(&node.http), CONNECTIONS, options.cell, &set)?;
    let written = node.client().number("none", rows)? - count;
    await_archived(node)?;
    let bytes = segment_bytes(archive)? - before;
    let ratio = bytes as f64 / (written as f64 * requests::NOISE_BYTES as f64);
    report.add(
        Cell::rate("archive/stored-per-written", "ratio", ratio).note(&format!(
            "{bytes} bytes of segments for {written} rows of {} random hexadecimal digits",
            requests::NOISE_BYTES
        )),
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn restored(archive: &Archive, node: &mut Node, report: &mut Report) -> Result<()> {
    let first = await_archived(node)?;
    let begun = Instant::now();
    while node
        .client()
        .get_json("/status?key=store.raft.applied_index")?
        .as_u64()
        < Some(first + ENTRIES)
    {
        write(node, FEW, Duration::from_secs(5))?;
        ensure!(begun.elapsed() < LIMIT, "too few entries after {LIMIT:?}");
    }
    await_archived(node)?;
    node.stop()?;
    let begun = Instant::now();
    let restored = archive.restore(&[])?;
    let took = begun.elapsed().as_secs_f64();
    let bytes = fs::metadata(&restored.file)?.len();
    let disk = write_again(&restored.file)?;
    let note = format!(
        "{bytes} bytes, {} entries; the same bytes read and written with fsync: {disk:.1} s",
        restored.report["entries"]
    );
    report.add(Cell::rate("archive/restore/seconds", "s", took).note(&note));
    let rate = bytes as f64 / (1 << 20) as f64;
    report.add(Cell::rate("archive/restore/disk", "MiB/s", rate / disk));
    fs::remove_file(&restored.file)?;
    Ok(())
}

/// Seconds to copy a file with fsync.
fn write_again(file: &Path) -> Result<f64> {
    let begun = Instant::now();
    let copy = file.with_extension("copy");
    let mut from = File::open(file)?;
    let mut to = File::create(&copy)?;
    std::io::copy(&mut from, &mut to)?;
    to.sync_all()?;
    let took = begun.elapsed().as_secs_f64();
    fs::remove_file(copy)?;
    Ok(took)
}
