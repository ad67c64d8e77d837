//! When maintenance was last done, when it is due, and the file that keeps it over a restart.
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use node_db::durable;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{clock::rfc3339_of_micros, metrics::Counter};

/// Inside the data directory.
const FILE_NAME: &str = "upkeep.json";

/// Intervals; zero means never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Intervals {
    /// `-auto-vacuum-int`.
    pub vacuum: Duration,
    /// `-auto-optimize-int`.
    pub optimize: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Vacuum,
    Optimize,
}

impl Task {
    pub(super) const ALL: [Self; 2] = [Self::Vacuum, Self::Optimize];

    /// Each `PRAGMA optimize` gets a new connection, which has seen no query: 0x10000 considers all tables,
    /// 0x2 analyzes those that need it, 0x10 bounds the time.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Vacuum => "VACUUM",
            Self::Optimize => "PRAGMA optimize(0x10012)",
        }
    }

    /// Counters of successes and failures, and the duration of the last run.
    pub(super) fn counters(self) -> [Counter; 3] {
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
    /// When the task was enabled here; counts until it is done for the first time.
    since: u64,
    last: Option<u64>,
}

impl Times {
    /// A clock that was set back by more than the interval also makes the task due.
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

    /// Records what the database reports (0: nothing), and when the task was enabled.
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
            Err(e) => return Self::restart(path, &e),
        };
        serde_json::from_slice(&text).unwrap_or_else(|e| Self::restart(path, &e))
    }

    /// A lost file delays the next run by one interval at most.
    fn restart(path: &Path, why: &dyn std::fmt::Display) -> Self {
        tracing::warn!(target: "store", "{}: {why}; the intervals of automatic maintenance restart", path.display());
        Self::default()
    }

    fn times(&self, task: Task) -> Times {
        match task {
            Task::Vacuum => self.vacuum,
            Task::Optimize => self.optimize,
        }
    }
}

/// The maintenance times of this node; cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::store) struct MaintenanceTimes {
    path: PathBuf,
    intervals: Intervals,
    kept: Arc<Mutex<Kept>>,
}

impl MaintenanceTimes {
    pub(super) fn open(data_dir: &Path, intervals: Intervals) -> Self {
        let path = data_dir.join(FILE_NAME);
        let kept = Arc::new(Mutex::new(Kept::open(&path)));
        Self {
            path,
            intervals,
            kept,
        }
    }

    pub(super) fn interval(&self, task: Task) -> Duration {
        match task {
            Task::Vacuum => self.intervals.vacuum,
            Task::Optimize => self.intervals.optimize,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }

    /// The part of `/status`, by key.
    pub(in crate::store) fn status(&self) -> Vec<(&'static str, Value)> {
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

    /// Records what the database has done since; true if the file must be written.
    pub(super) fn note(&self, done: node_db::Maintenance, now: u64) -> bool {
        let mut kept = self.kept();
        let before = *kept;
        let intervals = self.intervals;
        kept.vacuum
            .note(done.vacuumed_unix_micros, intervals.vacuum, now);
        kept.optimize
            .note(done.optimized_unix_micros, intervals.optimize, now);
        *kept != before
    }

    /// Writes the file. After a failure the times are lost at the next restart.
    pub(super) fn keep(&self) {
        let kept = *self.kept();
        let written = serde_json::to_vec_pretty(&kept)
            .map_err(std::io::Error::other)
            .and_then(|text| durable::write(&self.path, &text));
        if let Err(e) = written {
            tracing::warn!(target: "store", "{}: {e}", self.path.display());
        }
    }

    pub(super) fn due(&self, now: u64) -> Vec<Task> {
        let kept = *self.kept();
        let due = |task: &Task| kept.times(*task).is_due(self.interval(*task), now);
        Task::ALL.into_iter().filter(due).collect()
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
        let never = Times {
            since: at,
            last: None,
        };
        let done = |last| Times {
            since: 1,
            last: Some(last),
        };
        let cases = [
            ("just switched on", never, HOUR, at, false),
            ("an hour later", never, HOUR, at + HOUR_MICROS, true),
            ("done since", done(at), HOUR, at + HOUR_MICROS - 1, false),
            ("done an hour ago", done(at), HOUR, at + HOUR_MICROS, true),
            ("another leader's clock", done(at + 5), HOUR, at, false),
            ("a clock from the future", done(at * 2), HOUR, at, true),
            ("off", done(1), Duration::ZERO, at, false),
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
        let maintenance = MaintenanceTimes::open(dir.path(), intervals);
        let nothing = node_db::Maintenance::default();
        assert!(maintenance.note(nothing, 7));
        assert!(!maintenance.note(nothing, 8));
        assert_eq!(
            maintenance.kept().vacuum,
            Times {
                since: 7,
                last: None
            }
        );
        assert_eq!(maintenance.kept().optimize, Times::default(), "it is off");
        let done = node_db::Maintenance {
            vacuumed_unix_micros: 9,
            optimized_unix_micros: 3,
        };
        assert!(maintenance.note(done, 10));
        maintenance.keep();
        let again = MaintenanceTimes::open(dir.path(), intervals);
        assert!(!again.note(nothing, 11));
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
        let maintenance = MaintenanceTimes::open(dir.path(), intervals);
        assert_eq!(*maintenance.kept(), Kept::default());
        assert!(maintenance.due(0).is_empty());
    }
}
