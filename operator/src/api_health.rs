//! Checks regularly whether the API server is ready, for the operator's own `/readyz`: open watches do not
//! show that it has become unreachable.
use std::time::Duration;

use axum::http::Request;
use kube::Client;

use crate::serve::Ready;

/// Pause between two requests.
const INTERVAL: Duration = Duration::from_secs(4);
/// Timeout of a request; an API server that takes longer counts as not ready.
const LIMIT: Duration = Duration::from_secs(3);

/// Records in `ready` whether the API server responds; never returns.
pub async fn watch(client: Client, ready: Ready) {
    loop {
        ready.set_away(ask(&client).await);
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Why it does not respond; None if it does. A refusal counts as a response: `/readyz` is open to all
/// accounts unless an administrator has closed it.
async fn ask(client: &Client) -> Option<String> {
    let request = match Request::get("/readyz").body(Vec::new()) {
        Ok(request) => request,
        Err(error) => return Some(error.to_string()),
    };
    match tokio::time::timeout(LIMIT, client.request_text(request)).await {
        Ok(Ok(_)) => None,
        Ok(Err(kube::Error::Api(status))) if status.code < 500 => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no response within {LIMIT:?}")),
    }
}
