//! Asks the API server regularly whether it is ready, for the operator's own `/readyz`: watches that are open
//! stay silent when it goes away.
use std::time::Duration;

use axum::http::Request;
use kube::Client;

use crate::serve::Ready;

/// Pause between two requests.
const INTERVAL: Duration = Duration::from_secs(4);
/// An API server that takes longer is of no use.
const LIMIT: Duration = Duration::from_secs(3);

/// Records in `ready` whether the API server answers, for ever.
pub async fn watch(client: Client, ready: Ready) {
    loop {
        ready.set_away(ask(&client).await);
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Why it does not answer; None if it does. A refusal is an answer: `/readyz` is open to all accounts unless
/// an administrator has closed it.
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
