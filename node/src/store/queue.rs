//! Queued writes: requests that get a response before they are written, and are written many at a time.
//!
//! A queue exists in this node's memory only. Its one task takes requests in the order of their sequence
//! numbers and sends them as one write. A write is retried only if it can succeed later and certainly had no
//! effect so far; a request that can never succeed is dropped with a log line, so that it does not block
//! everything behind it. A caller that waits for its request gets the result.
mod verdict;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use node_contract::{duration, status::QueueStatus};
use node_db::{Kind, Request, Stamp};
use node_values::{Statement, StatementResult, Value};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use self::verdict::Decision;
use self::verdict::{Failed, Verdict, classify, shares};
use super::{Caller, Store};
use crate::{
    metrics::{Counter, Metrics},
    store_types::{Credentials, Served, StoreError},
};

/// Pause between attempts while no leader can be reached.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Attempts at a write that was refused without effect for a reason that may pass (a full disk, an
/// unreachable node). Far longer than an election; then its requests are tried one by one.
const MAX_ATTEMPTS: u32 = 30;
/// Attempts at a single request of a write that was split: the requests around it have waited long enough.
const MAX_ATTEMPTS_ALONE: u32 = 3;
/// How long the queue continues to write after the stop signal, within the 10 s that Kubernetes gives by
/// default.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Statements of a batch stay below about this, whatever the number of requests: one batch is one log entry.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Bytes of all queued requests; beyond it callers wait, as they do when the queue is full by number.
const MAX_QUEUE_BYTES: usize = 64 << 20;
/// Unit in which the bytes in the queue are counted, so that the largest request fits a 32-bit number of
/// permits.
const BYTES_PER_PERMIT: usize = 1 << 10;
/// Limit for talking to another node, per attempt.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(30);

/// How a queue behaves (`-write-queue-…`).
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Requests that may wait; at least 1 (default 1024).
    pub capacity: usize,
    /// Requests in one write; at least 1 (default 128).
    pub batch_size: usize,
    /// How long the first request of a write waits for others (default 50 ms).
    pub timeout: Duration,
    /// Each write is a transaction (default false).
    pub transaction: bool,
}

/// The queue no longer takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("queue stopped")]
pub struct QueueStopped;

/// A queued request.
#[derive(Debug)]
pub struct Ticket {
    /// Later numbers are written later.
    pub sequence: i64,
    decided: oneshot::Receiver<Decision>,
}

impl Ticket {
    /// Waits until the write with this request was made or given up (which the log and `/status` report as
    /// well).
    ///
    /// # Errors
    /// The queue stopped before it came to this request.
    pub async fn decided(self) -> Result<Decision, QueueStopped> {
        self.decided.await.map_err(|_| QueueStopped)
    }
}

#[derive(Debug)]
struct Item {
    sequence: i64,
    statements: Vec<Statement>,
    credentials: Option<Credentials>,
    bytes: usize,
    decided: oneshot::Sender<Decision>,
    /// Gives the bytes back when the item is dropped.
    _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Shared {
    sender: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    /// The number of the last request. Locked while an item is queued, so that numbers and order agree.
    sequence: Mutex<i64>,
    settings: QueueSettings,
    metrics: Arc<Metrics>,
    failures: Failures,
    stop: CancellationToken,
}

/// Failures, for `/status`.
#[derive(Debug, Default)]
struct Failures {
    statements: AtomicU64,
    dropped: AtomicU64,
    unknown: AtomicU64,
    last: Mutex<Option<String>>,
}

/// A handle to the queue; cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue(Arc<Shared>);

impl Queue {
    /// Starts the queue's task; it ends, after writing what it holds or 5 s, when `stop` is cancelled.
    pub fn start(
        store: Store,
        settings: QueueSettings,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let write = move |request: Request, caller: Caller| {
            let store = store.clone();
            async move { store.execute(request, None, &caller).await }
        };
        Self::start_with(write, settings, metrics, stop)
    }

