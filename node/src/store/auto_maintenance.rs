//! Automatic SQLite maintenance: VACUUM and PRAGMA optimize, proposed by the leader when they are due and run
//! by every node as log entries.
//!
//! The entries themselves record when each was done last, so every node knows it; it is kept in a file for
//! the time after a restart.
mod times;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use node_db::{Kind, Request, Stamp};
use node_values::{Statement, StatementResult};
use tokio_util::sync::CancellationToken;

pub use self::times::Intervals;
pub(super) use self::times::MaintenanceTimes;
use self::times::Task;
use super::{Opened, Store, status::within_limit};
use crate::{
    clock::unix_micros,
    internode::messages::{PeerRequest, PeerResponse},
    store_types::StoreError,
};

/// Interval at which the times are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Pause after a failed or deferred attempt (or the interval, if that is shorter).
const FAILURE_PAUSE: Duration = Duration::from_secs(600);
/// Limit of a request for free space; a node responds at once or not at all.
const SPACE_LIMIT: Duration = Duration::from_secs(5);
/// A VACUUM without a result counts as failed after this time.
const LONGEST: Duration = Duration::from_secs(3600);
/// SQLite writes the new database to a temporary file, and from there into the WAL.
const COPIES: u64 = 2;

/// Runs the tasks that are due while this node leads, and records what was done, until stopped.
pub async fn run_auto_maintenance(store: Store, intervals: Intervals, stop: CancellationToken) {
    if intervals.vacuum.is_zero() && intervals.optimize.is_zero() {
        return;
    }
    let Ok(opened) = store.open() else { return };
    let maintenance_times = MaintenanceTimes::open(&store.0.settings.data_dir, intervals);
    let _ = opened.maintenance_times.set(maintenance_times.clone());
    let mut paused_until = [None; Task::ALL.len()];
    while stop
        .run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL))
        .await
        .is_some()
    {
        if opened.consensus.disk_responds().is_err() {
            continue;
        }
        if maintenance_times.note(opened.db.maintenance(), unix_micros()) {
            let noted = maintenance_times.clone();
            let _ = tokio::task::spawn_blocking(move || noted.keep()).await;
        }
        if !opened.consensus.leads() {
            continue;
        }
        for task in maintenance_times.due(unix_micros()) {
            let paused_until = &mut paused_until[task as usize];
            if paused_until.is_some_and(|at| Instant::now() < at) {
                continue;
            }
            if !store.run_task(opened, task).await {
                let pause = FAILURE_PAUSE.min(maintenance_times.interval(task));
                *paused_until = Some(Instant::now() + pause);
            }
        }
    }
}

impl Store {
    /// Runs a task on all nodes and counts it; returns whether it was done.
    async fn run_task(&self, opened: &Opened, task: Task) -> bool {
        let (started, sql) = (Instant::now(), task.sql());
        let [done, failed, duration] = task.counters();
        let metrics = &self.0.local.metrics;
        let result = match task {
            Task::Vacuum => match self.check_space_of_all(opened).await {
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
                tracing::warn!(target: "store", "automatic {sql} failed: {why}");
                false
            }
        }
    }

    async fn propose_task(&self, opened: &Opened, task: Task) -> Result<(), String> {
        if self.is_restoring() {
            return Err(StoreError::NotReady.to_string());
        }
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
            rules: node_db::Rules::V1,
        };
        let error = match self.propose(opened, request).await {
            Ok(served) => {
                let failed = served.results.into_iter().find_map(|result| match result {
                    StatementResult::Error(error) => Some(error),
                    _ => None,
                });
                return failed.or(served.error).map_or(Ok(()), Err);
            }
            Err(failed) => StoreError::from(failed.error),
        };
        // The task may take longer than a client would wait for a write.
        let started = Instant::now();
        while matches!(error, StoreError::Unknown(_)) && started.elapsed() < LONGEST {
            if done_at(opened, task) != before {
                return Ok(());
            }
            if !opened.consensus.is_mine() {
                break;
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        Err(error.to_string())
    }

    /// A node whose disk fills in the middle of a VACUUM stops, and would meet the same entry after its
    /// restart. So all members that respond are checked before.
    async fn check_space_of_all(&self, opened: &Opened) -> Result<(), String> {
        self.room_to_vacuum().await.map_err(|e| e.to_string())?;
        let own = self.0.local.raft_id();
        let members = opened.consensus.members().into_iter();
        let others = members.filter(|(id, ..)| id.0.as_ref() != own);
        let checks = others.map(|(id, member, _)| async move {
            let request_message = PeerRequest::RoomToVacuum;
            match self
                .0
                .peers
                .call(&member.raft_addr, &request_message, SPACE_LIMIT)
                .await
            {
                Ok(PeerResponse::Room(Err(why))) => Err(format!("node {}: {why}", id.name())),
                // A member that does not respond, or is too old for the request, cannot block the others.
                Ok(_) | Err(_) => Ok(()),
            }
        });
        futures_util::future::join_all(checks)
            .await
            .into_iter()
            .collect()
    }

    /// Whether this node's disk has space to rewrite the whole database.
    ///
    /// # Errors
    /// States how much is missing.
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
            return Err(StoreError::Refused("the disk does not respond".into()));
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
    let done = opened.db.maintenance();
    match task {
        Task::Vacuum => done.vacuumed_unix_micros,
        Task::Optimize => done.optimized_unix_micros,
    }
}
