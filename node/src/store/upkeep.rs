//! Automatic VACUUM and PRAGMA optimize: proposed by the leader when their time has come, run by every node as entries of the log.
//!
//! When each was done last is told by the entries themselves, so that every node knows it; it is kept in a file of its own for after the
//! next restart.
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use node_api::{Statement, StatementResult};
use node_db::{Kind, Request, Stamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Opened, Store, StoreError, status::within_limit};
use crate::{
    clock::{rfc3339_of_micros, unix_micros},
    identity::write_durably,
    metrics::Counter,
    peer::{Answer, Ask},
    stop::stopped_within,
};

/// Inside the data directory.
const FILE_NAME: &str = "upkeep.json";
/// How often the times are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// After a try that failed, or was put off, wait this long (or the interval, if that is shorter).
const FAILURE_PAUSE: Duration = Duration::from_secs(600);
/// A node that is asked for room answers at once or not at all.
const ROOM_LIMIT: Duration = Duration::from_secs(5);
/// How long a VACUUM whose time for an answer is over may go on before it counts as failed.
const LONGEST: Duration = Duration::from_secs(3600);
/// SQLite writes the new database to a temporary file, and from there into the WAL.
const COPIES: u64 = 2;

/// How often; zero is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Intervals {
    /// `-auto-vacuum-int`.
    pub vacuum: Duration,
    /// `-auto-optimize-int`.
    pub optimize: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Vacuum,
    Optimize,
}

impl Task {
    const ALL: [Self; 2] = [Self::Vacuum, Self::Optimize];

    /// Each request for `PRAGMA optimize` gets a new connection, which has seen no query: 0x10000 looks at all tables, 0x2 analyzes
    /// those that need it, 0x10 bounds the time.
    fn sql(self) -> &'static str {
        match self {
            Self::Vacuum => "VACUUM",
            Self::Optimize => "PRAGMA optimize(0x10012)",
        }
    }

    /// Done, failed, how long the last one took.
    fn counters(self) -> [Counter; 3] {
        match self {
            Self::Vacuum => [
                Counter::StoreNumAutoVacuums,
                Counter::StoreNumAutoVacuumsFailed,
                Counter::StoreAutoVacuumDuration,
            ],
            Self::Optimize => [
                Counter::StoreNumAutoOptimizes,
                Counter::StoreNumAutoOptimizesFailed,
                Counter::StoreAutoOptimizeDuration,
            ],
        }
    }
}

/// When a task was done, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Times {
    /// Since when it is switched on here: what counts before the first time.
    since: u64,
    last: Option<u64>,
}

impl Times {
    /// A clock that was set back by more than the interval is not waited for.
    fn is_due(self, interval: Duration, now: u64) -> bool {
        let passed = Duration::from_micros(now.abs_diff(self.counted()));
        !interval.is_zero() && passed >= interval
    }

    fn next(self, interval: Duration) -> u64 {
        let interval = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        self.counted().saturating_add(interval)
    }

    fn counted(self) -> u64 {
        self.last.unwrap_or(self.since)
    }

    /// Takes over what the database tells (0: nothing), and when it was switched on.
    fn note(&mut self, done: u64, interval: Duration, now: u64) {
        if done > 0 {
            self.last = Some(done);
        }
        if self.since == 0 && !interval.is_zero() {
            self.since = now;
        }
    }
}

/// The file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    vacuum: Times,
    optimize: Times,
}

impl Kept {
    fn open(path: &Path) -> Self {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Self::default(),
            Err(e) => return Self::anew(path, &e),
        };
        serde_json::from_slice(&text).unwrap_or_else(|e| Self::anew(path, &e))
    }

    /// What is lost delays the next time by one interval at most.
    fn anew(path: &Path, why: &dyn std::fmt::Display) -> Self {
        tracing::warn!(target: "store", "{}: {why}; the intervals of upkeep begin anew", path.display());
        Self::default()
    }

    fn times(&self, task: Task) -> Times {
        match task {
            Task::Vacuum => self.vacuum,
            Task::Optimize => self.optimize,
        }
    }
}

/// What is known of upkeep on this node; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Upkeep {
    path: PathBuf,
    intervals: Intervals,
    kept: Arc<Mutex<Kept>>,
}

impl Upkeep {
    fn open(data_dir: &Path, intervals: Intervals) -> Self {
        let path = data_dir.join(FILE_NAME);
        let kept = Arc::new(Mutex::new(Kept::open(&path)));
        Self {
            path,
            intervals,
            kept,
        }
    }

