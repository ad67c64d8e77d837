//! Writes: proposed here, or forwarded to the leader.
use std::time::{Duration, Instant};

use node_api::param::Level;
use node_db::{Outcome, Read, Request, Rules};

use super::{Caller, Opened, ReadResponse, Store, forwarder::FORWARD_BYTES};
use crate::{
    bounds,
    command::size,
    internode::messages::WriteResponse,
    raft::leader::commit::{FailedProposal, ProposeError},
    store_types::{ReadOptions, Served, StoreError},
};

/// Error text when the caller's `db_timeout` ends before the result is known.
const EXECUTE_TIMEOUT: &str = "execute timeout; the write may still take effect";
/// Added to `db_timeout` where that bounds the work of every node: a step may take longer here than the rate
/// says, and the write may wait behind others.
pub(super) const VERDICT_GRACE: Duration = Duration::from_secs(10);

impl Store {
    /// Runs statements through the log. The leader sets `request.stamp`. `limit` (`db_timeout`) bounds the
    /// work of the statements, counted alike by every node; see [`bounds`].
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
                // Entries of that version have no bounds.
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
        if self.is_restoring() {
            return Err(StoreError::NotReady);
        }
        let mut request = request;
        let mut waiting = None;
        loop {
            if opened.consensus.is_mine() {
                if let Err(hangs) = opened.consensus.disk_responds() {
                    return Err(StoreError::Refused(hangs.to_string()));
                }
                match self.propose(opened, request).await {
                    Ok(served) => return Ok(served),
                    // Leadership was lost just before; the next leader gets the write.
                    Err(FailedProposal {
                        error: ProposeError::NotLeader,
                        mut requests,
                    }) => request = requests.pop().ok_or(StoreError::LeaderNotFound)?,
                    Err(failed) => return Err(failed.error.into()),
                }
            } else if Self::elsewhere(opened).is_some() {
                return opened.forwarder.forward(request, caller).await;
            }
            let retry_limit = waiting
                .get_or_insert_with(|| self.retry_limit(opened, Instant::now() + caller.timeout));
            if !retry_limit
                .again(&opened.consensus.watch_leadership())
                .await
            {
                return Err(StoreError::LeaderNotFound);
            }
        }
    }

    /// Runs a mix of reads and writes: locally if all are reads and the level allows, else through the log.
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
        let mut reads = opened.db.read_only(&request.statements).await.into_iter();
        let only_reads = reads.all(|reads| reads);
        if only_reads && options.level != Level::Strong {
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
        let served = served.map_err(|error| if only_reads { error.of_read() } else { error });
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

    /// Serves forwarded writes in order; never forwards again. One log entry may carry all of them, if they
    /// are not too large for that.
    pub async fn write_as_leader(
        &self,
        requests: Vec<Request>,
    ) -> Vec<Result<WriteResponse, StoreError>> {
        let opened = match self.open() {
            Ok(opened) => opened,
            Err(error) => return requests.iter().map(|_| Err(error.clone())).collect(),
        };
        if self.is_restoring() {
            return requests.iter().map(|_| Err(StoreError::NotReady)).collect();
        }
        // Only an older node sends a write that is too large; it has no error of its own for that.
        let refusals: Vec<_> = requests.iter().map(|r| size::check(r).err()).collect();
        let allowed = requests.into_iter().zip(&refusals);
        let allowed = allowed.filter(|(_, refused)| refused.is_none());
        let allowed = allowed.map(|(request, _)| request).collect();
        let runs = size::runs(allowed, FORWARD_BYTES, size::weight).into_iter();
        // Each run is in the proposer's queue before the next one starts.
        let proposed = futures_util::future::join_all(runs.map(|run| propose_run(opened, run)));
        let mut answers = proposed.await.into_iter().flatten();
        let answers = refusals.into_iter().map(|refused| match refused {
            Some(refused) => Err(StoreError::Refused(refused.to_string())),
            None => answers
                .next()
                .unwrap_or_else(|| Err(StoreError::Unknown("no result for this write".into()))),
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
