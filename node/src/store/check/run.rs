//! One check of the database: its thread, its progress and its end.
use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use node_contract::status::{CheckRequest, CheckStatus};
use node_db::{CancelGuard, Cancellation, CheckEnd, CheckProgress, Database, Origin};
use parking_lot::Mutex;

use crate::clock::rfc3339;

/// Limit of a check whose request names none: it reads some hundred gigabytes of a slow disk.
const DEFAULT_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Stack of the thread: SQLite parses the schema on it.
const STACK_BYTES: usize = 4 << 20;
/// Niceness of the thread: everything else that the node does goes first.
const NICENESS: i32 = 10;

/// The check that runs, or the last one.
#[derive(Debug, Default)]
pub(crate) struct DatabaseChecks(Mutex<Option<Arc<Run>>>);

#[derive(Debug)]
struct Run {
    id: String,
    limit: Duration,
    started: Instant,
    started_at: SystemTime,
    progress: Arc<CheckProgress>,
    /// Dropping it ends the check.
    guard: Mutex<Option<CancelGuard>>,
    end: OnceLock<(Duration, CheckEnd)>,
}

/// Why a request about a check has no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckRefusal {
    /// Another check runs.
    #[error(
        "the check {0} is running on this node, and only one runs at a time: wait for it, or end it with DELETE"
    )]
    Busy(String),
    /// Nothing to end.
    #[error("no check of that id is running on this node")]
    NotRunning,
    /// The check cannot run.
    #[error("{0}")]
    Failed(String),
}

impl DatabaseChecks {
    /// Starts a check, unless one was started with this id.
    pub(super) fn start(
        &self,
        db: Database,
        request: &CheckRequest,
        origin: Origin,
    ) -> Result<CheckStatus, CheckRefusal> {
        let mut last = self.0.lock();
        if let Some(known) = last.as_ref() {
            if known.end.get().is_none() && known.id != request.id {
                return Err(CheckRefusal::Busy(known.id.clone()));
            }
            if known.id == request.id && !known.may_be_repeated() {
                return Ok(known.status());
            }
        }
        let run = Run::start(db, request, origin)
            .map_err(|error| CheckRefusal::Failed(format!("starting a thread: {error}")))?;
        let status = run.status();
        *last = Some(run);
        Ok(status)
    }

    /// Ends the check with this id.
    pub(super) fn end(&self, id: &str) -> Result<CheckStatus, CheckRefusal> {
        let last = self.0.lock();
        let known = last.as_ref().filter(|run| run.id == id);
        let running = known.filter(|run| run.end.get().is_none());
        let run = running.ok_or(CheckRefusal::NotRunning)?;
        drop(run.guard.lock().take());
        tracing::info!(target: "store", "the check {id} of the database is ended by a request");
        Ok(run.status())
    }

    /// The check that runs, or the last one.
    pub(super) fn last(&self) -> Option<CheckStatus> {
        self.0.lock().as_ref().map(|run| run.status())
    }
}

impl Run {
    fn start(
        db: Database,
        request: &CheckRequest,
        origin: Origin,
    ) -> Result<Arc<Self>, std::io::Error> {
        let (guard, watched) = Cancellation::new(origin);
        let run = Arc::new(Self {
            id: request.id.clone(),
            limit: request
                .limit_seconds
                .map_or(DEFAULT_LIMIT, Duration::from_secs),
            started: Instant::now(),
            started_at: crate::clock::now(),
            progress: Arc::default(),
            guard: Mutex::new(Some(guard)),
            end: OnceLock::new(),
        });
        let own = Arc::clone(&run);
        std::thread::Builder::new()
            .name("db-check".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || own.carry_out(&db, &watched))?;
        Ok(run)
    }

    /// It ended before anything was known.
    fn may_be_repeated(&self) -> bool {
        matches!(
            self.end.get(),
            Some((_, CheckEnd::Interrupted(_) | CheckEnd::Cancelled))
        )
    }

    fn carry_out(&self, db: &Database, watched: &Cancellation) {
        // On Linux this concerns the calling thread only. Without it the check is merely less polite.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        let end = db.check(self.limit, watched, &self.progress);
        let took = self.started.elapsed();
        let id = &self.id;
        match &end {
            CheckEnd::Sound => {
                tracing::info!(target: "store", "the check {id} of the database found no problem, after {took:?}");
            }
            CheckEnd::Damaged(what) => {
                tracing::error!(target: "store", "the check {id} of the database found damage: {what}");
            }
            other => {
                tracing::warn!(target: "store", "the check {id} of the database ended without a result after {took:?}: {other:?}");
            }
        }
        // Only this thread sets it.
        let _ = self.end.set((took, end));
    }

    fn status(&self) -> CheckStatus {
        let running = || (self.started.elapsed(), CheckStatus::RUNNING, String::new());
        let (elapsed, state, message) = self.end.get().map_or_else(running, |(took, end)| {
            let (state, message) = match end {
                CheckEnd::Sound => (CheckStatus::SOUND, String::new()),
                CheckEnd::Damaged(what) => (CheckStatus::DAMAGED, what.clone()),
                CheckEnd::TimedOut => (CheckStatus::TIMED_OUT, String::new()),
                CheckEnd::Cancelled => (CheckStatus::CANCELLED, String::new()),
                CheckEnd::Interrupted(why) => (CheckStatus::INTERRUPTED, why.clone()),
            };
            (*took, state, message)
        });
        CheckStatus {
            id: self.id.clone(),
            state: state.to_owned(),
            started: rfc3339(self.started_at),
            elapsed_seconds: elapsed.as_secs(),
            limit_seconds: self.limit.as_secs(),
            pages: self.progress.pages(),
            page_bytes: self.progress.page_bytes(),
            pages_read: self.progress.pages_read(),
            message,
        }
    }
}
