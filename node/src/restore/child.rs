//! Runs a restore in a child process: `rqlited archive restore --supervised`.
//!
//! A node never replays in its own process: SQLite's directory for temporary files is one per process, and
//! the memory and time of a replay are to be limited. The child ends when its node ends, because then its
//! standard input ends.
use std::{ffi::OsString, path::Path, process::Stdio};

use node_archive::plan::Target;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::run::Report;

/// Longest error text of the child that is read, in bytes.
const MAX_ERROR_BYTES: u64 = 16 << 10;

/// Where an archive is, and its keys.
#[derive(Clone)]
pub struct ArchiveAt {
    /// `type` and `sub`, with variables replaced; may contain secrets.
    pub config: Map<String, Value>,
    /// `-archive-key-file`.
    pub key_file: Option<std::path::PathBuf>,
}

impl std::fmt::Debug for ArchiveAt {
    /// Omits the configuration, which may contain secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveAt").finish_non_exhaustive()
    }
}

/// A line that the child prints.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Progress(Value),
    Report(Box<Report>),
}

/// What the child is to restore.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The archive.
    pub at: &'a ArchiveAt,
    /// The timeline's id, if there are several.
    pub lineage: Option<&'a str>,
    /// The point.
    pub target: Target,
    /// `-fk`.
    pub foreign_keys: bool,
    /// The new file.
    pub output: &'a Path,
}

/// Restores to a new file. Dropping the future kills the child.
///
/// # Errors
/// The child's error, or it cannot be started.
pub async fn restore(
    order: &Order<'_>,
    mut progress: impl FnMut(&Value),
) -> Result<Report, String> {
    let failed = |doing: &str, e: std::io::Error| format!("{doing} the restore's process: {e}");
    let program = std::env::current_exe().map_err(|e| failed("finding", e))?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments(order))
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed("starting", e))?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err("the restore's process has no pipes".into());
    };
    let mut config = serde_json::to_vec(&order.at.config).map_err(|e| e.to_string())?;
    config.push(b'\n');
    // A failure here appears as the child's: it ends because it got no configuration.
    let _ = stdin.write_all(&config).await;
    let mut error = Vec::new();
    let mut report = None;
    let mut lines = BufReader::new(stdout).lines();
    let read_report = async {
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(Line::Progress(value)) => progress(&value),
                Ok(Line::Report(done)) => report = Some(*done),
                Err(_) => {}
            }
        }
    };
    let mut stderr = stderr.take(MAX_ERROR_BYTES);
    let (_, read) = tokio::join!(read_report, stderr.read_to_end(&mut error));
    let ended = child.wait().await.map_err(|e| failed("waiting for", e))?;
    drop(stdin);
    match report {
        Some(report) if ended.success() => Ok(report),
        _ => {
            let text = String::from_utf8_lossy(&error);
            let text = text.trim();
            let nothing = text.is_empty() || read.is_err();
            Err(match nothing {
                true => format!("the restore's process ended early ({ended})"),
                false => text.to_owned(),
            })
        }
    }
}

fn arguments(order: &Order<'_>) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["archive", "restore", "--supervised", "--output"]
        .map(OsString::from)
        .into();
    words.push(order.output.into());
    let mut add = |flag: &str, value: OsString| words.extend([OsString::from(flag), value]);
    if let Some(path) = &order.at.key_file {
        add("--key-file", path.into());
    }
    if let Some(lineage) = order.lineage {
        add("--lineage", lineage.into());
    }
    match order.target {
        Target::End => {}
        Target::Index(index) => add("--to-index", index.to_string().into()),
        Target::Time(time) => add("--to-time", time.to_string().into()),
    }
    if order.foreign_keys {
        words.push("--fk".into());
    }
    words
}
