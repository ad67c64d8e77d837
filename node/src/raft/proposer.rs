//! Group commit: one task packs concurrent requests into one log entry, so that one fsync acknowledges many of them.
//!
//! There is no timer. While one entry is on its way to disk, the next one fills; an idle node proposes at once. On a single voter one
//! entry is under way at a time; in a cluster up to four, which hides the round trip to the followers.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use node_db::{LoadChunk, Outcome, Request, Stamp};
use openraft::{
    errors::{ClientWriteError, ForwardReason, ForwardToLeader},
    impls::OneshotResponder,
    raft::ClientWriteResult,
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{
    Leadership,
    types::{Raft, Types},
};
use crate::{
    command::{Command, Encoded},
    disk::Disk,
};

/// Requests waiting to be packed, beyond which callers wait too.
const QUEUE: usize = 4096;
/// Requests in one entry: enough to amortize an fsync, few enough for the writer to finish in a few milliseconds.
const MAX_REQUESTS: usize = 512;
/// SQL and parameters in one entry. A larger single request gets an entry of its own.
const MAX_BYTES: usize = 1 << 20;
/// Entries under way in a cluster.
const CLUSTER_IN_FLIGHT: usize = 4;
/// How long a leader may need to take office (its first heartbeat round) before its proposals are given back.
const OFFICE_LIMIT: Duration = Duration::from_secs(1);
/// The last piece of a load makes every node run the whole script or copy the whole file before it answers.
const LOAD_LIMIT: Duration = Duration::from_secs(3600);
/// Pause before asking a leader again that is just taking office; it takes one heartbeat round.
const OFFICE_PAUSE: Duration = Duration::from_millis(3);

/// What became of a proposal.
#[derive(Debug)]
pub struct Committed {
    /// One per request proposed (a load's last chunk gives one, others none).
    pub outcomes: Vec<Outcome>,
    /// The entry's index.
    pub index: u64,
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

type Reply = oneshot::Sender<Result<Committed, ProposeError>>;

enum Proposal {
    Requests(Vec<Request>, Reply),
    Command(Command, Reply),
}

/// Takes proposals; cheap to clone.
#[derive(Clone, Debug)]
pub struct Proposer {
    queue: mpsc::Sender<Proposal>,
}

impl Proposer {
    pub(super) fn start(
        raft: Raft,
        leadership: watch::Receiver<Leadership>,
        disk: Arc<Disk>,
        apply_timeout: Duration,
    ) -> Self {
        let (queue, proposals) = mpsc::channel(QUEUE);
        let packer = Packer {
            raft,
            leadership,
            disk,
            apply_timeout,
            last_unix_micros: 0,
        };
        tokio::spawn(packer.run(proposals));
        Self { queue }
    }

    /// Proposes requests that are applied in order, in one entry, and waits until they are committed and applied here.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn requests(&self, requests: Vec<Request>) -> Result<Committed, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Proposal::Requests(requests, reply), answer)
            .await
    }

    /// Proposes one piece of a load.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn load(&self, chunk: LoadChunk) -> Result<Committed, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Proposal::Command(Command::Load(chunk), reply), answer)
            .await
    }

    /// Gives up a load.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn load_abort(&self, load_id: u64) -> Result<Committed, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.submit(
            Proposal::Command(Command::LoadAbort(load_id), reply),
            answer,
        )
        .await
    }

    async fn submit(
        &self,
        proposal: Proposal,
        answer: oneshot::Receiver<Result<Committed, ProposeError>>,
    ) -> Result<Committed, ProposeError> {
        let stopped = || ProposeError::Unknown("the node is stopping".into());
        self.queue
            .send(proposal)
            .await
            .map_err(|_| ProposeError::Refused("the node is stopping".into()))?;
        answer.await.map_err(|_| stopped())?
    }
}

struct Packer {
    raft: Raft,
    leadership: watch::Receiver<Leadership>,
    disk: Arc<Disk>,
    apply_timeout: Duration,
    /// Time given to the last request: time in the log never goes back, whatever the clock does.
    last_unix_micros: i64,
}

/// Who waits for how many of an entry's outcomes.
type Shares = Vec<(usize, Reply)>;

