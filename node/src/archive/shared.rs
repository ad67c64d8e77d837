//! The handle by which the rest of the node uses the archive: progress, last error, what the log keeps for
//! it.
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use node_archive::{
    documents::{Base, Gap},
    keys::Keys,
    moment::Moment,
    segment::Header,
};
use node_contract::{
    Lineage,
    status::{ArchiveBase, ArchiveGap, ArchiveStatus},
};
use node_objects::Target;
use parking_lot::Mutex;

use super::{
    place::{Failure, Place},
    settings::Settings,
};
use crate::{
    clock::{rfc3339_of_micros, unix_micros},
    metrics::{Counter, Metrics},
    raft::archive_hold::ArchiveHold,
};

/// Interval of checking whether [`Archive::seal`] has reached its index.
const SEAL_POLL: Duration = Duration::from_millis(20);

/// A handle on the archive; cheap to clone.
#[derive(Clone, Debug)]
pub struct Archive(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    target: Target,
    keys: Option<Keys>,
    /// Opened on first use: a folder that cannot be created, or a file that the target names and that is
    /// missing, must not keep the node from serving.
    place: OnceLock<Place>,
    /// Highest index passed to [`Archive::seal`].
    asked: AtomicU64,
    hold: Arc<ArchiveHold>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

/// What `/status` shows.
#[derive(Debug, Default)]
struct State {
    lineage: Option<Lineage>,
    archived_time: Option<Moment>,
    times_held_until: Option<Moment>,
    behind: Behind,
    log_held_bytes: u64,
    last_segment_at: Option<u64>,
    last_base: Option<ArchiveBase>,
    last_error: Option<String>,
    gap: Option<ArchiveGap>,
}

/// What is not archived yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Behind {
    /// Number of applied entries.
    pub(super) entries: u64,
    /// How long the oldest of them has waited.
    pub(super) waited: Duration,
}

impl Archive {
    /// An archive in `target`; nothing is opened yet.
    pub fn new(
        settings: Settings,
        target: Target,
        keys: Option<Keys>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self(Arc::new(Inner {
            hold: Arc::new(ArchiveHold::new(settings.log_limit_bytes)),
            settings,
            target,
            keys,
            place: OnceLock::new(),
            asked: AtomicU64::new(0),
            metrics,
            state: Mutex::default(),
        }))
    }

