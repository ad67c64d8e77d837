//! Restores a running cluster in place: replaces its database by an earlier state from its archive, through
//! the log.
//!
//! The leader waits until every entry committed so far is archived, replays to the point in a child process,
//! and loads the result like any other load. So every node applies it, and the archive continues in the same
//! timeline. The last entry before the load is the state that was replaced; it can be restored in the same
//! way.
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use node_archive::{
    moment::Moment,
    plan::{Point, Target},
};
use node_contract::{Lineage, RestoreRequest, RestoreState};
use node_objects::{Use, config};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    child::{self, ArchiveAt, Order},
    run::{self, Planned, Wish},
    source::{Source, read_keys},
};
use crate::{archive::Archive, store::Store, store_types::StoreError};

/// How long archiving may take of what was committed when the restore began.
const ARCHIVE_LIMIT: Duration = Duration::from_secs(60);
const ARCHIVE_POLL: Duration = Duration::from_millis(500);
/// Time limit of a restore.
const LIMIT: Duration = Duration::from_secs(6 * 3600);
/// How many restores are remembered by their ids, besides the last one.
const MAX_REMEMBERED: usize = 64;
/// How long a restore may still take that was cancelled when it could not be undone any more.
const LAST_PIECE_LIMIT: Duration = Duration::from_secs(120);
/// How many timelines before the present one are looked at: recoveries are rare, and what a store says may be
/// a circle.
const MAX_PARENTS: usize = 64;
/// Longest id that a request may choose.
const MAX_ID_BYTES: usize = 128;

/// Why a restore was not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The request is invalid.
    Request(String),
    /// Another restore is running.
    Running(String),
    /// Not possible now or on this node: the text says why.
    Unavailable(String),
}

/// In-place restores of this node; one at a time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct InPlace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    settings: Settings,
    now: Mutex<Now>,
}

/// What the restores of this node use.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Value of `-archive`: the configuration file.
    pub archive: Option<PathBuf>,
    /// The archive that this node writes.
    pub kept: Option<Archive>,
    /// `-archive-key-file`.
    pub key_file: Option<PathBuf>,
    /// `-fk`.
    pub foreign_keys: bool,
    /// Directory for the replay, on the database's disk.
    pub scratch: PathBuf,
}

#[derive(Debug, Default)]
struct Now {
    request: RestoreRequest,
    state: RestoreState,
    cancel: Option<CancellationToken>,
    /// Earlier restores, the oldest first: a caller who asks again with the same id must not restore twice,
    /// whatever was asked in between.
    earlier: VecDeque<(RestoreRequest, RestoreState)>,
}

impl Now {
    /// The state of the restore that this request has already begun; None: it begins now.
    fn begin(
        &mut self,
        request: &RestoreRequest,
        started: String,
    ) -> Result<Option<RestoreState>, Refused> {
        let of_id = |asked: &RestoreRequest| {
            request.id.is_some() && request.id == asked.id && asked.dry_run == request.dry_run
        };
        let last = (&self.request, &self.state);
        let mut known = std::iter::once(last).chain(self.earlier.iter().map(|(r, s)| (r, s)));
        if let Some((asked, state)) = known.find(|(asked, _)| of_id(asked)) {
            if (asked.to_index, &asked.to_time) != (request.to_index, &request.to_time) {
                return Err(Refused::Request(
                    "id: a restore to another point has this id; choose a new one".into(),
                ));
            }
            return Ok(Some(state.clone()));
        }
        if self.state.state == RestoreState::RUNNING {
            return Err(Refused::Running(
                "another restore runs: see GET /archive/restore".into(),
            ));
        }
        let next = RestoreState {
            id: request.id.clone(),
            state: RestoreState::RUNNING.into(),
            dry_run: request.dry_run,
            started: Some(started),
            message: "waiting until the archive holds what is committed".into(),
            ..RestoreState::default()
        };
        let state = std::mem::replace(&mut self.state, next);
        let asked = std::mem::replace(&mut self.request, request.clone());
        // A dry run changes nothing: it may be asked for again.
        if asked.id.is_some() && !asked.dry_run {
            self.earlier.push_back((asked, state));
            while self.earlier.len() > MAX_REMEMBERED {
                self.earlier.pop_front();
            }
        }
        Ok(None)
    }
}

