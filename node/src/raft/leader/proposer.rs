//! Group commit: one task packs concurrent requests into one log entry, so that one fsync acknowledges many
//! of them.
//!
//! While one entry is being written to disk, the next one fills; an idle node proposes at once. A further
//! entry beside one in flight costs every node another fsync, so it is proposed only where it pays
//! (`InFlight::may_begin`).
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use node_db::{Database, LoadChunk, Outcome, Request, Rules, Stamp};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    applying::{self, Patience},
    commit::{self, Committed, FailedProposal, NOT_PROPOSED, ProposeError, wait_for_commit},
    leadership::Leadership,
    version_gate::VersionGate,
};
use crate::{
    bounds,
    command::{
        BoundedRequests, Command, Encoded,
        size::{self, MAX_REQUEST_BYTES},
    },
    disk::Disk,
    local::Local,
    metrics::{Counter, Metrics},
    raft::storage::state_machine::Raft,
};

/// Requests waiting to be packed; when the queue is full, callers wait.
const QUEUE: usize = 4096;
/// Requests in one entry: enough to amortize an fsync, few enough for the writer to apply in a few
/// milliseconds.
const MAX_REQUESTS: usize = 512;
/// SQL and parameters in one entry. A larger single request gets an entry of its own.
const MAX_BYTES: usize = 1 << 20;
/// Largest entry: the largest request and its bounds. Requests are checked earlier, where the error can be
/// more specific (`command::size`).
const MAX_ENTRY_BYTES: usize = MAX_REQUEST_BYTES + (1 << 20);
/// Most entries in flight, in a cluster.
const MAX_IN_FLIGHT: usize = 4;
/// Waiting proposals that justify another entry beside one in flight.
const MIN_QUEUED_FOR_ENTRY: usize = 128;
/// An entry in flight for longer than this is slow: followers are far away, or their disks are slow.
const SLOW_ENTRY: Duration = Duration::from_millis(5);
/// How often that is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);
/// Limit of a load: its last piece makes every node run the whole script or copy the whole file before it
/// responds.
const LOAD_LIMIT: Duration = Duration::from_secs(3600);
/// Added to the limit for a commit, for waiting in the queue. A proposal that waits this long, while no entry
/// is being applied, is on a node that is itself stuck.
const QUEUE_LIMIT: Duration = Duration::from_secs(5);

type Reply = oneshot::Sender<Result<Committed, FailedProposal>>;

enum Proposal {
    Requests(Vec<Request>, Reply),
    Command(Command, Reply),
}

/// Takes proposals; cheap to clone.
#[derive(Clone, Debug)]
pub struct Proposer {
    queue: mpsc::Sender<Proposal>,
    limit: Duration,
    db: Database,
}

impl Proposer {
    pub(crate) fn start(
        raft: Raft,
        leadership: watch::Receiver<Leadership>,
        (disk, db): (Arc<Disk>, Database),
        local: &Arc<Local>,
        apply_timeout: Duration,
    ) -> Self {
        let (queue, proposals) = mpsc::channel(QUEUE);
        let packer = Packer {
            raft,
            leadership,
            disk,
            db: db.clone(),
            metrics: Arc::clone(&local.metrics),
            gate: VersionGate::new(Arc::clone(local)),
            apply_timeout,
            last_unix_micros: 0,
        };
        tokio::spawn(packer.run(proposals));
        Self {
            queue,
            limit: apply_timeout + QUEUE_LIMIT,
            db,
        }
    }

    /// Proposes requests, applied in order in one entry, and waits until they are committed and applied here.
    ///
    /// # Errors
    /// See [`FailedProposal`].
    pub async fn requests(&self, requests: Vec<Request>) -> Result<Committed, FailedProposal> {
        let (reply, result) = oneshot::channel();
        self.submit(Proposal::Requests(requests, reply), result)
            .await
    }

