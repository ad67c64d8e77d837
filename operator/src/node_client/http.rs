//! The node client over HTTP. Each request uses its own connection: requests are rare, and a kept connection
//! could lead to a deleted pod.
use std::{
    io::ErrorKind,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use node_contract::{RestoreRequest, RestoreState, status::CheckRequest};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    CHANGE_TIMEOUT, CHECK_TIMEOUT, CheckStart, NodeClient, PROBE_TIMEOUT,
    access::{Accesses, Channel, authorization},
    reply,
};
use crate::{
    cluster::{
        Failure, NodeStatus,
        facts::{observation::FailureKind, secrets::SecretBytes},
    },
    metrics::Metrics,
};

/// Maximum size of a response. The `/status` of the largest possible cluster has about 30 KiB.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Path of the check of a database.
const CHECK_PATH: &str = "/db/check";
/// Path of restores in place.
const RESTORE_PATH: &str = "/archive/restore";
/// Timeout of the request for a restore: the leader reads from the store before it responds.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(40);
/// Maximum length of a node's error text in messages.
const MAX_TEXT_CHARS: usize = 300;

/// The HTTP implementation of [`NodeClient`].
#[derive(Clone, Debug)]
pub struct Http {
    metrics: Metrics,
    accesses: Accesses,
}

impl Http {
    /// Creates a client that records its requests in `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            accesses: Accesses::default(),
        }
    }

    /// How the nodes of each cluster are reached.
    pub fn accesses(&self) -> &Accesses {
        &self.accesses
    }

    /// Runs a query; returns its rows as text.
    async fn query(
        &self,
        address: &str,
        level: &str,
        sql: &str,
    ) -> Result<Vec<Vec<String>>, Failure> {
        let path = format!("/db/query?level={level}&timeout=40s");
        let body = serde_json::json!([sql]).to_string();
        let response = self
            .call(Method::POST, address, &path, Some(body), CHECK_TIMEOUT)
            .await?;
        let body = accepted("/db/query", response)?;
        reply::rows(&body).map_err(|message| failure(FailureKind::Malformed, message))
    }

    /// Sends one request, with an optional JSON body, and reads the response within `limit`. If the node does
    /// not accept the operator's new password yet, tries the former one.
    async fn call(
        &self,
        method: Method,
        address: &str,
        path: &str,
        body: Option<String>,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let access = self.accesses.get(address);
        let all = async {
            let mut passwords = access.passwords.iter();
            loop {
                let password = passwords.next();
                let body = body.clone();
                let response = exchange(
                    &access.channel,
                    password,
                    method.clone(),
                    address,
                    path,
                    body,
                )
                .await?;
                let refused = response.0 == StatusCode::UNAUTHORIZED;
                if !refused || passwords.len() == 0 {
                    return Ok(response);
                }
            }
        };
        match tokio::time::timeout(limit, all).await {
            Ok(response) => response,
            Err(_) => {
                let text = format!("no response from {address} to {path} within {limit:?}");
                Err(failure(FailureKind::Timeout, text))
            }
        }
    }
}

impl NodeClient for Http {
    async fn status(&self, address: &str) -> Result<NodeStatus, Failure> {
        let started = Instant::now();
        let get = |path| self.call(Method::GET, address, path, None, PROBE_TIMEOUT);
        let (status, ready) = tokio::join!(get("/status"), get("/readyz?timeout=1500ms"));
        self.metrics.probed(started.elapsed(), status.is_ok());
        let ready = ready.is_ok_and(|(code, _)| code == StatusCode::OK);
        parse(status?, ready)
    }

    async fn leadership(&self, address: &str) -> Result<NodeStatus, Failure> {
        let response = self
            .call(Method::GET, address, "/status", None, PROBE_TIMEOUT)
            .await?;
        parse(response, false)
    }

    async fn transfer_leader(&self, address: &str, to: &str) -> Result<(), Failure> {
        let path = "/leader?wait";
        let response = self
            .call(Method::POST, address, path, Some(id(to)), CHANGE_TIMEOUT)
            .await?;
        accepted("/leader", response).map(drop)
    }

    async fn remove(&self, address: &str, name: &str) -> Result<(), Failure> {
        let path = "/remove";
        let response = self
            .call(
                Method::DELETE,
                address,
                path,
                Some(id(name)),
                CHANGE_TIMEOUT,
            )
            .await?;
        accepted("/remove", response).map(drop)
    }

    async fn read_as_leader(&self, address: &str) -> Result<(), Failure> {
        self.query(address, "linearizable", "SELECT 1")
            .await
            .map(drop)
    }

