//! `-auto-restore`: starts a new cluster with a backup, or with the state of an archive at some time.
pub mod decide;

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use node_archive::{moment::Moment, plan};
use node_contract::duration;
use node_db::Database;
use node_objects::{Target, Use, config};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempPath;
use tokio_util::sync::CancellationToken;

use self::decide::{Situation, Step, next};
use super::{
    child::{self, ArchiveAt, Order},
    run::Report,
};
use crate::{raft::Consensus, store::Store};

/// Default time limit for a file (rqlite's).
const FILE_TIMEOUT: Duration = Duration::from_secs(30);
/// Default time limit for an archive, whose entries are replayed.
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Interval of checking who leads.
const POLL: Duration = Duration::from_millis(50);
/// First bytes of a gzip file (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Bytes of disk that decompression leaves free.
const RESERVE_BYTES: u64 = 64 << 20;
const PIECE_BYTES: usize = 256 << 10;

/// The configuration file.
#[derive(Clone, Debug)]
pub struct AutoRestore {
    from: From,
    timeout: Duration,
    /// Start without data if there is nothing to restore, or it is damaged.
    pub continue_on_failure: bool,
}

#[derive(Clone, Debug)]
enum From {
    Object(Target),
    Archive {
        at: ArchiveAt,
        shown: String,
        to: plan::Target,
        lineage: Option<String>,
    },
}

/// The keys beside `version`, `type` and `sub`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest {
    timeout: Option<Value>,
    #[serde(default)]
    continue_on_failure: bool,
}

/// `sub` of type `archive`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArchiveSub {
    archive: serde_json::Map<String, Value>,
    key_file: Option<PathBuf>,
    to_index: Option<u64>,
    to_time: Option<String>,
    lineage: Option<String>,
}

impl AutoRestore {
    /// Reads the file, with `$VAR` replaced from the environment.
    ///
    /// # Errors
    /// The file cannot be read or is invalid; the text names it and says what to change.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = config::read_text(path).map_err(|e| e.to_string())?;
        let environment = |name: &str| std::env::var(name).ok();
        Self::parse(&text, &environment).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut all = config::parse_object(text, environment).map_err(|e| e.to_string())?;
        let (kind, sub) = config::take_target(&mut all).map_err(|e| e.to_string())?;
        let rest: Rest = config::from_value(Value::Object(all), "").map_err(|e| e.to_string())?;
        let (from, default) = match kind.as_str() {
            "archive" => (of_archive(sub)?, ARCHIVE_TIMEOUT),
            "s3" | "gcs" | "azure" | "file" => {
                let target = Target::from_json(&kind, sub, Use::Object);
                (
                    From::Object(target.map_err(|e| e.to_string())?),
                    FILE_TIMEOUT,
                )
            }
            other => {
                return Err(format!(
                    "unsupported storage type '{other}': expected s3, gcs, azure, file or archive"
                ));
            }
        };
        Ok(Self {
            from,
            timeout: timeout(rest.timeout.as_ref(), default)?,
            continue_on_failure: rest.continue_on_failure,
        })
    }

    /// What is restored, as text without secrets.
    pub fn source(&self) -> String {
        match &self.from {
            From::Object(target) => target.to_string(),
            From::Archive { shown, to, .. } => format!("{to} from the archive at {shown}"),
        }
    }

    /// Fetches the file into `scratch`, decompressed, and checks it by `integrity_check`. For an archive,
    /// also returns the point that it is of.
    ///
    /// # Errors
    /// The time limit has passed, a request failed, or the file is not an undamaged SQLite database.
    pub async fn fetch(
        &self,
        scratch: &Path,
        foreign_keys: bool,
    ) -> Result<(TempPath, Option<Report>), String> {
        let fetched = tokio::time::timeout(self.timeout, self.fetched(scratch, foreign_keys));
        let done = fetched.await.map_err(|_| {
            format!(
                "auto-restore: not done within {} (\"timeout\" in the configuration)",
                duration::format(self.timeout)
            )
        })??;
        Ok(done)
    }

    async fn fetched(
        &self,
        scratch: &Path,
        foreign_keys: bool,
    ) -> Result<(TempPath, Option<Report>), String> {
        match &self.from {
            From::Object(target) => {
                tracing::info!(target: "downloader", "auto-restore: fetching {target}");
                let path = fresh(scratch)?;
                let (store, name) = target.open_object().map_err(|e| e.to_string())?;
                let reader = store.read(&name, 0).await.map_err(|e| e.to_string())?;
                let file = tokio::fs::File::create(&path).await;
                let mut file = file.map_err(|e| e.to_string())?;
                reader.copy_to(&mut file).await.map_err(|e| e.to_string())?;
                file.sync_all().await.map_err(|e| e.to_string())?;
                drop(file);
                let unpacked = fresh(scratch)?;
                let checked = tokio::task::spawn_blocking(move || unpack(path, unpacked)).await;
                let path = checked
                    .map_err(|e| e.to_string())?
                    .map_err(|why| format!("{target}: {why}"))?;
                Ok((path, None))
            }
            From::Archive {
                at,
                shown,
                to,
                lineage,
            } => {
                tracing::info!(target: "downloader", "auto-restore: {to} from the archive at {shown}");
                let path = fresh(scratch)?;
                // The child process creates the file, and refuses a name that exists.
                std::fs::remove_file(&path).map_err(|e| e.to_string())?;
                let order = Order {
                    at,
                    lineage: lineage.as_deref(),
                    target: *to,
                    foreign_keys,
                    output: &path,
                };
                let report = child::restore(&order, |_| {}).await?;
                tracing::info!(target: "downloader",
                    "auto-restore: restored index {} of {} ({} entries replayed)", report.index, report.time, report.entries);
                Ok((path, Some(report)))
            }
        }
    }
}