    fn start_with<W, F>(
        write: W,
        settings: QueueSettings,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>)
    where
        W: Fn(Request, Caller) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Served, StoreError>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(settings.capacity.max(1));
        let now = crate::clock::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let shared = Shared {
            sender,
            room: Arc::new(Semaphore::new(MAX_QUEUE_BYTES / BYTES_PER_PERMIT)),
            sequence: Mutex::new(i64::try_from(now.as_nanos()).unwrap_or(0)),
            settings,
            metrics,
            failures: Failures::default(),
            stop,
        };
        let shared = Arc::new(shared);
        let task = Task {
            receiver,
            write,
            held: None,
            shared: Arc::clone(&shared),
        };
        (Self(shared), tokio::spawn(task.run()))
    }

    /// Queues a request; waits while the queue is full. Without statements it is done as soon as all before
    /// it are.
    ///
    /// # Errors
    /// See [`QueueStopped`].
    pub async fn push(
        &self,
        statements: Vec<Statement>,
        caller: Option<Credentials>,
    ) -> Result<Ticket, QueueStopped> {
        let shared = &self.0;
        let bytes = size(&statements);
        let permits = bytes.min(MAX_QUEUE_BYTES).div_ceil(BYTES_PER_PERMIT);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let admitted = async {
            let room = Arc::clone(&shared.room)
                .acquire_many_owned(permits)
                .await
                .ok()?;
            Some((room, shared.sender.reserve().await.ok()?))
        };
        let admitted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => None,
            admitted = admitted => admitted,
        };
        let (room, place) = admitted.ok_or(QueueStopped)?;
        shared
            .metrics
            .add(Counter::QueueStatementsRx, statements.len() as u64);
        let (decided, decision) = oneshot::channel();
        let mut last = shared.sequence.lock();
        *last += 1;
        let sequence = *last;
        place.send(Item {
            sequence,
            statements,
            credentials: caller,
            bytes,
            decided,
            _room: room,
        });
        Ok(Ticket {
            sequence,
            decided: decision,
        })
    }

    /// The queue's part of `/status`.
    pub fn status(&self) -> QueueStatus {
        let shared = &self.0;
        let failures = &shared.failures;
        let last_error = failures.last.lock().clone();
        QueueStatus {
            max_size: shared.settings.capacity,
            batch_size: shared.settings.batch_size,
            timeout: duration::format(shared.settings.timeout),
            sequence_number: *shared.sequence.lock(),
            waiting: shared.sender.max_capacity() - shared.sender.capacity(),
            failed_statements: failures.statements.load(Ordering::Relaxed),
            dropped_requests: failures.dropped.load(Ordering::Relaxed),
            unknown_requests: failures.unknown.load(Ordering::Relaxed),
            last_error: last_error.unwrap_or_default(),
        }
    }
}

/// Approximate bytes of statements; never less than their text.
fn size(statements: &[Statement]) -> usize {
    let value = |value: &Value| match value {
        Value::Null | Value::Integer(_) | Value::Real(_) => 8,
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
    };
    let parameters = |statement: &Statement| -> usize {
        statement
            .parameters
            .iter()
            .map(|given| 8 + value(&given.value))
            .sum()
    };
    statements
        .iter()
        .map(|statement| 16 + statement.sql.len() + parameters(statement))
        .sum()
}

struct Task<W> {
    receiver: mpsc::Receiver<Item>,
    write: W,
    /// An item that was received but belongs to the next batch.
    held: Option<Item>,
    shared: Arc<Shared>,
}