    async fn start_check(
        &self,
        address: &str,
        id: &str,
        limit: Duration,
    ) -> Result<CheckStart, Failure> {
        let request = CheckRequest {
            id: id.to_owned(),
            limit_seconds: Some(limit.as_secs()),
        };
        let body = serde_json::json!(request).to_string();
        let response = self.call(
            Method::POST,
            address,
            CHECK_PATH,
            Some(body),
            CHANGE_TIMEOUT,
        );
        match response.await? {
            (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => {
                Ok(CheckStart::Unsupported)
            }
            (StatusCode::CONFLICT, text) => Ok(CheckStart::Busy(shortened(&text))),
            response => accepted(CHECK_PATH, response).map(|_| CheckStart::Started),
        }
    }

    async fn end_check(&self, address: &str, id: &str) -> Result<(), Failure> {
        let body = Some(serde_json::json!({ "id": id }).to_string());
        let response = self.call(Method::DELETE, address, CHECK_PATH, body, CHANGE_TIMEOUT);
        match response.await? {
            (StatusCode::NOT_FOUND, _) => Ok(()),
            response => accepted(CHECK_PATH, response).map(drop),
        }
    }

    async fn restore(
        &self,
        address: &str,
        request: &RestoreRequest,
    ) -> Result<RestoreState, Failure> {
        let body = Some(serde_json::json!(request).to_string());
        let response = self.call(Method::POST, address, RESTORE_PATH, body, RESTORE_TIMEOUT);
        reply::restore(response.await?, request)
            .map_err(|message| failure(FailureKind::Interrupted, message))
    }

    async fn restore_state(&self, address: &str) -> Result<Option<RestoreState>, Failure> {
        let response = self.call(Method::GET, address, RESTORE_PATH, None, PROBE_TIMEOUT);
        let response = response.await?;
        // A node without an archive, or of an earlier version.
        if matches!(
            response.0,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        ) {
            return Ok(None);
        }
        let body = accepted(RESTORE_PATH, response)?;
        let state: RestoreState = serde_json::from_slice(&body)
            .map_err(|error| failure(FailureKind::Malformed, error.to_string()))?;
        Ok(Some(state).filter(|state| state.state != RestoreState::NONE))
    }

    async fn check_now(&self, address: &str) -> Result<Option<String>, Failure> {
        let rows = self.query(address, "none", "PRAGMA quick_check(1)").await?;
        Ok((rows != [["ok"]]).then(|| rows.concat().join("; ")))
    }
}

fn parse(response: (StatusCode, Bytes), ready: bool) -> Result<NodeStatus, Failure> {
    let body = accepted("/status", response)?;
    reply::read(&body, ready).map_err(|message| {
        let kind = match reply::is_of_node(&body) {
            true => FailureKind::Malformed,
            false => FailureKind::Interrupted,
        };
        failure(kind, message)
    })
}

fn id(name: &str) -> String {
    serde_json::json!({ "id": name }).to_string()
}

fn failure(failure: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        failure,
        message: message.into(),
    }
}

/// The body of a successful response; any other response is a failure with the node's error text.
fn accepted(path: &str, (code, body): (StatusCode, Bytes)) -> Result<Bytes, Failure> {
    if code.is_success() {
        return Ok(body);
    }
    let kind = match code {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FailureKind::Unauthorized,
        // Any other code is not a node's report of its status: a proxy may have responded in its place.
        _ => FailureKind::Interrupted,
    };
    let mut text = shortened(&body);
    if kind == FailureKind::Unauthorized {
        text = format!("the node refuses the operator's user or password: {text}");
    }
    Err(failure(kind, format!("{path} returned {code}: {text}")))
}

fn shortened(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body);
    text.trim().chars().take(MAX_TEXT_CHARS).collect()
}

async fn exchange(
    channel: &Channel,
    password: Option<&SecretBytes>,
    method: Method,
    address: &str,
    path: &str,
    body: Option<String>,
) -> Result<(StatusCode, Bytes), Failure> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close");
    if let Some(password) = password {
        let value = HeaderValue::try_from(authorization(password));
        let mut value = value.map_err(|_| failure(FailureKind::Malformed, "the password"))?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let request = request
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| broken(address, path, &error))?;
    let stream = TcpStream::connect(address).await.map_err(|error| {
        let kind = match error.kind() {
            ErrorKind::ConnectionRefused => FailureKind::Refused,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => FailureKind::Interrupted,
            _ => FailureKind::Timeout,
        };
        failure(kind, format!("{address}: {error}"))
    })?;
    match channel {
        Channel::Plain => talk(stream, request, address, path).await,
        Channel::Tls(config, name) => {
            let connector = TlsConnector::from(Arc::clone(config));
            let secured = connector.connect(name.clone(), stream).await;
            let secured = secured.map_err(|error| untrusted(address, &error))?;
            talk(secured, request, address, path).await
        }
        Channel::Unusable(why) => {
            let text = format!(
                "{address}: the node speaks TLS, and its certificate cannot be checked: {why}"
            );
            Err(failure(FailureKind::Tls, text))
        }
    }
}

