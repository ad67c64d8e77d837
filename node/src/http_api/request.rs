//! `POST /db/request`: reads and writes in one request.
use std::{sync::Arc, time::Instant};

use node_api::parse_statements;
use node_db::{Kind, Request, Stamp};

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
    state.metrics.count(Counter::HttpRequests);
    if let Some(elsewhere) = redirect::read_to_leader(state, call).await? {
        return Ok(elsewhere);
    }
    let body = collect(body, MAX_BODY_BYTES, &state.memory).await?;
    let statements = parse_statements(&body).map_err(Failure::Statements)?;
    call.note_mixed(&statements);
    state
        .metrics
        .add(Counter::HttpRequestStmtsRx, statements.len() as u64);
    let params = &call.params;
    let request = Request {
        kind: if params.noparse {
            Kind::UnifiedPlain
        } else {
            Kind::Unified
        },
        transaction: params.transaction,
        qualify_columns: params.qualify_columns,
        statements,
        stamp: Stamp::default(),
        rules: node_db::Rules::V1,
    };
    let outcome = state
        .store
        .request(
            request,
            params.db_timeout,
            &call.read_options(),
            &call.caller(),
        )
        .await;
    state.read_reply(call, outcome, started)
}
