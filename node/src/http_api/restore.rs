//! `POST /archive/restore`: replaces the contents of the cluster by a point of its past. `GET`: the restore
//! that runs, or the last one. `DELETE`: ends it. Served by the leader; others redirect to it. rqlite does
//! not have this endpoint.
use std::sync::Arc;

use hyper::{Method, StatusCode};
use node_api::{from_named_fields, to_go_json};
use node_contract::RestoreState;

use super::{
    body::{RequestBody, collect},
    error::Failure,
    limits::MAX_ADMIN_BODY_BYTES,
    param::Call,
    redirect,
    reply::Response,
    state::HttpState,
};
use crate::restore::in_place::Refused;

pub(super) async fn handle(
    state: &Arc<HttpState>,
    call: &Call,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    if let Some(elsewhere) = redirect::always_to_leader(state, call).await? {
        return Ok(elsewhere);
    }
    let (status, mut restore) = match call.method {
        Method::GET => (StatusCode::OK, state.restores.state()),
        Method::DELETE => (StatusCode::OK, state.restores.cancel()),
        _ => {
            let body = collect(body, MAX_ADMIN_BODY_BYTES, &state.memory).await?;
            match from_named_fields(&body) {
                Err(error) => failed(StatusCode::BAD_REQUEST, error.to_string()),
                Ok(request) => match state.restores.start(request).await {
                    Ok(restore) => (StatusCode::OK, restore),
                    Err(Refused::Request(why)) => failed(StatusCode::BAD_REQUEST, why),
                    Err(Refused::Running(why)) => failed(StatusCode::CONFLICT, why),
                    Err(Refused::Unavailable(why)) => failed(StatusCode::SERVICE_UNAVAILABLE, why),
                },
            }
        }
    };
    restore.node_id = Some(state.store.meta().name);
    let json = to_go_json(&restore).map_err(|error| Failure::Machine(error.to_string()))?;
    let mut response = state.replies.json_maybe_pretty(json, call.params.pretty);
    *response.status_mut() = status;
    Ok(response)
}

/// A request that began nothing.
fn failed(status: StatusCode, message: String) -> (StatusCode, RestoreState) {
    let state = RestoreState {
        state: RestoreState::FAILED.into(),
        message,
        ..RestoreState::default()
    };
    (status, state)
}
