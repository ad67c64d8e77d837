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
        if let AddressSource::Static(addresses) = &self.options.source {
            tracing::info!(target: "cluster-join", "checking that supplied join addresses don't serve HTTP(S)");
            for address in addresses {
                refuse_http(address).await?;
            }
        }
        let has_state = self.has_state().await?;
        match (&self.options.source, has_state) {
            (AddressSource::None, true) => Ok(()),
            (AddressSource::None, false) => self.form_alone().await,
            (AddressSource::Static(addresses), _) if self.options.expect == 0 => {
                self.join(addresses, has_state, stop).await
            }
            (AddressSource::Static(_) | AddressSource::Lookup(_), false) => self.form(stop).await,
            (AddressSource::LeaderKey(key), false) => self.register(key, stop).await,
            (AddressSource::Static(_) | AddressSource::Lookup(_), true) => {
                tracing::info!(target: "cluster-bootstrap", "preexisting node state: not bootstrapping");
                self.rejoin(stop).await;
                Ok(())
            }
            (AddressSource::LeaderKey(_), true) => {
                tracing::info!(target: "disco", "preexisting node configuration detected, not registering with discovery service");
                self.rejoin(stop).await;
                Ok(())
            }
        }
    }

    async fn join(
        &self,
        addresses: &[String],
        has_state: bool,
        stop: &CancellationToken,
    ) -> Result<(), ClusterError> {
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
            if round > 0
                && stop
                    .run_until_cancelled(tokio::time::sleep(self.options.interval))
                    .await
                    .is_none()
            {
                return Err(ClusterError::Canceled(
                    "failed to join cluster: join operation",
                ));
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
            self.rejoin(stop).await;
            return Ok(());
        }
        Err(ClusterError::Join(last))
    }
}