/// Checks a request. `cluster` is the id that it must confirm.
///
/// # Errors
/// The request is invalid; the text says what to change.
pub fn check(request: &RestoreRequest, cluster: &str) -> Result<Target, String> {
    if request
        .id
        .as_ref()
        .is_some_and(|id| id.is_empty() || id.len() > MAX_ID_BYTES)
    {
        return Err(format!("id: 1 to {MAX_ID_BYTES} bytes"));
    }
    let target = match (request.to_index, &request.to_time) {
        (Some(_), Some(_)) => return Err("give to_index or to_time, not both".into()),
        (None, None) => return Err("to_index or to_time is missing: the point to restore".into()),
        (Some(index), None) => Target::Index(index),
        (None, Some(time)) => {
            Target::Time(Moment::parse(time).map_err(|e| format!("to_time: {e}"))?)
        }
    };
    match &request.confirm {
        _ if request.dry_run => Ok(target),
        Some(confirmed) if confirmed == cluster => Ok(target),
        Some(_) => Err(format!(
            "confirm is not the id of this cluster, which is {cluster}: nothing was changed"
        )),
        None => Err(format!(
            "the whole database would be replaced: confirm that with \"confirm\":\"{cluster}\", or look first with \"dry_run\":true"
        )),
    }
}

impl InPlace {
    /// No restore is running yet.
    pub fn new(store: Store, settings: Settings) -> Self {
        let none = RestoreState {
            state: RestoreState::NONE.into(),
            ..RestoreState::default()
        };
        Self(Arc::new(Inner {
            store,
            settings,
            now: Mutex::new(Now {
                state: none,
                ..Now::default()
            }),
        }))
    }

    /// The state of the running restore, or of the last one since the start.
    pub fn state(&self) -> RestoreState {
        self.0.now.lock().state.clone()
    }

    /// Cancels the running restore. The database is unchanged, unless the load was already complete.
    pub fn cancel(&self) -> RestoreState {
        let now = self.0.now.lock();
        now.cancel.iter().for_each(CancellationToken::cancel);
        now.state.clone()
    }

    /// Begins a restore; only the leader accepts it. A dry run has ended when this returns.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn start(&self, request: RestoreRequest) -> Result<RestoreState, Refused> {
        let cluster = self.0.store.cluster();
        let cluster =
            cluster.ok_or_else(|| Refused::Unavailable("there is no cluster yet".into()))?;
        let target = check(&request, &cluster.id).map_err(Refused::Request)?;
        let Some(archive) = self.0.settings.archive.clone() else {
            return Err(Refused::Request(
                "this node keeps no archive (-archive), so there is no past to restore".into(),
            ));
        };
        if !self.0.store.is_leader() {
            return Err(Refused::Unavailable(
                "this node does not lead: ask the leader".into(),
            ));
        }
        let cancel = CancellationToken::new();
        {
            let mut now = self.0.now.lock();
            if let Some(known) = now.begin(&request, Moment(micros()).to_string())? {
                return Ok(known);
            }
            now.cancel = Some(cancel.clone());
        }
        let job = Job {
            restores: self.clone(),
            archive,
            wish: Wish {
                lineage: Some(request.lineage.clone().unwrap_or(cluster.lineage.id)),
                target,
                allow_other_sqlite: false,
                foreign_keys: self.0.settings.foreign_keys,
                insists_on_foreign_keys: false,
            },
            dry_run: request.dry_run,
            expect_index: request.expect_index,
            is_last: AtomicBool::new(false),
        };
        let running = tokio::spawn(job.run(cancel));
        if request.dry_run {
            let _ = running.await;
        }
        Ok(self.state())
    }

    fn note(&self, change: impl FnOnce(&mut RestoreState)) {
        change(&mut self.0.now.lock().state);
    }
}

struct Job {
    restores: InPlace,
    archive: PathBuf,
    wish: Wish,
    dry_run: bool,
    expect_index: Option<u64>,
    /// Is the last piece proposed? From then on the database may be replaced, whoever wants it or not.
    is_last: AtomicBool,
}

/// How a restore ended that did not succeed.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// The database is unchanged.
    Unchanged(String),
    /// It may have been replaced.
    Unknown(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Unchanged(why)
    }
}

impl Job {
    async fn run(self, cancel: CancellationToken) {
        let mut work = pin!(self.work());
        let stopped = tokio::select! {
            done = &mut work => return self.end(done),
            () = cancel.cancelled() => "cancelled",
            () = tokio::time::sleep(LIMIT) => "it took longer than six hours",
        };
        if !self.is_last.load(Ordering::Acquire) {
            let text = format!("{stopped}; the database is unchanged");
            return self.end(Err(Failure::Unchanged(text)));
        }
        let done = tokio::time::timeout(LAST_PIECE_LIMIT, work).await;
        self.end(done.unwrap_or_else(|_| Err(unknown(stopped))));
    }

    fn end(&self, done: Result<String, Failure>) {
        let (state, message) = match done {
            Ok(message) => (RestoreState::DONE, message),
            Err(Failure::Unchanged(why)) => (RestoreState::FAILED, why),
            Err(Failure::Unknown(why)) => (RestoreState::UNKNOWN, why),
        };
        if state != RestoreState::DONE {
            tracing::error!(target: "store", "restore in place: {message}");
        }
        self.restores.note(|now| {
            now.ended = Some(Moment(micros()).to_string());
            now.percent = (state == RestoreState::DONE).then_some(100).or(now.percent);
            now.state = state.into();
            now.message = message;
        });
    }

