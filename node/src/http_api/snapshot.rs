//! `POST /snapshot`: takes a snapshot of this node and truncates its log.
use std::sync::Arc;

use hyper::StatusCode;

use super::{error::Failure, param::Call, reply::Response, state::HttpState};
use crate::metrics::Counter;

pub(super) async fn handle(state: &Arc<HttpState>, call: &Call) -> Result<Response, Failure> {
    state.metrics.count(Counter::HttpUserSnapshots);
    let trailing = call.params.trailing_logs;
    let made = state
        .store
        .snapshot((trailing > 0).then_some(trailing))
        .await
        .map_err(Failure::Call)?;
    Ok(state.replies.empty(if made {
        StatusCode::OK
    } else {
        StatusCode::NO_CONTENT
    }))
}
