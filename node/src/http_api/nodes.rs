//! `GET /nodes`: all members, with the result of contacting each.
use std::sync::Arc;

use node_api::NodesReply;

use super::{error::Failure, param::Call, reply::Response, state::HttpState};

pub(super) async fn handle(state: &Arc<HttpState>, call: &Call) -> Result<Response, Failure> {
    let params = &call.params;
    let nodes = state
        .store
        .nodes(params.nonvoters, params.timeout)
        .await
        .map_err(Failure::Nodes)?;
    let reply = NodesReply::new(nodes);
    let json = if params.nodes_v2() {
        reply.to_json()
    } else {
        reply.to_legacy_json()
    };
    let json = json.map_err(|error| Failure::Machine(error.to_string()))?;
    Ok(state.replies.json_maybe_pretty(json, params.pretty))
}