    /// What the log keeps for the archive.
    pub fn hold(&self) -> &Arc<ArchiveHold> {
        &self.0.hold
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The store. If it cannot be opened, the next call tries again.
    pub(super) fn place(&self) -> Result<&Place, Failure> {
        if let Some(place) = self.0.place.get() {
            return Ok(place);
        }
        let store = self.0.target.open();
        let store = store.map_err(|e| Failure(format!("-archive: {e}")))?;
        let keys = self.0.keys.clone();
        Ok(self.0.place.get_or_init(|| Place { store, keys }))
    }

    /// Creates the folder of an archive in a folder, for a new archive.
    pub(super) fn make_folder(&self) -> Result<(), Failure> {
        let made = self.0.target.make_folder();
        made.map_err(|e| Failure(format!("-archive: {e}")))
    }

    /// The folder of an archive in a folder does not exist.
    pub(super) fn lacks_folder(&self) -> bool {
        self.0.target.lacks_folder()
    }

    pub(super) fn asked(&self) -> u64 {
        self.0.asked.load(Relaxed)
    }

    /// Requests that everything up to `index` is archived at once instead of after `every`, and waits for it.
    /// Returns the last archived index when that is done, or when `limit` has passed. Only the leader writes;
    /// on another node this only waits.
    pub async fn seal(&self, index: u64, limit: Duration) -> Option<u64> {
        self.0.asked.fetch_max(index, Relaxed);
        let hold = &self.0.hold;
        let reached = async {
            while hold.archived().is_none_or(|archived| archived < index) {
                tokio::time::sleep(SEAL_POLL).await;
            }
        };
        let _ = tokio::time::timeout(limit, reached).await;
        hold.archived()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Sets the lineage that this node archives. Progress of any other lineage is ignored.
    pub(super) fn begin(&self, lineage: &Lineage) {
        self.0.state.lock().lineage = Some(lineage.clone());
    }

    /// Records that everything up to `index` is archived, by the leader or the store. Ignored unless
    /// `lineage` is the node's own.
    pub fn note_archived(&self, lineage: &Lineage, index: u64, time: Option<i64>) {
        let mut state = self.0.state.lock();
        if state.lineage.as_ref() != Some(lineage) {
            return;
        }
        if self.0.hold.archived().is_none_or(|known| known <= index) {
            state.archived_time = time.map(Moment).or(state.archived_time);
        }
        drop(state);
        self.0.hold.note_archived(index);
        let archived = self.0.hold.archived().unwrap_or(index);
        self.0.metrics.set(Counter::ArchiveIndex, archived);
    }

    /// Records that entries get the time of an earlier one, which is ahead of the clock, or (`None`) their
    /// own.
    /// Returns whether that has begun.
    pub(super) fn note_times_held(&self, until: Option<Moment>) -> bool {
        let mut state = self.0.state.lock();
        let has_begun = until.is_some() && state.times_held_until.is_none();
        state.times_held_until = until;
        has_begun
    }

    /// Records that a segment was stored: by this node (then with its bytes) or by another.
    pub(super) fn note_segment(&self, header: &Header, bytes: Option<u64>) {
        let now = unix_micros();
        self.note_archived(&header.lineage, header.last, Some(header.last_time.0));
        let mut state = self.0.state.lock();
        state.last_segment_at = Some(now);
        drop(state);
        let metrics = self.metrics();
        metrics.set(Counter::ArchiveLastSegment, now / 1_000_000);
        if let Some(bytes) = bytes {
            metrics.count(Counter::ArchiveSegments);
            metrics.add(Counter::ArchiveSegmentBytes, bytes);
            metrics.add(Counter::ArchiveEntries, header.last - header.first + 1);
        }
    }

    pub(super) fn note_base(&self, base: &Base) {
        let created = u64::try_from(base.created_at.0).unwrap_or(0);
        self.metrics()
            .set(Counter::ArchiveLastBase, created / 1_000_000);
        self.0.state.lock().last_base = Some(ArchiveBase {
            index: base.index,
            time: rfc3339_of_micros(created),
            bytes: base.object_bytes,
        });
    }

    pub(super) fn note_gap(&self, gap: Gap) {
        self.metrics().count(Counter::ArchiveGaps);
        self.extend_gap(gap);
    }

    /// Replaces a recorded gap by this larger one.
    pub(super) fn extend_gap(&self, gap: Gap) {
        self.0.state.lock().gap = Some(ArchiveGap {
            first: gap.first,
            last: gap.last,
            noticed: Some(rfc3339_of_micros(unix_micros())),
        });
    }

    /// Records what does not work, or (`None`) that everything does.
    pub(super) fn note_error(&self, error: Option<&str>) {
        self.0.state.lock().last_error = error.map(ToOwned::to_owned);
    }

    pub(super) fn note_behind(&self, behind: Behind, log_held_bytes: u64) {
        let metrics = self.metrics();
        metrics.set(Counter::ArchiveBehindSeconds, behind.waited.as_secs());
        metrics.set(Counter::ArchiveBehindEntries, behind.entries);
        metrics.set(Counter::ArchiveLogHeldBytes, log_held_bytes);
        let mut state = self.0.state.lock();
        state.behind = behind;
        state.log_held_bytes = log_held_bytes;
    }

    /// The section `archive` of `/status`.
    pub fn status(&self) -> ArchiveStatus {
        let dropped = self.0.hold.dropped().map(|dropped| ArchiveGap {
            first: dropped.first,
            last: dropped.last,
            noticed: Some(rfc3339_of_micros(dropped.unix_micros)),
        });
        let state = self.0.state.lock();
        let known = self.0.hold.archived();
        ArchiveStatus {
            enabled: true,
            target: Some(self.0.target.to_string()),
            lineage: state.lineage.as_ref().map(|lineage| lineage.id.clone()),
            archived_index: known,
            archived_time: state.archived_time.map(|time| time.to_string()),
            times_held_until: state.times_held_until.map(|time| time.to_string()),
            behind_seconds: known.map(|_| state.behind.waited.as_secs()),
            behind_entries: known.map(|_| state.behind.entries),
            last_segment_at: state.last_segment_at.map(rfc3339_of_micros),
            last_base: state.last_base.clone(),
            last_error: state.last_error.clone(),
            log_held_bytes: Some(state.log_held_bytes),
            gap: state.gap.clone().or(dropped),
            restore: None,
        }
    }
}
