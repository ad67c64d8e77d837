//! Reads: carries out what `level.rs` decides.
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use node_api::param::Level;
use node_db::{Origin, Outcome, Read, ReadOutput, Request, Rules, Stamp};
use node_values::StatementResult;

use super::{
    Caller, Opened, ReadResponse, Store, Streamed,
    leader::{self, RetryLimit},
    level::{Freshness, ReadPath, Standing, is_stale, read_path},
    write::VERDICT_GRACE,
};
use crate::{
    bounds,
    command::size,
    internode::{
        messages::{PeerRequest, PeerResponse},
        wire::WireError,
    },
    metrics::Counter,
    raft::{ReadIndexError, leader::commit::ProposeError},
    store_types::{ReadOptions, Served, StoreError},
};

/// VM instructions that a read may take on the thread that received it: some 100 µs, enough for reads by key.
/// Longer ones go to a reader thread, so that they never hold up the network.
const INLINE_VM_STEPS: u32 = 2_000;
/// A write to the log takes a few milliseconds. When one takes longer than this, the disk may hang, which is
/// reported after three seconds (`raft/maintenance/disk_watchdog.rs`).
const SLOW_DISK: Duration = Duration::from_millis(200);
/// The cluster's format version from which every member sends large results in pieces.
const PARTS_VERSION: u16 = 2;
/// Error text of a read through the log when the caller's `db_timeout` ends before its result is known.
const QUERY_TIMEOUT: &str = "query timeout";
/// Limit of a read while the disk does not respond: either it needs no disk, or it will not end.
const HUNG_READ_LIMIT: Duration = Duration::from_secs(1);

