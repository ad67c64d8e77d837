//! `GET /licenses`: the components of this program and their licenses.
use std::sync::Arc;

use super::{
    reply::{Response, TEXT},
    state::HttpState,
};

const LICENSES: &str = include_str!("licenses.txt");

pub(super) fn handle(state: &Arc<HttpState>) -> Response {
    state.replies.content(TEXT, LICENSES.as_bytes().to_vec())
}
