//! Writes: proposed here or packed together and sent to the leader, once.
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use node_api::param::Level;
use node_db::{Kind, Outcome, Read, Request, Rules};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::{
    Caller, Opened, ReadResponse, Store,
    leader::{self, Patience},
};
use crate::{
    bounds,
    command::size,
    internode::{
        client::Peers,
        messages::{ForwardedWrite, PeerRequest, PeerResponse, WriteResponse},
        wire::WireError,
    },
    local::Local,
    metrics::{Counter, Metrics},
    raft::{
        Consensus, Leadership,
        leader::commit::{FailedProposal, ProposeError},
    },
    store_types::{ReadOptions, Served, StoreError},
};

/// What a write gets whose caller's `db_timeout` is over before its result is here.
const EXECUTE_TIMEOUT: &str = "execute timeout; the write may still take effect";
/// How much longer than its `db_timeout` a caller waits for the verdict, where that bounds what every node
/// does: a step may take longer here than the rate says, and the write may stand behind others.
const VERDICT_GRACE: Duration = Duration::from_secs(10);
/// Writes waiting to be forwarded, beyond which callers wait too.
const FORWARD_QUEUE: usize = 4096;
/// Writes in one forwarded batch; the leader packs them into entries itself.
const FORWARD_BATCH: usize = 512;
/// Bytes of one batch, unless a single write is larger: they must fit a frame, and the leader's answer is
/// waited for by all of them.
const FORWARD_BYTES: usize = 4 << 20;
/// Batches under way to the leader: enough to keep its group commit filled.
const FORWARD_IN_FLIGHT: usize = 4;

impl Store {
    /// Runs statements through the log. `request.stamp` is set by the leader. `limit` (`db_timeout`) bounds
    /// what the statements may take, counted alike by every node; see [`bounds`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn execute(
        &self,
        mut request: Request,
        limit: Option<Duration>,
        caller: &Caller,
    ) -> Result<Served, StoreError> {
        request.rules = Rules::V2(bounds::of_caller(limit));
        let limit = limit.map(|limit| {
            if self.0.local.format_version() >= 2 {
                limit.saturating_add(VERDICT_GRACE)
            } else {
                // No entry of that version has bounds.
                limit
            }
        });
        let write = self.write(request, caller);
        match limit {
            None => write.await,
            Some(limit) => tokio::time::timeout(limit, write)
                .await
                .unwrap_or_else(|_| Err(StoreError::Unknown(EXECUTE_TIMEOUT.into()))),
        }
    }

    async fn write(&self, request: Request, caller: &Caller) -> Result<Served, StoreError> {
        if let Some(refused) = self.refused_outright(&request.statements) {
            return Ok(refused);
        }
        size::check(&request)?;
        let opened = self.open()?;
        let mut request = request;
        let mut waiting = None;
        loop {
            if opened.consensus.is_mine() {
                if let Err(hangs) = opened.consensus.disk_answers() {
                    return Err(StoreError::Refused(hangs.to_string()));
                }
                match self.propose(opened, request).await {
                    Ok(served) => return Ok(served),
                    // Leadership went just before; whoever leads now gets it.
                    Err(FailedProposal {
                        error: ProposeError::NotLeader,
                        mut requests,
                    }) => request = requests.pop().ok_or(StoreError::LeaderNotFound)?,
                    Err(failed) => return Err(failed.error.into()),
                }
            } else if Self::elsewhere(opened).is_some() {
                return opened.forwarder.forward(request, caller).await;
            }
            let patience = waiting
                .get_or_insert_with(|| self.patience(opened, Instant::now() + caller.timeout));
            if !patience.again(&opened.consensus.watch_leadership()).await {
                return Err(StoreError::LeaderNotFound);
            }
        }
    }

    /// Runs reads and writes mixed: locally if all are reads and the level allows, else through the log.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn request(
        &self,
        request: Request,
        timeout: Option<Duration>,
        options: &ReadOptions,
        caller: &Caller,
    ) -> Result<ReadResponse, StoreError> {
        let opened = self.open()?;
        if options.level != Level::Strong
            && opened
                .db
                .read_only(&request.statements)
                .await
                .into_iter()
                .all(|ro| ro)
        {
            let read = Read {
                kind: request.kind,
                transaction: request.transaction,
                qualify_columns: request.qualify_columns,
                statements: request.statements,
                timeout,
            };
            return self.query(read, options, caller).await;
        }
        let served = self.execute(request, timeout, caller).await;
        served.map(ReadResponse::Whole)
    }

    fn refused_outright(&self, statements: &[node_values::Statement]) -> Option<Served> {
        statements
            .iter()
            .any(|s| node_db::disallowed_pragma(&s.sql))
            .then(|| {
                let outcome = Outcome {
                    error: Some("disallowed pragma".into()),
                    ..Outcome::default()
                };
                self.served(outcome, None)
            })
    }

    pub(super) async fn propose(
        &self,
        opened: &Opened,
        request: Request,
    ) -> Result<Served, FailedProposal> {
        let committed = opened.consensus.proposer().requests(vec![request]).await?;
        let outcome = committed.outcomes.into_iter().next().unwrap_or_default();
        Ok(self.served(outcome, Some(committed.index)))
    }

    /// Serves forwarded writes in order; never forwards again. One entry of the log may carry all of them, if
    /// they are not too large for that.
    pub async fn write_as_leader(
        &self,
        requests: Vec<Request>,
    ) -> Vec<Result<WriteResponse, StoreError>> {
        let opened = match self.open() {
            Ok(opened) => opened,
            Err(error) => return requests.iter().map(|_| Err(error.clone())).collect(),
        };
        // What is too large comes from an older node only, which knows no answer of its own for it.
        let refusals: Vec<_> = requests.iter().map(|r| size::check(r).err()).collect();
        let allowed = requests.into_iter().zip(&refusals);
        let allowed = allowed.filter(|(_, refused)| refused.is_none());
        let allowed = allowed.map(|(request, _)| request).collect();
        let runs = size::runs(allowed, FORWARD_BYTES, size::weight).into_iter();
        // Each is in the proposer's queue before the next one begins.
        let proposed = futures_util::future::join_all(runs.map(|run| propose_run(opened, run)));
        let mut answers = proposed.await.into_iter().flatten();
        let answers = refusals.into_iter().map(|refused| match refused {
            Some(refused) => Err(StoreError::Refused(refused.to_string())),
            None => answers
                .next()
                .unwrap_or_else(|| Err(StoreError::Unknown("no answer for this write".into()))),
        });
        answers.collect()
    }
}

