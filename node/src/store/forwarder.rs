//! Forwarding of writes: packs those of this node's clients into batches and sends each batch to the leader,
//! once.
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use node_db::{Kind, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::{
    caller::Caller,
    leader::{self, RetryLimit},
};
use crate::{
    command::size,
    internode::{
        client::Peers,
        messages::{ForwardedWrite, PeerRequest, PeerResponse, WriteResponse},
        wire::WireError,
    },
    local::Local,
    metrics::{Counter, Metrics},
    raft::{Consensus, Leadership},
    store_types::{Served, StoreError},
};

/// Writes waiting to be forwarded; when the queue is full, callers wait.
const FORWARD_QUEUE: usize = 4096;
/// Writes in one forwarded batch; the leader packs them into entries itself.
const FORWARD_BATCH: usize = 512;
/// Batches in flight to the leader: enough to keep its group commit filled.
const FORWARD_IN_FLIGHT: usize = 4;
/// Bytes of one batch, unless a single write is larger: a batch must fit into a frame, and all its writes
/// wait for the leader's response to the whole batch.
pub(super) const FORWARD_BYTES: usize = 4 << 20;

type Reply = oneshot::Sender<Result<(WriteResponse, String), StoreError>>;

struct Waiting {
    write: ForwardedWrite,
    timeout: Duration,
    retries: u32,
    reply: Reply,
}

/// Shared by the tasks of the forwarder.
#[derive(Clone)]
struct Context {
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
        let context = Context {
            peers,
            local,
            leadership: consensus.watch_leadership(),
            election_timeout: consensus.settings().election_timeout,
        };
        tokio::spawn(forward_batches(context, waiting));
        Self { queue }
    }

    pub(super) async fn forward(
        &self,
        request: Request,
        caller: &Caller,
    ) -> Result<Served, StoreError> {
        let (reply, response) = oneshot::channel();
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
        let (response, served_by) = response
            .await
            .map_err(|_| StoreError::Unknown("the node is stopping".into()))??;
        Ok(Served {
            results: response.outcome.results,
            error: response.outcome.error,
            raft_index: Some(response.raft_index),
            served_by,
        })
    }
}

async fn forward_batches(context: Context, mut waiting: mpsc::Receiver<Waiting>) {
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
        let context = context.clone();
        tokio::spawn(async move { send_batch(&context, batch, permit).await });
    }
}

/// The request, with the writes' bounds if the cluster's version has them.
fn as_known(peers: &Peers, writes: Vec<ForwardedWrite>) -> PeerRequest {
    if peers.format_version() < 2 {
        return PeerRequest::Write(writes);
    }
    let bounds = writes.iter().map(|w| w.request.rules.bounds()).collect();
    PeerRequest::BoundedWrite(writes, bounds)
}

async fn send_batch(context: &Context, batch: Vec<Waiting>, permit: OwnedSemaphorePermit) {
    let Context {
        peers, leadership, ..
    } = context;
    // The longest timeout in the batch applies: cutting off its caller would report an unknown result without
    // need.
    let limit = batch.iter().map(|w| w.timeout).max().unwrap_or_default();
    let retries = batch.iter().map(|w| w.retries).max().unwrap_or_default();
    let (mut writes, mut replies): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|w| (w.write, w.reply)).unzip();
    let mut permit = Some(permit);
    let mut attempts = 0;
    let mut deadline = Instant::now() + limit;
    let mut waiting = None;
    loop {
        let mut failure = StoreError::LeaderNotFound;
        let address = leadership.borrow().addr.clone();
        if let Some(address) = address {
            let request_message = as_known(peers, writes);
            let left = leader::CallLimit {
                time: deadline.saturating_duration_since(Instant::now()),
                is_patient: Caller::is_patient(limit),
            };
            // Later batches need not wait for a deposed leader.
            let deposed = || drop(permit.take());
            let response =
                leader::call(peers, leadership, &address, &request_message, left, deposed).await;
            let (PeerRequest::Write(sent) | PeerRequest::BoundedWrite(sent, _)) = request_message
            else {
                return;
            };
            match response {
                Ok(PeerResponse::Write(responses)) if responses.len() == replies.len() => {
                    (writes, replies) = deliver(sent, replies, responses, &address);
                    if writes.is_empty() {
                        return;
                    }
                }
                Ok(_) => {
                    let text = format!("{address} sent an unexpected response");
                    return fail_all(replies, &StoreError::Unknown(text));
                }
                Err(error) if !error.nothing_sent() => {
                    return fail_all(replies, &StoreError::Unknown(error.to_string()));
                }
                Err(error) => {
                    writes = sent;
                    if attempts < retries && !matches!(error, WireError::Unresponsive { .. }) {
                        attempts += 1;
                        deadline = Instant::now() + limit;
                        for write in &writes {
                            count_retry(&context.local.metrics, write.request.kind);
                        }
                    }
                    failure = StoreError::Refused(error.to_string());
                }
            }
        }
        // No effect so far, so the next leader gets the batch. Later batches need not wait for that either.
        drop(permit.take());
        let retry_limit = waiting.get_or_insert_with(|| {
            RetryLimit::new(&context.local, context.election_timeout, deadline)
        });
        if !retry_limit.again(leadership).await {
            return fail_all(replies, &failure);
        }
    }
}

/// Sends each caller its result; returns the writes that the node did not accept because it does not lead.
fn deliver(
    writes: Vec<ForwardedWrite>,
    replies: Vec<Reply>,
    responses: Vec<Result<WriteResponse, StoreError>>,
    address: &str,
) -> (Vec<ForwardedWrite>, Vec<Reply>) {
    let mut left = (Vec::new(), Vec::new());
    for ((write, reply), response) in writes.into_iter().zip(replies).zip(responses) {
        match response {
            Err(StoreError::NotLeader | StoreError::LeaderNotFound) => {
                left.0.push(write);
                left.1.push(reply);
            }
            response => _ = reply.send(response.map(|a| (a, address.to_owned()))),
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

fn fail_all(replies: Vec<Reply>, error: &StoreError) {
    for reply in replies {
        let _ = reply.send(Err(error.clone()));
    }
}
