//! What the archive's task does next: a function without I/O.
use std::time::Duration;

use node_archive::decide::Reason;

/// Longest pause between two checks of the log and of who leads.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// Pause after the first failure; doubled with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Longest pause after a failure, and so the delay until archiving continues once the store works again.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// Interval of deleting what is older than `retention`.
const RETENTION_INTERVAL: Duration = Duration::from_secs(3600);
/// Pause before another attempt to make a base that is due but not urgent. Segments continue meanwhile.
const BASE_PAUSE: Duration = Duration::from_secs(60);

/// The limits that the user sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// A segment is sealed when its oldest entry has waited for this long.
    pub(super) every: Duration,
    /// A segment is sealed when it has this many bytes.
    pub(super) segment_bytes: u64,
    /// A base is made when the last one is this old.
    pub(super) base_interval: Duration,
    /// A base is made when segments of this many bytes follow the last one, or of the database's own size if
    /// that is more.
    pub(super) base_bytes: u64,
}

/// Nothing can be archived before a base for this reason is made.
pub(super) fn is_urgent(reason: Reason) -> bool {
    matches!(reason, Reason::First | Reason::Gap)
}

/// What [`decide`] depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// This node leads and hears from a quorum.
    pub(super) leads: bool,
    /// This follower knows which entries are archived, or has read the store.
    pub(super) looked: bool,
    /// Index of the next entry to archive; `None` until the end of the archive has been read in this
    /// leadership.
    pub(super) next: Option<u64>,
    /// A base is due, by [`node_archive::decide::base_due`].
    pub(super) due: Option<Reason>,
    /// Everything up to this index is to be archived without waiting for `every`; 0 if nothing was requested.
    pub(super) asked: u64,
    /// Index of the last applied entry.
    pub(super) applied: u64,
    /// Approximate bytes of the entries that are not archived.
    pub(super) pending_bytes: u64,
    /// How long the oldest of them has waited.
    pub(super) pending_for: Duration,
    /// Failures in a row, and the time since the last one.
    pub(super) failures: Option<(u32, Duration)>,
    /// Time since a base that was not urgent failed.
    pub(super) base_failed: Option<Duration>,
    /// Segments after the newest base have not been looked at in this leadership: one may be gone.
    pub(super) unchecked: bool,
    /// Time since retention was last applied; `None` if not yet in this leadership.
    pub(super) retained: Option<Duration>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing now; decide again after this time.
    Wait(Duration),
    /// As a follower: read from the store which entries are archived.
    Look,
    /// As the leader: read the end of the archive from the store, to continue after it.
    Resume,
    /// Seal a segment and store it.
    Segment,
    /// Make a base.
    Base(Reason),
    /// Read headers of segments that were there before this leadership: do they follow one another?
    Check,
    /// Delete what is older than `retention`.
    Retain,
}

/// The pause after so many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    FIRST_BACKOFF.saturating_mul(doubled).min(LONGEST_BACKOFF)
}

/// The next step. Urgent bases come before segments, other bases after them.
pub(super) fn decide(known: &Known, limits: &Limits) -> Step {
    if !known.leads && known.looked {
        return Step::Wait(TICK);
    }
    if let Some((failures, since)) = known.failures
        && let left = backoff(failures).saturating_sub(since)
        && !left.is_zero()
    {
        return Step::Wait(left.min(TICK));
    }
    if !known.leads {
        return Step::Look;
    }
    let Some(next) = known.next else {
        return Step::Resume;
    };
    if let Some(reason) = known.due
        && is_urgent(reason)
    {
        return Step::Base(reason);
    }
    let is_due = known.pending_for >= limits.every
        || known.pending_bytes >= limits.segment_bytes
        || known.asked >= next;
    if known.applied >= next && is_due {
        return Step::Segment;
    }
    if known.unchecked {
        return Step::Check;
    }
    if let Some(reason) = known.due
        && known.base_failed.is_none_or(|since| since >= BASE_PAUSE)
    {
        return Step::Base(reason);
    }
    if known
        .retained
        .is_none_or(|since| since >= RETENTION_INTERVAL)
    {
        return Step::Retain;
    }
    Step::Wait(TICK)
}

#[cfg(test)]
mod tests;
