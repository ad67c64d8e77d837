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
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch};

use crate::metrics::Metrics;

/// Content type of the OpenMetrics text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the operator is ready. A standby that waits for the Lease counts as ready; without the API server
/// no process does.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    synced: Arc<AtomicBool>,
    away: Arc<Mutex<Option<String>>>,
}

impl Ready {
    /// Marks the operator as ready: its watches are synced, or it is a standby.
    pub fn set(&self) {
        self.synced.store(true, Ordering::Release);
    }

    /// Records why the API server does not respond; None if it does.
    pub fn set_away(&self, why: Option<String>) {
        let mut away = self.away.lock();
        match (&*away, &why) {
            (None, Some(why)) => tracing::warn!("the API server does not answer: {why}"),
            (Some(_), None) => tracing::info!("the API server answers again"),
            _ => {}
        }
        *away = why;
    }

    /// Why it is not ready.
    fn problem(&self) -> Option<String> {
        let away = self.away.lock().clone();
        let away = away.map(|why| format!("the API server does not answer: {why}"));
        let synced = self.synced.load(Ordering::Acquire);
        away.or_else(|| (!synced).then(|| "the watches are not synced yet".to_owned()))
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
        let problem = ready.problem();
        async move {
            match problem {
                None => (StatusCode::OK, "ok\n".to_owned()),
                Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_its_watches_and_the_api_server() {
        let ready = Ready::default();
        let is = |part: &str| ready.problem().is_some_and(|text| text.contains(part));
        assert!(is("not synced"));
        ready.set();
        assert_eq!(ready.problem(), None);
        ready.set_away(Some("connection refused".to_owned()));
        assert!(is("API server does not answer: connection refused"));
        ready.set_away(None);
        assert_eq!(ready.problem(), None);
    }
}
