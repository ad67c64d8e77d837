//! `GET /licenses`: what this program is made of, and under which terms.
use std::sync::Arc;

use super::{
    Edge,
    reply::{Response, TEXT},
};

const LICENSES: &str = include_str!("licenses.txt");

pub(super) fn answer(edge: &Arc<Edge>) -> Response {
    edge.replies.content(TEXT, LICENSES.as_bytes().to_vec())
}
