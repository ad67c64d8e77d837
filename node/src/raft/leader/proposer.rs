//! Group commit: one task packs concurrent requests into one log entry, so that one fsync acknowledges many of them.
//!
//! While one entry is on its way to disk, the next one fills; an idle node proposes at once. A further entry beside one under way costs every
//! node another fsync, so it is proposed only where that is worth it (`UnderWay::may_begin`).
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use node_db::{LoadChunk, Outcome, Request, Rules, Stamp};
use openraft::{impls::OneshotResponder, raft::ClientWriteResult};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    commit::{Committed, NotDone, ProposeError, TIMEOUT, settle},
    leadership::Leadership,
    version_gate::Gate,
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
    raft::{storage::state_machine::Raft, types::Types},
};

/// Requests waiting to be packed, beyond which callers wait too.
const QUEUE: usize = 4096;
/// Requests in one entry: enough to amortize an fsync, few enough for the writer to finish in a few milliseconds.
const MAX_REQUESTS: usize = 512;
/// SQL and parameters in one entry. A larger single request gets an entry of its own.
const MAX_BYTES: usize = 1 << 20;
/// Largest entry: the largest request and its bounds. Requests are looked at before, where the answer can say more (`command::size`).
const MAX_ENTRY_BYTES: usize = MAX_REQUEST_BYTES + (1 << 20);
/// Entries under way at most, in a cluster.
const MAX_UNDER_WAY: usize = 4;
/// Proposals that are worth an entry of their own beside one under way.
const WORTH_AN_ENTRY: usize = 128;
/// An entry that is under way for longer than this is on a long way: followers are far, or their disks slow.
const LONG_WAY: Duration = Duration::from_millis(5);
/// How often that is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// The last piece of a load makes every node run the whole script or copy the whole file before it answers.
const LOAD_LIMIT: Duration = Duration::from_secs(3600);
/// Beyond the time for a commit, for waiting in the queue. Who waits that long has a node that is stuck itself.
const QUEUE_LIMIT: Duration = Duration::from_secs(5);

type Reply = oneshot::Sender<Result<Committed, NotDone>>;

enum Proposal {
    Requests(Vec<Request>, Reply),
    Command(Command, Reply),
}

/// Takes proposals; cheap to clone.
#[derive(Clone, Debug)]
pub struct Proposer {
    queue: mpsc::Sender<Proposal>,
    patience: Duration,
}

impl Proposer {
    pub(crate) fn start(
        raft: Raft,
        leadership: watch::Receiver<Leadership>,
        disk: Arc<Disk>,
        local: &Arc<Local>,
        apply_timeout: Duration,
    ) -> Self {
        let (queue, proposals) = mpsc::channel(QUEUE);
        let packer = Packer {
            raft,
            leadership,
            disk,
            metrics: Arc::clone(&local.metrics),
            gate: Gate::new(Arc::clone(local)),
            apply_timeout,
            last_unix_micros: 0,
        };
        tokio::spawn(packer.run(proposals));
        Self {
            queue,
            patience: apply_timeout + QUEUE_LIMIT,
        }
    }

    /// Proposes requests that are applied in order, in one entry, and waits until they are committed and applied here.
    ///
    /// # Errors
    /// See [`NotDone`].
    pub async fn requests(&self, requests: Vec<Request>) -> Result<Committed, NotDone> {
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
            .map_err(|not_done| not_done.error)
    }

    /// Has every node hash its content at one entry, which is [`Committed::index`].
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn hash_content(&self) -> Result<Committed, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Proposal::Command(Command::HashContent, reply), answer)
            .await
            .map_err(|not_done| not_done.error)
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
        .map_err(|not_done| not_done.error)
    }

    async fn submit(
        &self,
        proposal: Proposal,
        answer: oneshot::Receiver<Result<Committed, NotDone>>,
    ) -> Result<Committed, NotDone> {
        let patience = match proposal {
            Proposal::Requests(..) => self.patience,
            Proposal::Command(..) => LOAD_LIMIT,
        };
        let stopped = || ProposeError::Unknown("the node is stopping".into());
        let answered = async {
            self.queue
                .send(proposal)
                .await
                .map_err(|_| ProposeError::Refused("the node is stopping".into()))?;
            answer.await.map_err(|_| stopped())?
        };
        tokio::time::timeout(patience, answered)
            .await
            .unwrap_or_else(|_| Err(ProposeError::Unknown(TIMEOUT.into()).into()))
    }
}

struct Packer {
    raft: Raft,
    leadership: watch::Receiver<Leadership>,
    disk: Arc<Disk>,
    metrics: Arc<Metrics>,
    gate: Gate,
    apply_timeout: Duration,
    /// Time given to the last request: time in the log never goes back, whatever the clock does.
    last_unix_micros: i64,
}

/// Who waits for how many of an entry's outcomes.
struct Waiters {
    shares: Vec<(usize, Reply)>,
    under_way: Guard,
}

/// Answered once, by whoever knows first: the database's writer right after COMMIT, or the task that waits for bad news.
type Waiting = Arc<Mutex<Option<Waiters>>>;

/// Entries under way.
#[derive(Debug, Default)]
struct UnderWay {
    count: AtomicUsize,
    ended: Notify,
}

/// One of them.
struct Guard(Arc<UnderWay>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_one();
    }
}

impl UnderWay {
    fn begin(self: &Arc<Self>) -> Guard {
        self.count.fetch_add(1, Ordering::AcqRel);
        Guard(Arc::clone(self))
    }

