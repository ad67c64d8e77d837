//! Storage maintenance on every node: when to checkpoint, how urgently, and how much of the log to keep
//! behind the checkpoint.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use node_db::{Checkpoint, Database, Urgency};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::{Counter, Metrics},
    raft::{archive_hold::LogSize, consensus::Consensus, types::RaftId},
};

/// How often the size of the WAL and the log is checked.
const STORAGE_INTERVAL: Duration = Duration::from_millis(200);
/// A WAL of this size is checkpointed at once, whatever the interval: about 50 ms of the writer's time on a
/// common disk.
const WAL_DUE_BYTES: u64 = 16 << 20;
/// This much log since the last checkpoint would take too long to replay.
const LOG_DUE_BYTES: u64 = 64 << 20;
/// A WAL of this size is overdue: the checkpoint interrupts more of the other work.
const WAL_OVERDUE_BYTES: u64 = 2 * WAL_DUE_BYTES;
/// WAL plus the log that a checkpoint would free: from this size on the checkpoint is pressing.
const PRESSING_BYTES: u64 = 128 << 20;
/// Bound of the WAL plus the log that a checkpoint would free: from this size on the checkpoint ends reads.
/// Only a running copy of the main file (a backup, a parked snapshot) and a load delay it further; what is
/// written in the second that reads still get comes on top.
const BOUND_BYTES: u64 = 512 << 20;
/// The log is not kept for a member that has taken nothing for this long; it gets a snapshot when it returns.
const FOLLOWING_AGE: Duration = Duration::from_secs(15);
/// Log kept behind a checkpoint for followers that lag a little; others get the snapshot.
const LOG_KEEP_BYTES: u64 = 16 << 20;
/// An idle node with anything new checkpoints after this time, so that it does not replay a full log at its
/// restart.
const IDLE_DUE: Duration = Duration::from_secs(600);
/// Pause after a deferred checkpoint (a long read, a transfer): a fast disk writes tens of megabytes
/// meanwhile.
const BUSY_PAUSE: Duration = Duration::from_millis(250);

/// When a checkpoint is due.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// Entries since the last checkpoint (`-raft-snap`).
    pub entries: u64,
    /// WAL bytes (`-raft-snap-wal-size`); 0 is off.
    pub wal_bytes: u64,
    /// How often these two are checked (`-raft-snap-int`).
    pub interval: Duration,
}

/// State of the storage, from which a checkpoint is decided.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    /// Bytes in the WAL.
    pub wal_bytes: u64,
    /// Approximate bytes of log since the last checkpoint.
    pub new_log_bytes: u64,
    /// Entries applied since the last checkpoint.
    pub new_entries: u64,
    /// Time since the last checkpoint.
    pub age: Duration,
}

/// Whether a checkpoint is due.
pub fn checkpoint_due(now: Storage, thresholds: Thresholds) -> bool {
    if now.new_entries == 0 {
        return false;
    }
    let by_interval = now.age >= thresholds.interval
        && (now.new_entries >= thresholds.entries
            || (thresholds.wal_bytes > 0 && now.wal_bytes >= thresholds.wal_bytes));
    by_interval
        || now.wal_bytes >= WAL_DUE_BYTES
        || now.new_log_bytes >= LOG_DUE_BYTES
        || now.age >= IDLE_DUE
}

/// How much other work a due checkpoint may interrupt.
pub fn urgency(now: Storage) -> Urgency {
    let held = now.wal_bytes + now.new_log_bytes;
    if held >= BOUND_BYTES {
        Urgency::Must
    } else if held >= PRESSING_BYTES {
        Urgency::Pressing
    } else if now.wal_bytes >= WAL_OVERDUE_BYTES {
        Urgency::Overdue
    } else {
        Urgency::Polite
    }
}

