//! HTTP calls to Consul and etcd, with limits of time and size, and errors that say what to check.
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Client, RequestBuilder, StatusCode, Url, header::HeaderMap, redirect};

use crate::causes::causes;

/// Time limit of one operation, including failover between endpoints. The callers repeat operations every
/// second or more.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Largest response: one small key, or an error text.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
/// Longest part of an error text that is shown.
const MAX_SHOWN_CHARS: usize = 200;

/// Options of connections.
#[derive(Debug, Default)]
pub(super) struct Connecting {
    /// Connect to this socket instead of TCP.
    pub(super) unix_socket: Option<PathBuf>,
    /// Time limit for connecting; [`CALL_LIMIT`] applies in any case.
    pub(super) connect_limit: Option<Duration>,
    /// TCP keep-alive of idle connections.
    pub(super) keep_alive: Option<Duration>,
}

/// A client that follows no redirects and uses no proxy: requests that decide who leads must go to the
/// configured address.
pub(super) fn client(tls: rustls::ClientConfig, connecting: &Connecting) -> Result<Client, String> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(connecting.connect_limit.unwrap_or(CALL_LIMIT))
        .tcp_keepalive(connecting.keep_alive);
    if let Some(path) = &connecting.unix_socket {
        builder = builder.unix_socket(Path::new(path));
    }
    builder.build().map_err(|e| chain(&e))
}

/// A complete response.
#[derive(Debug)]
pub(super) struct HttpResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl HttpResponse {
    /// The beginning of the body on one line, for errors.
    pub(super) fn shown(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.body)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .take(MAX_SHOWN_CHARS)
            .collect();
        if text.is_empty() {
            self.status.to_string()
        } else {
            format!("{}: {text}", self.status)
        }
    }
}

/// Sends a request and reads the whole response within `limit`.
pub(super) async fn send(request: RequestBuilder, limit: Duration) -> Result<HttpResponse, String> {
    let exchange = async {
        let mut response = request.send().await.map_err(|e| chain(&e.without_url()))?;
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|e| chain(&e.without_url()))?
        {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_RESPONSE_BYTES {
                return Err(format!("the answer exceeds {MAX_RESPONSE_BYTES} bytes"));
            }
        }
        Ok(HttpResponse {
            status: response.status(),
            headers: response.headers().clone(),
            body,
        })
    };
    tokio::time::timeout(limit, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {limit:.1?}")))
}

/// The outermost error only says that sending failed.
fn chain(error: &reqwest::Error) -> String {
    causes(&error.to_string(), error)
}

/// Parses and checks `scheme://host:port/prefix`. User names and passwords are refused, because URLs are
/// logged.
pub(super) fn base_url(field: &str, text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("{field}: not an address: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "{field}: must not carry a user name or password; they have fields of their own"
        ));
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!(
            "{field}: expected host:port, with or without http:// or https:// before it"
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{field}: must not carry a query"));
    }
    Ok(url)
}

/// The URL of a path below a base.
pub(super) fn below<'a>(base: &Url, segments: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = base.clone();
    // Fails only for URLs without a host, which `base_url` refuses.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}