impl Packer {
    async fn run(mut self, mut proposals: mpsc::Receiver<Proposal>) {
        let single = Arc::new(Semaphore::new(1));
        let several = Arc::new(Semaphore::new(CLUSTER_IN_FLIGHT));
        let mut waiting: Vec<Proposal> = Vec::new();
        loop {
            let gate = if self.leadership.borrow().voters <= 1 {
                &single
            } else {
                &several
            };
            let Ok(permit) = Arc::clone(gate).acquire_owned().await else {
                return;
            };
            if waiting.is_empty() && proposals.recv_many(&mut waiting, MAX_REQUESTS).await == 0 {
                return;
            }
            let (command, shares) = self.pack(&mut waiting);
            if let Err(error) = self.refusal() {
                answer_all(shares, &error);
                continue;
            }
            let encoded = match Encoded::new(command) {
                Ok(encoded) => encoded,
                Err(e) => {
                    answer_all(shares, &ProposeError::Refused(e.to_string()));
                    continue;
                }
            };
            let raft = self.raft.clone();
            let limit = match encoded.command() {
                Ok(Command::Load(_)) => LOAD_LIMIT,
                _ => self.apply_timeout,
            };
            let (told, result) = OneshotResponder::<Types, ClientWriteResult<Types>>::new_pair();
            // Sent from here, so that entries keep the order in which they were packed.
            if let Err(fatal) = self.raft.client_write_ff(encoded.clone(), Some(told)).await {
                answer_all(shares, &ProposeError::Unknown(fatal.to_string()));
                continue;
            }
            tokio::spawn(async move {
                let outcome = settle(&raft, encoded, result, limit).await;
                drop(permit);
                distribute(outcome, shares);
            });
        }
    }

    /// Takes from the front of `waiting` what fits one entry.
    fn pack(&mut self, waiting: &mut Vec<Proposal>) -> (Command, Shares) {
        let mut requests = Vec::new();
        let mut shares = Shares::new();
        let mut bytes = 0;
        let mut taken = 0;
        for proposal in waiting.iter() {
            let Proposal::Requests(more, _) = proposal else {
                break;
            };
            let size = more.iter().map(size_of).sum::<usize>();
            if taken > 0 && (bytes + size > MAX_BYTES || requests.len() + more.len() > MAX_REQUESTS)
            {
                break;
            }
            bytes += size;
            taken += 1;
            // Only counted here; the requests are moved out below.
            requests.reserve(more.len());
        }
        if taken == 0
            && let Some(Proposal::Command(..)) = waiting.first()
            && let Proposal::Command(command, reply) = waiting.remove(0)
        {
            return (self.stamp_command(command), vec![(1, reply)]);
        }
        for proposal in waiting.drain(..taken) {
            if let Proposal::Requests(more, reply) = proposal {
                shares.push((more.len(), reply));
                requests.extend(more);
            }
        }
        for request in &mut requests {
            request.stamp = self.stamp();
        }
        (Command::Requests(Arc::new(requests)), shares)
    }

    fn stamp_command(&mut self, mut command: Command) -> Command {
        if let Command::Load(LoadChunk {
            finish: Some(finish),
            ..
        }) = &mut command
        {
            finish.stamp = self.stamp();
        }
        command
    }

    fn stamp(&mut self) -> Stamp {
        let now = i64::try_from(crate::clock::unix_micros()).unwrap_or(i64::MAX);
        self.last_unix_micros = now.max(self.last_unix_micros + 1);
        Stamp {
            unix_micros: self.last_unix_micros,
            seed: rand::random(),
        }
    }

    fn refusal(&self) -> Result<(), ProposeError> {
        if !self.leadership.borrow().mine {
            return Err(ProposeError::NotLeader);
        }
        self.disk
            .check()
            .map_err(|full| ProposeError::Refused(full.to_string()))
    }
}

/// A request's weight in an entry.
fn size_of(request: &Request) -> usize {
    use node_api::Value;
    request
        .statements
        .iter()
        .map(|s| {
            let parameters = s.parameters.iter().map(|p| match &p.value {
                Value::Text(text) => text.len() + 8,
                Value::Blob(bytes) => bytes.len() + 8,
                Value::Null | Value::Integer(_) | Value::Real(_) => 16,
            });
            s.sql.len() + 16 + parameters.sum::<usize>()
        })
        .sum()
}

/// Waits for the commit; asks again while the leader is only just taking office, which is known to have had no effect.
async fn settle(
    raft: &Raft,
    encoded: Encoded,
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
                return Err(ProposeError::Unknown(
                    "timeout waiting for a quorum; the write may still take effect".into(),
                ));
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

fn answer_all(shares: Shares, error: &ProposeError) {
    for (_, reply) in shares {
        let _ = reply.send(Err(error.clone()));
    }
}

fn distribute(outcome: Result<Committed, ProposeError>, shares: Shares) {
    match outcome {
        Err(error) => answer_all(shares, &error),
        Ok(Committed { outcomes, index }) => {
            let mut outcomes = outcomes.into_iter();
            for (count, reply) in shares {
                let share = outcomes.by_ref().take(count).collect();
                let _ = reply.send(Ok(Committed {
                    outcomes: share,
                    index,
                }));
            }
        }
    }
}
