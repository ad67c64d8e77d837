//! The HTTP client: selects the host and URL of a request, and tries the next host when one cannot be
//! reached. Knows neither SQL nor commands.
//!
//! A request that may have reached a node is not repeated on another one unless it only reads: whether a
//! write that failed half-way took effect is unknown.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use ureq::http::{self, Method, StatusCode};
use ureq::{Agent, AsSendBody, RequestExt, SendBody, Timeout};

use crate::args::Options;
use crate::host::Scheme;
use crate::proxy::ProxyRules;
use crate::tls;
use crate::user::User;

/// Most redirects followed for one request: two nodes may each redirect to the other.
const MAX_REDIRECTS: usize = 21;

/// Longest wait for a TCP connection to one host, so that a host which drops packets leaves time for the
/// others.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A response whose body is not read yet.
pub(crate) type Response = http::Response<ureq::Body>;

/// The part of a request that the timeout covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The whole request and response.
    Whole,
    /// Until the response begins: its body may be large.
    Response,
    /// Only the connection's establishment.
    Connect,
}

/// What is sent after the headers.
#[derive(Debug)]
pub(crate) enum Payload {
    /// No body.
    None,
    /// A short body with its Content-Type.
    Bytes(&'static str, Vec<u8>),
    /// A file of any size, streamed, and bytes to append to it.
    File(PathBuf, &'static [u8]),
}

/// One request, which any of the hosts may serve.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path under the prefix, with query.
    pub(crate) path: String,
    pub(crate) payload: Payload,
    pub(crate) limit: Limit,
}

impl Call {
    /// A GET under the ordinary timeout.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Call {
            method: Method::GET,
            path: path.into(),
            payload: Payload::None,
            limit: Limit::Whole,
        }
    }

    /// A POST with a JSON body under the ordinary timeout.
    pub(crate) fn post_json(path: impl Into<String>, body: String) -> Self {
        let payload = Payload::Bytes("application/json", body.into_bytes());
        Call {
            method: Method::POST,
            path: path.into(),
            payload,
            limit: Limit::Whole,
        }
    }

    /// A POST without content.
    pub(crate) fn post_empty(path: impl Into<String>) -> Self {
        let payload = Payload::Bytes("", Vec::new());
        Call {
            method: Method::POST,
            path: path.into(),
            payload,
            limit: Limit::Whole,
        }
    }

    /// The same request with another [`Limit`].
    pub(crate) fn limited(self, limit: Limit) -> Self {
        Call { limit, ..self }
    }
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// No host could be reached; each attempt was logged.
    NoHost,
    /// The connection failed after the request may have been received, and the request may write.
    Unknown(String),
    /// The request cannot be sent, or its redirect cannot be followed.
    Other(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NoHost => f.write_str("no host available to perform the request"),
            ClientError::Unknown(cause) => write!(
                f,
                "{cause}; the request may or may not have been carried out"
            ),
            ClientError::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ClientError {}

/// The hosts and the settings of connections to them. Keeps using the host that responded last.
pub(crate) struct Client {
    agent: Agent,
    proxies: ProxyRules,
    scheme: Scheme,
    hosts: Vec<String>,
    current: usize,
    prefix: String,
    authorization: Option<String>,
    timeout: Option<Duration>,
    log: Box<dyn Write>,
}

impl Client {
    /// Reads the certificate files; connects to nothing yet. Failed attempts are later written to `log`.
    pub(crate) fn new(options: &Options, log: Box<dyn Write>) -> Result<Self> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("rqlite-shell/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls::config(&options.tls)?)
            .build();
        Ok(Client {
            agent: tls::agent(config, &options.tls)?,
            proxies: ProxyRules::read(|name| std::env::var(name).ok())
                .map_err(anyhow::Error::msg)?,
            scheme: options.target.scheme,
            hosts: options.target.hosts.clone(),
            current: 0,
            prefix: options.prefix.clone(),
            authorization: match &options.user {
                User::Known(name, password) => {
                    let plain = format!("{name}:{password}");
                    Some(format!("Basic {}", BASE64_STANDARD.encode(plain)))
                }
                User::Anonymous | User::Named(_) => None,
            },
            timeout: options.timeout,
            log,
        })
    }

    /// `host:port` of the host in use.
    pub(crate) fn host(&self) -> &str {
        &self.hosts[self.current]
    }

    /// URL of the host in use, without path.
    pub(crate) fn base_url(&self) -> String {
        format!("{}://{}", self.scheme.as_str(), self.host())
    }

    /// The path prefix, `/` at both ends.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Sends the request to the host in use, or to the next that can be reached, and follows redirects.
    pub(crate) fn send(&mut self, call: &Call) -> Result<Response, ClientError> {
        for _ in 0..self.hosts.len() {
            let url = format!("{}{}{}", self.base_url(), self.prefix, call.path);
            match self.follow(url, call) {
                Ok(response) => return self.over_http(response),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::TryNext(cause)) => {
                    // A lost log line must not end the search for a host that responds.
                    let _ = writeln!(self.log, "[client] {}: {cause}", self.base_url());
                    self.current = (self.current + 1) % self.hosts.len();
                }
            }
        }
        Err(ClientError::NoHost)
    }

    /// A server that speaks HTTPS says so to who does not.
    fn over_http(&self, mut response: Response) -> Result<Response, ClientError> {
        let is_nodes = response.headers().contains_key("X-RQLITE-VERSION");
        if self.scheme != Scheme::Http || response.status() != StatusCode::BAD_REQUEST || is_nodes {
            return Ok(response);
        }
        let text = response.body_mut().read_to_string().unwrap_or_default();
        if text.contains("HTTP request to an HTTPS server") {
            let text = "the server speaks HTTPS: use --scheme https".to_owned();
            return Err(ClientError::Other(text));
        }
        Err(ClientError::Other(format!(
            "400 Bad Request: {}",
            text.trim_end()
        )))
    }

    /// GETs one absolute URL, without trying other hosts.
    pub(crate) fn fetch(&self, url: &str) -> Result<Response, ClientError> {
        self.follow(url.to_owned(), &Call::get(""))
            .map_err(|failure| match failure {
                Failure::TryNext(cause) => ClientError::Other(cause),
                Failure::Final(error) => error,
            })
    }

    fn follow(&self, mut url: String, call: &Call) -> Result<Response, Failure> {
        for _ in 0..=MAX_REDIRECTS {
            let response = self.exchange(&url, call)?;
            if response.status() != StatusCode::MOVED_PERMANENTLY {
                return Ok(response);
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            url = redirect_target(&url, location)
                .map_err(|text| Failure::Final(ClientError::Other(text)))?;
        }
        Err(Failure::Final(ClientError::Other(format!(
            "stopped after {MAX_REDIRECTS} redirects"
        ))))
    }

    fn exchange(&self, url: &str, call: &Call) -> Result<Response, Failure> {
        let mut builder = http::Request::builder()
            .method(call.method.clone())
            .uri(url);
        if let Some(authorization) = &self.authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        match &call.payload {
            Payload::None => self.perform(builder, (), call),
            Payload::Bytes(content_type, bytes) => {
                if !content_type.is_empty() {
                    builder = builder.header(CONTENT_TYPE, *content_type);
                }
                let builder = builder.header(CONTENT_LENGTH, bytes.len());
                self.perform(builder, SendBody::from_reader(&mut &bytes[..]), call)
            }
            Payload::File(path, tail) => {
                let (file, length) = open(path)
                    .map_err(|error| Failure::Final(ClientError::Other(format!("{error:#}"))))?;
                let builder = builder
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_LENGTH, length + tail.len() as u64);
                // The body must have the announced length even if the file grows meanwhile.
                let mut reader = file.take(length).chain(*tail);
                self.perform(builder, SendBody::from_reader(&mut reader), call)
            }
        }
    }

    fn perform(
        &self,
        builder: http::request::Builder,
        body: impl AsSendBody,
        call: &Call,
    ) -> Result<Response, Failure> {
        let request = builder
            .body(body)
            .map_err(|error| Failure::Final(ClientError::Other(error.to_string())))?;
        let proxy = self.proxies.proxy_for(request.uri());
        let whole = self.timeout.filter(|_| call.limit == Limit::Whole);
        let response = self.timeout.filter(|_| call.limit == Limit::Response);
        let connect = self
            .timeout
            .map_or(CONNECT_LIMIT, |limit| limit.min(CONNECT_LIMIT));
        request
            .with_agent(&self.agent)
            .configure()
            .proxy(proxy)
            .timeout_connect(Some(connect))
            .timeout_global(whole)
            .timeout_recv_response(response)
            .run()
            .map_err(|error| classify(&error, &call.method, self.scheme))
    }
}

