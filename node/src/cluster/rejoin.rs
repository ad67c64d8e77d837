//! The restart of a member: it finds its cluster again, also if addresses have changed meanwhile.
use std::{collections::BTreeSet, time::Duration};

use super::{bootstrapper::Bootstrapper, join::join_once};

/// Pause between attempts to reach the cluster.
const REJOIN_PAUSE: Duration = Duration::from_secs(3);

impl Bootstrapper {
    /// Waits until this member follows a leader (or leads) and the membership holds its current address,
    /// without a time limit. Meanwhile it contacts other nodes: the cluster may have no leader, or may know
    /// this node under an old address.
    pub(super) async fn rejoin(&self) {
        let mut leadership = self.consensus.watch_leadership();
        loop {
            // Usually the leader is heard from within a moment; contacting other nodes before that would be
            // useless traffic.
            let led = tokio::select! {
                _ = leadership.wait_for(|l| l.leader.is_some()) => true,
                () = tokio::time::sleep(REJOIN_PAUSE) => false,
            };
            if led && self.is_recorded() {
                return;
            }
            if self.consensus.is_mine() {
                match self.consensus.record_own_address().await {
                    Ok(()) => continue,
                    Err(e) => {
                        tracing::info!(target: "cluster-join", "recording this node's new address: {e}");
                    }
                }
            } else {
                self.try_rejoin().await;
            }
            if led {
                tokio::time::sleep(REJOIN_PAUSE).await;
            }
        }
    }

    /// The membership holds this node at its current address.
    fn is_recorded(&self) -> bool {
        self.consensus.recorded_address().as_deref() == Some(self.local.raft_addr.as_str())
    }

    /// `configured`, then the addresses of the members that this node knows: first those that members
    /// announced after a move, then the recorded ones. The configured ones may all be of the past, for
    /// example where every node has moved since this process started.
    pub(super) fn with_known_members(&self, configured: &[String]) -> Vec<String> {
        let members = self.consensus.members();
        let others = || {
            members
                .iter()
                .filter(|(id, ..)| *id.0 != *self.local.raft_id())
        };
        let moved = others().filter_map(|(id, ..)| self.local.moved_to(&id.0));
        let recorded = others().map(|(_, member, _)| member.raft_addr.clone());
        let mut seen = BTreeSet::from([self.local.raft_addr.clone()]);
        configured
            .iter()
            .cloned()
            .chain(moved)
            .chain(recorded)
            .filter(|address| seen.insert(address.clone()))
            .collect()
    }

    async fn try_rejoin(&self) {
        let found = match self.addresses().await {
            Ok(found) => found.addresses,
            Err(e) => {
                tracing::info!(target: "cluster-join", "no addresses to rejoin through but those of known members: {e}");
                Vec::new()
            }
        };
        let addresses = self.with_known_members(&found);
        if let Ok(address) = join_once(self, &addresses).await {
            tracing::info!(target: "cluster-join", "successfully joined cluster at {address}");
            return;
        }
        // There is no leader, perhaps because all addresses have changed at once. Members that know each
        // other's addresses can elect one.
        self.exchange_addresses(&addresses).await;
    }
}
