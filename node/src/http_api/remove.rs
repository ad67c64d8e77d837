//! `DELETE /remove`: takes a node out of the cluster.
use std::sync::Arc;

use hyper::StatusCode;
use node_api::admin::RemoveRequest;

use super::{
    Edge,
    body::{MAX_ADMIN_BODY_BYTES, RequestBody, collect},
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
    let body = collect(body, MAX_ADMIN_BODY_BYTES, &edge.memory).await?;
    let request = RemoveRequest::parse(&body).ok_or(Failure::RemoveBody)?;
    if let Some(elsewhere) = redirect::to_leader(edge, call).await? {
        return Ok(elsewhere);
    }
    // The leader may be the one that goes.
    let served_by = edge.leader_address();
    edge.store
        .remove(&request.id, &call.caller())
        .await
        .map_err(Failure::Call)?;
    if served_by != edge.settings.api_addr {
        edge.metrics.count(Counter::ProxyRemoteRemoveNode);
    }
    Ok(edge
        .replies
        .served_by(edge.replies.empty(StatusCode::OK), &served_by))
}
