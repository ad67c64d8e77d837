//! A node's HTTP API, reached through the API server's pod proxy, so that no port has to be open for the
//! user.
use anyhow::Context;
use node_contract::status::Status;
use operator_api::names;

use crate::target::Target;

fn path(target: &Target, pod: &str, what: &str) -> String {
    format!(
        "/api/v1/namespaces/{}/pods/{pod}:{}/proxy{what}",
        target.namespace,
        names::HTTP_PORT
    )
}

/// Reads a node's `/status`.
pub(crate) async fn status(target: &Target, pod: &str) -> anyhow::Result<Status> {
    let request = http::Request::get(path(target, pod, "/status")).body(Vec::new())?;
    let text = target.client.request_text(request).await?;
    Ok(serde_json::from_str(&text)?)
}

/// Requests a leadership transfer from the leader, and waits for it.
pub(crate) async fn transfer_leadership(
    target: &Target,
    leader: &str,
    to: &str,
) -> anyhow::Result<()> {
    let body = serde_json::to_vec(&serde_json::json!({"id": to}))?;
    let request = http::Request::post(path(target, leader, "/leader?wait"))
        .header("content-type", "application/json")
        .body(body)?;
    let response = target.client.request_text(request).await;
    response
        .map(drop)
        .with_context(|| format!("{leader} did not transfer leadership to {to}"))
}