fn of_archive(sub: Value) -> Result<From, String> {
    let sub: ArchiveSub = config::from_value(sub, "sub").map_err(|e| e.to_string())?;
    let within = |e: config::ConfigError| format!("sub.archive: {e}");
    let mut all = sub.archive.clone();
    let (kind, place) = config::take_target(&mut all).map_err(within)?;
    let target = Target::from_json(&kind, place, Use::Prefix).map_err(within)?;
    let to = match (sub.to_index, sub.to_time) {
        (Some(_), Some(_)) => {
            return Err("sub: give to_index or to_time, not both".into());
        }
        (Some(index), None) => plan::Target::Index(index),
        (None, Some(time)) => {
            let time = Moment::parse(&time).map_err(|e| format!("sub.to_time: {e}"))?;
            plan::Target::Time(time)
        }
        (None, None) => plan::Target::End,
    };
    Ok(From::Archive {
        shown: target.to_string(),
        at: ArchiveAt {
            config: sub.archive,
            key_file: sub.key_file,
        },
        to,
        lineage: sub.lineage,
    })
}

/// A Go duration, or a number of nanoseconds.
fn timeout(value: Option<&Value>, default: Duration) -> Result<Duration, String> {
    let invalid = |why: &str| format!("invalid timeout: {why}");
    let timeout = match value {
        None | Some(Value::Null) => return Ok(default),
        Some(Value::String(text)) => duration::parse(text).map_err(|e| invalid(&e.to_string()))?,
        Some(Value::Number(nanos)) => match nanos.as_u64() {
            Some(nanos) => Duration::from_nanos(nanos),
            None => return Err(invalid("expected nanoseconds")),
        },
        Some(_) => return Err(invalid("expected a duration such as \"30s\"")),
    };
    if timeout.is_zero() {
        return Err(invalid("it must be above 0"));
    }
    Ok(timeout)
}

fn fresh(scratch: &Path) -> Result<TempPath, String> {
    let file = tempfile::Builder::new()
        .prefix("auto-restore-")
        .tempfile_in(scratch);
    file.map(tempfile::NamedTempFile::into_temp_path)
        .map_err(|e| format!("{}: {e}", scratch.display()))
}

/// Decompresses gzip, and checks that the file is an undamaged database.
fn unpack(path: TempPath, unpacked: TempPath) -> Result<TempPath, String> {
    let io = |e: std::io::Error| e.to_string();
    let mut start = Vec::new();
    let file = std::fs::File::open(&path).map_err(io)?;
    file.take(2).read_to_end(&mut start).map_err(io)?;
    let path = if start == GZIP_MAGIC {
        gunzip(&path, &unpacked)?;
        unpacked
    } else {
        path
    };
    Database::validate_file(&path)
        .map_err(|why| format!("it is a damaged SQLite file, or none: {why}"))?;
    Ok(path)
}

fn gunzip(from: &Path, to: &Path) -> Result<(), String> {
    let io = |e: std::io::Error| e.to_string();
    let parent = to.parent().unwrap_or(to);
    let room = fs4::available_space(parent).unwrap_or(u64::MAX);
    let mut room = room.saturating_sub(RESERVE_BYTES);
    let mut packed = flate2::read::MultiGzDecoder::new(std::fs::File::open(from).map_err(io)?);
    let mut file = std::fs::File::create(to).map_err(io)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let got = packed
            .read(&mut piece)
            .map_err(|e| format!("its gzip is damaged: {e}"))?;
        let Some(data) = piece.get(..got).filter(|data| !data.is_empty()) else {
            return file.sync_all().map_err(io);
        };
        room = room
            .checked_sub(data.len() as u64)
            .ok_or_else(|| format!("not enough space in {} to unpack it", parent.display()))?;
        file.write_all(data).map_err(io)?;
    }
}

/// How `-auto-restore` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Loaded through the log, at this index.
    Loaded(u64),
    /// The file is not needed: another node has loaded one, or the cluster has data.
    Dropped,
    /// The node was stopped.
    Stopped,
}

/// Loads the file if this node is the first leader; see [`decide::next`].
///
/// # Errors
/// The load was refused.
pub async fn carry_out(
    store: &Store,
    consensus: &Consensus,
    file: &Path,
    patience: Duration,
    stop: &CancellationToken,
) -> Result<End, String> {
    let mut applied = 0;
    let mut since = Instant::now();
    while !stop.is_cancelled() {
        let leadership = consensus.leadership();
        let follows = !leadership.mine && leadership.leader.is_some();
        let now_applied = consensus.applied_index();
        if now_applied != applied || !follows {
            applied = now_applied;
            since = Instant::now();
        }
        let now = Situation {
            leads: consensus.leads(),
            follows,
            has_data: consensus.progress().has_data(),
            idle: since.elapsed(),
        };
        match next(&now, patience) {
            Step::Drop => {
                tracing::info!(target: "store", "auto-restore: another node leads or the cluster has data; the fetched file is not needed");
                return Ok(End::Dropped);
            }
            Step::Load => match store.load_restored(file, || ()).await {
                Ok((_, index)) => {
                    tracing::info!(target: "store", "auto-restore: the database was loaded at index {index}");
                    return Ok(End::Loaded(index));
                }
                Err(error) if error.is_no_leader() || !consensus.leads() => {
                    tracing::warn!(target: "store", "auto-restore: {error}; trying again");
                }
                Err(error) => return Err(format!("auto-restore: {error}")),
            },
            Step::Wait => {}
        }
        let _ = stop.run_until_cancelled(tokio::time::sleep(POLL)).await;
    }
    Ok(End::Stopped)
}

#[cfg(test)]
mod tests;