    async fn work(&self) -> Result<String, Failure> {
        let Inner {
            store, settings, ..
        } = &*self.restores.0;
        let (place, source) = self.open()?;
        let head = store.meta().commit_index;
        if self.expect_index.is_some_and(|expected| expected > head) {
            return Err(format!("expect_index is beyond the newest entry, which is {head}").into());
        }
        if let Some(kept) = &settings.kept {
            // Archive what is committed without waiting for `every`.
            kept.seal(head, ARCHIVE_LIMIT).await;
        }
        let own = store.cluster().ok_or("there is no cluster".to_owned())?;
        let end = self.archived(&source, &own.lineage, head).await?;
        let planned = run::plan(&source, &self.wish).await?;
        if planned.cluster_id != own.id
            && !continues(&source, &own.lineage.id, &planned.lineage.id).await?
        {
            return Err(format!(
                "lineage {} is of another cluster ({}): only this cluster's own past can be restored in place. \
                 Begin a new cluster from that archive (-auto-restore)",
                planned.lineage.id, planned.cluster_id
            )
            .into());
        }
        let point = run::point(&source, &planned).await?;
        self.announce(&planned, point, end);
        run::check_room(&planned.plan, &settings.scratch)?;
        if self.dry_run {
            return Ok(format!("{point} can be restored; nothing was changed"));
        }
        self.expected(store).await?;
        let path = store.scratch().map_err(|e| e.to_string())?;
        std::fs::remove_file(&path).map_err(|e| e.to_string())?;
        let order = Order {
            at: &ArchiveAt {
                config: place,
                key_file: settings.key_file.clone(),
            },
            lineage: Some(&planned.lineage.id),
            target: Target::Index(point.index),
            foreign_keys: settings.foreign_keys,
            output: &path,
        };
        self.restores
            .note(|state| state.message = "replaying beside the database".into());
        child::restore(&order, |progress| self.progress(progress, &planned)).await?;
        self.restores.note(|state| {
            state.percent = Some(80);
            state.message = "loading through the log".into();
        });
        let (first, at) = self.load(store, &path).await?;
        let safety = at.saturating_sub(1);
        let undone = self.undone(&planned, point, first.saturating_sub(1));
        self.restores.note(|state| {
            state.restored_at_index = Some(at);
            state.safety_index = Some(safety);
        });
        Ok(format!(
            "restored {point} at index {at}; {undone}. Everything up to index {safety} is in the archive and can be restored in the same way"
        ))
    }

    /// The target of the node's archive, and the archive there.
    fn open(&self) -> Result<(serde_json::Map<String, serde_json::Value>, Source), String> {
        let settings = &self.restores.0.settings;
        let text = config::read_text(&self.archive).map_err(|e| e.to_string())?;
        let environment = |name: &str| std::env::var(name).ok();
        let all = config::parse_object(&text, &environment).map_err(|e| e.to_string())?;
        let place = all
            .iter()
            .filter(|(key, _)| ["version", "type", "sub"].contains(&key.as_str()));
        let place: serde_json::Map<_, _> = place.map(|(k, v)| (k.clone(), v.clone())).collect();
        let (kind, sub) = config::take_target(&mut place.clone()).map_err(|e| e.to_string())?;
        let target = node_objects::Target::from_json(&kind, sub, Use::Prefix);
        let opened = target.and_then(|target| target.open());
        let opened = opened.map_err(|e| e.to_string())?;
        let keys = read_keys(settings.key_file.as_deref())?;
        Ok((place, Source::new(opened, keys)))
    }

    /// Loads the result through the log. Meanwhile writes are refused: otherwise they would be acknowledged
    /// and then undone.
    async fn load(&self, store: &Store, path: &Path) -> Result<(u64, u64), Failure> {
        let _fence = Fence::begin(store)?;
        self.expected(store).await?;
        let at_last = || self.is_last.store(true, Ordering::Release);
        match store.load_restored(path, at_last).await {
            Ok(indexes) => Ok(indexes),
            Err(StoreError::Unknown(why)) if self.is_last.load(Ordering::Acquire) => {
                Err(unknown(&why))
            }
            Err(e) => {
                let text = format!("the restored database was not loaded: {e}");
                Err(Failure::Unchanged(text))
            }
        }
    }

    /// Fails if something was written after the caller's `expect_index`.
    async fn expected(&self, store: &Store) -> Result<(), String> {
        let Some(expected) = self.expect_index else {
            return Ok(());
        };
        match store.change_after(expected).await {
            Ok(None) => Ok(()),
            Ok(Some(index)) => Err(format!(
                "entry {index} was written after {expected} (expect_index), and would be undone: nothing was changed. Look again with \"dry_run\":true"
            )),
            Err(why) => Err(format!(
                "whether something was written after {expected} (expect_index) is not known: {why}; nothing was changed"
            )),
        }
    }

