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
/// When entries take longer to apply than this, the next round begins meanwhile.
const SLOW_APPLY: Duration = Duration::from_millis(20);
/// How often it is checked then whether somebody still waits.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

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
        let confirmed = tokio::time::timeout(ROUND_LIMIT, round(&raft, &mut confirmation))
            .await
            .unwrap_or(Err(ReadIndexError::NoQuorum));
        let readers = Readers(std::mem::take(&mut joined));
        let index = match confirmed {
            Ok(index) => index,
            Err(error) => {
                readers.answer(Err(error));
                continue;
            }
        };
        match tokio::time::timeout(SLOW_APPLY, applied(&raft, index)).await {
            Ok(result) => readers.answer(result),
            Err(_) => _ = tokio::spawn(answer_later(raft.clone(), index, readers)),
        }
    }
}

/// Reads that share a round.
struct Readers(Vec<Waiting>);

impl Readers {
    fn answer(self, result: Result<(), ReadIndexError>) {
        for reader in self.0 {
            let _ = reader.send(result.clone());
        }
    }

    fn are_gone(&self) -> bool {
        self.0.iter().all(oneshot::Sender::is_closed)
    }
}

/// A long entry is being applied. Ends as well when nobody waits for it any more.
async fn answer_later(raft: Raft, index: u64, readers: Readers) {
    while !readers.are_gone() {
        if let Ok(result) = tokio::time::timeout(CHECK_INTERVAL, applied(&raft, index)).await {
            return readers.answer(result);
        }
    }
}

/// The index that must be applied here before a read, once a quorum has confirmed this leader. Tries the
/// direct confirmation first, then openraft's.
async fn round(raft: &Raft, confirmation: &mut Confirmation) -> Result<u64, ReadIndexError> {
    if let Some(index) = confirmation.confirm().await {
        return Ok(index);
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
    Ok(linearizer.read_log_id().index())
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
