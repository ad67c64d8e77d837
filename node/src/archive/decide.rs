//! What the writer of the archive does next, as a function of what is known.
use std::time::Duration;

use node_archive::decide::Reason;

/// Longest pause between two looks at the log and at who leads.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// Pause after the first failure; doubled with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Longest pause after a failure: as soon as the store works again, the archive catches up within this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// How often what retention lets go is looked for.
const RETENTION_INTERVAL: Duration = Duration::from_secs(3600);
/// A base that was due and could not be made is tried again after this. Segments go on meanwhile.
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

/// What is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// This node leads and hears from a quorum.
    pub(super) leads: bool,
    /// A follower knows how far the archive is, or has looked.
    pub(super) looked: bool,
    /// Index of the next entry to archive; `None` as long as the end of the archive was not read from the
    /// store in this leadership.
    pub(super) next: Option<u64>,
    /// A base is due, by [`node_archive::decide::base_due`].
    pub(super) due: Option<Reason>,
    /// Somebody waits until everything up to this index is archived.
    pub(super) asked: u64,
    /// Index of the last applied entry.
    pub(super) applied: u64,
    /// Bytes of the entries that are not archived, roughly.
    pub(super) pending_bytes: u64,
    /// How long the oldest of them has waited.
    pub(super) pending_for: Duration,
    /// Failures in a row, and the time since the last one.
    pub(super) failures: Option<(u32, Duration)>,
    /// Since a base failed that was not urgent.
    pub(super) base_failed: Option<Duration>,
    /// Since retention was last applied; `None` in this leadership: not yet.
    pub(super) retained: Option<Duration>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Look again after this time.
    Wait(Duration),
    /// Read from the store how far the archive is, as a follower.
    Look,
    /// The same to go on from there, as the leader.
    Resume,
    /// Seal a segment and store it.
    Segment,
    /// Make a base.
    Base(Reason),
    /// Delete what retention lets go.
    Retain,
}

/// The pause after so many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    FIRST_BACKOFF.saturating_mul(doubled).min(LONGEST_BACKOFF)
}

/// What the writer does next.
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