impl Store {
    /// Runs reads at the requested level.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn query(
        &self,
        read: Read,
        options: &ReadOptions,
        caller: &Caller,
    ) -> Result<ReadResponse, StoreError> {
        let opened = self.open()?;
        // Only for reads that are forwarded or wait; a read that is served here at once needs no clock.
        let (mut clock, mut retry_limit, mut retried) = (None, None, 0);
        loop {
            let failure = match read_path(options.level, self.standing(opened)) {
                ReadPath::Forward => None,
                ReadPath::NoLeader => Some(StoreError::LeaderNotFound),
                here => match self
                    .read_here(opened, here, &read, options, true, || caller.origin())
                    .await
                {
                    // Leadership was lost meanwhile; a read has no effect, so it can simply be retried.
                    Err(error) if error.is_no_leader() => Some(error),
                    result => return result,
                },
            };
            let deadline = *clock.get_or_insert_with(|| Instant::now() + caller.timeout);
            let failure = match failure {
                Some(failure) => failure,
                None => {
                    let forwarded =
                        self.forward_read(opened, &read, options, caller, deadline, &mut retried);
                    match forwarded.await {
                        Ok(Some(served)) => return Ok(served),
                        // No response: another node leads now, perhaps this one.
                        Ok(None) => continue,
                        Err(Failed::Final(error)) => return Err(error),
                        Err(Failed::Gone(error)) => error,
                    }
                }
            };
            let retry_limit = retry_limit.get_or_insert_with(|| self.retry_limit(opened, deadline));
            if !retry_limit
                .again(&opened.consensus.watch_leadership())
                .await
            {
                return Err(failure.at_deadline());
            }
        }
    }

    /// Serves a forwarded read; never forwards again. `flows`: the sender accepts a large result in pieces.
    ///
    /// # Errors
    /// As [`Store::query`], with `not leader` if this node lost its leadership.
    pub async fn query_as_leader(
        &self,
        read: &Read,
        options: &ReadOptions,
        flows: bool,
        origin: Origin,
    ) -> Result<ReadResponse, StoreError> {
        let opened = self.open()?;
        match read_path(options.level, self.standing(opened)) {
            ReadPath::Forward | ReadPath::NoLeader => Err(StoreError::NotLeader),
            here => match self
                .read_here(opened, here, read, options, flows, || origin)
                .await
            {
                // Other nodes do not know this kind of failure.
                Err(StoreError::TooLarge(text)) => Err(StoreError::Refused(text)),
                result => result,
            },
        }
    }

    /// The retry limit of a call that certainly had no effect.
    pub(super) fn retry_limit(&self, opened: &Opened, deadline: Instant) -> RetryLimit {
        let election_timeout = opened.consensus.settings().election_timeout;
        RetryLimit::new(&self.0.local, election_timeout, deadline)
    }

    pub(super) fn standing(&self, opened: &Opened) -> Standing {
        Standing {
            voter: self.0.settings.voter,
            leads: opened.consensus.leads(),
            leader_elsewhere: Self::elsewhere(opened).is_some(),
        }
    }

    async fn read_here(
        &self,
        opened: &Opened,
        how: ReadPath,
        read: &Read,
        options: &ReadOptions,
        flows: bool,
        origin: impl FnOnce() -> Origin,
    ) -> Result<ReadResponse, StoreError> {
        match how {
            ReadPath::Local if self.too_stale(opened, options) => {
                let outcome = Outcome {
                    error: Some("stale read".into()),
                    ..Outcome::default()
                };
                return Ok(ReadResponse::Whole(self.served(outcome, None)));
            }
            ReadPath::ReadIndex => confirm(opened, options.linearizable_timeout).await?,
            ReadPath::Log => {
                let served = self.read_through_log(opened, read).await;
                return served.map(ReadResponse::Whole);
            }
            ReadPath::Local | ReadPath::LocalAsLeader | ReadPath::Forward | ReadPath::NoLeader => {}
        }
        let output = match opened.consensus.disk_responds() {
            Ok(()) => match read_on_this_thread(opened, read) {
                Some(outcome) => ReadOutput::Complete(outcome),
                None => read_on_its_thread(opened, read, flows, origin()).await?,
            },
            // What is in memory can still be read, but not on a thread that others need.
            Err(hangs) => {
                let reading = read_on_its_thread(opened, read, flows, origin());
                tokio::time::timeout(HUNG_READ_LIMIT, reading)
                    .await
                    .unwrap_or_else(|_| Err(StoreError::Refused(hangs.to_string())))?
            }
        };
        Ok(match output {
            ReadOutput::Complete(outcome) => {
                self.count_read(read, &outcome);
                ReadResponse::Whole(self.served(outcome, None))
            }
            ReadOutput::Streamed(parts) => {
                self.count_read(read, &Outcome::default());
                let metrics = Arc::clone(&self.0.local.metrics);
                ReadResponse::Parts(Streamed::here(parts, self.0.api_addr.clone(), metrics))
            }
        })
    }

    /// Counts a read; reads through the log are counted when they are applied.
    fn count_read(&self, read: &Read, outcome: &Outcome) {
        let metrics = &self.0.local.metrics;
        let failed = |result: &&StatementResult| matches!(result, StatementResult::Error(_));
        let errors = outcome.results.iter().filter(failed).count();
        metrics.add(Counter::DbQueries, read.statements.len() as u64);
        metrics.add(Counter::DbQueryErrors, errors as u64);
        if read.transaction {
            metrics.count(Counter::DbQueryTransactions);
        }
    }

    fn too_stale(&self, opened: &Opened, options: &ReadOptions) -> bool {
        if options.freshness.is_zero() || opened.consensus.is_mine() {
            return false;
        }
        let progress = opened.consensus.progress();
        let applied = progress.applied_unix_micros.load(Ordering::Relaxed);
        let stamped = progress.stamped_unix_micros.load(Ordering::Relaxed);
        is_stale(Freshness {
            limit: options.freshness,
            strict: options.freshness_strict,
            since_contact: self.0.local.since_leader_contact(),
            applied_index: opened.consensus.applied_index(),
            leader_commit: self.0.local.leader_commit(),
            apply_lag: Duration::from_micros(applied.saturating_sub(stamped)),
        })
    }

    async fn read_through_log(&self, opened: &Opened, read: &Read) -> Result<Served, StoreError> {
        let request = Request {
            kind: read.kind,
            transaction: read.transaction,
            qualify_columns: read.qualify_columns,
            statements: read.statements.clone(),
            stamp: Stamp::default(),
            rules: Rules::V2(bounds::of_caller(read.timeout)),
        };
        size::check(&request)?;
        let proposed = self.propose(opened, request);
        let done = match read.timeout {
            None => proposed.await,
            Some(limit) => tokio::time::timeout(limit.saturating_add(VERDICT_GRACE), proposed)
                .await
                .unwrap_or_else(|_| Err(ProposeError::Unknown(QUERY_TIMEOUT.into()).into())),
        };
        done.map_err(|failed| match failed.error {
            // For a write the result would be unknown; a read can be repeated.
            ProposeError::Unknown(_) if !opened.consensus.is_mine() => StoreError::NotLeader,
            error => StoreError::from(error).of_read(),
        })
    }

    /// `None` if the leader did not respond and another node leads now. `retried` counts the caller's retries
    /// over all leaders.
    async fn forward_read(
        &self,
        opened: &Opened,
        read: &Read,
        options: &ReadOptions,
        caller: &Caller,
        deadline: Instant,
        retried: &mut u32,
    ) -> Result<Option<ReadResponse>, Failed> {
        let Some(address) = Self::elsewhere(opened) else {
            return Err(Failed::Gone(StoreError::LeaderNotFound));
        };
        let request_message = forwarded_request(opened, read, options, caller);
        let leadership = opened.consensus.watch_leadership();
        let peers = &self.0.peers;
        let mut limit = leader::CallLimit {
            time: deadline.saturating_duration_since(Instant::now()),
            is_patient: Caller::is_patient(caller.timeout),
        };
        loop {
            match leader::call_with_connection(
                peers,
                &leadership,
                &address,
                &request_message,
                limit,
                || (),
            )
            .await
            {
                Ok((PeerResponse::Served(Ok(served)), _)) => {
                    return Ok(Some(ReadResponse::Whole(Served {
                        served_by: address,
                        ..served
                    })));
                }
                Ok((PeerResponse::Parts, Some(connection))) => {
                    let streamed = Streamed::there(connection, address);
                    return Ok(Some(ReadResponse::Parts(streamed)));
                }
                Ok((PeerResponse::Served(Err(error)), _)) if error.is_no_leader() => {
                    return Err(Failed::Gone(error));
                }
                Ok((PeerResponse::Served(Err(error)), _)) => {
                    return Err(Failed::Final(error.of_read()));
                }
                Ok(_) => {
                    return Err(Failed::Final(StoreError::Refused(format!(
                        "{address} sent an unexpected response"
                    ))));
                }
                Err(WireError::Unresponsive { .. }) => return Ok(None),
                // A read has no effect, so any failure may be retried.
                Err(_) if *retried < caller.retries => {
                    *retried += 1;
                    limit.time = caller.timeout;
                    let metrics = &self.0.local.metrics;
                    metrics.count(Counter::ClusterNumClientRetries);
                    metrics.count(Counter::ClusterNumClientQueryRetries);
                }
                Err(e) => return Err(Failed::Gone(StoreError::Refused(e.to_string()))),
            }
        }
    }
}