    /// May another entry begin? `queued` proposals wait, the last entry began `since` ago.
    fn may_begin(count: usize, voters: usize, queued: usize, since: Duration) -> bool {
        match count {
            0 => true,
            // Its only fsync is that of the entry under way.
            _ if voters <= 1 => false,
            1..MAX_UNDER_WAY => queued >= WORTH_AN_ENTRY || (queued > 0 && since >= LONG_WAY),
            _ => false,
        }
    }
}

impl Packer {
    async fn run(mut self, mut proposals: mpsc::Receiver<Proposal>) {
        let under_way = Arc::new(UnderWay::default());
        let mut queued: Vec<Proposal> = Vec::new();
        let mut began = Instant::now();
        loop {
            if queued.is_empty() && under_way.count.load(Ordering::Acquire) == 0 {
                if proposals.recv_many(&mut queued, MAX_REQUESTS).await == 0 {
                    return;
                }
            } else if !UnderWay::may_begin(
                under_way.count.load(Ordering::Acquire),
                self.leadership.borrow().voters,
                queued.len() + proposals.len(),
                began.elapsed(),
            ) {
                // Not woken by each proposal: what matters is that an entry ends.
                let _ = tokio::time::timeout(LOOK_INTERVAL, under_way.ended.notified()).await;
                continue;
            }
            while queued.len() < MAX_REQUESTS
                && let Ok(more) = proposals.try_recv()
            {
                queued.push(more);
            }
            // Nobody waits any more for these, so they need not happen.
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
                under_way: under_way.begin(),
            };
            began = Instant::now();
            self.propose(command, Arc::new(Mutex::new(Some(waiters))))
                .await;
        }
    }

    /// Sent from here, so that entries keep the order in which they were packed; what becomes of them is followed elsewhere.
    async fn propose(&self, command: Command, waiting: Waiting) {
        let limit = match command {
            Command::Load(_) => LOAD_LIMIT,
            _ => self.apply_timeout,
        };
        let told = Arc::clone(&waiting);
        let deliver = Box::new(move |outcomes, index| answer(&told, outcomes, index));
        let encoded = match Encoded::awaited(command, deliver) {
            Ok(encoded) => encoded,
            Err(e) => return fail(&waiting, &ProposeError::Refused(e.to_string()), None),
        };
        // What cannot be sent to every node must not be acknowledged by one.
        if encoded.bytes().len() > MAX_ENTRY_BYTES {
            let text = format!(
                "an entry of {} bytes is over the limit of {MAX_ENTRY_BYTES}",
                encoded.bytes().len()
            );
            return fail(&waiting, &ProposeError::Refused(text), None);
        }
        self.metrics.count(Counter::ProtoNumRequestsEncoded);
        self.metrics.count(Counter::StoreNumUncompressedCommands);
        let (tell, result) = OneshotResponder::<Types, ClientWriteResult<Types>>::new_pair();
        if let Err(fatal) = self.raft.client_write_ff(encoded.clone(), Some(tell)).await {
            return fail(&waiting, &ProposeError::Unknown(fatal.to_string()), None);
        }
        let raft = self.raft.clone();
        tokio::spawn(async move {
            match settle(&raft, &encoded, result, limit).await {
                Ok(committed) => answer(&waiting, committed.outcomes, committed.index),
                Err(error) => fail(&waiting, &error, Some(&encoded)),
            }
        });
    }

    /// Takes from the front of `queued`, which is not empty, what fits one entry.
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

    /// The kind of entry that the cluster's version allows.
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

    /// Taken on a full disk, too: some bytes of log that let the staged pieces and the log behind them go.
    fn makes_room(&self) -> bool {
        matches!(self, Self::Command(Command::LoadAbort(_), _))
    }

    fn refuse(self, error: &ProposeError) {
        let (requests, reply) = match self {
            Self::Requests(requests, reply) => (requests, reply),
            Self::Command(_, reply) => (Vec::new(), reply),
        };
        let error = error.clone();
        let _ = reply.send(Err(NotDone { error, requests }));
    }
}

/// How many proposals of requests at the front fit one entry; at least one.
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

/// Hands each its share; nothing if that has been done.
fn answer(waiting: &Waiting, outcomes: Vec<Outcome>, index: u64) {
    let Some(waiters) = take(waiting) else { return };
    // The next entry may be packed while these are answered.
    drop(waiters.under_way);
    let mut outcomes = outcomes.into_iter();
    for (count, reply) in waiters.shares {
        let outcomes = outcomes.by_ref().take(count).collect();
        let _ = reply.send(Ok(Committed { outcomes, index }));
    }
}

/// Tells everybody why not, and gives the requests back where that is certain.
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
        let _ = reply.send(Err(NotDone {
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
        let (soon, late) = (Duration::ZERO, LONG_WAY);
        for (count, voters, queued, since, want) in [
            (0, 1, 1, soon, true),
            (0, 3, 1, soon, true),
            (1, 1, 4000, late, false),
            (1, 3, WORTH_AN_ENTRY - 1, soon, false),
            (1, 3, WORTH_AN_ENTRY, soon, true),
            (1, 3, 1, late, true),
            (1, 3, 0, late, false),
            (MAX_UNDER_WAY - 1, 3, WORTH_AN_ENTRY, soon, true),
            (MAX_UNDER_WAY, 3, WORTH_AN_ENTRY, late, false),
        ] {
            assert_eq!(
                UnderWay::may_begin(count, voters, queued, since),
                want,
                "{count} under way, {voters} voters, {queued} queued, {since:?}"
            );
        }
    }
}
