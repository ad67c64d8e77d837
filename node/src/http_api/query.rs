//! `GET` and `POST /db/query`: reads at the asked consistency level.
use std::{sync::Arc, time::Instant};

use hyper::Method;
use node_db::{Kind, Read};

use super::{
    Edge,
    body::{MAX_BODY_BYTES, RequestBody, collect},
    error::Failure,
    param::Call,
    redirect,
    reply::Response,
};
use crate::metrics::Counter;

pub(super) async fn answer(
    edge: &Arc<Edge>,
    call: &Call,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    let started = Instant::now();
    edge.metrics.count(Counter::HttpQueries);
    if let Some(elsewhere) = redirect::read_to_leader(edge, call).await? {
        return Ok(elsewhere);
    }
    // Held until the end: what was made of it is no smaller.
    let body = if call.method == Method::GET {
        None
    } else {
        Some(collect(body, MAX_BODY_BYTES, &edge.memory).await?)
    };
    let statements = match &body {
        None => call.statement_of_url(),
        Some(body) => call.statements(body)?,
    };
    edge.metrics
        .add(Counter::HttpQueryStmtsRx, statements.len() as u64);
    let params = &call.params;
    let read = Read {
        kind: Kind::Query,
        transaction: params.transaction,
        qualify_columns: params.qualify_columns,
        statements,
        timeout: params.db_timeout,
    };
    let outcome = edge
        .store
        .query(read, &call.read_options(), &call.caller())
        .await;
    edge.answered(call, outcome, started)
}
