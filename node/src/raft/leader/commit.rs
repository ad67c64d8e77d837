//! The result of a proposal: waiting for its commit, and why it may fail.
use std::time::{Duration, Instant};

use node_db::{Outcome, Request};
use openraft::{
    errors::{ClientWriteError, ForwardReason, ForwardToLeader},
    impls::OneshotResponder,
    raft::ClientWriteResult,
};
use tokio::sync::oneshot;

use crate::{
    command::Encoded,
    raft::{storage::state_machine::Raft, types::Types},
};

/// How long a proposal waits for a new leader's first heartbeat round before it is returned as not led.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(1);
/// Pause before a proposal is repeated at a leader that has not completed its first heartbeat round.
const TAKEOVER_PAUSE: Duration = Duration::from_millis(3);
/// Error text when a commit takes too long.
pub(super) const TIMEOUT: &str = "timeout waiting for a quorum; the write may still take effect";

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

/// Waits for the commit. Repeats the proposal while the leader waits for its first heartbeat round, in which
/// case it certainly had no effect.
pub(super) async fn wait_for_commit(
    raft: &Raft,
    encoded: &Encoded,
    first: oneshot::Receiver<ClientWriteResult<Types>>,
    limit: Duration,
) -> Result<Committed, ProposeError> {
    let deadline = Instant::now() + limit;
    let takeover_deadline = Instant::now() + TAKEOVER_LIMIT.min(limit);
    let mut result = first;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let response = match tokio::time::timeout(left, result).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => return Err(ProposeError::Unknown("the node is stopping".into())),
            Err(_) => {
                return Err(ProposeError::Unknown(TIMEOUT.into()));
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
        let (responder, next) = OneshotResponder::<Types, ClientWriteResult<Types>>::new_pair();
        if let Err(fatal) = raft.client_write_ff(encoded.clone(), Some(responder)).await {
            return Err(ProposeError::Unknown(fatal.to_string()));
        }
        result = next;
    }
}
