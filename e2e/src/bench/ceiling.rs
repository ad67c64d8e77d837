//! The parse-only ceiling: an HTTP server that parses the same JSON, returns the same JSON and does nothing
//! else.
//!
//! It is the best that a node could reach on this machine beside this load generator.
use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Bytes,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};

use crate::{client::Client, ports, wait};

/// The ceiling as a separate process, like a node.
#[derive(Debug)]
pub struct Ceiling {
    /// `host:port` that it serves.
    pub addr: String,
    child: Child,
}

impl Ceiling {
    /// Starts this program again as the ceiling server.
    ///
    /// # Errors
    /// If it does not start or answer.
    pub fn start() -> Result<Self> {
        let addr = format!("127.0.0.1:{}", ports::reserve()?);
        let own = std::env::current_exe().context("own path")?;
        let child = Command::new(own)
            .args(["ceiling", &addr])
            .stdin(Stdio::null())
            .spawn()
            .context("start ceiling")?;
        let ceiling = Self { addr, child };
        await_answer(&ceiling.addr)?;
        Ok(ceiling)
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Ceiling {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn await_answer(addr: &str) -> Result<()> {
    let mut client = Client::new(addr);
    wait::until("the ceiling", Duration::from_secs(10), || {
        client
            .post("/db/execute", "[[\"x\"]]")
            .map(|_| ())
            .map_err(|error| error.to_string())
    })
}

/// Serves on `addr` until the process is killed.
///
/// # Errors
/// If the address cannot be bound.
pub fn serve(addr: &str) -> Result<()> {
    // The same runtime configuration as the node's `#[tokio::main]`.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("runtime")?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(addr)
            .await
            .with_context(|| format!("bind {addr}"))?;
        serve_on(listener).await
    })
}

async fn serve_on(listener: tokio::net::TcpListener) -> Result<()> {
    use axum::serve::ListenerExt;
    let listener = listener.tap_io(|stream| {
        // The node sets it too; without it the ceiling would be too low.
        let _ = stream.set_nodelay(true);
    });
    let router = Router::new()
        .route("/db/execute", post(execute))
        .route("/db/query", post(query));
    axum::serve(listener, router).await.context("serve")
}

/// The same server on a thread of this process, for tests.
///
/// # Errors
/// If it does not start or answer.
#[cfg(test)]
pub(super) fn spawn_thread() -> Result<(String, std::thread::JoinHandle<Result<()>>)> {
    let addr = format!("127.0.0.1:{}", ports::reserve()?);
    let serving = addr.clone();
    let thread = std::thread::spawn(move || serve(&serving));
    await_answer(&addr)?;
    Ok((addr, thread))
}

async fn execute(body: Bytes) -> Response {
    answer(
        &body,
        json!({"results": [{"last_insert_id": 123_456, "rows_affected": 1}]}),
    )
}

async fn query(body: Bytes) -> Response {
    let rows =
        json!({"columns": ["v"], "types": ["text"], "values": [["value-00000000000000001234"]]});
    answer(&body, json!({"results": [rows]}))
}

fn answer(body: &[u8], reply: Value) -> Response {
    match serde_json::from_slice::<Vec<Value>>(body) {
        Ok(_statements) => (
            [(header::CONTENT_TYPE, "application/json; charset=utf-8")],
            reply.to_string(),
        )
            .into_response(),
        Err(_) => (StatusCode::BAD_REQUEST, "invalid JSON body\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_like_a_node() {
        let (addr, _server) = spawn_thread().unwrap();
        let mut client = Client::new(&addr);
        let written = client.post("/db/execute", "[[\"INSERT\",\"x\"]]").unwrap();
        assert_eq!(
            written.text(),
            r#"{"results":[{"last_insert_id":123456,"rows_affected":1}]}"#
        );
        assert_eq!(client.rows("none", "SELECT", &[]).unwrap().len(), 1);
        assert_eq!(client.post("/db/execute", "nope").unwrap().status, 400);
    }
}
