//! The cluster's format version as a running node knows it, and raising it on a leader without writes.
use super::{
    consensus::Consensus,
    leader::version_gate::{SETTLE_LIMIT, propose, to_raise},
    types::RaftId,
};
use crate::version;

impl Consensus {
    /// The format version in effect, as far as this node has applied the log. Entries and messages of a
    /// version may be used only from then on.
    pub fn version(&self) -> u16 {
        self.local().format_version()
    }

    /// The newest format version that each member supports, as far as this node knows.
    pub fn supported_versions(&self) -> Vec<(RaftId, Option<u16>)> {
        let members = self.members().into_iter();
        members
            .map(|(id, ..)| {
                let supported = self.local().supported_version(&id.0);
                (id, supported)
            })
            .collect()
    }

    /// As leader without writes: raises the version if all members support a higher one.
    pub(super) async fn raise_version(&self) {
        // Without a quorum a proposal would only grow the log.
        if self.version() >= version::NEWEST || !self.leads() {
            return;
        }
        let Ok(_no_change) = self.changing().try_lock() else {
            return;
        };
        let Some(higher) = to_raise(self.local(), &self.raft) else {
            return;
        };
        if let Err(e) = propose(self.local(), &self.raft, higher, SETTLE_LIMIT).await {
            tracing::debug!(target: "store", "raising the format version to {higher}: {e}");
        }
    }

    /// Whether a node may join. One whose version is too low would stop at the first entry that it cannot
    /// read.
    ///
    /// # Errors
    /// Says what to do about it.
    pub fn may_join(&self, name: &str, speaks: u16) -> Result<(), String> {
        version::may_take_part(name, speaks, self.version())
    }
}
