//! Chooses between joining, forming and continuing, according to the node's options and state.
use tokio_util::sync::CancellationToken;

use super::{
    bootstrapper::{AddressSource, Bootstrapper, ClusterError},
    join::{join_once, refuse_http},
};

impl Bootstrapper {
    /// Makes this node part of a cluster according to its options. A node with state does not fail because it
    /// reaches no other node; it keeps trying.
    ///
    /// # Errors
    /// Only for a node without state, or for one that is a cluster of its own and has join addresses.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), ClusterError> {
        let had_state = self.has_state().await?;
        if let (AddressSource::None, false) = (&self.options.source, had_state) {
            return self.form_alone().await;
        }
        // Everything in between may be interrupted, as by a crash.
        match stop.run_until_cancelled(self.enter(had_state)).await {
            Some(entered) => entered,
            // Also a node that was admitted a moment ago is a member.
            None if had_state || self.has_state().await? => Ok(()),
            None => Err(ClusterError::Canceled(match &self.options.source {
                AddressSource::Static(_) if self.options.expect == 0 => {
                    "failed to join cluster: join operation"
                }
                AddressSource::LeaderKey(_) => "discovery",
                AddressSource::None | AddressSource::Static(_) | AddressSource::Lookup(_) => "boot",
            })),
        }
    }

    async fn enter(&self, has_state: bool) -> Result<(), ClusterError> {
        if let AddressSource::Static(addresses) = &self.options.source {
            tracing::info!(target: "cluster-join", "checking that supplied join addresses don't serve HTTP(S)");
            for address in addresses {
                refuse_http(address).await?;
            }
        }
        match (&self.options.source, has_state) {
            (AddressSource::None, _) => Ok(()),
            (AddressSource::Static(addresses), _) if self.options.expect == 0 => {
                self.join(addresses, has_state).await
            }
            (AddressSource::Static(_) | AddressSource::Lookup(_), false) => self.form().await,
            (AddressSource::LeaderKey(key), false) => self.register(key).await,
            (AddressSource::Static(_) | AddressSource::Lookup(_), true) => {
                tracing::info!(target: "cluster-bootstrap", "preexisting node state: not bootstrapping");
                self.rejoin().await;
                Ok(())
            }
            (AddressSource::LeaderKey(_), true) => {
                tracing::info!(target: "disco", "preexisting node configuration detected, not registering with discovery service");
                self.rejoin().await;
                Ok(())
            }
        }
    }

    async fn join(&self, addresses: &[String], has_state: bool) -> Result<(), ClusterError> {
        if has_state {
            let members = self.consensus.members();
            let alone = matches!(members.as_slice(), [(id, ..)] if id.name() == self.local.name());
            let only_itself = addresses.iter().all(|a| *a == self.local.raft_addr);
            if alone && !only_itself {
                return Err(ClusterError::OwnCluster);
            }
        }
        let mut last = String::from("no join address");
        let attempts = self.options.attempts.max(1);
        for round in 0..attempts {
            if round > 0 {
                tokio::time::sleep(self.options.interval).await;
            }
            // A member has other addresses to ask than those of its command line.
            let known = has_state.then(|| self.with_known_members(addresses));
            match join_once(self, known.as_deref().unwrap_or(addresses)).await {
                Ok(address) => {
                    tracing::info!(target: "cluster-join", "successfully joined cluster at {address}");
                    return Ok(());
                }
                Err(e) => last = e.to_string(),
            }
            tracing::info!(target: "cluster-join", "not joined yet (try {} of {attempts})", round + 1);
            if has_state && self.consensus.is_mine() {
                // No other node can admit the leader; `rejoin` records its address.
                last = "this node leads".into();
                break;
            }
            if !has_state && self.has_state().await? {
                // The leader has admitted this node; only its response was lost.
                tracing::info!(target: "cluster-join", "admitted, although the answer to the join was lost");
                return Ok(());
            }
        }
        if has_state {
            tracing::warn!(target: "cluster-join", "not joined ({last}); this node has state and keeps running on it");
            self.rejoin().await;
            return Ok(());
        }
        Err(ClusterError::Join(last))
    }
}