/// Classifies an error: whether the next host may be tried.
enum Failure {
    TryNext(String),
    Final(ClientError),
}

fn classify(error: &ureq::Error, method: &Method, scheme: Scheme) -> Failure {
    let cause = match (error, tls_error(error)) {
        (_, Some(failure)) => tls::explain(failure),
        (ureq::Error::Io(error), None) if scheme == Scheme::Https && was_closed(error) => format!(
            "{error} (so a server closes the connection, too, that does not accept the client certificate)"
        ),
        (ureq::Error::Io(error), None) => error.to_string(),
        (other, None) => other.to_string(),
    };
    match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => Failure::Final(ClientError::Other(cause)),
        error if *method == Method::GET || never_sent(error) => Failure::TryNext(cause),
        _ => Failure::Final(ClientError::Unknown(cause)),
    }
}

/// The server closed the connection while it was used.
fn was_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// The failure of TLS that an error is.
fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// True if no byte of the request was sent.
fn never_sent(error: &ureq::Error) -> bool {
    use io::ErrorKind as Kind;
    match error {
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::ConnectProxyFailed(_)
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => true,
        ureq::Error::Io(error) => {
            let refused = matches!(
                error.kind(),
                Kind::ConnectionRefused
                    | Kind::HostUnreachable
                    | Kind::NetworkUnreachable
                    | Kind::NetworkDown
                    | Kind::AddrNotAvailable
            );
            refused
                || error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
                // Errors of name resolution have no kind of their own.
                || error.to_string().starts_with("failed to lookup address information")
        }
        _ => false,
    }
}