async fn propose_run(
    opened: &Opened,
    requests: Vec<Request>,
) -> Vec<Result<WriteResponse, StoreError>> {
    let count = requests.len();
    match opened.consensus.proposer().requests(requests).await {
        Ok(committed) => {
            let raft_index = committed.index;
            let outcomes = committed.outcomes.into_iter();
            let answers = outcomes.map(|outcome| {
                Ok(WriteResponse {
                    outcome,
                    raft_index,
                })
            });
            answers.collect()
        }
        Err(failed) => {
            let error = StoreError::from(failed.error);
            (0..count).map(|_| Err(error.clone())).collect()
        }
    }
}

impl From<ProposeError> for StoreError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader => Self::NotLeader,
            ProposeError::Unknown(text) => Self::Unknown(text),
            ProposeError::Refused(text) => Self::Refused(text),
        }
    }
}

type Reply = oneshot::Sender<Result<(WriteResponse, String), StoreError>>;

struct Waiting {
    write: ForwardedWrite,
    timeout: Duration,
    retries: u32,
    reply: Reply,
}

/// What the forwarder works with.
#[derive(Clone)]
struct Way {
    peers: Peers,
    local: Arc<Local>,
    leadership: watch::Receiver<Leadership>,
    election_timeout: Duration,
}

/// Packs writes of this node's clients and sends them to the leader.
#[derive(Clone, Debug)]
pub(super) struct Forwarder {
    queue: mpsc::Sender<Waiting>,
}

impl Forwarder {
    pub(super) fn start(peers: Peers, local: Arc<Local>, consensus: &Consensus) -> Self {
        let (queue, waiting) = mpsc::channel(FORWARD_QUEUE);
        let way = Way {
            peers,
            local,
            leadership: consensus.watch_leadership(),
            election_timeout: consensus.settings().election_timeout,
        };
        tokio::spawn(forward_batches(way, waiting));
        Self { queue }
    }

    async fn forward(&self, request: Request, caller: &Caller) -> Result<Served, StoreError> {
        let (reply, answer) = oneshot::channel();
        let write = ForwardedWrite {
            request,
            credentials: caller.credentials.clone(),
        };
        let waiting = Waiting {
            write,
            timeout: caller.timeout,
            retries: caller.retries,
            reply,
        };
        self.queue
            .send(waiting)
            .await
            .map_err(|_| StoreError::Refused("the node is stopping".into()))?;
        let (answer, served_by) = answer
            .await
            .map_err(|_| StoreError::Unknown("the node is stopping".into()))??;
        Ok(Served {
            results: answer.outcome.results,
            error: answer.outcome.error,
            raft_index: Some(answer.raft_index),
            served_by,
        })
    }
}

