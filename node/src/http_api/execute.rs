//! `POST /db/execute`: writes, directly or through the queue.
use std::{sync::Arc, time::Instant};

use node_api::{ParseError, Reply};
use node_db::{Kind, Request, Stamp};

use super::{
    body::{RequestBody, collect},
    error::{Failure, error_reply},
    limits::MAX_BODY_BYTES,
    param::Call,
    redirect,
    reply::{Response, shape},
    state::HttpState,
};
use crate::metrics::Counter;

pub(super) async fn handle(
    state: &Arc<HttpState>,
    call: &Call,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    let started = Instant::now();
    state.metrics.count(Counter::HttpExecutions);
    if call.params.queue {
        return Box::pin(queue(state, call, body, started)).await;
    }
    if let Some(elsewhere) = redirect::to_leader(state, call).await? {
        return Ok(elsewhere);
    }
    let body = collect(body, MAX_BODY_BYTES, &state.memory).await?;
    let statements = call.statements(&body)?;
    call.note_statements(0, statements.len());
    state
        .metrics
        .add(Counter::HttpExecuteStmtsRx, statements.len() as u64);
    let request = Request {
        kind: if call.params.noparse {
            Kind::ExecutePlain
        } else {
            Kind::Execute
        },
        transaction: call.params.transaction,
        qualify_columns: false,
        statements,
        stamp: Stamp::default(),
        rules: node_db::Rules::V1,
    };
    let outcome = state
        .store
        .execute(request, call.params.db_timeout, &call.caller())
        .await;
    state.results_reply(call, outcome, started)
}

/// Puts the statements into the queue. With `wait`, replies when they have been written.
async fn queue(
    state: &HttpState,
    call: &Call,
    body: impl RequestBody,
    started: Instant,
) -> Result<Response, Failure> {
    let params = &call.params;
    state.metrics.count(Counter::HttpQueuedExecutions);
    if !params.noleader && state.store.leader().is_none() {
        return Err(Failure::QueueWithoutLeader);
    }
    let body = collect(body, MAX_BODY_BYTES, &state.memory).await?;
    let statements = match call.statements(&body) {
        // With `wait` a request may have no statements: it waits until the queue is flushed.
        Err(Failure::Statements(ParseError::Empty)) if params.wait => Vec::new(),
        parsed => parsed?,
    };
    call.note_statements(0, statements.len());
    state.metrics.add(
        Counter::HttpQueuedExecutionsNumStmtsRx,
        statements.len() as u64,
    );
    let pushed = state.queue.push(statements, call.credentials.clone()).await;
    let ticket = pushed.map_err(|_| Failure::QueueStopped)?;
    let sequence = ticket.sequence;
    let mut reply = Reply::default();
    if params.wait {
        state.metrics.count(Counter::HttpQueuedExecutionsWait);
        let decided = tokio::time::timeout(params.timeout, ticket.decided()).await;
        let decided = decided.map_err(|_| {
            state
                .metrics
                .count(Counter::HttpQueuedExecutionsWaitTimeout);
            Failure::QueueTimeout
        })?;
        // The same reply as without the queue.
        if let Err(error) = decided.map_err(|_| Failure::QueueStopped)? {
            reply = error_reply(error)?;
        }
    }
    let time_secs = params.timings.then(|| started.elapsed().as_secs_f64());
    let reply = Reply {
        sequence_number: Some(sequence),
        time_secs,
        ..reply
    };
    Ok(state
        .replies
        .results(&reply, &shape(params, call.route.endpoint), None))
}