    /// Proposes one piece of a load.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn load(&self, chunk: LoadChunk) -> Result<Committed, ProposeError> {
        let (reply, result) = oneshot::channel();
        self.submit(Proposal::Command(Command::Load(chunk), reply), result)
            .await
            .map_err(|failed| failed.error)
    }

    /// Makes every node hash its content at one entry, which is [`Committed::index`].
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn hash_content(&self) -> Result<Committed, ProposeError> {
        let (reply, result) = oneshot::channel();
        self.submit(Proposal::Command(Command::HashContent, reply), result)
            .await
            .map_err(|failed| failed.error)
    }

    /// Cancels a load.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn load_abort(&self, load_id: u64) -> Result<Committed, ProposeError> {
        let (reply, result) = oneshot::channel();
        self.submit(
            Proposal::Command(Command::LoadAbort(load_id), reply),
            result,
        )
        .await
        .map_err(|failed| failed.error)
    }

    async fn submit(
        &self,
        proposal: Proposal,
        result: oneshot::Receiver<Result<Committed, FailedProposal>>,
    ) -> Result<Committed, FailedProposal> {
        let limit = match proposal {
            Proposal::Requests(..) => self.limit,
            Proposal::Command(..) => LOAD_LIMIT,
        };
        let stopped = || ProposeError::Unknown("the node is stopping".into());
        let responded = async {
            self.queue
                .send(proposal)
                .await
                .map_err(|_| ProposeError::Refused("the node is stopping".into()))?;
            result.await.map_err(|_| stopped())?
        };
        // Behind a long entry this waits as long as that takes.
        let work = || self.db.work();
        applying::wait(work, Patience::of(limit), responded, || true)
            .await
            .unwrap_or_else(|| Err(ProposeError::Unknown(NOT_PROPOSED.into()).into()))
    }
}

struct Packer {
    raft: Raft,
    leadership: watch::Receiver<Leadership>,
    disk: Arc<Disk>,
    db: Database,
    metrics: Arc<Metrics>,
    gate: VersionGate,
    apply_timeout: Duration,
    /// Timestamp of the last request: time in the log never goes back, whatever the clock does.
    last_unix_micros: i64,
}

/// The callers of one entry, each with its number of outcomes.
struct Waiters {
    shares: Vec<(usize, Reply)>,
    in_flight: InFlightGuard,
}

/// Taken by the first of two to know the result: the database's writer right after COMMIT, or the task that
/// waits for an error.
type Waiting = Arc<Mutex<Option<Waiters>>>;

/// Entries in flight.
#[derive(Debug, Default)]
struct InFlight {
    count: AtomicUsize,
    ended: Notify,
}

/// One entry in flight.
struct InFlightGuard(Arc<InFlight>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_one();
    }
}

impl InFlight {
    fn begin(self: &Arc<Self>) -> InFlightGuard {
        self.count.fetch_add(1, Ordering::AcqRel);
        InFlightGuard(Arc::clone(self))
    }

    /// Whether another entry may begin: `queued` proposals wait, and the last entry began `since` ago.
    fn may_begin(count: usize, voters: usize, queued: usize, since: Duration) -> bool {
        match count {
            0 => true,
            // A second entry would only split the batch.
            _ if voters <= 1 => false,
            1..MAX_IN_FLIGHT => {
                queued >= MIN_QUEUED_FOR_ENTRY || (queued > 0 && since >= SLOW_ENTRY)
            }
            _ => false,
        }
    }
}

