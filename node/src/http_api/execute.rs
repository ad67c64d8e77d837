//! `POST /db/execute`: writes, at once or through the queue.
use std::{sync::Arc, time::Instant};

use node_api::{ParseError, Reply};
use node_db::{Kind, Request, Stamp};

use super::{
    Edge,
    body::{MAX_BODY_BYTES, RequestBody, collect},
    error::{Failure, told_in_reply},
    param::Call,
    redirect,
    reply::{Response, shape},
};
use crate::metrics::Counter;

pub(super) async fn answer(
    edge: &Arc<Edge>,
    call: &Call,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    let started = Instant::now();
    edge.metrics.count(Counter::HttpExecutions);
    if call.params.queue {
        return Box::pin(queue(edge, call, body, started)).await;
    }
    if let Some(elsewhere) = redirect::to_leader(edge, call).await? {
        return Ok(elsewhere);
    }
    let body = collect(body, MAX_BODY_BYTES, &edge.memory).await?;
    let statements = call.statements(&body)?;
    edge.metrics
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
    let outcome = edge
        .store
        .execute(request, call.params.db_timeout, &call.caller())
        .await;
    edge.results(call, outcome, started)
}

/// Puts the statements into the queue; with `wait` answers when they have been written.
async fn queue(
    edge: &Edge,
    call: &Call,
    body: impl RequestBody,
    started: Instant,
) -> Result<Response, Failure> {
    let params = &call.params;
    edge.metrics.count(Counter::HttpQueuedExecutions);
    if !params.noleader && edge.store.leader().is_none() {
        return Err(Failure::QueueWithoutLeader);
    }
    let body = collect(body, MAX_BODY_BYTES, &edge.memory).await?;
    let statements = match call.statements(&body) {
        // Whoever waits may come without statements, just to see the queue flushed.
        Err(Failure::Statements(ParseError::Empty)) if params.wait => Vec::new(),
        parsed => parsed?,
    };
    edge.metrics.add(
        Counter::HttpQueuedExecutionsNumStmtsRx,
        statements.len() as u64,
    );
    let pushed = edge.queue.push(statements, call.credentials.clone()).await;
    let ticket = pushed.map_err(|_| Failure::QueueStopped)?;
    let sequence = ticket.sequence;
    let mut reply = Reply::default();
    if params.wait {
        edge.metrics.count(Counter::HttpQueuedExecutionsWait);
        let decided = tokio::time::timeout(params.timeout, ticket.decided()).await;
        let decided = decided.map_err(|_| {
            edge.metrics.count(Counter::HttpQueuedExecutionsWaitTimeout);
            Failure::QueueTimeout
        })?;
        // As it would have been told without the queue.
        if let Err(error) = decided.map_err(|_| Failure::QueueStopped)? {
            reply = told_in_reply(error)?;
        }
    }
    let time_secs = params.timings.then(|| started.elapsed().as_secs_f64());
    let reply = Reply {
        sequence_number: Some(sequence),
        time_secs,
        ..reply
    };
    Ok(edge
        .replies
        .results(&reply, &shape(params, call.route.endpoint), None))
}
