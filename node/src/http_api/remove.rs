//! `DELETE /remove`: removes a node from the cluster.
use std::sync::Arc;

use hyper::StatusCode;
use node_api::admin::RemoveRequest;

use super::{
    body::{RequestBody, collect},
    error::Failure,
    limits::MAX_ADMIN_BODY_BYTES,
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
    let body = collect(body, MAX_ADMIN_BODY_BYTES, &state.memory).await?;
    let request = RemoveRequest::parse(&body).ok_or(Failure::RemoveBody)?;
    if let Some(elsewhere) = redirect::to_leader(state, call).await? {
        return Ok(elsewhere);
    }
    // Determined before the removal, because the leader may be the node that is removed.
    let served_by = state.leader_address();
    state
        .store
        .remove(&request.id, &call.caller())
        .await
        .map_err(Failure::Call)?;
    if served_by != state.settings.api_addr {
        state.metrics.count(Counter::ProxyRemoteRemoveNode);
    }
    Ok(state
        .replies
        .served_by(state.replies.empty(StatusCode::OK), &served_by))
}