impl Packer {
    async fn run(mut self, mut proposals: mpsc::Receiver<Proposal>) {
        let in_flight = Arc::new(InFlight::default());
        let mut queued: Vec<Proposal> = Vec::new();
        let mut began = Instant::now();
        loop {
            if queued.is_empty() && in_flight.count.load(Ordering::Acquire) == 0 {
                if proposals.recv_many(&mut queued, MAX_REQUESTS).await == 0 {
                    return;
                }
            } else if !InFlight::may_begin(
                in_flight.count.load(Ordering::Acquire),
                self.leadership.borrow().voters,
                queued.len() + proposals.len(),
                began.elapsed(),
            ) {
                // Woken by the end of an entry, not by each proposal.
                let _ = tokio::time::timeout(CHECK_INTERVAL, in_flight.ended.notified()).await;
                continue;
            }
            while queued.len() < MAX_REQUESTS
                && let Ok(more) = proposals.try_recv()
            {
                queued.push(more);
            }
            // Their callers are gone, so these need not be proposed.
            queued.retain(|proposal| !proposal.is_abandoned());
            if let Err(error) = self.refusal() {
                let leads = error != ProposeError::NotLeader;
                let (kept, refused): (Vec<_>, Vec<_>) = queued
                    .drain(..)
                    .partition(|proposal| leads && proposal.makes_room());
                refused
                    .into_iter()
                    .for_each(|proposal| proposal.refuse(&error));
                queued = kept;
            }
            if queued.is_empty() {
                continue;
            }
            self.gate.settle(&self.leadership, &self.raft).await;
            let (command, shares) = self.pack(&mut queued);
            let waiters = Waiters {
                shares,
                in_flight: in_flight.begin(),
            };
            began = Instant::now();
            self.propose(command, Arc::new(Mutex::new(Some(waiters))))
                .await;
        }
    }

    /// Proposes from this task, so that entries keep the order in which they were packed; another task waits
    /// for the result.
    async fn propose(&self, command: Command, waiting: Waiting) {
        let limit = match command {
            Command::Load(_) => LOAD_LIMIT,
            _ => self.apply_timeout,
        };
        let delivered = Arc::clone(&waiting);
        let deliver =
            Box::new(move |outcomes, index| deliver_outcomes(&delivered, outcomes, index));
        let encoded = match Encoded::awaited(command, deliver) {
            Ok(encoded) => encoded,
            Err(e) => return fail(&waiting, &ProposeError::Refused(e.to_string()), None),
        };
        // An entry that some node cannot receive must not be acknowledged by another.
        if encoded.bytes().len() > MAX_ENTRY_BYTES {
            let text = format!(
                "an entry of {} bytes is over the limit of {MAX_ENTRY_BYTES}",
                encoded.bytes().len()
            );
            return fail(&waiting, &ProposeError::Refused(text), None);
        }
        self.metrics.count(Counter::ProtoNumRequestsEncoded);
        self.metrics.count(Counter::StoreNumUncompressedCommands);
        let proposed = match commit::propose(&self.raft, &encoded).await {
            Ok(proposed) => proposed,
            Err(error) => return fail(&waiting, &error, None),
        };
        let (raft, db) = (self.raft.clone(), self.db.clone());
        tokio::spawn(async move {
            match wait_for_commit(&raft, &encoded, proposed, limit, Some(&db)).await {
                Ok(committed) => deliver_outcomes(&waiting, committed.outcomes, committed.index),
                Err(error) => fail(&waiting, &error, Some(&encoded)),
            }
        });
    }

    /// Takes from the front of `queued`, which must not be empty, what fits into one entry.
    fn pack(&mut self, queued: &mut Vec<Proposal>) -> (Command, Vec<(usize, Reply)>) {
        if let Some(Proposal::Command(..)) = queued.first()
            && let Proposal::Command(command, reply) = queued.remove(0)
        {
            return (self.stamp_command(command), vec![(1, reply)]);
        }
        let taken = fitting(queued);
        let mut requests = Vec::with_capacity(taken);
        let mut shares = Vec::with_capacity(taken);
        for proposal in queued.drain(..taken) {
            if let Proposal::Requests(more, reply) = proposal {
                shares.push((more.len(), reply));
                requests.extend(more);
            }
        }
        for request in &mut requests {
            request.stamp = self.stamp();
        }
        (self.command(requests), shares)
    }

