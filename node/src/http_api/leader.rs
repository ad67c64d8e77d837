//! `GET /leader`: the leader. `POST /leader`: transfers leadership.
use std::sync::Arc;

use hyper::Method;
use node_api::{admin::LeaderRequest, to_go_json};

use super::{
    body::{RequestBody, collect},
    error::Failure,
    limits::MAX_ADMIN_BODY_BYTES,
    param::Call,
    redirect,
    reply::Response,
    state::HttpState,
};
use crate::{metrics::Counter, store_types::StoreError};

pub(super) async fn handle(
    state: &Arc<HttpState>,
    call: &Call,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    if call.method == Method::GET {
        show(state, call).await
    } else {
        transfer(state, call, body).await
    }
}

async fn show(state: &HttpState, call: &Call) -> Result<Response, Failure> {
    if state.store.is_open() && state.store.leader().is_none() {
        return Err(Failure::LeaderUnknown(StoreError::LeaderNotFound));
    }
    let nodes = state
        .store
        .nodes(true, call.params.timeout)
        .await
        .map_err(Failure::LeaderUnknown)?;
    let leader = nodes.into_iter().find(|node| node.leader);
    let leader = leader.ok_or(Failure::LeaderUnknown(StoreError::LeaderNotFound))?;
    let json = to_go_json(&leader).map_err(|error| Failure::Machine(error.to_string()))?;
    Ok(state.replies.json_maybe_pretty(json, call.params.pretty))
}

async fn transfer(
    state: &HttpState,
    call: &Call,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    if let Some(elsewhere) = redirect::to_leader(state, call).await? {
        return Ok(elsewhere);
    }
    let request = if call.announces_json() {
        let body = collect(body, MAX_ADMIN_BODY_BYTES, &state.memory).await?;
        if body.is_empty() {
            LeaderRequest::default()
        } else {
            LeaderRequest::parse(&body).map_err(Failure::LeaderBody)?
        }
    } else {
        LeaderRequest::default()
    };
    let served_by = state.leader_address();
    let done = state
        .store
        .stepdown(request.id.as_deref(), call.params.wait, &call.caller())
        .await;
    done.map_err(|error| match error {
        StoreError::NotOpen => Failure::LeaderUnknown(error),
        other => Failure::Call(other),
    })?;
    if served_by != state.settings.api_addr {
        state.metrics.count(Counter::ProxyRemoteStepdowns);
    }
    Ok(state
        .replies
        .served_by(state.replies.json(Vec::new()), &served_by))
}