/// The URL of a redirect. Credentials are sent to it, so a redirect from https to http is refused.
fn redirect_target(from: &str, location: &str) -> Result<String, String> {
    if location.is_empty() {
        return Err("redirected without a location".to_owned());
    }
    if location.starts_with("https://")
        || (location.starts_with("http://") && from.starts_with("http://"))
    {
        return Ok(location.to_owned());
    }
    if location.starts_with("http://") {
        return Err(format!("refusing the redirect from https to {location}"));
    }
    let authority_end = from
        .find("//")
        .and_then(|at| from[at + 2..].find('/').map(|end| at + 2 + end));
    match (location.starts_with('/'), authority_end) {
        (true, Some(end)) => Ok(format!("{}{location}", &from[..end])),
        _ => Err(format!("redirected to {location:?}, which is not a URL")),
    }
}

fn open(path: &PathBuf) -> Result<(File, u64)> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let length = file
        .metadata()
        .with_context(|| path.display().to_string())?
        .len();
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_resolve_against_the_request() {
        for (from, location, expected) in [
            (
                "http://a:1/db/query?x",
                "http://b:2/db/query?x",
                Ok("http://b:2/db/query?x"),
            ),
            (
                "http://a:1/status",
                "https://b:2/status",
                Ok("https://b:2/status"),
            ),
            ("http://a:1/status", "/other?q", Ok("http://a:1/other?q")),
            (
                "https://a:1/x",
                "http://b:2/x",
                Err("refusing the redirect from https to http://b:2/x"),
            ),
            ("http://a:1/x", "", Err("redirected without a location")),
            (
                "http://a:1/x",
                "other",
                Err("redirected to \"other\", which is not a URL"),
            ),
        ] {
            let got = redirect_target(from, location);
            assert_eq!(
                got.as_deref().map_err(String::as_str),
                expected,
                "{from} {location}"
            );
        }
    }

    #[test]
    fn only_unsent_writes_are_tried_elsewhere() {
        let io = |kind: io::ErrorKind| ureq::Error::Io(kind.into());
        for (error, method, next) in [
            (io(io::ErrorKind::ConnectionRefused), Method::POST, true),
            (ureq::Error::HostNotFound, Method::DELETE, true),
            (ureq::Error::Timeout(Timeout::Connect), Method::POST, true),
            (ureq::Error::Timeout(Timeout::Global), Method::POST, false),
            (ureq::Error::Timeout(Timeout::Global), Method::GET, true),
            (io(io::ErrorKind::ConnectionReset), Method::POST, false),
            (io(io::ErrorKind::ConnectionReset), Method::GET, true),
            (ureq::Error::BadUri("x".to_owned()), Method::GET, false),
        ] {
            assert_eq!(
                matches!(classify(&error, &method, Scheme::Http), Failure::TryNext(_)),
                next,
                "{error:?} {method}"
            );
        }
    }
}
