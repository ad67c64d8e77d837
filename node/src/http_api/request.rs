//! `POST /db/request`: reads and writes mixed.
use std::{sync::Arc, time::Instant};

use node_api::parse_statements;
use node_db::{Kind, Request, Stamp};

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
    edge.metrics.count(Counter::HttpRequests);
    if let Some(elsewhere) = redirect::read_to_leader(edge, call).await? {
        return Ok(elsewhere);
    }
    let body = collect(body, MAX_BODY_BYTES, &edge.memory).await?;
    let statements = parse_statements(&body).map_err(Failure::Statements)?;
    edge.metrics
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
    let outcome = edge
        .store
        .request(
            request,
            params.db_timeout,
            &call.read_options(),
            &call.caller(),
        )
        .await;
    edge.answered(call, outcome, started)
}
