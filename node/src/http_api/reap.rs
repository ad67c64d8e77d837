//! `POST /reap`: in rqlite, merges and deletes old snapshots.
//!
//! Here the only snapshot is the database file itself. There is never an older one to reap, so both counts
//! are zero.
use std::sync::Arc;

use super::{reply::Response, state::HttpState};
use crate::metrics::Counter;

pub(super) fn handle(state: &Arc<HttpState>) -> Response {
    state.metrics.count(Counter::HttpUserReaps);
    state
        .replies
        .json(b"{\"snapshots_reaped\":0,\"wals_checkpointed\":0}\n".to_vec())
}