    /// The kind of entry that the cluster's format version allows.
    fn command(&self, mut requests: Vec<Request>) -> Command {
        if self.gate.in_effect() < 2 {
            return Command::Requests(Arc::new(requests));
        }
        let default = bounds::of_caller(None);
        for request in &mut requests {
            let asked = match request.rules {
                Rules::V1 => default,
                Rules::V2(asked) => asked,
            };
            request.rules = Rules::V2(self.disk.bound(asked));
        }
        Command::Bounded(BoundedRequests::new(requests))
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

impl Proposal {
    fn is_abandoned(&self) -> bool {
        let (Self::Requests(_, reply) | Self::Command(_, reply)) = self;
        reply.is_closed()
    }

    /// Accepted on a full disk as well: it adds little to the log, and frees the staged pieces and the log
    /// behind them.
    fn makes_room(&self) -> bool {
        matches!(self, Self::Command(Command::LoadAbort(_), _))
    }

    fn refuse(self, error: &ProposeError) {
        let (requests, reply) = match self {
            Self::Requests(requests, reply) => (requests, reply),
            Self::Command(_, reply) => (Vec::new(), reply),
        };
        let error = error.clone();
        let _ = reply.send(Err(FailedProposal { error, requests }));
    }
}

/// How many proposals of requests at the front fit into one entry; at least one.
fn fitting(queued: &[Proposal]) -> usize {
    let (mut bytes, mut count, mut taken) = (0, 0, 0);
    for proposal in queued {
        let Proposal::Requests(more, _) = proposal else {
            break;
        };
        bytes += more.iter().map(size::weight).sum::<usize>();
        count += more.len();
        if taken > 0 && (bytes > MAX_BYTES || count > MAX_REQUESTS) {
            break;
        }
        taken += 1;
    }
    taken
}

fn take(waiting: &Waiting) -> Option<Waiters> {
    waiting.lock().take()
}

/// Sends each caller its outcomes; does nothing if the result was already sent.
fn deliver_outcomes(waiting: &Waiting, outcomes: Vec<Outcome>, index: u64) {
    let Some(waiters) = take(waiting) else { return };
    // The next entry may be packed while responses are sent.
    drop(waiters.in_flight);
    let mut outcomes = outcomes.into_iter();
    for (count, reply) in waiters.shares {
        let outcomes = outcomes.by_ref().take(count).collect();
        let _ = reply.send(Ok(Committed { outcomes, index }));
    }
}

/// Sends every caller the error, and returns the requests to it if they certainly had no effect.
fn fail(waiting: &Waiting, error: &ProposeError, proposed: Option<&Encoded>) {
    let Some(waiters) = take(waiting) else { return };
    let command = match proposed {
        Some(encoded) if *error == ProposeError::NotLeader => encoded.take_command().ok(),
        _ => None,
    };
    let mut requests = match &command {
        Some(Command::Requests(requests)) => requests.as_slice(),
        Some(Command::Bounded(batch)) => batch.requests.as_slice(),
        _ => &[],
    };
    for (count, reply) in waiters.shares {
        let (own, rest) = requests.split_at(count.min(requests.len()));
        requests = rest;
        let _ = reply.send(Err(FailedProposal {
            error: error.clone(),
            requests: own.to_vec(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_entry_begins_only_where_it_is_worth_it() {
        let (soon, late) = (Duration::ZERO, SLOW_ENTRY);
        for (count, voters, queued, since, want) in [
            (0, 1, 1, soon, true),
            (0, 3, 1, soon, true),
            (1, 1, 4000, late, false),
            (1, 3, MIN_QUEUED_FOR_ENTRY - 1, soon, false),
            (1, 3, MIN_QUEUED_FOR_ENTRY, soon, true),
            (1, 3, 1, late, true),
            (1, 3, 0, late, false),
            (MAX_IN_FLIGHT - 1, 3, MIN_QUEUED_FOR_ENTRY, soon, true),
            (MAX_IN_FLIGHT, 3, MIN_QUEUED_FOR_ENTRY, late, false),
        ] {
            assert_eq!(
                InFlight::may_begin(count, voters, queued, since),
                want,
                "{count} in flight, {voters} voters, {queued} queued, {since:?}"
            );
        }
    }
}
