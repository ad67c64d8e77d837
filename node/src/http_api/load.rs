//! `POST /db/load`: a whole database or an SQL script, streamed to disk first.
use std::{sync::Arc, time::Instant};

use super::{
    Edge,
    body::{RequestBody, upload},
    error::Failure,
    param::Call,
    redirect,
    reply::{Response, TEXT},
};
use crate::{metrics::Counter, store::LoadSource};
use hyper::header::CONTENT_TYPE;
use node_api::Reply;

use super::reply::shape;

pub(super) async fn answer(
    edge: &Arc<Edge>,
    call: &Call,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    let started = Instant::now();
    edge.metrics.count(Counter::HttpLoads);
    if let Some(elsewhere) = redirect::to_leader(edge, call).await? {
        return Ok(elsewhere);
    }
    let upload = upload(body, &edge.settings.data_dir, &edge.memory).await?;
    let source = LoadSource {
        path: upload.path.to_path_buf(),
    };
    let served = edge
        .store
        .load(source, &call.caller())
        .await
        .map_err(Failure::Call)?;
    drop(upload);
    if served.served_by != edge.settings.api_addr {
        edge.metrics.count(Counter::ProxyRemoteLoads);
    }
    let time_secs = call.params.timings.then(|| started.elapsed().as_secs_f64());
    let reply = Reply {
        results: served.results,
        error: served.error,
        time_secs,
        ..Reply::default()
    };
    let mut response = edge.replies.results(
        &reply,
        &shape(&call.params, call.route.endpoint),
        Some(&served.served_by),
    );
    // As rqlite has it, for JSON too.
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    Ok(response)
}
