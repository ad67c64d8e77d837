//! `/console/`: a page for running SQL and viewing the cluster, in a single file.
use std::sync::Arc;

use hyper::{
    StatusCode,
    header::{CONTENT_SECURITY_POLICY, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};

use super::{
    error::Failure,
    param::Call,
    reply::{HTML, Response},
    state::HttpState,
};
use crate::metrics::Counter;

/// Path of the page.
pub(super) const PATH: &str = "/console/";
const PAGE: &str = include_str!("console.html");
/// The page contains everything it needs, and sends requests only to this node.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
);

pub(super) fn handle(state: &Arc<HttpState>, call: &Call) -> Result<Response, Failure> {
    state.metrics.count(Counter::HttpUi);
    match call.uri.path() {
        "/console" => Ok(state
            .replies
            .redirect(StatusCode::MOVED_PERMANENTLY, PATH, &call.method)),
        PATH | "/console/index.html" => {
            let mut response = state.replies.content(HTML, PAGE.as_bytes().to_vec());
            response
                .headers_mut()
                .insert(CONTENT_SECURITY_POLICY, POLICY);
            response
                .headers_mut()
                .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            Ok(response)
        }
        _ => Err(Failure::NotFound),
    }
}
