//! `GET /db/running`: running reads and backups of this node. `DELETE /db/running/<id>`: ends one of them.
use std::sync::Arc;

use hyper::StatusCode;
use node_api::to_go_json;
use serde_json::json;

use super::{error::Failure, param::Call, reply::Response, route::Endpoint, state::HttpState};

pub(super) fn handle(state: &Arc<HttpState>, call: &Call) -> Result<Response, Failure> {
    if call.route.endpoint == Endpoint::EndRunning {
        return end(state, call);
    }
    let running = state.store.running().map_err(Failure::Call)?;
    let json = to_go_json(&json!({ "running": running }))
        .map_err(|error| Failure::Machine(error.to_string()))?;
    Ok(state.replies.json_maybe_pretty(json, call.params.pretty))
}

fn end(state: &HttpState, call: &Call) -> Result<Response, Failure> {
    let last = call.uri.path().rsplit('/').next();
    let id: u64 = last
        .and_then(|id| id.parse().ok())
        .ok_or(Failure::RunningId)?;
    let ended = state.store.end_running(id).map_err(Failure::Call)?;
    let user = call
        .credentials
        .as_ref()
        .map_or("-", |given| given.username.as_str());
    if !ended {
        return Err(Failure::NotRunning);
    }
    tracing::info!(target: "http", "statement {id} ended for user {user}");
    Ok(state.replies.empty(StatusCode::OK))
}
