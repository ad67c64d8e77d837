//! Linearizable reads: many of them share one round in which a quorum confirms that this node still leads.
//!
//! A read joins the next round to *begin*, never one in progress: only a confirmation that was requested
//! after the read arrived is valid for it.
use std::time::Duration;

use openraft::{
    ReadPolicy,
    errors::{LinearizableReadError, RaftError},
    type_config::async_runtime::WatchReceiver,
};
use tokio::sync::{mpsc, oneshot};

use super::confirm::Confirmation;
use crate::raft::storage::state_machine::Raft;

/// Reads waiting for a round to begin; when the queue is full, callers wait.
const QUEUE: usize = 4096;
/// A round that takes longer fails. Callers have limits of their own.
const ROUND_LIMIT: Duration = Duration::from_secs(10);

/// Why a linearizable read cannot be served here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// This node does not lead.
    #[error("not leader")]
    NotLeader,
    /// This node leads, but no quorum confirmed that in time.
    #[error("leadership not confirmed by a quorum")]
    NoQuorum,
    /// The applied index did not reach the read index in time.
    #[error("index {0}: timeout waiting for fsm")]
    Timeout(u64),
    /// Raft has stopped.
    #[error("{0}")]
    Stopped(String),
}

type Waiting = oneshot::Sender<Result<(), ReadIndexError>>;

/// Confirms leadership for reads; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ReadIndex {
    queue: mpsc::Sender<Waiting>,
}

impl ReadIndex {
    pub(crate) fn start(raft: Raft, confirmation: Confirmation) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(rounds(raft, confirmation, waiting));
        Self { queue }
    }

    /// Returns once a quorum has confirmed this node's leadership and everything committed before is applied
    /// here.
    pub(crate) async fn confirm(&self) -> Result<(), ReadIndexError> {
        let stopped = || ReadIndexError::Stopped("the node is stopping".into());
        let (sender, receiver) = oneshot::channel();
        self.queue.send(sender).await.map_err(|_| stopped())?;
        receiver.await.map_err(|_| stopped())?
    }
}

/// Runs one round after the other: reads that arrive during a round share the next one, and a round costs the
/// members the same, however many reads share it.
async fn rounds(raft: Raft, mut confirmation: Confirmation, mut waiting: mpsc::Receiver<Waiting>) {
    let mut joined = Vec::new();
    while waiting.recv_many(&mut joined, QUEUE).await > 0 {
        let result = tokio::time::timeout(ROUND_LIMIT, round(&raft, &mut confirmation))
            .await
            .unwrap_or(Err(ReadIndexError::NoQuorum));
        for reader in joined.drain(..) {
            let _ = reader.send(result.clone());
        }
    }
}

/// Tries the direct confirmation first, then openraft's.
async fn round(raft: &Raft, confirmation: &mut Confirmation) -> Result<(), ReadIndexError> {
    if let Some(index) = confirmation.confirm().await {
        return applied(raft, index).await;
    }
    let linearizer = raft
        .get_read_linearizer(ReadPolicy::ReadIndex)
        .await
        .map_err(|e| match e {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(_)) => {
                ReadIndexError::NotLeader
            }
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => {
                ReadIndexError::NoQuorum
            }
            RaftError::Fatal(fatal) => ReadIndexError::Stopped(fatal.to_string()),
        })?;
    linearizer
        .await_ready(raft)
        .await
        .map(drop)
        .map_err(|e| ReadIndexError::Stopped(e.to_string()))
}

/// Waits until the entry at `index` is applied here.
async fn applied(raft: &Raft, index: u64) -> Result<(), ReadIndexError> {
    let mut data = raft.data_metrics();
    loop {
        let applied = data.borrow_watched().last_applied;
        if applied.is_some_and(|id| id.index >= index) {
            return Ok(());
        }
        if data.changed().await.is_err() {
            return Err(ReadIndexError::Stopped("Raft has stopped".into()));
        }
    }
}
