//! `/console/`: a page to run SQL and look at the cluster, all in one file.
use std::sync::Arc;

use hyper::{
    StatusCode,
    header::{CONTENT_SECURITY_POLICY, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};

use super::{
    Edge,
    error::Failure,
    param::Call,
    reply::{HTML, Response},
};
use crate::metrics::Counter;

/// Where the page lives.
pub(super) const PATH: &str = "/console/";
const PAGE: &str = include_str!("console.html");
/// The page brings all it needs and talks to this node alone.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
);

pub(super) fn answer(edge: &Arc<Edge>, call: &Call) -> Result<Response, Failure> {
    edge.metrics.count(Counter::HttpUi);
    match call.uri.path() {
        "/console" => Ok(edge
            .replies
            .redirect(StatusCode::MOVED_PERMANENTLY, PATH, &call.method)),
        PATH | "/console/index.html" => {
            let mut response = edge.replies.content(HTML, PAGE.as_bytes().to_vec());
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