async fn forward_batches(way: Way, mut waiting: mpsc::Receiver<Waiting>) {
    let in_flight = Arc::new(Semaphore::new(FORWARD_IN_FLIGHT));
    let mut batches = VecDeque::new();
    loop {
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else {
            return;
        };
        if batches.is_empty() {
            let mut taken = Vec::new();
            if waiting.recv_many(&mut taken, FORWARD_BATCH).await == 0 {
                return;
            }
            let weight = |waiting: &Waiting| size::weight(&waiting.write.request);
            batches.extend(size::runs(taken, FORWARD_BYTES, weight));
        }
        let Some(batch) = batches.pop_front() else {
            continue;
        };
        let way = way.clone();
        tokio::spawn(async move { send_batch(&way, batch, permit).await });
    }
}

/// With their bounds, where the cluster's version knows them.
fn as_known(peers: &Peers, writes: Vec<ForwardedWrite>) -> PeerRequest {
    if peers.format_version() < 2 {
        return PeerRequest::Write(writes);
    }
    let bounds = writes.iter().map(|w| w.request.rules.bounds()).collect();
    PeerRequest::BoundedWrite(writes, bounds)
}

async fn send_batch(way: &Way, batch: Vec<Waiting>, place: OwnedSemaphorePermit) {
    let Way {
        peers, leadership, ..
    } = way;
    // The longest patience in the batch counts: cutting off its owner would be a false unknown.
    let limit = batch.iter().map(|w| w.timeout).max().unwrap_or_default();
    let retries = batch.iter().map(|w| w.retries).max().unwrap_or_default();
    let (mut writes, mut replies): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|w| (w.write, w.reply)).unzip();
    let mut place = Some(place);
    let mut attempts = 0;
    let mut deadline = Instant::now() + limit;
    let mut waiting = None;
    loop {
        let mut failure = StoreError::LeaderNotFound;
        let address = leadership.borrow().addr.clone();
        if let Some(address) = address {
            let ask = as_known(peers, writes);
            let left = deadline.saturating_duration_since(Instant::now());
            // Those behind need not wait for a leader of the past.
            let deposed = || drop(place.take());
            let asked = leader::call(peers, leadership, &address, &ask, left, deposed).await;
            let (PeerRequest::Write(sent) | PeerRequest::BoundedWrite(sent, _)) = ask else {
                return;
            };
            match asked {
                Ok(PeerResponse::Write(answers)) if answers.len() == replies.len() => {
                    (writes, replies) = deliver(sent, replies, answers, &address);
                    if writes.is_empty() {
                        return;
                    }
                }
                Ok(_) => {
                    let text = format!("{address} sent an unexpected response");
                    return answer_all(replies, &StoreError::Unknown(text));
                }
                Err(error) if !error.nothing_sent() => {
                    return answer_all(replies, &StoreError::Unknown(error.to_string()));
                }
                Err(error) => {
                    writes = sent;
                    if attempts < retries && !matches!(error, WireError::Unresponsive { .. }) {
                        attempts += 1;
                        deadline = Instant::now() + limit;
                        for write in &writes {
                            count_retry(&way.local.metrics, write.request.kind);
                        }
                    }
                    failure = StoreError::Refused(error.to_string());
                }
            }
        }
        // Certainly without effect so far: the next leader gets it. Those behind need not wait for that
        // either.
        drop(place.take());
        let patience = waiting
            .get_or_insert_with(|| Patience::new(&way.local, way.election_timeout, deadline));
        if !patience.again(leadership).await {
            return answer_all(replies, &failure);
        }
    }
}

/// Hands each write its answer; gives back those that the node did not take because it does not lead (any
/// more).
fn deliver(
    writes: Vec<ForwardedWrite>,
    replies: Vec<Reply>,
    answers: Vec<Result<WriteResponse, StoreError>>,
    address: &str,
) -> (Vec<ForwardedWrite>, Vec<Reply>) {
    let mut left = (Vec::new(), Vec::new());
    for ((write, reply), answer) in writes.into_iter().zip(replies).zip(answers) {
        match answer {
            Err(StoreError::NotLeader | StoreError::LeaderNotFound) => {
                left.0.push(write);
                left.1.push(reply);
            }
            answer => _ = reply.send(answer.map(|a| (a, address.to_owned()))),
        }
    }
    left
}

fn count_retry(metrics: &Metrics, kind: Kind) {
    metrics.count(Counter::ClusterNumClientRetries);
    metrics.count(match kind {
        Kind::Execute | Kind::ExecutePlain => Counter::ClusterNumClientExecuteRetries,
        Kind::Query => Counter::ClusterNumClientQueryRetries,
        Kind::Unified | Kind::UnifiedPlain => Counter::ClusterNumClientRequestRetries,
    });
}

fn answer_all(replies: Vec<Reply>, error: &StoreError) {
    for reply in replies {
        let _ = reply.send(Err(error.clone()));
    }
}
