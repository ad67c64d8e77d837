//! How many entries are not archived yet, and how long the oldest has waited.
use std::time::Duration;

use tokio::time::Instant;

use super::{Archive, shared::Behind};
use crate::{
    clock::unix_micros,
    raft::{Consensus, storage::logged::Logged},
};

/// Interval of updating `/status` and the metrics; they are also updated during a request to the store.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The first index that is not archived, and since when it has waited.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending(Option<(u64, Instant)>);

impl Pending {
    /// What is not archived now. `next` is the first index that is not; `None` if that is unknown.
    pub(super) fn look(&mut self, consensus: &Consensus, next: Option<u64>) -> Behind {
        let next = next.unwrap_or(0);
        let entries = (consensus.applied_index() + 1).saturating_sub(next);
        if entries == 0 {
            self.0 = None;
            return Behind::default();
        }
        let since = match self.0 {
            Some((first, since)) if first == next => since,
            // An entry that already waited when this node learned of it is dated by its own time.
            _ => {
                let now = Instant::now();
                now.checked_sub(age_of(consensus, next)).unwrap_or(now)
            }
        };
        self.0 = Some((next, since));
        Behind {
            entries,
            waited: since.elapsed(),
        }
    }

    /// A segment that was begun at `begun` ends right before `next`, so the entries from `next` on are newer
    /// than that.
    pub(super) fn sealed(&mut self, next: Option<u64>, begun: Instant) {
        self.0 = next.map(|next| (next, begun));
    }
}

fn age_of(consensus: &Consensus, index: u64) -> Duration {
    let Ok(Logged::Entries(entries)) = consensus.applied_entries(index, 1) else {
        return Duration::ZERO;
    };
    let time = entries.first().and_then(|entry| entry.unix_micros().ok()?);
    let time = time.and_then(|time| u64::try_from(time).ok());
    let age = time.map_or(0, |time| unix_micros().saturating_sub(time));
    Duration::from_micros(age)
}

/// Updates status and metrics at every [`WATCH_INTERVAL`]; never returns.
pub(super) async fn watch(archive: Archive, consensus: Consensus) {
    let mut pending = Pending::default();
    loop {
        let next = archive.hold().archived().map(|index| index + 1);
        let behind = pending.look(&consensus, next);
        let log = consensus.log();
        let held = share(log.range(), log.facts().disk_bytes, behind.entries);
        archive.note_behind(behind, held);
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// Approximate bytes of the newest `count` entries of a log.
pub(super) fn share(range: Option<(u64, u64)>, log_bytes: u64, count: u64) -> u64 {
    let Some((first, last)) = range else { return 0 };
    let all = (last + 1).saturating_sub(first).max(1);
    let share = u128::from(log_bytes) * u128::from(count.min(all)) / u128::from(all);
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_log() {
        assert_eq!(share(None, 100, 5), 0);
        assert_eq!(share(Some((11, 20)), 100, 5), 50);
        assert_eq!(share(Some((11, 20)), 100, 50), 100);
        assert_eq!(share(Some((5, 4)), 100, 0), 0, "an empty log");
    }
}
