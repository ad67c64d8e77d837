//! `GET /archive`: how far the continuous archive is, as in `/status`. rqlite does not have this endpoint.
use std::sync::Arc;

use node_api::to_go_json;
use node_contract::status::ArchiveStatus;

use super::{error::Failure, param::Call, reply::Response, state::HttpState};
use crate::archive::Archive;

pub(super) fn handle(state: &Arc<HttpState>, call: &Call) -> Result<Response, Failure> {
    let archive = state.archive.as_ref();
    let status = archive.map_or_else(ArchiveStatus::default, Archive::status);
    let tree = serde_json::to_value(status).map_err(|error| Failure::Machine(error.to_string()))?;
    let json = to_go_json(&tree).map_err(|error| Failure::Machine(error.to_string()))?;
    Ok(state.replies.json_maybe_pretty(json, call.params.pretty))
}
