//! `GET /leader`: who leads. `POST /leader`: hands leadership over.
use std::sync::Arc;

use hyper::Method;
use node_api::{admin::LeaderRequest, to_go_json};

use super::{
    Edge,
    body::{MAX_ADMIN_BODY_BYTES, RequestBody, collect},
    error::Failure,
    param::Call,
    redirect,
    reply::Response,
};
use crate::{metrics::Counter, store_types::StoreError};

pub(super) async fn answer(
    edge: &Arc<Edge>,
    call: &Call,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    if call.method == Method::GET {
        show(edge, call).await
    } else {
        hand_over(edge, call, body).await
    }
}

async fn show(edge: &Edge, call: &Call) -> Result<Response, Failure> {
    if edge.store.is_open() && edge.store.leader().is_none() {
        return Err(Failure::LeaderUnknown(StoreError::LeaderNotFound));
    }
    let nodes = edge
        .store
        .nodes(true, call.params.timeout)
        .await
        .map_err(Failure::LeaderUnknown)?;
    let leader = nodes.into_iter().find(|node| node.leader);
    let leader = leader.ok_or(Failure::LeaderUnknown(StoreError::LeaderNotFound))?;
    let json = to_go_json(&leader).map_err(|error| Failure::Machine(error.to_string()))?;
    Ok(edge.replies.json_as_asked(json, call.params.pretty))
}

async fn hand_over(edge: &Edge, call: &Call, body: impl RequestBody) -> Result<Response, Failure> {
    if let Some(elsewhere) = redirect::to_leader(edge, call).await? {
        return Ok(elsewhere);
    }
    let request = if call.announces_json() {
        let body = collect(body, MAX_ADMIN_BODY_BYTES, &edge.memory).await?;
        if body.is_empty() {
            LeaderRequest::default()
        } else {
            LeaderRequest::parse(&body).map_err(Failure::LeaderBody)?
        }
    } else {
        LeaderRequest::default()
    };
    let served_by = edge.leader_address();
    let done = edge
        .store
        .stepdown(request.id.as_deref(), call.params.wait, &call.caller())
        .await;
    done.map_err(|error| match error {
        StoreError::NotOpen => Failure::LeaderUnknown(error),
        other => Failure::Call(other),
    })?;
    if served_by != edge.settings.api_addr {
        edge.metrics.count(Counter::ProxyRemoteStepdowns);
    }
    Ok(edge
        .replies
        .served_by(edge.replies.json(Vec::new()), &served_by))
}