/// Estimated bytes of `count` entries of a log with this index range and size on disk.
fn share_of_log(range: Option<(u64, u64)>, log_bytes: u64, count: u64) -> u64 {
    let Some((first, last)) = range else { return 0 };
    let all = last - first + 1;
    let share = u128::from(log_bytes) * u128::from(count.min(all)) / u128::from(all);
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// Limits purging up to `upto` to what followers no longer need: `needed` is the highest index that they let
/// go. The log is kept for them while it takes less than the spare disk space; without that limit in bytes,
/// or with a smaller one, a node that joins over a slow network would never catch up.
pub fn limit_for_followers(
    upto: u64,
    needed: Option<u64>,
    log_bytes: u64,
    spare_bytes: u64,
) -> u64 {
    match needed {
        Some(needed) if log_bytes <= spare_bytes => upto.min(needed),
        _ => upto,
    }
}

/// How far each member has replicated the log, and when that last advanced.
#[derive(Debug, Default)]
struct FollowerProgress(BTreeMap<RaftId, (u64, Instant)>);

impl FollowerProgress {
    fn observe(&mut self, matched: impl Iterator<Item = (RaftId, u64)>, now: Instant) {
        let mut seen = BTreeMap::new();
        for (id, index) in matched {
            let before = self.0.remove(&id).filter(|(last, _)| *last == index);
            seen.insert(id, before.unwrap_or((index, now)));
        }
        self.0 = seen;
    }

    /// The lowest replicated index among the members that advanced lately.
    fn slowest(&self, now: Instant) -> Option<u64> {
        let lately = |at: Instant| now.saturating_duration_since(at) < FOLLOWING_AGE;
        let indexes = self.0.values().filter(|(_, at)| lately(*at));
        indexes.map(|(index, _)| *index).min()
    }
}

/// Index up to which the log may be purged, if any; entries worth 16 MiB stay behind the checkpoint.
pub fn purge_upto(range: Option<(u64, u64)>, log_bytes: u64, checkpoint_index: u64) -> Option<u64> {
    let (first, last) = range?;
    let count = last - first + 1;
    let average = (log_bytes / count).max(1);
    let keep = LOG_KEEP_BYTES / average;
    let upto = checkpoint_index.checked_sub(keep)?;
    (upto >= first).then_some(upto)
}

/// Checkpoints when due and purges the log behind, until stopped.
pub async fn maintain_storage(
    consensus: Consensus,
    db: Database,
    thresholds: Thresholds,
    stop: CancellationToken,
) {
    let mut last = Instant::now();
    let mut last_index = consensus.metrics().snapshot.map_or(0, |s| s.index);
    let mut followers = FollowerProgress::default();
    while stop
        .run_until_cancelled(tokio::time::sleep(STORAGE_INTERVAL))
        .await
        .is_some()
    {
        if consensus.disk_responds().is_err() {
            continue;
        }
        if let Err(e) = consensus.log().hand_to_system() {
            tracing::error!(target: "store", "writing the log: {e}");
        }
        followers.observe(consensus.matched(), Instant::now());
        let applied = consensus.applied_index();
        let log_bytes = consensus.log().facts().disk_bytes;
        let new_entries = applied.saturating_sub(last_index);
        let now = Storage {
            wal_bytes: db.wal_bytes(),
            new_log_bytes: share_of_log(consensus.log().range(), log_bytes, new_entries),
            new_entries,
            age: last.elapsed(),
        };
        if !checkpoint_due(now, thresholds) {
            continue;
        }
        let request = CheckpointRequest {
            urgency: urgency(now),
            trailing: None,
            needed: followers.slowest(Instant::now()),
        };
        match consensus.counted_checkpoint(&db, request).await {
            Ok(index) => {
                last = Instant::now();
                last_index = index;
            }
            Err(why) => {
                tracing::debug!(target: "store", "checkpoint deferred: {why}");
                if stop
                    .run_until_cancelled(tokio::time::sleep(BUSY_PAUSE))
                    .await
                    .is_none()
                {
                    return;
                }
            }
        }
    }
}

/// Parameters of a checkpoint.
#[derive(Clone, Copy, Debug)]
struct CheckpointRequest {
    urgency: Urgency,
    /// Entries to keep behind it; `None` decides by size.
    trailing: Option<u64>,
    /// The lowest index up to which followers have the log.
    needed: Option<u64>,
}

impl Consensus {
    /// Makes a checkpoint and purges the log behind it, keeping `trailing` entries if given. Returns the
    /// checkpoint's index.
    ///
    /// # Errors
    /// The reason why it could not be made now, as text for a person.
    pub async fn checkpoint(&self, db: &Database, trailing: Option<u64>) -> Result<u64, String> {
        let request = CheckpointRequest {
            urgency: Urgency::Polite,
            trailing,
            needed: None,
        };
        self.counted_checkpoint(db, request).await
    }

    /// How far each other member has replicated the log, as the leader knows it.
    fn matched(&self) -> impl Iterator<Item = (RaftId, u64)> {
        let own = RaftId::from(self.local().raft_id());
        let known = self.metrics().replication.unwrap_or_default();
        known
            .into_iter()
            .filter(move |(id, _)| *id != own)
            .map(|(id, matched)| (id, matched.map_or(0, |matched| matched.index)))
    }

    async fn counted_checkpoint(
        &self,
        db: &Database,
        request: CheckpointRequest,
    ) -> Result<u64, String> {
        let started = Instant::now();
        let (wal_bytes, wal_frames) = (db.wal_bytes(), db.wal_frames());
        let made = self.make_checkpoint(db, request).await;
        count_checkpoint(
            &self.local().metrics,
            made.is_ok(),
            (wal_bytes, wal_frames),
            started.elapsed(),
        );
        made
    }

    async fn make_checkpoint(
        &self,
        db: &Database,
        request: CheckpointRequest,
    ) -> Result<u64, String> {
        let position = match db.checkpoint_with(request.urgency).await {
            Ok(Ok(Checkpoint::Done(position) | Checkpoint::Unchanged(Some(position)))) => position,
            Ok(Ok(Checkpoint::Unchanged(None))) => return Err("nothing to checkpoint".into()),
            Ok(Ok(Checkpoint::Busy(why))) => return Err(why.into()),
            Ok(Err(fatal)) => return Err(fatal.to_string()),
            Err(_) => return Err("the database is closed".into()),
        };
        // openraft learns of the checkpoint by making a snapshot of it, which costs nothing now.
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(|e| e.to_string())?;
        let known = self.raft.wait(Some(CHECKPOINT_LIMIT));
        known
            .metrics(
                |m| m.snapshot.is_some_and(|s| s.index >= position.index),
                "checkpoint",
            )
            .await
            .map_err(|e| e.to_string())?;
        let log_bytes = self.log().facts().disk_bytes;
        let upto = match request.trailing {
            Some(keep) => position.index.checked_sub(keep),
            None => purge_upto(self.log().range(), log_bytes, position.index),
        };
        if let Some(upto) = upto {
            let pinned = db.oldest_pin().map(|pinned| pinned.index);
            let needed = [pinned, request.needed].into_iter().flatten().min();
            let upto = limit_for_followers(upto, needed, log_bytes, db.spare_bytes());
            self.purge(upto, db.spare_bytes()).await?;
        }
        Ok(position.index)
    }

    /// Purges the log up to an index, as far as the archive lets it go.
    async fn purge(&self, upto: u64, spare_bytes: u64) -> Result<(), String> {
        let log = LogSize {
            bytes: self.log().facts().disk_bytes,
            range: self.log().range(),
        };
        let upto = match self.archive_hold() {
            None => Some(upto),
            Some(hold) => hold.limit(upto, log, spare_bytes),
        };
        let Some(upto) = upto else { return Ok(()) };
        self.raft
            .trigger()
            .purge_log(upto)
            .await
            .map_err(|e| e.to_string())
    }
}

/// Counts a checkpoint, which is what rqlite calls a snapshot of the WAL.
fn count_checkpoint(
    metrics: &Metrics,
    made: bool,
    (wal_bytes, wal_frames): (u64, u64),
    took: Duration,
) {
    let counters = if made {
        &[
            Counter::StoreNumSnapshots,
            Counter::StoreNumSnapshotsIncremental,
            Counter::StoreNumWalSnapshots,
            Counter::StoreNumSnapshotPersists,
            Counter::DbCheckpoints,
            Counter::SnapshotPlanExecuted,
            Counter::SnapshotSinkIncremental,
        ][..]
    } else {
        &[
            Counter::StoreNumSnapshotsFailed,
            Counter::StoreNumWalSnapshotsFailed,
            Counter::StoreNumSnapshotPersistsFailed,
            Counter::DbCheckpointErrors,
            Counter::SnapshotPlanFailed,
        ]
    };
    counters.iter().for_each(|counter| metrics.count(*counter));
    if made {
        metrics.add(Counter::DbWalBytesWritten, wal_bytes);
        metrics.add(Counter::DbWalFramesWritten, wal_frames);
        // A checkpoint moves all frames of the WAL, or fails.
        metrics.add(Counter::DbCheckpointedPages, wal_frames);
        metrics.add(Counter::DbCheckpointedMoves, wal_frames);
        metrics.set(Counter::StoreSnapshotPrecompactWalSize, wal_bytes);
        metrics.set(Counter::StoreSnapshotWalSize, wal_bytes);
        for duration in [
            Counter::StoreSnapshotCreateDuration,
            Counter::StoreSnapshotPersistDuration,
            Counter::DbCheckpointDuration,
            Counter::DbCheckpointDurationMs,
        ] {
            metrics.set_duration(duration, took);
        }
    }
}

/// Limit for openraft's part of a checkpoint, which is a message or two; it may wait behind a long run of
/// entries.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due() {
        let thresholds = Thresholds {
            entries: 100,
            wal_bytes: 4 << 20,
            interval: Duration::from_secs(10),
        };
        let at = |wal_bytes, new_log_bytes, new_entries, secs| Storage {
            wal_bytes,
            new_log_bytes,
            new_entries,
            age: Duration::from_secs(secs),
        };
        for (name, now, want) in [
            ("nothing new", at(1 << 30, 1 << 30, 0, 9999), false),
            ("small and young", at(1 << 20, 1 << 20, 5, 1), false),
            (
                "WAL over the flag, too early",
                at(5 << 20, 1 << 20, 5, 1),
                false,
            ),
            ("WAL over the flag", at(5 << 20, 1 << 20, 5, 10), true),
            ("entries", at(0, 0, 100, 10), true),
            ("WAL over the hard limit", at(16 << 20, 1 << 20, 5, 0), true),
            ("log over its limit", at(0, 64 << 20, 5, 0), true),
            ("idle", at(10, 10, 1, 600), true),
        ] {
            assert_eq!(checkpoint_due(now, thresholds), want, "{name}");
        }
    }

    #[test]
    fn the_longer_put_off_the_more_it_asks() {
        let mib = |wal: u64, log: u64| Storage {
            wal_bytes: wal << 20,
            new_log_bytes: log << 20,
            new_entries: 1,
            age: Duration::ZERO,
        };
        for (now, want) in [
            (mib(16, 64), Urgency::Polite),
            (mib(32, 0), Urgency::Overdue),
            (mib(0, 128), Urgency::Pressing),
            (mib(31, 96), Urgency::Polite),
            (mib(256, 256), Urgency::Must),
            (mib(511, 0), Urgency::Pressing),
        ] {
            assert_eq!(urgency(now), want, "{now:?}");
        }
        assert_eq!(share_of_log(None, 100, 5), 0);
        assert_eq!(share_of_log(Some((11, 20)), 100, 5), 50);
        assert_eq!(share_of_log(Some((11, 20)), 100, 50), 100);
    }

    #[test]
    fn the_log_is_kept_for_those_who_take_it() {
        assert_eq!(limit_for_followers(100, None, 5, 0), 100);
        assert_eq!(limit_for_followers(100, Some(40), 5, 5), 40);
        assert_eq!(limit_for_followers(100, Some(140), 5, 5), 100);
        assert_eq!(limit_for_followers(100, Some(40), 6, 5), 100, "no room");
        let (start, id) = (Instant::now(), |name: &str| RaftId::from(name));
        let at = |secs| start + Duration::from_secs(secs);
        let mut followers = FollowerProgress::default();
        assert_eq!(followers.slowest(at(0)), None);
        followers.observe([(id("a"), 5), (id("b"), 90)].into_iter(), at(0));
        assert_eq!(followers.slowest(at(14)), Some(5));
        followers.observe([(id("a"), 5), (id("b"), 91)].into_iter(), at(14));
        assert_eq!(followers.slowest(at(15)), Some(91), "a has stopped");
        followers.observe([(id("a"), 6)].into_iter(), at(16));
        assert_eq!(followers.slowest(at(17)), Some(6));
    }

    #[test]
    fn purging_keeps_bytes_behind_the_checkpoint() {
        assert_eq!(purge_upto(None, 0, 10), None);
        assert_eq!(
            purge_upto(Some((1, 10)), 1 << 10, 10),
            None,
            "all of it fits"
        );
        // 1024 entries of 1 MiB: 16 stay.
        assert_eq!(purge_upto(Some((1, 1024)), 1 << 30, 1000), Some(984));
        assert_eq!(
            purge_upto(Some((990, 1024)), 35 << 20, 1000),
            None,
            "already purged further"
        );
    }
}
