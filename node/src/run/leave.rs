//! What a member does before it stops: it leaves the cluster if that is configured, or transfers leadership.
use std::time::Duration;

use anyhow::bail;

use super::{Node, archive};
use crate::{config::Config, raft::Consensus, store::Caller};

/// Attempts to leave the cluster on shutdown, and the pause between them (rqlite's values).
const LEAVE_ATTEMPTS: u32 = 5;
const LEAVE_PAUSE: Duration = Duration::from_millis(250);
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

impl Node {
    /// Before the inter-node port is closed: leaves the cluster if that is configured, or transfers
    /// leadership.
    pub(super) async fn leave(&self, config: &Config, consensus: &Consensus) -> anyhow::Result<()> {
        if let Some(archive) = &self.archive {
            archive::finish(archive, consensus).await;
        }
        self.background_stop.cancel();
        let members = consensus.members();
        let mut others = members
            .iter()
            .filter(|(id, ..)| id.name() != self.local.name());
        // Nobody else could take over: the cluster ends with the sole voter, and continues with it.
        let votes = members
            .iter()
            .any(|(id, _, voter)| id.name() == self.local.name() && *voter);
        if !others.any(|(.., voter)| *voter || !votes) {
            return Ok(());
        }
        if config.raft_cluster_remove_shutdown {
            return self.remove_self().await;
        }
        if config.raft_shutdown_stepdown && consensus.is_mine() {
            tracing::info!(target: "store", "transferring leadership before shutdown");
            if let Err(e) = consensus.transfer_leadership(None).await {
                tracing::warn!(target: "store", "transferring leadership: {e}");
            }
        }
        Ok(())
    }

    async fn remove_self(&self) -> anyhow::Result<()> {
        let caller = Caller {
            client: None,
            credentials: self.auth.own_credentials(),
            timeout: LEAVE_TIMEOUT,
            retries: 0,
        };
        let mut last = String::new();
        for attempt in 0..LEAVE_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(LEAVE_PAUSE).await;
            }
            match self.store.remove(self.local.name(), &caller).await {
                Ok(()) => {
                    tracing::info!(target: "cluster-remove", "removed this node from the cluster");
                    return Ok(());
                }
                Err(e) => last = e.to_string(),
            }
        }
        bail!("failed to remove this node from cluster before shutdown: {last}")
    }
}