/// The message by which the leader is asked for a read: in parts if all members understand that.
fn forwarded_request(
    opened: &Opened,
    read: &Read,
    options: &ReadOptions,
    caller: &Caller,
) -> PeerRequest {
    let (read, options) = (read.clone(), options.clone());
    let credentials = caller.credentials.clone();
    if opened.consensus.version() >= PARTS_VERSION {
        PeerRequest::ReadParts {
            read,
            options,
            credentials,
            client: caller.client,
        }
    } else {
        PeerRequest::Read {
            read,
            options,
            credentials,
        }
    }
}

/// Why a forwarded read has no result.
enum Failed {
    /// The leader is gone or unreachable: the next one may serve the read.
    Gone(StoreError),
    /// The read itself failed.
    Final(StoreError),
}

/// Reads on this thread, unless a write to the disk takes suspiciously long: a read that misses the cache
/// would block the network.
pub(super) fn read_on_this_thread(opened: &Opened, read: &Read) -> Option<Outcome> {
    let age = opened.consensus.log().oldest_write_age();
    if age.is_some_and(|age| age > SLOW_DISK) {
        return None;
    }
    opened.db.read_inline(read, INLINE_VM_STEPS)
}

/// Dropping the future ends the read.
async fn read_on_its_thread(
    opened: &Opened,
    read: &Read,
    flows: bool,
    origin: Origin,
) -> Result<ReadOutput, StoreError> {
    let answer = if flows {
        opened.db.read_streamed(read.clone(), origin).await
    } else {
        let outcome = opened.db.read_for(read.clone(), origin).await;
        outcome.map(ReadOutput::Complete)
    };
    answer.map_err(|_| StoreError::NotOpen)
}

async fn confirm(opened: &Opened, limit: Duration) -> Result<(), StoreError> {
    opened
        .consensus
        .read_index(limit)
        .await
        .map_err(|e| match e {
            ReadIndexError::NotLeader => StoreError::NotLeader,
            ReadIndexError::NoQuorum => StoreError::LeaderNotFound,
            ReadIndexError::Timeout(_) | ReadIndexError::Stopped(_) => {
                StoreError::Refused(e.to_string())
            }
        })
}

impl ReadOptions {
    /// A level, with everything else at its default.
    pub fn at(level: Level) -> Self {
        Self {
            level,
            freshness: Duration::ZERO,
            freshness_strict: false,
            linearizable_timeout: node_api::param::DEFAULT_LINEARIZABLE_TIMEOUT,
        }
    }
}
