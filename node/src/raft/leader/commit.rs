//! The result of a proposal: waiting for its commit, and why it may fail.
use std::time::Duration;

use node_db::{Database, Outcome, Request};
use openraft::{
    errors::{ClientWriteError, ForwardReason, ForwardToLeader},
    impls::ProgressResponder,
    raft::ClientWriteResult,
};
use tokio::{sync::oneshot, time::Instant};

use super::applying::{self, Patience};
use crate::{
    command::Encoded,
    raft::{
        storage::state_machine::Raft,
        types::{LogId, Types},
    },
};

/// How long a proposal waits for a new leader's first heartbeat round before it is returned as not led.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(1);
/// Pause before a proposal is repeated at a leader that has not completed its first heartbeat round.
const TAKEOVER_PAUSE: Duration = Duration::from_millis(3);
/// Error text when a commit takes too long.
pub(super) const NO_QUORUM: &str = "timeout waiting for a quorum; the write may still take effect";
/// Error text when a proposal waits too long for those before it.
pub(super) const NOT_PROPOSED: &str =
    "timeout waiting for the writes before it; the write may still take effect";
/// Error text when an entry is not applied although it is committed.
pub(super) const NOT_APPLIED: &str =
    "timeout waiting for the database, which makes no progress; the write may still take effect";
/// A committed and applied proposal.
#[derive(Debug)]
pub struct Committed {
    /// One per proposed request (a load's last chunk has one, others have none).
    pub outcomes: Vec<Outcome>,
    /// The entry's index.
    pub index: u64,
}

/// A proposal without a result. The requests are returned if they certainly had no effect here, so that they
/// can be sent to another node.
#[derive(Debug)]
pub struct FailedProposal {
    /// The reason.
    pub error: ProposeError,
    /// The requests, if the error is [`ProposeError::NotLeader`]; otherwise empty.
    pub requests: Vec<Request>,
}

impl From<ProposeError> for FailedProposal {
    fn from(error: ProposeError) -> Self {
        Self {
            error,
            requests: Vec::new(),
        }
    }
}

/// Why a proposal has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead; the proposal had no effect here.
    #[error("not leader")]
    NotLeader,
    /// Leadership was lost or time ran out while the proposal was in progress: it may or may not take effect.
    #[error("{0}")]
    Unknown(String),
    /// Refused before it was proposed: it has no effect.
    #[error("{0}")]
    Refused(String),
}

/// A proposal that openraft has taken: when it is committed, and its result.
pub(super) struct Proposed {
    committed: oneshot::Receiver<LogId>,
    result: oneshot::Receiver<ClientWriteResult<Types>>,
}

/// Gives an entry to openraft.
///
/// # Errors
/// Raft has stopped.
pub(super) async fn propose(raft: &Raft, encoded: &Encoded) -> Result<Proposed, ProposeError> {
    let (responder, committed, result) = ProgressResponder::new();
    raft.client_write_ff(encoded.clone(), Some(responder))
        .await
        .map_err(|fatal| ProposeError::Unknown(fatal.to_string()))?;
    Ok(Proposed { committed, result })
}

/// Waits for the commit, at most `limit`; with `db`, also until the committed entry is applied, as long as
/// that database makes progress (`applying.rs`). Repeats the proposal while the leader waits for its first
/// heartbeat round, in which case it certainly had no effect.
pub(super) async fn wait_for_commit(
    raft: &Raft,
    encoded: &Encoded,
    first: Proposed,
    limit: Duration,
    db: Option<&Database>,
) -> Result<Committed, ProposeError> {
    let patience = Patience::of(limit);
    let takeover_deadline = Instant::now() + TAKEOVER_LIMIT.min(limit);
    let mut proposed = first;
    loop {
        let Proposed {
            mut committed,
            result,
        } = proposed;
        let mut is_committed = false;
        let mut is_behind = || {
            is_committed |= committed.try_recv().is_ok();
            is_committed && db.is_some()
        };
        let work = || db.map_or(0, Database::work);
        let response = match applying::wait(work, patience, result, &mut is_behind).await {
            Some(Ok(response)) => response,
            Some(Err(_)) => return Err(ProposeError::Unknown("the node is stopping".into())),
            None => {
                let text = if is_committed { NOT_APPLIED } else { NO_QUORUM };
                return Err(ProposeError::Unknown(text.into()));
            }
        };
        match response {
            Ok(response) => {
                return Ok(Committed {
                    index: response.log_id.index,
                    outcomes: response.data.0,
                });
            }
            Err(ClientWriteError::ForwardToLeader(ForwardToLeader {
                leader_id, reason, ..
            })) => {
                let is_taking_over = reason == ForwardReason::LeaseExpired && leader_id.is_none();
                if !is_taking_over || takeover_deadline <= Instant::now() {
                    return Err(ProposeError::NotLeader);
                }
            }
            Err(ClientWriteError::LogEntryDiscarded(_)) => {
                return Err(ProposeError::Unknown(
                    "leadership lost while committing log".into(),
                ));
            }
            Err(
                e @ (ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_)),
            ) => {
                return Err(ProposeError::Refused(e.to_string()));
            }
        }
        tokio::time::sleep(TAKEOVER_PAUSE).await;
        proposed = propose(raft, encoded).await?;
    }
}
