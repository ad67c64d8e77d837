//! HTTP for those who watch the operator: `/metrics` on one port, `/livez` and `/readyz` on another.
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use axum::{Router, http::StatusCode, routing::get};
use tokio::{net::TcpListener, sync::watch};

use crate::metrics::Metrics;

/// Content type of Prometheus' text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Is the operator ready? A standby is: it waits for the Lease.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// From now on.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// `/metrics`.
pub fn metrics(metrics: Metrics) -> Router {
    let answer = move || {
        let text = metrics.text();
        async move {
            match text {
                Ok(text) => Ok(([("content-type", OPEN_METRICS)], text)),
                Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
            }
        }
    };
    Router::new().route("/metrics", get(answer))
}

/// `/livez` answers as long as this process does anything at all; it ends by itself when it cannot go on.
pub fn health(ready: Ready) -> Router {
    let readyz = move || {
        let ready = ready.0.load(Ordering::Acquire);
        async move {
            if ready {
                (StatusCode::OK, "ok\n")
            } else {
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the watches have not delivered yet\n",
                )
            }
        }
    };
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
}

/// Serves until told to stop.
///
/// # Errors
/// The address cannot be listened at.
pub async fn serve(
    address: SocketAddr,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening at {address}"))?;
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!("serving {address}: {error}");
        }
    });
    Ok(())
}