    /// Waits until the archive contains the entry `head`. Returns the archive's last point.
    async fn archived(&self, source: &Source, own: &Lineage, head: u64) -> Result<Point, String> {
        let since = Instant::now();
        let folder = node_archive::names::Folder::new(own).map_err(|e| e.to_string())?;
        loop {
            let contents = source.contents(&folder).await?;
            let newest = source.newest(&folder, &contents.segments).await?;
            let segment = newest.map(|header| Point {
                index: header.last,
                time: header.last_time,
            });
            // A base may contain entries that are in no segment, such as all of them in a new archive.
            let base = contents.bases.last().copied();
            let base = base.filter(|base| segment.is_none_or(|segment| segment.index < *base));
            let bases = source.bases(&folder, base.as_slice()).await?;
            let base = bases.readable.last().map(|base| Point {
                index: base.index,
                time: base.time,
            });
            let end = base.or(segment);
            match end {
                Some(end) if end.index >= head => return Ok(end),
                _ if since.elapsed() >= ARCHIVE_LIMIT => {
                    return Err(format!(
                        "the archive is behind: it ends with {}, and entry {head} is committed. Nothing is replaced before \
                         it can be restored; see \"archive\" in /status",
                        end.map_or_else(|| "no entry".into(), |end| end.to_string())
                    ));
                }
                _ => tokio::time::sleep(ARCHIVE_POLL).await,
            }
        }
    }

    /// Records which entries are undone if `last` is the last one before the load; returns that as text.
    /// Indexes of an earlier lineage cannot be compared with those of the present one.
    fn undone(&self, planned: &Planned, point: Point, last: u64) -> String {
        let own = self.restores.0.store.cluster().map(|own| own.lineage.id);
        if own.as_ref() != Some(&planned.lineage.id) {
            let id = &planned.lineage.id;
            return format!("all entries after it were undone, in its lineage {id} and since");
        }
        let from = point.index.saturating_add(1);
        let entries = last.saturating_sub(point.index);
        self.restores.note(|state| {
            state.undone_entries = Some(entries);
            state.undone_from = (entries > 0).then_some(from);
            state.undone_to = (entries > 0).then_some(last);
        });
        match entries {
            0 => "nothing was written after it".to_owned(),
            _ => format!("the {entries} entries from index {from} to {last} were undone"),
        }
    }

    fn announce(&self, planned: &Planned, point: Point, end: Point) {
        self.undone(planned, point, end.index);
        self.restores.note(|state| {
            state.lineage = Some(planned.lineage.id.clone());
            state.index = Some(point.index);
            state.time = Some(point.time.to_string());
            let seconds = end.time.seconds_since(point.time);
            state.undone_seconds = Some(u64::try_from(seconds).unwrap_or(0));
            state.percent = Some(0);
        });
    }

    fn progress(&self, progress: &serde_json::Value, planned: &Planned) {
        let base = planned.plan.base.index;
        let number = |key: &str| progress.get(key).and_then(serde_json::Value::as_u64);
        if let (Some(index), Some(of)) = (number("index"), number("of")) {
            let all = of.saturating_sub(base).max(1);
            let percent = index.saturating_sub(base).saturating_mul(70) / all;
            self.restores
                .note(|state| state.percent = Some(percent.min(70)));
        }
    }
}

/// The text where a restore that may have taken effect ends without an answer.
fn unknown(why: &str) -> Failure {
    Failure::Unknown(format!(
        "{why}. Whether the restored database was loaded is not known: look at the data. What was there before is in the archive"
    ))
}

/// Does this lineage continue the other one, by its timeline or those before it?
async fn continues(source: &Source, lineage: &str, other: &str) -> Result<bool, String> {
    let mut at = lineage.to_owned();
    for _ in 0..MAX_PARENTS {
        let there = source.timelines(Some(&at)).await?;
        match there.first().and_then(|at| at.timeline.parent.as_ref()) {
            Some(parent) if parent.lineage.id == other => return Ok(true),
            Some(parent) => at.clone_from(&parent.lineage.id),
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// While this value exists, this node refuses writes with a status after which clients may try again.
struct Fence<'a>(&'a Store);

impl<'a> Fence<'a> {
    fn begin(store: &'a Store) -> Result<Self, String> {
        if store.is_restoring() {
            return Err("another restore is loading".into());
        }
        store.set_restoring(true);
        Ok(Self(store))
    }
}

impl Drop for Fence<'_> {
    fn drop(&mut self) {
        self.0.set_restoring(false);
    }
}

fn micros() -> i64 {
    i64::try_from(crate::clock::unix_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
