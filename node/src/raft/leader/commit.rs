//! What becomes of a proposal: waiting for its commit, and why it may have no result.
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

/// How long a leader may need to take office (its first heartbeat round) before its proposals are given back.
const OFFICE_LIMIT: Duration = Duration::from_secs(1);
/// Pause before asking a leader again that is just taking office; it takes one heartbeat round.
const OFFICE_PAUSE: Duration = Duration::from_millis(3);
/// What is said when the time for a commit is over.
pub(super) const TIMEOUT: &str = "timeout waiting for a quorum; the write may still take effect";

/// What became of a proposal.
#[derive(Debug)]
pub struct Committed {
    /// One per request proposed (a load's last chunk gives one, others none).
    pub outcomes: Vec<Outcome>,
    /// The entry's index.
    pub index: u64,
}

/// Why a proposal has no result; what was proposed comes back if it certainly had no effect here, so that it can be sent elsewhere.
#[derive(Debug)]
pub struct NotDone {
    /// Why.
    pub error: ProposeError,
    /// The requests, with [`ProposeError::NotLeader`].
    pub requests: Vec<Request>,
}

impl From<ProposeError> for NotDone {
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
    /// This node does not lead: the proposal had no effect here.
    #[error("not leader")]
    NotLeader,
    /// Leadership was lost, or time ran out, while it was under way: it may or may not take effect.
    #[error("{0}")]
    Unknown(String),
    /// Refused before it was proposed: no effect.
    #[error("{0}")]
    Refused(String),
}

/// Waits for the commit; asks again while the leader is only just taking office, which is known to have had no effect.
pub(super) async fn settle(
    raft: &Raft,
    encoded: &Encoded,
    first: oneshot::Receiver<ClientWriteResult<Types>>,
    limit: Duration,
) -> Result<Committed, ProposeError> {
    let deadline = Instant::now() + limit;
    let office_deadline = Instant::now() + OFFICE_LIMIT.min(limit);
    let mut result = first;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = match tokio::time::timeout(left, result).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Err(ProposeError::Unknown("the node is stopping".into())),
            Err(_) => {
                return Err(ProposeError::Unknown(TIMEOUT.into()));
            }
        };
        match answer {
            Ok(response) => {
                return Ok(Committed {
                    index: response.log_id.index,
                    outcomes: response.data.0,
                });
            }
            Err(ClientWriteError::ForwardToLeader(ForwardToLeader {
                leader_id, reason, ..
            })) => {
                let taking_office = reason == ForwardReason::LeaseExpired && leader_id.is_none();
                if !taking_office || office_deadline <= Instant::now() {
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
        tokio::time::sleep(OFFICE_PAUSE).await;
        let (told, next) = OneshotResponder::<Types, ClientWriteResult<Types>>::new_pair();
        if let Err(fatal) = raft.client_write_ff(encoded.clone(), Some(told)).await {
            return Err(ProposeError::Unknown(fatal.to_string()));
        }
        result = next;
    }
}
