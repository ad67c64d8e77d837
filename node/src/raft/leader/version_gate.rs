//! Raising the cluster's format version: on the leader, by an entry of the log, once every member is known to speak the higher one.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use openraft::{impls::OneshotResponder, raft::ClientWriteResult};
use tokio::sync::watch;

use super::{commit, leadership::Leadership};
use crate::{
    command::{Command, Encoded},
    local::Local,
    metrics::Counter,
    raft::{storage::state_machine::Raft, types::Types},
    version,
};

/// How long the first write of a term may wait for the version to be known or raised. It needs the leader's first entry applied and
/// one more committed, which are two round trips.
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(1);
/// Pause between looks at what is applied.
const SETTLE_PAUSE: Duration = Duration::from_millis(2);
/// After a try to raise it that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Tells the proposer which kinds of entries it may use.
#[derive(Debug)]
pub(super) struct Gate {
    local: Arc<Local>,
    /// The term in which this node's log was applied far enough to know the version.
    known_in_term: u64,
    tried: Option<Instant>,
}

impl Gate {
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

    /// Before a leader packs an entry: waits until the version in effect is known here, and raises it if that is possible. Costs nothing
    /// once the newest version is in effect.
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

/// What the members of the newest membership in this node's log allow.
pub(crate) fn to_raise(local: &Local, raft: &Raft) -> Option<u16> {
    let in_effect = local.format_version();
    if in_effect >= version::NEWEST {
        return None;
    }
    let metrics = raft.metrics();
    let metrics = openraft::type_config::async_runtime::WatchReceiver::borrow_watched(&metrics);
    let membership = metrics.membership_config.membership();
    // A change under way may be admitting somebody.
    if membership.get_joint_config().len() != 1 {
        return None;
    }
    version::to_raise(
        in_effect,
        membership.nodes().map(|(id, _)| local.spoken(&id.0)),
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
    let (tell, result) = OneshotResponder::<Types, ClientWriteResult<Types>>::new_pair();
    raft.client_write_ff(encoded.clone(), Some(tell))
        .await
        .map_err(|e| e.to_string())?;
    commit::settle(raft, &encoded, result, limit)
        .await
        .map(|_| ())
        .map_err(|e| e.to_string())
}
