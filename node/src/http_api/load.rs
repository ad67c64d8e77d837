//! `POST /db/load`: loads an SQLite file or an SQL script, which is first streamed to disk.
use std::{sync::Arc, time::Instant};

use hyper::header::CONTENT_TYPE;
use node_api::Reply;

use super::{
    body::{RequestBody, upload},
    error::Failure,
    param::Call,
    redirect,
    reply::{Response, TEXT, shape},
    state::HttpState,
};
use crate::{metrics::Counter, store::LoadSource};
pub(super) async fn handle(
    state: &Arc<HttpState>,
    call: &Call,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    let started = Instant::now();
    state.metrics.count(Counter::HttpLoads);
    if let Some(elsewhere) = redirect::to_leader(state, call).await? {
        return Ok(elsewhere);
    }
    let upload = upload(body, &state.settings.scratch_dir, &state.memory).await?;
    let source = LoadSource {
        path: upload.path.to_path_buf(),
    };
    let served = state
        .store
        .load(source, &call.caller())
        .await
        .map_err(Failure::Call)?;
    drop(upload);
    if served.served_by != state.settings.api_addr {
        state.metrics.count(Counter::ProxyRemoteLoads);
    }
    let time_secs = call.params.timings.then(|| started.elapsed().as_secs_f64());
    let reply = Reply {
        results: served.results,
        error: served.error,
        time_secs,
        ..Reply::default()
    };
    let mut response = state.replies.results(
        &reply,
        &shape(&call.params, call.route.endpoint),
        Some(&served.served_by),
    );
    // As in rqlite, although the reply is JSON.
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    Ok(response)
}