/// A handshake that failed: because of TLS itself, or because the connection was cut.
fn untrusted(address: &str, error: &std::io::Error) -> Failure {
    let inner = error.get_ref();
    match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => {
            let text = format!("{address}: TLS with the node failed: {error}");
            failure(FailureKind::Tls, text)
        }
        None => failure(
            FailureKind::Interrupted,
            format!("{address}: during the TLS handshake: {error}"),
        ),
    }
}

/// Also if the peer does not speak HTTP: a proxy in between may close, reset or encrypt.
fn broken(address: &str, path: &str, error: &dyn std::fmt::Display) -> Failure {
    failure(
        FailureKind::Interrupted,
        format!("{address}{path}: {error}"),
    )
}

async fn talk<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    address: &str,
    path: &str,
) -> Result<(StatusCode, Bytes), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(address, path, &error))?;
    let talk = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| broken(address, path, &error))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES);
        let body = body.collect().await;
        let body = body.map_err(|error| broken(address, path, &error))?;
        Ok((code, body.to_bytes()))
    };
    // The connection future drives the I/O. It ends with the response, or when this future is dropped.
    let mut connection = std::pin::pin!(connection);
    let mut talk = std::pin::pin!(talk);
    let mut open = true;
    loop {
        tokio::select! {
            response = &mut talk => return response,
            _ = &mut connection, if open => open = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A listener that accepts one connection, sends this response and returns the request.
    async fn server(response: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !String::from_utf8_lossy(&request).contains("\r\n\r\n") {
                let n = stream.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..n]);
            }
            stream.write_all(response.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        (address, task)
    }

    #[tokio::test]
    async fn a_removal_is_one_request() {
        let (address, task) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let http = Http::new(Metrics::default());
        http.remove(&address, "demo-2").await.unwrap();
        let request = task.await.unwrap();
        assert!(request.starts_with("DELETE /remove HTTP/1.1"), "{request}");
        assert!(request.ends_with(r#"{"id":"demo-2"}"#), "{request}");
    }

    #[tokio::test]
    async fn a_check_is_started_or_the_node_is_busy_or_too_old() {
        let http = Http::new(Metrics::default());
        let cases = [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
                CheckStart::Started,
            ),
            (
                "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
                CheckStart::Unsupported,
            ),
            (
                "HTTP/1.1 409 No\r\ncontent-length: 4\r\n\r\nbusy",
                CheckStart::Busy("busy".to_owned()),
            ),
        ];
        for (response, expected) in cases {
            let (address, task) = server(response).await;
            let limit = Duration::from_secs(600);
            let started = http.start_check(&address, "c", limit).await.unwrap();
            assert_eq!(started, expected);
            let request = task.await.unwrap();
            assert!(
                request.starts_with("POST /db/check HTTP/1.1")
                    && request.ends_with(r#"{"id":"c","limit_seconds":600}"#),
                "{request}"
            );
        }
        let (address, _task) = server("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await;
        http.end_check(&address, "c").await.unwrap();
        let (address, _task) = server("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
        let limit = Duration::from_secs(1);
        assert!(http.start_check(&address, "c", limit).await.is_err());
    }

    #[tokio::test]
    async fn failures_keep_their_kind() {
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let http = Http::new(Metrics::default());
        let refused = http.transfer_leader(&closed, "x").await.unwrap_err();
        assert_eq!(refused.failure, FailureKind::Refused);
        let cases = [
            (
                "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
                FailureKind::Unauthorized,
            ),
            (
                "HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\nno leader",
                FailureKind::Interrupted,
            ),
            ("SSH-2.0-x\r\n\r\n", FailureKind::Interrupted),
            ("", FailureKind::Interrupted),
        ];
        for (response, kind) in cases {
            let (address, _task) = server(response).await;
            let error = http.transfer_leader(&address, "x").await.unwrap_err();
            assert_eq!(error.failure, kind, "{response}: {}", error.message);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_a_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let http = Http::new(Metrics::default());
        let error = http.status(&address).await.unwrap_err();
        assert_eq!(error.failure, FailureKind::Timeout);
    }
}
