//! `POST /db/check`: checks this node's database in the background. `GET`: the state of the check that runs,
//! or of the last one, as in `/status`. `DELETE`: ends it. rqlite does not have this endpoint.
use std::sync::Arc;

use hyper::Method;
use node_api::{from_named_fields, to_go_json};
use node_contract::status::CheckRequest;
use serde_json::json;

use super::{
    body::{RequestBody, collect},
    error::Failure,
    limits::MAX_ADMIN_BODY_BYTES,
    param::Call,
    reply::Response,
    state::HttpState,
};

pub(super) async fn handle(
    state: &Arc<HttpState>,
    call: &Call,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    let status = if call.method == Method::GET {
        state.store.check_status()
    } else {
        let body = collect(body, MAX_ADMIN_BODY_BYTES, &state.memory).await?;
        let request: CheckRequest = from_named_fields(&body).map_err(|_| Failure::CheckBody)?;
        if !request.is_valid() {
            return Err(Failure::CheckBody);
        }
        let done = if call.method == Method::DELETE {
            state.store.end_check(&request.id)
        } else {
            state.store.start_check(&request, &call.caller())
        };
        Some(done.map_err(Failure::Check)?)
    };
    let json = to_go_json(&json!({ "check": status }))
        .map_err(|error| Failure::Machine(error.to_string()))?;
    Ok(state.replies.json_maybe_pretty(json, call.params.pretty))
}
