//! `POST /reap`: rqlite merges and deletes old snapshots here.
//!
//! This node's snapshot is the database file itself, one at any time: there never is an older one to reap, so both counts are zero.
use std::sync::Arc;

use super::{Edge, reply::Response};
use crate::metrics::Counter;

pub(super) fn answer(edge: &Arc<Edge>) -> Response {
    edge.metrics.count(Counter::HttpUserReaps);
    edge.replies
        .json(b"{\"snapshots_reaped\":0,\"wals_checkpointed\":0}\n".to_vec())
}
