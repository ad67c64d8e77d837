//! A node's own HTTP API, reached through the API server's proxy: no port needs to be open for whoever runs this.
use anyhow::Context;
use operator_api::names;
use serde_json::Value;

use crate::Target;

fn path(target: &Target, pod: &str, what: &str) -> String {
    format!(
        "/api/v1/namespaces/{}/pods/{pod}:{}/proxy{what}",
        target.namespace,
        names::HTTP_PORT
    )
}

/// What a node says in `/status`.
pub(crate) async fn status(target: &Target, pod: &str) -> anyhow::Result<Value> {
    let request = http::Request::get(path(target, pod, "/status")).body(Vec::new())?;
    let text = target.client.request_text(request).await?;
    Ok(serde_json::from_str(&text)?)
}

/// Asks the leader to hand over, and waits until it has.
pub(crate) async fn transfer(target: &Target, leader: &str, to: &str) -> anyhow::Result<()> {
    let body = serde_json::to_vec(&serde_json::json!({"id": to}))?;
    let request = http::Request::post(path(target, leader, "/leader?wait"))
        .header("content-type", "application/json")
        .body(body)?;
    let answer = target.client.request_text(request).await;
    answer
        .map(drop)
        .with_context(|| format!("{leader} does not hand over to {to}"))
}

/// A number in a node's status, by its path.
pub(crate) fn number(status: &Value, pointer: &str) -> Option<u64> {
    status.pointer(pointer)?.as_u64()
}