impl<W, F> Task<W>
where
    W: Fn(Request, Caller) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Served, StoreError>> + Send + 'static,
{
    async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let deadline = async move {
            stop.cancelled().await;
            sleep(STOP_LIMIT).await;
        };
        tokio::select! {
            () = self.work() => return,
            () = deadline => {}
        }
        self.receiver.close();
        let mut lost = u64::from(self.held.take().is_some());
        while self.receiver.try_recv().is_ok() {
            lost += 1;
        }
        tracing::warn!(
            "write queue stopped before it could write everything: the running write and {lost} more requests are lost"
        );
    }

    async fn work(&mut self) {
        while let Some(first) = self.next().await {
            let batch = self.collect(first).await;
            self.process(batch).await;
        }
    }

    /// The next request; `None` when stopped and empty.
    async fn next(&mut self) -> Option<Item> {
        if let Some(item) = self.held.take() {
            return Some(item);
        }
        let stop = self.shared.stop.clone();
        tokio::select! {
            biased;
            item = self.receiver.recv() => item,
            () = stop.cancelled() => {
                // Callers that reserved a place before may still queue their request; no others.
                self.receiver.close();
                self.receiver.recv().await
            }
        }
    }

    /// Collects the requests for one write with `first`: same credentials, within the limits, before the
    /// timeout.
    async fn collect(&mut self, first: Item) -> Vec<Item> {
        let settings = self.shared.settings.clone();
        let until = Instant::now() + settings.timeout;
        let mut bytes = first.bytes;
        let mut batch = vec![first];
        let mut filled = Counter::QueueNumBatch;
        while batch.len() < settings.batch_size && bytes < MAX_BATCH_BYTES {
            let more = tokio::select! {
                biased;
                more = timeout_at(until, self.receiver.recv()) => more,
                () = self.shared.stop.cancelled() => Ok(self.receiver.try_recv().ok()),
            };
            match more {
                Ok(Some(item))
                    if item.credentials == batch[0].credentials
                        && bytes + item.bytes <= MAX_BATCH_BYTES =>
                {
                    bytes += item.bytes;
                    batch.push(item);
                }
                Ok(other) => {
                    self.held = other;
                    break;
                }
                Err(_elapsed) => {
                    filled = Counter::QueueNumTimeout;
                    break;
                }
            }
        }
        self.shared.metrics.count(filled);
        batch
    }

    async fn process(&self, batch: Vec<Item>) {
        let decisions = match self.attempt(&batch, MAX_ATTEMPTS).await {
            Err(Failed::Refused(why)) if batch.len() > 1 => {
                tracing::warn!(
                    "write queue: {} requests were refused together ({why}); trying them one by one",
                    batch.len()
                );
                let mut decisions = Vec::new();
                for item in &batch {
                    let alone = std::slice::from_ref(item);
                    let outcome = self.attempt(alone, MAX_ATTEMPTS_ALONE).await;
                    decisions.extend(self.shared.decide(alone, outcome));
                }
                decisions
            }
            outcome => self.shared.decide(&batch, outcome),
        };
        for (item, decision) in batch.into_iter().zip(decisions) {
            // The caller may have stopped waiting.
            let _ = item.decided.send(decision);
        }
    }

    /// Writes some requests as one: a result per statement that ran, or why they cannot succeed.
    async fn attempt(
        &self,
        items: &[Item],
        max_attempts: u32,
    ) -> Result<Vec<StatementResult>, Failed> {
        let shared = &self.shared;
        let statements: Vec<Statement> = items
            .iter()
            .flat_map(|item| item.statements.iter().cloned())
            .collect();
        let count = statements.len() as u64;
        let Some(first) = items.first().filter(|_| count > 0) else {
            shared.metrics.count(Counter::QueueNumFlush);
            return Ok(Vec::new());
        };
        let request = Request {
            kind: Kind::Execute,
            transaction: shared.settings.transaction,
            qualify_columns: false,
            statements,
            stamp: Stamp::default(),
            rules: node_db::Rules::V1,
        };
        let caller = Caller {
            client: None,
            credentials: first.credentials.clone(),
            timeout: FORWARD_TIMEOUT,
            retries: 0,
        };
        let mut failed = 0;
        let mut said = String::new();
        loop {
            let outcome = (self.write)(request.clone(), caller.clone()).await;
            shared.count_outcome(&outcome);
            match classify(&outcome, shared.settings.transaction) {
                Verdict::Written => {
                    shared
                        .metrics
                        .add(Counter::HttpQueuedExecutionsNumStmtsTx, count);
                    shared.metrics.add(Counter::QueueStatementsTx, count);
                    let results = outcome.map_or_else(|_| Vec::new(), |served| served.results);
                    shared.note_slots(&results);
                    return Ok(results);
                }
                Verdict::Refused(why) => return Err(Failed::Refused(why)),
                Verdict::Unknown(why) => return Err(Failed::Unknown(why)),
                Verdict::Retry { error, limited } => {
                    failed += u32::from(limited);
                    if failed >= max_attempts {
                        return Err(Failed::Refused(error));
                    }
                    let why = error.to_string();
                    if why != said {
                        tracing::warn!(
                            "write queue: cannot write yet, trying again every {RETRY_INTERVAL:?}: {why}"
                        );
                        shared.failures.note(&why);
                        said = why;
                    }
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }
}

impl Shared {
    fn count_outcome(&self, outcome: &Result<Served, StoreError>) {
        let counter = match outcome {
            Ok(Served { error: None, .. }) => {
                self.metrics.count(Counter::HttpQueuedExecutionsOk);
                return;
            }
            Err(StoreError::LeaderNotFound) => Counter::HttpQueuedExecutionsNoLeader,
            Err(StoreError::NotLeader) => Counter::HttpQueuedExecutionsNotLeader,
            Err(StoreError::Unknown(_)) => Counter::HttpQueuedExecutionsLeadershipLost,
            _ => Counter::HttpQueuedExecutionsUnknownError,
        };
        self.metrics.count(counter);
        self.metrics.count(Counter::HttpQueuedExecutionsFailed);
    }

    /// Statements of a write that was made may still have failed one by one.
    fn note_slots(&self, results: &[StatementResult]) {
        let mut failed = 0;
        let mut last = None;
        for result in results {
            if let StatementResult::Error(why) = result {
                failed += 1;
                last = Some(why);
            }
        }
        if let Some(why) = last {
            self.failures
                .statements
                .fetch_add(failed, Ordering::Relaxed);
            self.metrics.add(Counter::QueueStatementsFailed, failed);
            self.failures.note(why);
        }
    }

    /// Counts and logs failures, and returns the result of each request.
    fn decide(
        &self,
        items: &[Item],
        outcome: Result<Vec<StatementResult>, Failed>,
    ) -> Vec<Decision> {
        let error = match outcome {
            Ok(results) => return shares(items.iter().map(|item| item.statements.len()), &results),
            Err(Failed::Refused(error)) => {
                for item in items {
                    self.drop_request(item, &error.to_string());
                }
                error
            }
            Err(Failed::Unknown(error)) => {
                for item in items {
                    self.note_unknown(item, &error.to_string());
                }
                error
            }
        };
        items.iter().map(|_| Err(error.clone())).collect()
    }

    fn note_unknown(&self, item: &Item, why: &str) {
        tracing::error!(
            "write queue: it is not known whether request {} with {} statements was written; it is not tried again, or it could be written twice: {why}",
            item.sequence,
            item.statements.len()
        );
        self.failures.unknown.fetch_add(1, Ordering::Relaxed);
        self.metrics.count(Counter::QueueRequestsUnknown);
        self.failures.note(why);
    }

    fn drop_request(&self, item: &Item, why: &str) {
        tracing::error!(
            "write queue: request {} with {} statements was dropped: {why}",
            item.sequence,
            item.statements.len()
        );
        self.failures.dropped.fetch_add(1, Ordering::Relaxed);
        self.metrics.count(Counter::QueueRequestsDropped);
        self.failures.note(why);
    }
}

impl Failures {
    fn note(&self, why: &str) {
        *self.last.lock() = Some(why.to_owned());
    }
}

/// Waits for the queue's task to end; for the node's stop.
pub async fn stopped(task: JoinHandle<()>) {
    // The task ends within its own limit; the second is added for the scheduler.
    if timeout(STOP_LIMIT + Duration::from_secs(1), task)
        .await
        .is_err()
    {
        tracing::warn!("write queue did not stop in time");
    }
}

#[cfg(test)]
mod tests;
