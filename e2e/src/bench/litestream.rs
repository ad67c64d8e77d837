//! Litestream on the same rows, for comparison: bytes that it stores for the bytes written. Measured if
//! `LITESTREAM` names its program.
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rusqlite::{Connection, params};

use crate::{
    bench::{
        options::Options,
        report::{Cell, Report},
        requests,
    },
    wait,
};

/// The variable that names the program.
const PROGRAM: &str = "LITESTREAM";
/// How long it may take until nothing more is stored.
const LIMIT: Duration = Duration::from_secs(60);
/// It is done if nothing has changed for this long: longer than its interval of one second.
const QUIET: Duration = Duration::from_secs(5);

/// Inserts the same rows, as many in a transaction as the node takes into one entry.
///
/// # Errors
/// If SQLite or Litestream fails.
#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
pub(super) fn measure(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    let Some(program) = std::env::var_os(PROGRAM) else {
        return Ok(());
    };
    for batch in [1_u64, 32] {
        let dir = work.join(format!("litestream-{batch}"));
        fs::create_dir(&dir)?;
        let (file, replica) = (dir.join("db"), dir.join("replica"));
        let database = Connection::open(&file)?;
        database.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=5000;
             CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)",
        )?;
        let mut child = Command::new(&program)
            .arg("replicate")
            .arg(&file)
            .arg(format!("file://{}", replica.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start Litestream")?;
        let measured = insert(options, &database, batch, &replica);
        child.kill()?;
        child.wait()?;
        let (rows, bytes) = measured?;
        let ratio = bytes as f64 / (rows as f64 * requests::NOISE_BYTES as f64);
        let name = format!("archive/litestream/stored-per-written/{batch}");
        report.add(Cell::rate(&name, "ratio", ratio).note(&format!(
            "{bytes} bytes stored for {rows} rows, {batch} in a transaction"
        )));
    }
    Ok(())
}

fn insert(
    options: &Options,
    database: &Connection,
    batch: u64,
    replica: &Path,
) -> Result<(u64, u64)> {
    wait::until("Litestream's first copy", LIMIT, || match size(replica) {
        0 => Err("nothing".to_owned()),
        _ => Ok(()),
    })?;
    let before = size(replica);
    let values = requests::noise();
    let mut insert = database.prepare("INSERT INTO t(v) VALUES(?)")?;
    let begun = Instant::now();
    let mut rows = 0;
    while begun.elapsed() < options.cell {
        database.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..batch {
            let at = usize::try_from(rows)? % values.len();
            insert.execute(params![values[at]])?;
            rows += 1;
        }
        database.execute_batch("COMMIT")?;
    }
    let mut last = (size(replica), Instant::now());
    let bytes = wait::until("Litestream to hold everything", LIMIT, || {
        let now = size(replica);
        if now != last.0 {
            last = (now, Instant::now());
        }
        if last.1.elapsed() >= QUIET {
            return Ok(now);
        }
        Err(format!("{now} bytes"))
    })?;
    Ok((rows, bytes.saturating_sub(before)))
}

/// Bytes of all files below a directory; 0 if there is none.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.path() {
        path if path.is_dir() => size(&path),
        path => fs::metadata(path).map_or(0, |meta| meta.len()),
    });
    bytes.sum()
}
