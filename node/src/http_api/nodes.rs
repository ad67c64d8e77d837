//! `GET /nodes`: every member, probed.
use std::sync::Arc;

use node_api::NodesReply;

use super::{Edge, error::Failure, param::Call, reply::Response};

pub(super) async fn answer(edge: &Arc<Edge>, call: &Call) -> Result<Response, Failure> {
    let params = &call.params;
    let nodes = edge
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
    Ok(edge.replies.json_as_asked(json, params.pretty))
}
