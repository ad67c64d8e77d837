//! `GET` and `POST /db/query`: reads at the requested consistency level.
use std::{sync::Arc, time::Instant};

use hyper::Method;
use node_db::{Kind, Read};

use super::{
    body::{RequestBody, collect},
    error::Failure,
    limits::MAX_BODY_BYTES,
    param::Call,
    redirect,
    reply::Response,
    state::HttpState,
};
use crate::metrics::Counter;

pub(super) async fn handle(
    state: &Arc<HttpState>,
    call: &Call,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    let started = Instant::now();
    state.metrics.count(Counter::HttpQueries);
    if let Some(elsewhere) = redirect::read_to_leader(state, call).await? {
        return Ok(elsewhere);
    }
    // Kept until the end with its memory reservation, because the statements parsed from it take as much
    // memory.
    let body = if call.method == Method::GET {
        None
    } else {
        Some(collect(body, MAX_BODY_BYTES, &state.memory).await?)
    };
    let statements = match &body {
        None => call.statement_of_url(),
        Some(body) => call.statements(body)?,
    };
    call.note_statements(statements.len(), 0);
    state
        .metrics
        .add(Counter::HttpQueryStmtsRx, statements.len() as u64);
    let params = &call.params;
    let read = Read {
        kind: Kind::Query,
        transaction: params.transaction,
        qualify_columns: params.qualify_columns,
        statements,
        timeout: params.db_timeout,
    };
    let outcome = state
        .store
        .query(read, &call.read_options(), &call.caller())
        .await;
    state.read_reply(call, outcome, started)
}
