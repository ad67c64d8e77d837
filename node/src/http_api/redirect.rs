//! The parameter `redirect`: the client is redirected to the leader, and its request is not forwarded.
use hyper::StatusCode;
use node_api::Level;

use super::{error::Failure, param::Call, reply::Response, state::HttpState};
use crate::store_types::StoreError;

/// The redirect to the leader, if the client requests one and this node does not lead.
pub(super) async fn to_leader(state: &HttpState, call: &Call) -> Result<Option<Response>, Failure> {
    if !call.params.redirect || state.store.is_leader() {
        return Ok(None);
    }
    let url = state
        .store
        .leader_api_url(call.params.timeout)
        .await
        .map_err(|error| match error {
            StoreError::LeaderNotFound => Failure::RedirectWithoutLeader,
            other => Failure::Call(other),
        })?;
    let location = location(&url, call.uri.path(), call.uri.query());
    Ok(Some(state.replies.redirect(
        StatusCode::MOVED_PERMANENTLY,
        &location,
        &call.method,
    )))
}

/// As [`to_leader`], also if the client did not ask for it, and with a status that keeps the method: for
/// endpoints that are not forwarded.
pub(super) async fn always_to_leader(
    state: &HttpState,
    call: &Call,
) -> Result<Option<Response>, Failure> {
    if state.store.is_leader() {
        return Ok(None);
    }
    let url = state.store.leader_api_url(call.params.timeout).await;
    let url = url.map_err(Failure::Call)?;
    let location = location(&url, call.uri.path(), call.uri.query());
    Ok(Some(state.replies.redirect(
        StatusCode::TEMPORARY_REDIRECT,
        &location,
        &call.method,
    )))
}

/// As [`to_leader`], for endpoints that may not need a leader: at the levels `none` and `auto` there is no
/// redirect, and the store forwards writes.
pub(super) async fn read_to_leader(
    state: &HttpState,
    call: &Call,
) -> Result<Option<Response>, Failure> {
    if matches!(call.params.level, Level::None | Level::Auto) {
        return Ok(None);
    }
    to_leader(state, call).await
}

fn location(url: &str, path: &str, query: Option<&str>) -> String {
    let url = url.trim_end_matches('/');
    match query {
        Some(query) => format!("{url}{path}?{query}"),
        None => format!("{url}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_are_kept() {
        assert_eq!(
            location("http://l:4001", "/db/execute", Some("redirect&x=%20")),
            "http://l:4001/db/execute?redirect&x=%20"
        );
        assert_eq!(
            location("https://l:4001/", "/leader", None),
            "https://l:4001/leader"
        );
    }
}
