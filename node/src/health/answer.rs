//! The answers of the health listener.
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};
use node_api::QueryParams;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::shared::{About, Reply, Shared};
use crate::http_api::{OPEN_METRICS, describe_readiness, metrics_text};

/// Longest time that `timeout` may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for answers of the main runtime beyond a request's own timeout.
const GRACE: Duration = Duration::from_secs(3);
/// Answers that are not older are given again.
const FRESH_READINESS: Duration = Duration::from_millis(100);
const FRESH_SCRAPE: Duration = Duration::from_millis(500);

/// An endpoint of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Ready,
    Alive,
    Metrics,
}

/// The endpoint of a request, or the status of its refusal.
pub(super) fn route(method: &Method, path: &str) -> Result<Endpoint, StatusCode> {
    let endpoint = match path {
        "/readyz" => Endpoint::Ready,
        "/livez" => Endpoint::Alive,
        "/metrics" => Endpoint::Metrics,
        _ => return Err(StatusCode::NOT_FOUND),
    };
    match *method {
        Method::GET | Method::HEAD => Ok(endpoint),
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

/// Answers any request.
pub(super) async fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let answer = match route(request.method(), request.uri().path()) {
        Ok(Endpoint::Alive) => shared.alive(),
        Ok(Endpoint::Ready) => {
            shared
                .ready(request.uri().query().unwrap_or_default())
                .await
        }
        Ok(Endpoint::Metrics) => shared.metrics().await,
        Err(status) => Reply::text(status, ""),
    };
    let mut response = Response::new(Full::new(answer.text));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, answer.content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

impl Shared {
    fn alive(&self) -> Reply {
        if self.is_alive() {
            Reply::text(StatusCode::OK, "[+]node ok")
        } else {
            Reply::unavailable("[-]the process is stuck: it runs no tasks")
        }
    }

    async fn ready(&self, query: &str) -> Reply {
        let params = match QueryParams::parse(query) {
            Ok(params) => params,
            Err(error) => return Reply::text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        if params.noleader {
            return Reply::text(StatusCode::OK, "[+]node ok");
        }
        let Some(about) = self.about.get() else {
            return Reply::unavailable("[+]node ok\n[+]leader does not exist");
        };
        if about.stopping.is_cancelled() {
            return Reply::unavailable("[+]node stopping");
        }
        let limit = params.timeout.min(MAX_TIMEOUT);
        let recent = if params.sync {
            &self.ready_and_synced
        } else {
            &self.ready
        };
        let found = recent.get(
            FRESH_READINESS,
            self.find_readiness(about, params.sync, limit),
        );
        timeout(limit + GRACE, found)
            .await
            .unwrap_or_else(|_elapsed| no_response())
    }

    async fn find_readiness(&self, about: &About, sync: bool, limit: Duration) -> Reply {
        let store = about.store.clone();
        let asked = async move { store.ready(sync, limit).await };
        match AbortOnDropHandle::new(self.main.spawn(asked)).await {
            Ok(readiness) => {
                let (status, text) = describe_readiness(readiness, sync, false);
                Reply::text(status, text)
            }
            Err(_stopped) => no_response(),
        }
    }

    async fn metrics(&self) -> Reply {
        let Some(about) = self.about.get() else {
            return Reply::unavailable("the node is starting");
        };
        let found = self.scrape.get(FRESH_SCRAPE, self.find_metrics(about));
        timeout(MAX_TIMEOUT, found)
            .await
            .unwrap_or_else(|_elapsed| no_response())
    }

    async fn find_metrics(&self, about: &About) -> Reply {
        let about = about.clone();
        let asked = async move { metrics_text(&about.store, &about.metrics).await };
        match AbortOnDropHandle::new(self.main.spawn(asked)).await {
            Ok(Ok(text)) => Reply {
                content_type: OPEN_METRICS,
                ..Reply::text(StatusCode::OK, text)
            },
            Ok(Err(_)) | Err(_) => no_response(),
        }
    }
}

fn no_response() -> Reply {
    Reply::unavailable("[-]the node does not respond in time")
}
