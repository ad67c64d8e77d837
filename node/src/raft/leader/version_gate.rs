//! Raising the cluster's format version: the leader proposes an entry once every member is known to support
//! the higher version.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{commit, leadership::Leadership};
use crate::{
    command::{Command, Encoded},
    local::Local,
    metrics::Counter,
    raft::storage::state_machine::Raft,
    version,
};

/// How long the first write of a term may wait until the version is known or raised. That takes the leader's
/// first entry applied and one more committed: two round trips.
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(1);
/// Interval at which the applied term is checked.
const SETTLE_PAUSE: Duration = Duration::from_millis(2);
/// Pause after a failed attempt to raise the version.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Decides which kinds of entries the proposer may use.
#[derive(Debug)]
pub(super) struct VersionGate {
    local: Arc<Local>,
    /// The last term in which the version in effect was determined: an entry of a former leader may have
    /// raised it.
    known_in_term: u64,
    tried: Option<Instant>,
}

impl VersionGate {
    pub(super) fn new(local: Arc<Local>) -> Self {
        Self {
            local,
            known_in_term: 0,
            tried: None,
        }
    }

    /// The version in effect.
    pub(super) fn in_effect(&self) -> u16 {
        self.local.format_version()
    }

    /// Called before a leader packs an entry. Waits until the version in effect is known here, and raises it
    /// if possible. Returns at once when the newest version is in effect.
    pub(super) async fn settle(&mut self, leadership: &watch::Receiver<Leadership>, raft: &Raft) {
        if self.in_effect() >= version::NEWEST {
            return;
        }
        let (mine, term) = {
            let leadership = leadership.borrow();
            (leadership.mine, leadership.term)
        };
        if !mine {
            return;
        }
        if self.known_in_term < term {
            self.known_in_term = term;
            // An entry of a former leader may have raised it.
            let deadline = Instant::now() + SETTLE_LIMIT;
            while applied_term(raft) < term && Instant::now() < deadline {
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
        }
        let Some(higher) = to_raise(&self.local, raft) else {
            return;
        };
        if self.tried.is_some_and(|at| at.elapsed() < RETRY_PAUSE) {
            return;
        }
        self.tried = Some(Instant::now());
        if let Err(e) = propose(&self.local, raft, higher, SETTLE_LIMIT).await {
            tracing::debug!(target: "store", "raising the format version to {higher}: {e}");
        }
    }
}

fn applied_term(raft: &Raft) -> u64 {
    let data = raft.data_metrics();
    let data = openraft::type_config::async_runtime::WatchReceiver::borrow_watched(&data);
    data.last_applied.map_or(0, |id| id.leader_id.term)
}

/// The version that the members of the newest membership in this node's log allow, if it is higher than the
/// one in effect.
pub(crate) fn to_raise(local: &Local, raft: &Raft) -> Option<u16> {
    let in_effect = local.format_version();
    if in_effect >= version::NEWEST {
        return None;
    }
    let metrics = raft.metrics();
    let metrics = openraft::type_config::async_runtime::WatchReceiver::borrow_watched(&metrics);
    let membership = metrics.membership_config.membership();
    // A membership change in progress may be adding a node.
    if membership.get_joint_config().len() != 1 {
        return None;
    }
    version::to_raise(
        in_effect,
        membership
            .nodes()
            .map(|(id, _)| local.supported_version(&id.0)),
    )
}

pub(crate) async fn propose(
    local: &Local,
    raft: &Raft,
    to: u16,
    limit: Duration,
) -> Result<(), String> {
    let encoded = Encoded::new(Command::RaiseVersion(to)).map_err(|e| e.to_string())?;
    local.metrics.count(Counter::ProtoNumRequestsEncoded);
    local.metrics.count(Counter::StoreNumUncompressedCommands);
    let raised = async {
        let proposed = commit::propose(raft, &encoded).await?;
        commit::wait_for_commit(raft, &encoded, proposed, limit, None).await
    };
    raised.await.map(|_| ()).map_err(|e| e.to_string())
}
