//! `GET` and `POST /db/sql`: shows a statement as rqlite would send it to the other nodes.
//!
//! This node does not rewrite statements: each log entry carries a time and a seed, from which every node
//! computes the same values. The reply is therefore only an illustration, in which calls of random and time
//! functions are replaced by current values.
use std::{sync::Arc, time::Instant};

use hyper::Method;
use node_api::{parse_statements, to_go_json};
use node_db::syntax_error;
use serde::Serialize;

use super::{
    body::{RequestBody, collect},
    error::Failure,
    limits::MAX_BODY_BYTES,
    param::Call,
    reply::Response,
    state::HttpState,
};
use crate::metrics::Counter;

mod preview;

use preview::{Moment, preview};

#[derive(Serialize)]
struct Analysis {
    results: Vec<Analyzed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<f64>,
}

#[derive(Serialize)]
struct Analyzed {
    original: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rewritten: Option<String>,
    /// SQLite's message, if the text is no statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<f64>,
}

pub(super) async fn handle(
    state: &Arc<HttpState>,
    call: &Call,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    let started = Instant::now();
    state.metrics.count(Counter::HttpSqlAnalyze);
    let params = &call.params;
    let statements = if call.method == Method::GET {
        vec![params.q.clone().ok_or(Failure::QueryMissing)?]
    } else {
        let body = collect(body, MAX_BODY_BYTES, &state.memory).await?;
        let parsed = parse_statements(&body).map_err(Failure::Statements)?;
        parsed.into_iter().map(|statement| statement.sql).collect()
    };
    let analyze = |original: String| {
        let begun = Instant::now();
        let moment = Moment::now(!params.norwrandom, !params.norwtime);
        let error = syntax_error(&original);
        let rewritten = match error {
            Some(_) => None,
            None => Some(preview(&original, &moment, &mut rand::random)),
        };
        Analyzed {
            original,
            rewritten,
            error,
            time: params.timings.then(|| begun.elapsed().as_secs_f64()),
        }
    };
    let results = statements.into_iter().map(analyze).collect();
    let analysis = Analysis {
        results,
        time: params.timings.then(|| started.elapsed().as_secs_f64()),
    };
    let json = to_go_json(&analysis).map_err(|error| Failure::Machine(error.to_string()))?;
    Ok(state.replies.json_maybe_pretty(json, params.pretty))
}
