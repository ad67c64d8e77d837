//! The operator's HTTP endpoints: `/metrics` on one port, `/livez` and `/readyz` on another.
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use axum::{Router, http::StatusCode, routing::get};
use tokio::{net::TcpListener, sync::watch};

use crate::metrics::Metrics;

/// Content type of the OpenMetrics text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the operator is ready. A standby that waits for the Lease counts as ready.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// Marks the operator as ready.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Router with `/metrics`.
pub fn metrics(metrics: Metrics) -> Router {
    let response = move || {
        let text = metrics.text();
        async move {
            match text {
                Ok(text) => Ok(([("content-type", OPEN_METRICS)], text)),
                Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
            }
        }
    };
    Router::new().route("/metrics", get(response))
}

/// Router with `/livez` and `/readyz`. `/livez` always succeeds: the process exits by itself when it cannot
/// continue.
pub fn health(ready: Ready) -> Router {
    let readyz = move || {
        let ready = ready.0.load(Ordering::Acquire);
        async move {
            if ready {
                (StatusCode::OK, "ok\n")
            } else {
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the watches are not synced yet\n",
                )
            }
        }
    };
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
}

/// Listens at an address; `[::]` means all addresses of both IP families, or of IPv4 where there is no IPv6.
async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    match listener {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        result => result,
    }
}

/// Serves until the stop signal.
///
/// # Errors
/// Listening on the address failed.
pub async fn serve(
    address: SocketAddr,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let listener = bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
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
