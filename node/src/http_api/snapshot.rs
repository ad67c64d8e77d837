//! `POST /snapshot`: makes a snapshot of this node now, and trims its log.
use std::sync::Arc;

use hyper::StatusCode;

use super::{Edge, error::Failure, param::Call, reply::Response};
use crate::metrics::Counter;

pub(super) async fn answer(edge: &Arc<Edge>, call: &Call) -> Result<Response, Failure> {
    edge.metrics.count(Counter::HttpUserSnapshots);
    let kept = call.params.trailing_logs;
    let made = edge
        .store
        .snapshot((kept > 0).then_some(kept))
        .await
        .map_err(Failure::Call)?;
    Ok(edge.replies.empty(if made {
        StatusCode::OK
    } else {
        StatusCode::NO_CONTENT
    }))
}