    fn interval(&self, task: Task) -> Duration {
        match task {
            Task::Vacuum => self.intervals.vacuum,
            Task::Optimize => self.intervals.optimize,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `/status` shows, by key.
    pub(super) fn status(&self) -> Vec<(&'static str, Value)> {
        let kept = *self.kept();
        let shown = Task::ALL.into_iter().filter_map(|task| {
            let (key, last, next) = match task {
                Task::Vacuum => ("auto_vacuum", "last_vacuum", "next_vacuum_after"),
                Task::Optimize => ("auto_optimize", "last_optimize", "next_optimize_after"),
            };
            let (times, interval) = (kept.times(task), self.interval(task));
            if interval.is_zero() {
                return None;
            }
            let mut shown = json!({ next: rfc3339_of_micros(times.next(interval)) });
            if let Some(at) = times.last {
                shown[last] = rfc3339_of_micros(at).into();
            }
            Some((key, shown))
        });
        shown.collect()
    }

    /// Takes over what the database has done since, and keeps it.
    fn note(&self, done: node_db::Upkeep, now: u64) {
        let mut next = *self.kept();
        let intervals = self.intervals;
        next.vacuum
            .note(done.vacuumed_unix_micros, intervals.vacuum, now);
        next.optimize
            .note(done.optimized_unix_micros, intervals.optimize, now);
        if next == *self.kept() {
            return;
        }
        let written = serde_json::to_vec_pretty(&next)
            .map_err(std::io::Error::other)
            .and_then(|text| write_durably(&self.path, &text));
        *self.kept() = next;
        if let Err(e) = written {
            tracing::warn!(target: "store", "{}: {e}", self.path.display());
        }
    }

    fn due(&self, now: u64) -> Vec<Task> {
        let kept = *self.kept();
        let due = |task: &Task| kept.times(*task).is_due(self.interval(*task), now);
        Task::ALL.into_iter().filter(due).collect()
    }
}

/// Does what is due while this node leads, and keeps in mind what was done, until stopped.
pub async fn keep_up(store: Store, intervals: Intervals, stop: CancellationToken) {
    if intervals.vacuum.is_zero() && intervals.optimize.is_zero() {
        return;
    }
    let Ok(opened) = store.open() else { return };
    let upkeep = Upkeep::open(&store.0.settings.data_dir, intervals);
    let _ = opened.upkeep.set(upkeep.clone());
    let mut paused_until = [None; Task::ALL.len()];
    while !stopped_within(&stop, LOOK_INTERVAL).await {
        if opened.consensus.disk_answers().is_err() {
            continue;
        }
        let (noting, done) = (upkeep.clone(), opened.db.upkeep());
        let _ = tokio::task::spawn_blocking(move || noting.note(done, unix_micros())).await;
        if !opened.consensus.leads() {
            continue;
        }
        for task in upkeep.due(unix_micros()) {
            let paused_until = &mut paused_until[task as usize];
            if paused_until.is_some_and(|at| Instant::now() < at) {
                continue;
            }
            if !store.run_task(opened, task).await {
                let pause = FAILURE_PAUSE.min(upkeep.interval(task));
                *paused_until = Some(Instant::now() + pause);
            }
        }
    }
}

impl Store {
    /// Runs a task on all nodes and counts it; tells whether it was done.
    async fn run_task(&self, opened: &Opened, task: Task) -> bool {
        let (started, sql) = (Instant::now(), task.sql());
        let [done, failed, duration] = task.counters();
        let metrics = &self.0.local.metrics;
        let result = match task {
            Task::Vacuum => match self.all_have_room(opened).await {
                Ok(()) => self.propose_task(opened, task).await,
                Err(why) => Err(why),
            },
            Task::Optimize => self.propose_task(opened, task).await,
        };
        match result {
            Ok(()) => {
                metrics.count(done);
                metrics.set_duration(duration, started.elapsed());
                tracing::info!(target: "store", "automatic {sql} took {:.1?}", started.elapsed());
                true
            }
            Err(why) => {
                metrics.count(failed);
                tracing::warn!(target: "store", "automatic {sql} was not done: {why}");
                false
            }
        }
    }

    async fn propose_task(&self, opened: &Opened, task: Task) -> Result<(), String> {
        let before = done_at(opened, task);
        let request = Request {
            kind: Kind::Execute,
            transaction: false,
            qualify_columns: false,
            statements: vec![Statement {
                sql: task.sql().into(),
                parameters: Vec::new(),
            }],
            stamp: Stamp::default(),
        };
        let error = match self.propose(opened, request).await {
            Ok(served) => {
                let failed = served.results.into_iter().find_map(|result| match result {
                    StatementResult::Error(error) => Some(error),
                    _ => None,
                });
                return failed.or(served.error).map_or(Ok(()), Err);
            }
            Err(not_done) => StoreError::from(not_done.error),
        };
        // It may take longer than a client would wait for a write.
        let started = Instant::now();
        while matches!(error, StoreError::Unknown(_)) && started.elapsed() < LONGEST {
            if done_at(opened, task) != before {
                return Ok(());
            }
            if !opened.consensus.is_mine() {
                break;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Err(error.to_string())
    }

    /// A node whose disk fills in the middle of a VACUUM stops, and would meet the same entry after its restart. So all that can be asked
    /// are asked before.
    async fn all_have_room(&self, opened: &Opened) -> Result<(), String> {
        self.room_to_vacuum().await.map_err(|e| e.to_string())?;
        let own = self.0.local.raft_id();
        let members = opened.consensus.members().into_iter();
        let others = members.filter(|(id, ..)| id.0.as_ref() != own);
        let asked = others.map(|(id, member, _)| async move {
            let ask = Ask::RoomToVacuum;
            match self.0.peers.call(&member.raft_addr, &ask, ROOM_LIMIT).await {
                Ok(Answer::Room(Err(why))) => Err(format!("node {}: {why}", id.name())),
                // Who is away, or too old to know the question, cannot hold up the others.
                Ok(_) | Err(_) => Ok(()),
            }
        });
        futures_util::future::join_all(asked)
            .await
            .into_iter()
            .collect()
    }

    /// Has this node's disk room to rewrite the whole database?
    ///
    /// # Errors
    /// Says what is missing.
    pub async fn room_to_vacuum(&self) -> Result<(), StoreError> {
        let opened = self.open()?;
        let disk = Arc::clone(opened.consensus.disk());
        let main = self.0.settings.data_dir.join("db.sqlite");
        let wal_bytes = opened.db.wal_bytes();
        let looked = within_limit(move || {
            let main_bytes = std::fs::metadata(main).map_or(0, |meta| meta.len());
            (main_bytes.max(wal_bytes) * COPIES, disk.spare_bytes())
        });
        let Some((needed_bytes, spare_bytes)) = looked.await else {
            return Err(StoreError::Refused("the disk does not answer".into()));
        };
        if spare_bytes >= needed_bytes {
            return Ok(());
        }
        Err(StoreError::Refused(format!(
            "a VACUUM needs {needed_bytes} bytes of disk, {spare_bytes} are to spare"
        )))
    }
}

fn done_at(opened: &Opened, task: Task) -> u64 {
    let done = opened.db.upkeep();
    match task {
        Task::Vacuum => done.vacuumed_unix_micros,
        Task::Optimize => done.optimized_unix_micros,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const HOUR_MICROS: u64 = 3_600_000_000;

    #[test]
    fn when_it_is_due() {
        let at = 1_000 * HOUR_MICROS;
        let cases = [
            (
                "just switched on",
                Times {
                    since: at,
                    last: None,
                },
                HOUR,
                at,
                false,
            ),
            (
                "an hour later",
                Times {
                    since: at,
                    last: None,
                },
                HOUR,
                at + HOUR_MICROS,
                true,
            ),
            (
                "done since",
                Times {
                    since: 1,
                    last: Some(at),
                },
                HOUR,
                at + HOUR_MICROS - 1,
                false,
            ),
            (
                "done an hour ago",
                Times {
                    since: 1,
                    last: Some(at),
                },
                HOUR,
                at + HOUR_MICROS,
                true,
            ),
            (
                "another leader's clock",
                Times {
                    since: 1,
                    last: Some(at + 5),
                },
                HOUR,
                at,
                false,
            ),
            (
                "a clock from the future",
                Times {
                    since: 1,
                    last: Some(at * 2),
                },
                HOUR,
                at,
                true,
            ),
            (
                "off",
                Times {
                    since: 1,
                    last: None,
                },
                Duration::ZERO,
                at,
                false,
            ),
        ];
        for (name, times, interval, now, due) in cases {
            assert_eq!(times.is_due(interval, now), due, "{name}");
        }
    }

    #[test]
    fn what_was_done_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let intervals = Intervals {
            vacuum: HOUR,
            optimize: Duration::ZERO,
        };
        let upkeep = Upkeep::open(dir.path(), intervals);
        let nothing = node_db::Upkeep::default();
        upkeep.note(nothing, 7);
        upkeep.note(nothing, 8);
        assert_eq!(
            upkeep.kept().vacuum,
            Times {
                since: 7,
                last: None
            }
        );
        assert_eq!(upkeep.kept().optimize, Times::default(), "it is off");
        let done = node_db::Upkeep {
            vacuumed_unix_micros: 9,
            optimized_unix_micros: 3,
        };
        upkeep.note(done, 10);
        let again = Upkeep::open(dir.path(), intervals);
        again.note(nothing, 11);
        assert_eq!(
            again.kept().vacuum,
            Times {
                since: 7,
                last: Some(9)
            }
        );
        assert_eq!(again.due(9 + HOUR_MICROS), [Task::Vacuum]);
        assert_eq!(
            again.status(),
            [(
                "auto_vacuum",
                json!({
                    "last_vacuum": "1970-01-01T00:00:00.000009Z",
                    "next_vacuum_after": "1970-01-01T01:00:00.000009Z",
                })
            )]
        );
    }

    #[test]
    fn a_damaged_file_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), "{").unwrap();
        let intervals = Intervals {
            vacuum: HOUR,
            optimize: HOUR,
        };
        let upkeep = Upkeep::open(dir.path(), intervals);
        assert_eq!(*upkeep.kept(), Kept::default());
        assert!(upkeep.due(0).is_empty());
    }
}
